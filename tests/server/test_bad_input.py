"""What malformed, oversized and hostile requests get: a Status or the end of their connection, at once, in little memory."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import time

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.base.clock import RealClock
from sampan.client.messages import Request, User
from sampan.server import http, incoming
from sampan.server.http import serve
from sampan.server.incoming import BODY_LIMIT, HEADER_LIMIT

MAPS = "/api/v1/namespaces/d/configmaps"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
ADMIN = User("admin", ("system:masters", "system:authenticated"))


def nested(depth, opening=b"[", closing=b"]"):
    return opening * depth + closing * depth


def bomb(rounds):
    """A few lines whose aliases stand for nine to the power of `rounds` values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    for n in range(1, rounds):
        lines.append(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]")
    return "\n".join(lines).encode()


BODIES = [
    ("nothing", JSON, b"", 400, ""),
    ("no object", JSON, b"[1]", 400, "json: cannot unmarshal array"),
    ("half an object", JSON, b'{"metadata":', 400, "unexpected end of JSON input"),
    ("zeros", JSON, b"\0\0\0", 400, "invalid character"),
    ("NaN", JSON, b'{"metadata":{"name":"a"},"data":{"k":NaN}}', 400, "invalid character"),
    ("no UTF-8", JSON, b'{"metadata":{"name":"a\xff"}}', 400, ""),
    ("half a surrogate pair", JSON, b'{"metadata":{"name":"a"},"data":{"k":"\\ud800"}}', 400, ""),
    ("a number without end", JSON, b'{"metadata":{"generation":' + b"9" * 5000 + b"}}", 400, ""),
    (
        "a number no double holds",
        JSON,
        b'{"metadata":{"name":"a","generation":1e400}}',
        400,
        "cannot unmarshal number",
    ),
    (
        "an integer of YAML without digits",
        YAML,
        b"metadata: {name: a, generation: 0b_}",
        400,
        "unmarshal string",
    ),
    (
        "an endless integer of YAML",
        YAML,
        b"metadata: {name: a, generation: " + b"9" * 5000 + b"}",
        400,
        "unmarshal string",
    ),
    ("a YAML that holds itself", YAML, b"&a {metadata: {name: a}, x: *a}", 400, "exceeded max depth"),
    ("a YAML key that is a list", YAML, b"metadata: {name: a}\n? [1]\n: 2", 400, "yaml: line 2"),
    ("two values", JSON, b'{"metadata":{"name":"a"}}{}', 400, "after top-level value"),
    ("a mark of the byte order", JSON, b'\xef\xbb\xbf{"metadata":{"name":"a"}}', 400, "invalid character"),
    (
        "a fraction for an integer",
        JSON,
        b'{"metadata":{"name":"a","generation":1.5}}',
        400,
        "cannot unmarshal number 1.5",
    ),
    (
        "an integer over 64 bits",
        JSON,
        b'{"metadata":{"name":"a","generation":9223372036854775808}}',
        400,
        "unmarshal number",
    ),
    ("CBOR", "application/cbor", b"\xa0", 415, "accepted media types include"),
    ("a compressed body", JSON, gzip.compress(b"{}"), 400, "invalid character"),
    ("deep lists", JSON, nested(100_000), 400, "exceeded max depth"),
    ("deep maps", JSON, b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "exceeded max depth"),
    ("an unknown field, deep", JSON, b'{"metadata":{"name":"a"},"x":' + nested(900) + b"}", 400, "max depth"),
    ("a list for a map", JSON, b'{"metadata":{"name":"a","labels":["x"]}}', 400, "cannot unmarshal array"),
    ("text for metadata", JSON, b'{"metadata":"a"}', 400, "cannot unmarshal string"),
    ("open YAML", YAML, b"a: [", 400, "yaml: line 2: did not find expected"),
    ("deep YAML", YAML, b"[" * 200_000, 400, "exceeded max depth"),
    (
        "deep blocks of YAML",
        YAML,
        b"".join(b" " * n + b"a:\n" for n in range(1500)),
        400,
        "exceeded max depth",
    ),
    ("aliases without end", YAML, bomb(12), 400, "document contains excessive aliasing"),
    ("YAML that is code", YAML, b"!!python/object/apply:os.system ['id']", 400, "yaml: line 1"),
    ("two documents", YAML, b"a: 1\n---\nb: 2\n", 400, "yaml: line 2"),
    ("protobuf without its mark", PROTOBUF, b"abc", 400, "not a protobuf envelope"),
    ("broken protobuf", PROTOBUF, b"k8s\0\xff\xff\xff\xff", 400, ""),
    ("empty protobuf", PROTOBUF, b"k8s\0", 400, "no kind"),
    ("an unknown media type", "text/plain", b"hello", 415, "accepted media types include: application/json"),
    ("a media type that is none", "/;;=", b"{}", 415, ""),
]


