"""Whom a connection that we open trusts: one place, so that all ask the same of a certificate.

What Go's crypto/tls accepts is accepted. `ssl.create_default_context` of Python 3.13 asks for more, for key identifiers
(RFC 5280 section 4.2.1), which the certificates of many webhooks and registries do not carry.
"""

from __future__ import annotations

import ssl


def client_context(*, data: str = "", file: str | None = None, verify: bool = True) -> ssl.SSLContext:
    """At least TLS 1.2. `data` or `file` hold the authorities (PEM); without either, those of the system.

    Raises ssl.SSLError for no certificate in `data`, OSError for a `file` that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif data or file:
        context.load_verify_locations(cadata=data or None, cafile=file)
    else:
        context.load_default_certs()
    return context
