"""Pages read through a proxy subresource: their links and redirects lead through it, too.

What runs in a pod believes it is at `/`; its reader sees it below `/api/v1/namespaces/N/pods/P/proxy`.
Source: API reference, "Proxy" of Pod, Service and Node; what kube-apiserver does with HTML and Location.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit, urlunsplit

from sampan.client.messages import Response

_LARGEST = 8 << 20  # a longer page is passed on as it is
_TAG = re.compile(rb"<[a-zA-Z][^<>]*>")
_LINK = re.compile(
    rb"(\s(?:action|archive|background|cite|classid|codebase|data|formaction|href|icon|longdesc|manifest|poster|profile"
    rb"|src|usemap)\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s\"'>]+)",
    re.IGNORECASE,
)


async def through(response: Response, prefix: str, hosts: Sequence[str]) -> Response:
    """The answer as its reader needs it: `prefix` is the path of the proxy, `hosts` what the pod is addressed as."""
    headers = response.headers
    if "location" in headers:
        headers["location"] = link(headers["location"], prefix, hosts)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and "content-encoding" not in headers:
        response.body = await _page(response.body, prefix, hosts)
    return response


def link(url: str, prefix: str, hosts: Sequence[str]) -> str:
    """One link: relative ones and those to other hosts stay as they are."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return url
    path = parts.path if parts.path.startswith(prefix + "/") else prefix + parts.path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def page(body: bytes, prefix: str, hosts: Sequence[str]) -> bytes:
    """A page of HTML with all its links led through the proxy."""

    def attribute(match: re.Match[bytes]) -> bytes:
        value = match[2]
        quote = value[:1] if value[:1] in (b'"', b"'") else b""
        text = value[len(quote) : len(value) - len(quote)].decode("utf-8", "surrogateescape")
        return match[1] + quote + link(text, prefix, hosts).encode("utf-8", "surrogateescape") + quote

    return _TAG.sub(lambda tag: _LINK.sub(attribute, tag[0]), body)


async def _page(
    body: bytes | AsyncIterator[bytes], prefix: str, hosts: Sequence[str]
) -> bytes | AsyncIterator[bytes]:
    if isinstance(body, bytes):
        return page(body, prefix, hosts) if len(body) <= _LARGEST else body
    start = bytearray()
    async for chunk in body:
        start += chunk
        if len(start) > _LARGEST:
            return _rest(bytes(start), body)
    return page(bytes(start), prefix, hosts)


async def _rest(start: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for chunk in body:
        yield chunk