@pytest.mark.parametrize(
    ("media", "body", "code", "text"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES]
)
async def test_bodies_that_are_refused(ready, media, body, code, text):
    began = time.process_time()
    status, answer = await ready.call("POST", MAPS, body, headers={"content-type": media})
    assert (status, answer["kind"], answer["code"]) == (code, "Status", code)
    assert text in answer["message"]
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("media", "body", "code"),
    [
        ("application/json-patch+json", b'{"op":"add"}', 400),
        ("application/json-patch+json", b'[{"op":"add"}]', 422),
        ("application/json-patch+json", b'[{"op":"test","path":"/x","value":1}]', 422),
        ("application/json-patch+json", orjson.dumps([{"op": "test"}] * 10_001), 413),
        (
            "application/json-patch+json",
            orjson.dumps([{"op": "copy", "from": "/data", "path": f"/data/a{n}"} for n in range(60)]),
            422,
        ),
        ("application/merge-patch+json", b"[1]", 400),
        (
            "application/merge-patch+json",
            b'{"data":' + nested(900, b'{"a":', b"}").replace(b":}", b":1}") + b"}",
            400,
        ),
        ("application/strategic-merge-patch+json", b'"x"', 400),
        ("application/apply-patch+yaml", b"[", 400),
        ("application/merge-patch+yaml", b"{}", 415),
        ("", b"{}", 415),
    ],
)
async def test_patches_that_are_refused(ready, media, body, code):
    await ready.ok("POST", MAPS, {"metadata": {"name": "m"}, "data": {"k": "v" * 1000}})
    status, answer = await ready.call(
        "PATCH", f"{MAPS}/m?fieldManager=x", body, headers={"content-type": media}
    )
    assert (status, answer["code"]) == (code, code)
    assert (await ready.ok("GET", f"{MAPS}/m"))["data"] == {"k": "v" * 1000}


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (f"{MAPS}?labelSelector=%3D%3D%3D", 400),
        (f"{MAPS}?labelSelector=%ff%fe", 400),
        (f"{MAPS}?fieldSelector=spec.nope%3D1", 400),
        (f"{MAPS}?limit=x", 400),
        (f"{MAPS}?continue=%25%25", 400),
        (f"{MAPS}?resourceVersion=1e9", 400),
        (f"{MAPS}?resourceVersion=%C2%B2", 400),
        (f"{MAPS}?resourceVersion=" + "9" * 5000, 400),
        (f"{MAPS}?limit=1_0", 400),
        (f"{MAPS}?limit=" + "9" * 5000, 400),
        (f"{MAPS}?limit=-1", 200),
        (f"{MAPS}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOjV9", 400),
        (f"{MAPS}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6IjEiLCJzdGFydCI6ImEifQ", 400),
        (f"{MAPS}?resourceVersion=99999999999", 504),
        (f"{MAPS}?resourceVersionMatch=Exact", 422),
        (f"{MAPS}?watch=1&resourceVersion=x", 400),
        ("/api/v1/namespaces/../../etc/passwd", 404),
        (f"{MAPS}/a\0b", 404),
        ("/api/v1/" + "a/" * 10_000, 404),
        ("/apis/nobody.example.com/v1/things", 404),
    ],
)
async def test_addresses_and_parameters_that_are_refused(ready, target, code):
    assert (await ready.call("GET", target))[0] == code


async def test_duplicate_keys_are_told_or_refused(ready):
    body = b'{"metadata":{"name":"m","name":"n"},"data":{"k":"1","k":"2"}}'
    status, answer = await ready.call("POST", f"{MAPS}?fieldValidation=Strict", body)
    assert status == 400
    assert (
        'strict decoding error: duplicate field "metadata.name", duplicate field "data.k"'
        in answer["message"]
    )
    response = await ready.response("POST", f"{MAPS}?fieldValidation=Warn", body)
    assert response.status == 201
    assert 'duplicate field \\"data.k\\"' in response.headers["warning"]


