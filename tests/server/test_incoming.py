"""Requests as they are read: what came before on a connection changes nothing about the next one."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sampan.server.incoming import Bodies, RequestReader

HEADS = (
    "Host: x\r\nAuthorization: Bearer a\r\n",
    "Host: x\r\nAuthorization: Bearer b\r\n",
    "Host: x\r\nAccept: a\r\nAccept: b\r\n",
    "Host: x\r\nConnection: close\r\n",
    "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    "Host: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n",
    "Accept: a\r\n",
    f"Host: x\r\nAccept: {'a' * 70000}\r\n",
)
PATHS = (
    "/a",
    "/a/b:c",
    "/a?b=c",
    "/%61",
    "/a b",
    "a",
    "http://x/a",
    "/\x01",
    "/\xe9",
    "/" + "a" * 2000,
    "/" + "a" * 70000,
)
METHODS = ("GET", "POST", "HEAD", "ODD")
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/3.7")


def request(method="GET", path="/a", version="HTTP/1.1", head=HEADS[0], body=b""):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} {version}\r\n{head}{length}\r\n".encode("latin-1") + body


def reader():
    return RequestReader(Bodies(), lambda: None)


def read(reader, pieces):
    """All that a handler would see of what was sent, and what is left of it."""
    rests = [reader.feed(piece) for piece in pieces if not reader.ending]
    seen = []
    while reader.waiting:
        one = reader.waiting.popleft()
        flags = (one.old, one.close, one.upgrade, one.error and one.error.message)
        seen.append((one.method, bytes(one.url), dict(one.headers), b"".join(one.body), flags))
    return seen, rests, reader.ending


requests = st.builds(
    request,
    st.sampled_from(METHODS) | st.just("GET"),
    st.sampled_from(PATHS) | st.just("/a/b"),
    st.sampled_from(VERSIONS) | st.just("HTTP/1.1"),
    st.sampled_from(HEADS) | st.just(HEADS[0]),
    st.sampled_from([b"", b"", b"ab"]),
)


@example(request("ODD", "/a/b", "HTTP/1.1", HEADS[4], b"ab"), [], "/b")
@given(requests, st.lists(st.integers(0, 80), max_size=3), st.sampled_from(["/b", "/a/c"]))
def test_a_usual_request_before_makes_no_difference(data, cuts, path):
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in zip(places, places[1:], strict=False)]
    used = reader()
    for head in (HEADS[1], HEADS[0]):
        assert [one[0] for one in read(used, [request(path=path, head=head)])[0]] == ["GET"]
    assert read(used, pieces) == read(reader(), pieces)


bodies = st.sampled_from([b"ab", b"cd", b"\r\n", b"G", b"abc", b"a" * 5000])
posts = st.builds(
    request,
    st.sampled_from(["POST", "PUT", "GET"]),
    head=st.sampled_from(HEADS[:3]),
    body=bodies | st.just(b""),
)


@settings(deadline=None)
@given(
    st.lists(posts, min_size=1, max_size=4),
    st.sampled_from([b"", b"", b"\r\n", b"GET /c HT"]),
    st.integers(0, 200),
)
def test_nor_does_one_with_a_body(before, after, cut):
    """Each request in a piece of its own, the first with something before or behind it and the last one cut, against
    small pieces, of which nothing can be known before."""
    pieces = [after + before[0] if after == b"\r\n" else before[0] + after, *before[1:-1]]
    pieces += [before[-1][:cut], before[-1][cut:]]
    used, slow = reader(), reader()
    told = read(used, [piece for piece in pieces if piece])
    whole = b"".join(pieces)
    expected = read(slow, [whole[i : i + 16] for i in range(0, len(whole), 16)])
    assert (told[0], told[2]) == (expected[0], expected[2])
    assert used._bodies.held == slow._bodies.held


def test_a_body_is_counted_until_it_is_answered():
    bodies = Bodies()
    one = RequestReader(bodies, lambda: None)
    for _ in range(3):
        one.feed(request("POST", body=b"abc"))
    assert bodies.held == 9 == sum(waiting.held for waiting in one.waiting)
    one.forget()
    assert bodies.held == 0


@pytest.mark.parametrize("rest", ["", "GET /c HT", "GET /c HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_requests_that_come_together_are_told_apart(rest):
    one = reader()
    read(one, [request()])
    seen, _, _ = read(one, [request(path="/b"), request(path="/b") + rest.encode()])
    assert [found[1] for found in seen] == [b"/b", b"/b"] + ([b"/c"] if rest.endswith("\n") else [])
