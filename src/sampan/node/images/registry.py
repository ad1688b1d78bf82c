"""Pulling from registries: the OCI distribution protocol over http.client, in threads.

Token and basic authentication, manifests by tag and digest, this machine's platform of an index, several layers at once,
downloads that resume, every blob verified. OCI distribution spec; Docker Registry token authentication.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sampan.base import tls
from sampan.node.images import manifests
from sampan.node.images.reference import Reference
from sampan.node.images.store import FULL, Store
from sampan.node.images.unpack import UnpackError

_AT_ONCE = 3
_ATTEMPTS = 4
_TIMEOUT = 30.0
_CHUNK = 1 << 18
_MANIFEST_LIMIT = 4 << 20
_ACCEPT = ", ".join((*manifests.INDEXES, *manifests.MANIFESTS))
_HUB = "registry-1.docker.io"
_CERTIFICATE = {  # X509_V_ERR_*
    9: "x509: certificate has expired or is not yet valid",
    10: "x509: certificate has expired or is not yet valid",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator says about registries. `mirrors`: host -> base URLs tried first; `insecure`: hosts that may be
    asked over plain HTTP or with an unverified certificate; `authorities`: host -> PEM file of its CA; `credentials`:
    host -> a login that is tried after those of the pod."""

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    insecure: Sequence[str] = ()
    authorities: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class PullError(Exception):
    """Why an image could not be pulled; `transient` ones are worth another attempt."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


Progress = Callable[[str, int, int], None]  # digest, bytes so far, bytes in all


def pull(
    store: Store,
    ref: Reference,
    credentials: Sequence[Mapping[str, Any]] = (),
    settings: Settings | None = None,
    progress: Progress | None = None,
    guarded: bool = False,
) -> str:
    """Pull an image into the store; returns its id. Blocking. Raises PullError with the real cause.

    `guarded`: it is for those only who have the credentials it took, if it took any (see `access`).
    """
    settings = settings or Settings()
    answers: list[str] = []
    silences: list[str] = []  # only of interest when nobody answered
    transient = True
    own = _own_logins(settings, ref.host)
    with store.adding():
        for base in _endpoints(ref.host, settings):
            for login in logins([*credentials, *own], ref.host) or [{}]:
                remote = _Remote(base, ref.repository, login, settings)
                try:
                    for_all = login in logins(own, ref.host)  # the node's own serves every pod
                    return _Pull(store, ref, remote, progress).run(guarded, for_all)
                except PullError as error:
                    answers.append(str(error))
                    transient = transient and error.transient
                except (UnpackError, ValueError) as error:
                    answers.append(str(error))
                    transient = False
                except OSError as error:
                    if error.errno in FULL:
                        full = f"write {store.directory}: no space left on device"
                        raise PullError(f'failed to pull and unpack image "{ref}": {full}', True) from error
                    silences.append(f"failed to do request: {base}: {_network_cause(error)}")
    causes = "; ".join(dict.fromkeys(answers or silences))
    raise PullError(f'failed to pull and unpack image "{ref}": {causes}', transient)


def _endpoints(host: str, settings: Settings) -> list[str]:
    own = _HUB if host == "docker.io" else host
    bases = [one.rstrip("/") for one in settings.mirrors.get(host, ())] + [f"https://{own}"]
    if own in settings.insecure or (is_loopback(own) and host not in settings.authorities):
        bases.append(f"http://{own}")
    return bases


def is_loopback(host: str) -> bool:
    """Whether a registry, ADDRESS[:PORT], is on whatever asks."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name == "localhost" or name.startswith("127.") or name == "[::1]"


def _own_logins(settings: Settings, host: str) -> list[Mapping[str, Any]]:
    return [settings.credentials[host]] if host in settings.credentials else []


def logins(credentials: Sequence[Mapping[str, Any]], host: str) -> list[dict[str, str]]:
    """Those that are for a registry, in order. Accepts Docker config files and plain entries."""
    found: list[dict[str, str]] = []
    for one in credentials:
        if "auths" in one:
            for where, entry in (one["auths"] or {}).items():
                if _same_registry(where, host):
                    found.append(_login(entry))
        elif _same_registry(one.get("registry") or host, host):  # never to another registry than its own
            found.append(_login(one))
    return [one for one in found if one]