POD = "/api/v1/namespaces/d/pods"
STRICT = "fieldValidation=Strict"
UNKNOWN_THEN_TWICE = (
    b'{"metadata":{"name":"p"},"spec":{"who":1,"nodeName":"a","nodeName":"b","who":2,'
    b'"containers":[{"name":"c","image":"i","image":"j","odd":1}]}}'
)


async def test_unknown_and_duplicate_fields_are_told_as_they_come(ready):
    _, answer = await ready.call("POST", f"{POD}?{STRICT}", UNKNOWN_THEN_TWICE)
    assert answer["message"].endswith(
        'strict decoding error: unknown field "spec.who", duplicate field "spec.nodeName", '
        'duplicate field "spec.containers[0].image", unknown field "spec.containers[0].odd"'
    )


@pytest.mark.parametrize("media", ["application/merge-patch+json", "application/strategic-merge-patch+json"])
async def test_duplicate_keys_of_a_patch_are_refused(ready, media):
    await ready.ok("POST", MAPS, {"metadata": {"name": "m"}})
    body = b'{"data":{"k":"1","k":"2"},"who":1}'
    status, answer = await ready.call("PATCH", f"{MAPS}/m?{STRICT}", body, headers={"content-type": media})
    assert status == 422
    assert answer["message"].endswith('strict decoding error: duplicate field "data.k", unknown field "who"')


async def test_duplicate_keys_of_an_applied_configuration_are_refused_with_their_line(ready):
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  k: a\n  k: b\n"
    headers = {"content-type": "application/apply-patch+yaml"}
    path = f"{MAPS}/m?fieldManager=me"
    status, answer = await ready.call("PATCH", f"{path}&{STRICT}", body, headers=headers)
    assert status == 400 and answer["message"] == (
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 7: key "k" already set in map'
    )
    response = await ready.response("PATCH", path, body, headers=headers)
    assert response.status == 201 and 'line 7: key \\"k\\" already set' in response.headers["warning"]


async def test_objects_over_the_limit_are_not_stored(ready):
    labels = {f"k{n}": "v" for n in range(150_000)}
    body = {"metadata": {"name": "big", "labels": labels}}
    status, answer = await ready.call("POST", MAPS, body)
    assert (status, answer["reason"], answer["message"]) == (
        413,
        "RequestEntityTooLarge",
        "etcdserver: request is too large",
    )
    assert (await ready.call("GET", f"{MAPS}/big"))[0] == 404


# Whatever it is, it is answered, and never by a failure of ours

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
_FIELDS = st.sampled_from(
    ["metadata", "data", "spec", "name", "labels", "kind", "apiVersion", "template", "items"]
)
_OBJECTS = st.dictionaries(_FIELDS, st.dictionaries(_FIELDS, _JSON, max_size=3) | _JSON, max_size=5)
_PATHS = st.sampled_from(
    [
        MAPS,
        "/api/v1/namespaces/d/pods",
        "/apis/apps/v1/namespaces/d/deployments",
        "/api/v1/namespaces/d/services",
    ]
)
_MEDIA = st.sampled_from(
    [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ]
)


def _dumps(value):
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b"{}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=_PATHS, body=_OBJECTS | _JSON | st.binary(max_size=60), media=st.sampled_from([JSON, YAML, PROTOBUF])
)
async def test_any_body_gets_an_answer(ready, path, body, media):
    data = body if isinstance(body, bytes) else _dumps(body)
    status, answer = await ready.call("POST", path, data, headers={"content-type": media})
    assert status < 500, (data, answer)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_OBJECTS | _JSON | st.binary(max_size=60), media=_MEDIA)
async def test_any_patch_gets_an_answer(ready, body, media):
    await ready.call("POST", MAPS, {"metadata": {"name": "p", "labels": {"a": "b"}}, "data": {"k": "v"}})
    data = body if isinstance(body, bytes) else _dumps(body)
    target = f"{MAPS}/p?fieldManager=f"
    status, answer = await ready.call("PATCH", target, data, headers={"content-type": media})
    assert status < 500, (data, answer)


# On the wire


@pytest.fixture
async def wire(ready):
    """A plain listener in front of the server; `say` opens a connection, sends, and reads to its end."""

    async def handle(request: Request):
        request.user = ADMIN
        return await ready.server.handle(request)

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = await serve(handle, [sock], None, RealClock())
    yield Wire(listener)
    await listener.close(0.1)


