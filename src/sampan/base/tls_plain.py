"""Who speaks plain HTTP to a TLS port is told so, as Go's servers do, instead of seeing the connection break.

OpenSSL recognizes such a request in the first bytes it is given; good connections pay nothing.
"""

from __future__ import annotations

import ssl
from typing import Any

_BODY = b"Client sent an HTTP request to an HTTPS server.\n"
# The connection ends when the time for the handshake is over; the length lets clients go before.
_ANSWER = b"HTTP/1.0 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


class _ServerSide(ssl.SSLObject):
    """Ends a handshake that cannot succeed by waiting for more, so that what it has to send is sent."""

    _outgoing: ssl.MemoryBIO | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST" or self._outgoing is None:
                raise
            self._outgoing.write(_ANSWER)
            self._outgoing = None
            raise ssl.SSLWantReadError from None


class ServerContext(ssl.SSLContext):
    """A server's context for event loops, which do TLS in memory."""

    sslobject_class = _ServerSide

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **more: Any
    ) -> ssl.SSLObject:
        wrapped = super().wrap_bio(incoming, outgoing, *args, **more)
        if isinstance(wrapped, _ServerSide):
            wrapped._outgoing = outgoing
        return wrapped