def _same_registry(where: str, host: str) -> bool:
    name = urllib.parse.urlsplit(where if "//" in where else f"//{where}").netloc
    return name == host or (host == "docker.io" and name in ("index.docker.io", _HUB, "docker.io"))


def _login(entry: Mapping[str, Any]) -> dict[str, str]:
    if entry.get("registrytoken"):
        return {"bearer": entry["registrytoken"]}
    if entry.get("identitytoken"):
        return {"refresh": entry["identitytoken"]}
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except ValueError:
            return {}
        return {"username": user, "password": password.rstrip("\0")}
    if entry.get("username"):
        return {"username": entry["username"], "password": entry.get("password", "")}
    return {}


def _network_cause(error: OSError) -> str:
    """In the words people search for, which are those of Go's libraries."""
    if isinstance(error, ssl.SSLCertVerificationError):
        cause = _CERTIFICATE.get(error.verify_code, error.verify_message)
        return f"tls: failed to verify certificate: {cause}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, socket.gaierror):
        return "no such host" if error.errno == socket.EAI_NONAME else f"lookup failed: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return error.strerror or str(error) or type(error).__name__


class _Remote:
    """One repository on one registry; safe to use from several threads."""

    def __init__(self, base: str, repository: str, login: Mapping[str, str], settings: Settings) -> None:
        self.base = base
        self._repository = repository
        self._login = login
        self._settings = settings
        self._lock = threading.Lock()
        self._home = urllib.parse.urlsplit(base).netloc
        # By host: a registry may send us on to another one (registry.k8s.io does), which asks for a token of its own.
        self._authorizations = {self._home: f"Bearer {login['bearer']}"} if "bearer" in login else {}

    @property
    def login_used(self) -> Mapping[str, str]:
        """{} as long as the registry has not asked for one."""
        return self._login if self._home in self._authorizations else {}

    def get(self, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """GET below /v2/REPOSITORY/, authenticated as asked, redirects followed. The caller reads and closes."""
        url = f"{self.base}/v2/{self._repository}/{path}"
        response = self._ask(url, headers)
        hops = 0
        while response.status in (301, 302, 303, 307, 308) and hops < 5:
            url = urllib.parse.urljoin(url, response.headers.get("Location", ""))
            _discard(response)
            response = self._ask(url, headers)
            hops += 1
        return response

    def _ask(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """One request, made again with what its host wants to see. The login is for our own registry alone."""
        host = urllib.parse.urlsplit(url).netloc
        used = self._authorizations.get(host, "")
        response = self._request(url, headers, used)
        if response.status != 401:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        _discard(response)
        with self._lock:
            if self._authorizations.get(host, "") == used:  # no other thread has done it meanwhile
                login = self._login if host == self._home else {}
                self._authorizations[host] = self._authorize(challenge, login)
        return self._request(url, headers, self._authorizations[host])

    def _request(self, url: str, headers: Mapping[str, str], authorization: str) -> http.client.HTTPResponse:
        connection, target = self._connect(url)
        sent = {"User-Agent": "sampan", **headers}
        if authorization:
            sent["Authorization"] = authorization
        try:
            connection.request("GET", target, headers=sent)
            response = connection.getresponse()
        except http.client.HTTPException as error:
            connection.close()
            raise PullError(f"failed to do request: {url}: {error or type(error).__name__}", True) from None
        except OSError:
            connection.close()
            raise
        response.sampan_connection = connection  # type: ignore[attr-defined]
        return response

    def _connect(self, url: str) -> tuple[http.client.HTTPConnection, str]:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and not urllib.request.proxy_bypass(host) and not is_loopback(parts.netloc):
            way = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
            via, port = way.hostname or "", way.port or 3128
            if parts.scheme == "https":
                secured = http.client.HTTPSConnection(
                    via, port, timeout=_TIMEOUT, context=self._context(parts.netloc)
                )
                secured.set_tunnel(host, parts.port or 443)
                return secured, target
            return http.client.HTTPConnection(via, port, timeout=_TIMEOUT), url
        if parts.scheme == "https":
            context = self._context(parts.netloc)
            return http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT, context=context), target
        return http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT), target

    def _context(self, host: str) -> ssl.SSLContext:
        authority = self._settings.authorities.get(host)
        trusting = not authority and (host in self._settings.insecure or is_loopback(host))
        return tls.client_context(file=authority, verify=not trusting)

    def _authorize(self, challenge: str, login: Mapping[str, str]) -> str:
        """Answer a 401. Raises PullError when we have nothing to answer with."""
        scheme, _, rest = challenge.partition(" ")
        basic = ""
        if "username" in login:
            pair = f"{login['username']}:{login['password']}".encode()
            basic = f"Basic {base64.b64encode(pair).decode()}"
        if scheme.lower() == "basic":
            if not basic:
                raise PullError("pull access denied: no basic auth credentials")
            return basic
        if scheme.lower() != "bearer":
            raise PullError(
                f"unexpected status from registry: 401 Unauthorized ({challenge or 'no challenge'})"
            )
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        query = {"service": fields.get("service", "")}
        query["scope"] = fields.get("scope") or f"repository:{self._repository}:pull"
        if "refresh" in login:
            query |= {
                "grant_type": "refresh_token",
                "refresh_token": login["refresh"],
                "client_id": "sampan",
            }
            return self._token(fields.get("realm", ""), "", urllib.parse.urlencode(query))
        realm = f"{fields.get('realm', '')}?{urllib.parse.urlencode({k: v for k, v in query.items() if v})}"
        return self._token(realm, basic, "")

    def _token(self, url: str, basic: str, form: str) -> str:
        if form:
            connection, target = self._connect(url)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", target, body=form, headers=headers)
            response = connection.getresponse()
            response.sampan_connection = connection  # type: ignore[attr-defined]
        else:
            response = self._request(url, {}, basic)
        body = response.read(1 << 20)
        _discard(response)
        if response.status != 200:
            raise PullError(
                f"failed to authorize: failed to fetch oauth token: unexpected status {response.status} {response.reason}"
            )
        answer = json.loads(body)
        return f"Bearer {answer.get('token') or answer.get('access_token') or ''}"