class Wire:
    def __init__(self, listener):
        self.listener = listener

    async def open(self):
        return await asyncio.open_connection(*self.listener.addresses[0][:2])

    async def say(self, data: bytes, seconds=60.0) -> bytes:
        reader, writer = await self.open()
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), seconds)
        except ConnectionError:
            return b""
        finally:
            writer.close()


def request(body=b"", extra=b"", path=MAPS.encode(), method=b"POST"):
    return (
        b"%b %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n%b\r\n%b" % (method, path, len(body), extra, body)
    )


async def test_a_body_over_the_limit(wire):
    answer = await wire.say(request(b"x" * (BODY_LIMIT + 1)))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Request entity too large: limit is 3145728" in answer


@pytest.mark.parametrize(
    "flood",
    [
        b"x-a: " + b"y" * (HEADER_LIMIT + 1) + b"\r\n",
        b"".join(b"x-%d: y\r\n" % n for n in range(20_000)),
        b"x: y\r\n" * 40_000,
    ],
    ids=["a long one", "many", "one many times"],
)
async def test_floods_of_headers(wire, flood):
    assert (await wire.say(request(extra=flood))).startswith(b"HTTP/1.1 431")


async def test_headers_without_end_are_thrown_away_and_cut_off(wire, monkeypatch):
    monkeypatch.setattr(http, "_SEE_OUT", 0.1)
    _, writer = await wire.open()
    writer.write(b"GET / HTTP/1.1\r\n")

    async def flood():
        while True:
            writer.write(b"x-y: z\r\n" * 1000)
            await writer.drain()
            for connection in wire.listener.connections:
                now = connection._reader.now
                assert now is None or len(now.headers) < 2 * HEADER_LIMIT

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(), 60)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", b"400"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"\0" * 100, b"400"),
    ],
)
async def test_what_is_no_http(wire, data, code):
    assert (await wire.say(data)).split(b" ")[1] == code


def lines(*headers: str, method="GET", path="/api/v1/namespaces/d", version="1.1", body=b""):
    return "\r\n".join([f"{method} {path} HTTP/{version}", *headers, "", ""]).encode("latin-1") + body


H, C = "host: x", "connection: close"
CHUNKED, SIZE = "transfer-encoding: chunked", "content-length: 34"
MAP = b'{"metadata":{"generateName":"x-"}}'
IN_CHUNKS = b"5;odd=1\r\n" + MAP[:5] + b"\r\n01D\r\n" + MAP[5:] + b"\r\n0\r\nx-trailer: y\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (lines(C), 400, "missing required Host header"),
        (lines(version="1.0"), 200, '"name":"d"'),
        (lines(H, version="2.0"), 505, "unsupported protocol version"),
        (lines(H, C, method="OPTIONS"), 405, "the server does not allow this method"),
        (lines(H, C, method="OPTIONS", path="*"), 405, "the server does not allow this method"),
        (lines(H, C, method="PROPFIND"), 405, "the server does not allow this method"),
        (lines(H, C, method="CONNECT", path="x:80"), 405, "the server does not allow this method"),
        (lines(H, C, method="HEAD", path="/version"), 200, ""),
        (lines(H, C, method="HEAD"), 405, ""),
        (lines(H, C, method="HEAD", path=f"{MAPS}?watch=1"), 405, ""),
        (lines(H, C, path="http://elsewhere/api/v1/namespaces/d"), 200, '"name":"d"'),
        (lines(H, C, path="/api/v1/namespaces/%64"), 200, '"name":"d"'),
        (lines(H, C, path="/api/v1/namespaces/%2e%2e"), 400, "may not be '..'"),
        (lines(H, C, path="/api/v1/namespaces/%zz"), 400, "may not contain '%'"),
        (lines(H, C, path="/api/v1/namespaces/../pods/x"), 404, 'pods \\"x\\" not found'),
        (lines(H, C, path="/api/v1/namespaces/" + "a" * 60_000), 404, "not found"),
        (lines(H, C, path="/api/v1/namespaces/" + "a" * 200_000), 431, "too large"),
        (lines(H, C, path="/api/v1/namespaces?" + "&".join(f"a{n}=1" for n in range(8000))), 200, "items"),
        (lines(H, "upgrade: h2c", "connection: upgrade"), 200, '"name":"d"'),
        (
            lines(H, SIZE, "upgrade: x", "connection: upgrade, close", method="POST", path=MAPS, body=MAP),
            201,
            "x-",
        ),
        (
            lines(
                H, CHUNKED, "upgrade: x", "connection: upgrade, close", method="POST", path=MAPS, body=IN_CHUNKS
            ),
            201,
            "x-",
        ),
        (lines(H, C, CHUNKED, method="POST", path=MAPS, body=IN_CHUNKS), 201, "x-"),
        (lines(H, C, CHUNKED, method="POST", path=MAPS, body=b"5\n{}\n0\n\n"), 400, "no HTTP"),
        (lines(H, C, CHUNKED, method="POST", path=MAPS, body=b"f" * 18 + b"\r\n"), 400, "no HTTP"),
        (lines(H, C, CHUNKED, SIZE, method="POST", path=MAPS, body=IN_CHUNKS), 400, "no HTTP"),
        (lines(H, C, "transfer-encoding: gzip, chunked", method="POST", path=MAPS, body=IN_CHUNKS), 501, ""),
        (lines(H, C, SIZE, "content-encoding: gzip", method="POST", path=MAPS, body=MAP), 201, "x-"),
        (lines(H, C, "content-length: 33", method="POST", path=MAPS, body=MAP), 400, "unexpected end of JSON"),
        (lines(H, "content-length: -1", method="POST", path=MAPS, body=MAP), 400, "no HTTP"),
        (lines(H, "expect: a miracle", SIZE, method="POST", path=MAPS), 417, "100-continue"),
        (lines(H, C, "x-a: b\0c"), 400, "no HTTP"),
        (lines(H, C, "x-a: b", " folded"), 400, "no HTTP"),
    ],
)  # fmt: skip
async def test_oddities_of_http(wire, data, code, text):
    answer = await wire.say(data)
    assert answer.split(b" ", 2)[1] == b"%d" % code
    assert text.encode() in answer


