"""Pulls from a small registry of our own, over real sockets: tokens, basic auth, platforms, broken transfers."""

import base64
import errno
import gzip
import hashlib
import http.server
import io
import json
import socket
import tarfile
import threading

import pytest

from sampan.node.images import manifests, reference, registry
from sampan.node.images.registry import PullError
from sampan.node.images.service import ImageService
from sampan.node.images.store import Store
from sampan.node.runtime import ImageError


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(name, data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        target.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Registry(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.blobs, self.manifests, self.requests = {}, {}, []
        self.auth = ""  # "", "basic", "token", or "anyone": a token for everybody who asks
        self.moved = ""  # where everything is now, as with registry.k8s.io
        self.cut = {}  # digest -> how many times a transfer breaks half way
        layers = [tar_of("a", b"A" * 200_000), tar_of("b", b"B")]
        packed = [gzip.compress(one) for one in layers]
        config = json.dumps(
            {"config": {"Cmd": ["a"]}, "rootfs": {"diff_ids": [digest(one) for one in layers]}}
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": manifests.MANIFESTS[0],
                "config": {"digest": digest(config), "size": len(config)},
                "layers": [{"digest": digest(one), "size": len(one)} for one in packed],
            }
        ).encode()
        index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": manifests.INDEXES[0],
                "manifests": [
                    {"digest": digest(b""), "platform": {"os": "windows", "architecture": "amd64"}},
                    {
                        "digest": digest(manifest),
                        "platform": {"os": "linux", "architecture": manifests.architecture()},
                    },
                ],
            }
        ).encode()
        for one in (*packed, config):
            self.blobs[digest(one)] = one
        self.manifests = {"v1": manifest, digest(manifest): manifest, "multi": index, digest(index): index}
        self.layers, self.image_id, self.manifest_digest = packed, digest(config), digest(manifest)
        other = {
            "schemaVersion": 2,
            "manifests": [{"digest": "x", "platform": {"os": "linux", "architecture": "z80"}}],
        }
        self.manifests["foreign"] = json.dumps(other).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, path = self.server, self.path
        server.requests.append((path, self.headers.get("Range")))
        if server.moved:
            return self._send(307, b"", {"Location": f"http://{server.moved}{path}"})
        if path.startswith("/token") and server.auth == "anyone":
            known = self.headers.get("Authorization")
            return self._send(400 if known else 200, json.dumps({"token": "good"}).encode())
        if path.startswith("/token"):
            user = base64.b64encode(b"user:secret").decode()
            ok = self.headers.get("Authorization") == f"Basic {user}"
            return self._send(200 if ok else 401, json.dumps({"token": "good"}).encode())
        if not self._allowed():
            return None
        kind, name = path.split("/")[-2:]
        found = (server.manifests if kind == "manifests" else server.blobs).get(name)
        if found is None or not path.startswith("/v2/team/app/"):
            body = json.dumps(
                {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            ).encode()
            return self._send(404, body)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        body, status = found[start:], 206 if start else 200
        if server.cut.get(name, 0) > 0:
            server.cut[name] -= 1
            self._send(status, body[: len(body) // 2], length=len(body))
            self.close_connection = True
            return None
        return self._send(status, body)

    def _allowed(self):
        server = self.server
        given = self.headers.get("Authorization")
        if server.auth in ("token", "anyone") and given != "Bearer good":
            realm = (
                f'Bearer realm="http://{server.host}/token",service="test",scope="repository:team/app:pull"'
            )
            self._send(401, b"", {"WWW-Authenticate": realm})
            return False
        if server.auth == "basic" and given != f"Basic {base64.b64encode(b'user:secret').decode()}":
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            return False
        return True

    def _send(self, status, body, headers=None, length=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    server = Registry()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def pull(store, server, name="v1", credentials=()):
    separator = "@" if ":" in name else ":"
    return registry.pull(store, reference.parse(f"{server.host}/team/app{separator}{name}"), credentials)


@pytest.mark.parametrize("name", ["v1", "multi", "digest"])
def test_pull_by_tag_index_and_digest(store, server, name):
    name = server.manifest_digest if name == "digest" else name
    assert pull(store, server, name) == server.image_id
    image = store.list()[0]
    assert len(image.layers) == 2 and image.config["Cmd"] == ["a"]
    assert image.digest.startswith(f"{server.host}/team/app@sha256:")


def test_a_second_pull_fetches_no_layer_again(store, server):
    pull(store, server)
    server.requests.clear()
    pull(store, server, "multi")
    assert not [path for path, _ in server.requests if path.rpartition("/")[2] in map(digest, server.layers)]


@pytest.mark.parametrize("auth", ["basic", "token"])
@pytest.mark.parametrize("form", ["plain", "auth", "config"])
def test_a_private_image_needs_the_right_credentials(store, server, auth, form):
    server.auth = auth
    with pytest.raises(PullError, match="pull access denied|failed to authorize"):
        pull(store, server)
    with pytest.raises(PullError):
        pull(store, server, credentials=[{"username": "user", "password": "wrong"}])
    encoded = base64.b64encode(b"user:secret").decode()
    good = {
        "plain": {"username": "user", "password": "secret"},
        "auth": {"auth": encoded},
        "config": {
            "auths": {"other.example": {"auth": "eDp5"}, f"https://{server.host}/v2/": {"auth": encoded}}
        },
    }[form]
    assert pull(store, server, credentials=[{"username": "user", "password": "old"}, good]) == server.image_id


def test_another_host_that_the_registry_sends_us_to_gets_a_token_but_no_login(store, server):
    first = Registry()
    first.moved, server.auth = server.host, "anyone"
    threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    login = {"registry": first.host, "username": "user", "password": "secret"}
    assert pull(store, first, credentials=[login]) == server.image_id
    first.shutdown()
    first.server_close()


def test_a_broken_transfer_goes_on_where_it_stopped(store, server):
    broken = digest(server.layers[0])
    server.cut[broken] = 2
    pull(store, server)
    ranges = [given for path, given in server.requests if path.endswith(broken)]
    assert len(ranges) == 3 and ranges[0] is None and all(one.startswith("bytes=") for one in ranges[1:])


def test_a_layer_with_other_content_is_refused(store, server):
    server.blobs[digest(server.layers[1])] = gzip.compress(b"evil")[: len(server.layers[1])].ljust(
        len(server.layers[1])
    )
    with pytest.raises(PullError, match="unexpected digest"):
        pull(store, server)
    assert store.list() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("nope", "not found .*manifest unknown"), ("foreign", "no match for platform")],
)
def test_the_real_cause_is_told(store, server, name, words):
    with pytest.raises(PullError, match=words):
        pull(store, server, name)


def test_nobody_listens(store):
    with pytest.raises(
        PullError, match="failed to do request: https://127.0.0.1:1: connect: connection refused"
    ):
        registry.pull(store, reference.parse("127.0.0.1:1/x"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such host"),
        (TimeoutError("timed out"), "i/o timeout"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_networks_fail_in_the_words_people_search_for(store, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(PullError, match=words):
        registry.pull(store, reference.parse("registry.example/x"))


def test_a_registry_without_tls_is_told_as_such(store, server):
    settings = registry.Settings(mirrors={"registry.example": [f"https://{server.host}"]})
    with pytest.raises(PullError, match="server gave HTTP response to HTTPS client"):
        registry.pull(store, reference.parse("registry.example/x"), settings=settings)


def test_the_digest_goes_with_the_last_tag(store, server):
    pull(store, server)
    assert [image.ref for image in store.list()] == [f"{server.host}/team/app:v1", store.list()[0].digest]
    assert store.remove(f"{server.host}/team/app:v1") and store.list() == []


def test_a_mirror_is_asked_first(store, server):
    settings = registry.Settings(mirrors={"docker.io": [f"http://{server.host}"]})
    registry.pull(store, reference.parse("team/app:v1"), settings=settings)
    assert store.find("docker.io/team/app:v1") is not None


async def test_the_service_shares_pulls_and_reports_reasons(tmp_path, server):
    service = ImageService(str(tmp_path))
    name = f"{server.host}/team/app:v1"
    assert await service.find(name) is None
    image = await service.pull(name)
    assert (await service.find(name)).id == (await service.find(image.id)).id == server.image_id
    with pytest.raises(ImageError) as caught:
        await service.pull(f"{server.host}/team/app:nope")
    assert caught.value.reason == "ErrImagePull" and "not found" in caught.value.message
    with pytest.raises(ImageError) as caught:
        await service.find("Bad Name")
    assert caught.value.reason == "InvalidImageName"
    await service.remove(name)
    assert await service.find(name) is None
