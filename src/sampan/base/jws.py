"""A text signed with a bootstrap token, detached from the text (RFC 7515, appendix F), byte for byte as kubeadm compares it.

Source: "Authenticating with Bootstrap Tokens", "ConfigMap Signing".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json


def sign(text: str, token_id: str, secret: str) -> str:
    """HEADER..SIGNATURE"""
    header = _coded(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{_coded(text.encode())}".encode()
    return f"{header}..{_coded(hmac.digest(secret.encode(), signed, hashlib.sha256))}"


def valid(signature: str, text: str, token_id: str, secret: str) -> bool:
    return hmac.compare_digest(signature.encode(), sign(text, token_id, secret).encode())


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
