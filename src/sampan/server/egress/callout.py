"""Calls from the server to webhooks: one HTTPS POST of JSON, to a URL or to a Service's endpoints.

Failures are told in the words of the original's HTTP client, because people search for them.
Source: admissionregistration.k8s.io/v1 WebhookClientConfig.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from urllib.parse import urlsplit

import httptools
import orjson

from sampan.base import hostport, pki
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.server.egress.backends import NoBackend, endpoint
from sampan.server.lookup import Lookup

_LIMIT = 10 << 20  # bytes of an answer


class CalloutError(Exception):
    """The webhook could not be asked, or answered nonsense."""


class _Target:
    """Where to connect, and under which name the certificate must be good."""

    __slots__ = ("host", "name", "path", "port", "url")

    def __init__(self, url: str, host: str, port: int, name: str, path: str) -> None:
        self.url = url
        self.host = host
        self.port = port
        self.name = name
        self.path = path


class Callout:
    """`await callout(client_config, payload, seconds)` posts and returns the decoded answer."""

    def __init__(self, lookup: Lookup, clock: Clock, ids: Ids) -> None:
        self._lookup = lookup
        self._clock = clock
        self._ids = ids
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def __call__(self, config: Object, payload: Object, seconds: float) -> Object:
        """Raises CalloutError."""
        target = self._target(config, f"timeout={seconds:g}s")
        body = orjson.dumps(payload)
        try:
            async with self._clock.timeout(seconds):
                status, answer = await self._post(target, config.get("caBundle") or "", body)
        except TimeoutError:
            raise CalloutError(f'Post "{target.url}": context deadline exceeded') from None
        except ConnectionRefusedError:
            where = f"dial tcp {hostport.join(target.host, target.port)}: connect: connection refused"
            raise CalloutError(f'Post "{target.url}": {where}') from None
        except ssl.SSLCertVerificationError as error:
            why = f"tls: failed to verify certificate: x509: {error.verify_message}"
            raise CalloutError(f'Post "{target.url}": {why}') from None
        except OSError as error:
            why = f"dial tcp {hostport.join(target.host, target.port)}: {error.strerror or error}"
            raise CalloutError(f'Post "{target.url}": {why}') from None
        if status != 200:
            raise CalloutError(
                f"the server responded with the status code {status} but did not return more information"
            )
        try:
            decoded = orjson.loads(answer)
        except orjson.JSONDecodeError:
            raise CalloutError("couldn't get version/kind; json parse error") from None
        if not isinstance(decoded, dict):
            raise CalloutError("the answer is no object")
        return decoded

    # Where

    def _target(self, config: Object, query: str) -> _Target:
        service = config.get("service")
        if not service:
            url = urlsplit(config.get("url") or "")
            path = url.path or "/"
            query = f"{url.query}&{query}" if url.query else query
            shown = f"{url.scheme}://{url.netloc}{url.path}?{query}"
            return _Target(shown, url.hostname or "", url.port or 443, url.hostname or "", f"{path}?{query}")
        namespace, name = service.get("namespace", ""), service.get("name", "")
        port = service.get("port") or 443
        path = "/" + (service.get("path") or "").lstrip("/")
        host = f"{name}.{namespace}.svc"
        url_text = f"https://{host}:{port}{path}?{query}"
        try:
            address, target_port = endpoint(self._lookup, self._ids, namespace, name, port)
        except NoBackend as error:
            raise CalloutError(f'Post "{url_text}": {error}') from None
        return _Target(url_text, address, target_port, host, f"{path}?{query}")

    # How

    async def _post(self, target: _Target, bundle: str, body: bytes) -> tuple[int, bytes]:
        context = self._context(bundle)
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=context, server_hostname=target.name
        )
        try:
            head = (
                f"POST {target.path} HTTP/1.1\r\nhost: {target.name}\r\nuser-agent: kube-apiserver-admission\r\n"
                "content-type: application/json\r\naccept: application/json, */*\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete:
                data = await reader.read(65536)
                if not data:
                    break
                try:
                    parser.feed_data(data)
                except httptools.HttpParserError as error:
                    raise CalloutError(f'Post "{target.url}": {error}') from None
                if len(answer.body) > _LIMIT:
                    raise CalloutError(f'Post "{target.url}": the answer is too large')
            if not answer.begun:
                raise CalloutError(f'Post "{target.url}": EOF')
            return parser.get_status_code(), bytes(answer.body)
        finally:
            writer.close()

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            try:
                context = pki.client_context(base64.b64decode(bundle) if bundle else None)
            except (ValueError, ssl.SSLError):
                raise CalloutError(
                    "unable to load root certificates: unable to parse bytes as PEM block"
                ) from None
            self._contexts[bundle] = context
        return context


class _Answer:
    """What httptools reports of a response."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.begun = False
        self.complete = False

    def on_message_begin(self) -> None:
        self.begun = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True
