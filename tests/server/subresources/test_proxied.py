"""Links of proxied pages."""

from __future__ import annotations

import pytest

from sampan.client.messages import Response
from sampan.server.subresources.proxied import link, page, through

PREFIX, HOSTS = "/api/v1/namespaces/d/pods/p/proxy", ("10.0.0.9:80", "10.0.0.9")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/a?b=c#d", f"{PREFIX}/a?b=c#d"),
        ("a/b", "a/b"),
        ("#top", "#top"),
        ("", ""),
        ("http://10.0.0.9:80/a", f"{PREFIX}/a"),
        ("//10.0.0.9/", f"{PREFIX}/"),
        ("https://example.com/a", "https://example.com/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("http://[broken/", "http://[broken/"),
    ],
)
def test_links_of_a_proxied_page_lead_back_through_the_proxy(url, seen):
    assert link(url, PREFIX, HOSTS) == seen


def test_only_attributes_that_are_links_change():
    text = b"<FORM ACTION = '/go' title=\"/t\"><script>x = '<a href=' + '/s'</script> /plain \xff"
    assert page(text, "/x", ()) == text.replace(b"'/go'", b"'/x/go'")


async def test_what_is_no_page_or_too_long_stays_as_it_is():
    async def chunks(count):
        for _ in range(count):
            yield b'<a href="/a">' + b" " * (1 << 20)

    plain = await through(Response(200, {"content-type": "text/plain"}, b'<a href="/a">'), "/x", ())
    assert plain.body == b'<a href="/a">'
    for count, rewritten in ((2, True), (9, False)):
        answer = await through(Response(200, {"content-type": "text/html"}, chunks(count)), "/x", ())
        body = answer.body if isinstance(answer.body, bytes) else b"".join([c async for c in answer.body])
        assert body.count(b'"/x/a"' if rewritten else b'"/a"') == count