def _discard(response: http.client.HTTPResponse) -> None:
    response.close()
    response.sampan_connection.close()  # type: ignore[attr-defined]


class _Pull:
    """One image from one place."""

    def __init__(self, store: Store, ref: Reference, remote: _Remote, progress: Progress | None) -> None:
        self._store = store
        self._ref = ref
        self._remote = remote
        self._progress = progress or (lambda *_: None)

    def run(self, guarded: bool, for_all: bool) -> str:
        data, digest = self._manifest(self._ref.digest or self._ref.tag)
        manifest = json.loads(data)
        if manifests.is_index(manifest):
            chosen = manifests.choose(manifest, str(self._ref))
            manifest = json.loads(self._manifest(chosen["digest"])[0])
        config_descriptor, layers = manifests.parts(manifest)
        raw = self._blob_bytes(config_descriptor)
        config = json.loads(raw)
        manifests.check_config(config, len(layers))
        pairs = list(dict(zip(config["rootfs"]["diff_ids"], layers, strict=True)).items())
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(self._layer, diff_id, layer) for diff_id, layer in pairs]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        image_id = manifests.digest_of(raw)
        named = f"{self._ref.name}@{digest}"
        size = sum(int(one.get("size", 0)) for one in layers)
        pulled = (self._ref.name, {} if for_all else self._remote.login_used) if guarded else None
        self._store.put(list(dict.fromkeys((str(self._ref), named))), image_id, config, size, named, pulled)
        return image_id

    def _manifest(self, name: str) -> tuple[bytes, str]:
        response = self._remote.get(f"manifests/{name}", {"Accept": _ACCEPT})
        try:
            self._check(response, f"manifests/{name}")
            data = response.read(_MANIFEST_LIMIT + 1)
        finally:
            _discard(response)
        if len(data) > _MANIFEST_LIMIT:
            raise PullError(f"the manifest of {self._ref} is larger than {_MANIFEST_LIMIT} bytes")
        if ":" in name:
            manifests.check(data, name, f"manifest of {self._ref}")
            return data, name
        return data, manifests.digest_of(data)

    def _check(self, response: http.client.HTTPResponse, path: str) -> None:
        status = response.status
        if status in (200, 206):
            return
        detail = _server_message(response)
        if status == 404:
            raise PullError(f'failed to resolve reference "{self._ref}": {self._ref}: not found{detail}')
        if status in (401, 403):
            raise PullError(
                f'failed to resolve reference "{self._ref}": pull access denied, repository does not exist or may '
                f"require authorization: {status} {response.reason}{detail}"
            )
        if status == 429:
            raise PullError(
                f"toomanyrequests: the registry limits pulls: 429 Too Many Requests{detail}", True
            )
        message = (
            f"unexpected status from GET {self._remote.base}/v2/{path}: {status} {response.reason}{detail}"
        )
        raise PullError(message, status >= 500)

    def _blob_bytes(self, descriptor: Mapping[str, Any]) -> bytes:
        digest = descriptor["digest"]
        response = self._remote.get(f"blobs/{digest}", {})
        try:
            self._check(response, f"blobs/{digest}")
            return manifests.check(response.read(32 << 20), digest, "image configuration")
        finally:
            _discard(response)

    def _layer(self, diff_id: str, descriptor: Mapping[str, Any]) -> None:
        digest = descriptor["digest"]
        if self._store.has_layer(diff_id):
            self._progress(digest, int(descriptor.get("size", 0)), int(descriptor.get("size", 0)))
            return
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise PullError(f"unsupported layer digest {digest!r}")
        with self._store.locked(f"ingest/{digest[7:]}.lock"):
            if not self._store.has_layer(diff_id):
                path = f"{self._store.directory}/ingest/{digest[7:]}"
                self._download(digest, int(descriptor.get("size", 0)), path)
                with open(path, "rb") as file:
                    self._store.add_layer(file, diff_id)
                os.unlink(path)
        try:
            os.unlink(f"{self._store.directory}/ingest/{digest[7:]}.lock")
        except FileNotFoundError:
            pass

    def _download(self, digest: str, size: int, path: str) -> None:
        """Fetch a blob, going on where a broken transfer stopped; verified before it is used."""
        last: Exception = PullError("no attempt was made")
        for _ in range(_ATTEMPTS):
            try:
                self._attempt(digest, size, path)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    os.unlink(path)  # to go on from it later would only keep the disk full
                    raise
                last = PullError(f"failed to copy {digest}: {_cause(error)}", True)
                continue
            except PullError as error:
                if not error.transient:
                    raise
                last = error
                continue
            if _file_digest(path) == digest:
                return
            got = os.path.getsize(path)
            os.unlink(path)
            last = PullError(
                f"failed commit: unexpected digest of layer: expected {digest} ({size} bytes, got {got})"
            )
        raise last

    def _attempt(self, digest: str, size: int, path: str) -> None:
        with open(path, "ab") as file:
            have = file.tell()
            if size and have == size:
                return
            if have > size > 0:
                file.truncate(0)
                have = 0
            response = self._remote.get(f"blobs/{digest}", {"Range": f"bytes={have}-"} if have else {})
            try:
                if have and response.status != 206:
                    file.truncate(0)
                    have = 0
                    if response.status == 416:
                        raise PullError(f"failed to copy {digest}: the registry refused to resume", True)
                self._check(response, f"blobs/{digest}")
                while data := response.read(_CHUNK):
                    file.write(data)
                    have += len(data)
                    self._progress(digest, have, size)
                    if size and have > size:
                        raise PullError(f"layer {digest} is larger than its manifest says ({size} bytes)")
            finally:
                _discard(response)
        if size and have < size:
            raise PullError(f"failed to copy {digest}: unexpected EOF after {have} of {size} bytes", True)


def _cause(error: Exception) -> str:
    return _network_cause(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _server_message(response: http.client.HTTPResponse) -> str:
    try:
        errors = json.loads(response.read(65536)).get("errors") or []
        texts = [f"{one.get('code', '')}: {one.get('message', '')}" for one in errors]
    except (ValueError, AttributeError, OSError):
        return ""
    return f" ({'; '.join(texts)})" if texts else ""


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
