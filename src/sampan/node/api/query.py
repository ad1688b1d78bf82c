"""A request to the kubelet API as its handlers look at it: values of the query, flags, certificate."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from sampan.client.messages import Request, Response


class Query:
    """Wraps a Request; `values` maps each name of the query to all its values."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.headers: Mapping[str, str] = request.headers
        self.values: dict[str, list[str]] = {}
        for key, value in parse_qsl(request.query, keep_blank_values=True):
            self.values.setdefault(key, []).append(value)

    def first(self, name: str, default: str = "") -> str:
        return self.values.get(name, [default])[0]

    def flag(self, *names: str) -> bool:
        """True when any of the names is given as 1 or true."""
        return any(self.first(name).lower() in ("1", "true") for name in names)


def text(status: int, body: str | bytes, content_type: str = "text/plain; charset=utf-8") -> Response:
    """A whole answer."""
    return Response(status, {"content-type": content_type}, body.encode() if isinstance(body, str) else body)