async def test_a_client_of_http_1_0_gets_no_chunks(wire, ready):
    for n in range(3):
        await ready.ok("POST", MAPS, {"metadata": {"name": f"big{n}"}, "data": {"k": "v" * 200_000}})
    head, _, body = (await wire.say(lines(path=MAPS, version="1.0"))).partition(b"\r\n\r\n")
    assert b"connection: close" in head and b"transfer-encoding" not in head
    assert len(orjson.loads(body)["items"]) == 3
    kept = b"connection: keep-alive"
    reader, writer = await wire.open()
    writer.write(lines(kept.decode(), version="1.0") * 2)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).count(kept) == 1
    writer.close()


async def test_bodies_of_all_connections_together_have_a_limit(wire, monkeypatch):
    monkeypatch.setattr(incoming, "BODIES_LIMIT", 1_000_000)
    half = lines(H, "content-length: 2000000", method="POST", path=MAPS, body=b" " * 1_500_000)
    reader, writer = await wire.open()
    writer.write(half)
    await writer.drain()
    answer = await wire.say(lines(H, SIZE, method="POST", path=MAPS, body=MAP))
    assert answer.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in answer
    writer.close()
    await asyncio.wait_for(reader.read(), 60)
    assert (await wire.say(request(MAP))).startswith(b"HTTP/1.1 201")
    assert wire.listener.bodies.held == 0


async def test_half_open_connections_end(wire, monkeypatch):
    monkeypatch.setattr(http, "_REQUEST_TIMEOUT", 0.2)
    monkeypatch.setattr(http, "_IDLE_TIMEOUT", 0.2)
    for said in (b"", b"GET / HTT", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"):
        assert await wire.say(said) == b""
    assert not wire.listener.connections


async def test_too_many_connections_are_closed_as_they_come(wire, monkeypatch):
    monkeypatch.setattr(http, "CONNECTION_LIMIT", 2)
    kept = [await wire.open() for _ in range(2)]
    assert await wire.say(request()) == b""
    for reader, writer in kept:
        writer.write(request(b'{"metadata":{"name":"a"}}'))
        assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
        writer.close()


async def test_random_bytes_never_stop_the_server(wire):
    chance = random.Random(7)
    good = request(b'{"metadata":{"generateName":"a-"}}')
    for _ in range(100):
        spoilt = bytearray(good)
        for _ in range(chance.randrange(1, 8)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        reader, writer = await wire.open()
        writer.write(bytes(spoilt))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert (await wire.say(good)).startswith(b"HTTP/1.1 201")
