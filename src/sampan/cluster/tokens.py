"""Bootstrap tokens: what a machine shows when it joins. Their Secrets are as kubeadm's, whose command knows them too.

Source: "Authenticating with Bootstrap Tokens", "Bootstrap Token Secret Format".
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import orjson

from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock, rfc3339
from sampan.base.errors import SampanError
from sampan.client.client import Client
from sampan.cluster.cluster_info import GROUP, INFO, PUBLIC
from sampan.controllers.bootstrap_signer import SIGNATURE, TOKEN_TYPE

_SYSTEM, _PREFIX = "kube-system", "bootstrap-token-"
_PATIENCE = 10.0  # seconds until a token must have signed what machines ask for first


@dataclass(frozen=True, slots=True)
class Token:
    """`expires` as RFC 3339, "" for never."""

    id: str
    secret: str
    expires: str
    description: str = ""

    def __str__(self) -> str:
        return f"{self.id}.{self.secret}"


async def create(client: Client, clock: Clock, ttl: float, description: str) -> Token:
    """A new token that holds for `ttl` seconds (0: for ever); it can be used at once. Raises ApiError, SampanError."""
    expires = rfc3339(clock.now() + ttl) if ttl else ""
    token = Token(pki.secret(6), pki.secret(16), expires, description)
    data = {
        "token-id": token.id,
        "token-secret": token.secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": GROUP,
    }
    if expires:
        data["expiration"] = expires
    if description:
        data["description"] = description
    metadata = {"name": _PREFIX + token.id, "namespace": _SYSTEM}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": TOKEN_TYPE,
        "stringData": data,
    }
    await client.create("secrets", secret, _SYSTEM)
    try:
        async with clock.timeout(_PATIENCE):
            await _signed(client, token)
    except TimeoutError:
        raise SampanError(
            f"the cluster does not sign with token {token.id}", "The log of its control plane says why."
        ) from None
    return token


async def _signed(client: Client, token: Token) -> None:
    async for line in client.watch("configmaps", PUBLIC, initial=True, fields=f"metadata.name={INFO}"):
        if SIGNATURE + token.id in (orjson.loads(line)["object"].get("data") or {}):
            return


async def present(client: Client) -> list[Token]:
    """All that the cluster knows, the one that lasts longest last. Raises ApiError."""
    found = []
    listed = await client.list("secrets", _SYSTEM, fields=f"type={TOKEN_TYPE}")
    for secret in listed.get("items") or ():
        data = {k: base64.b64decode(v).decode() for k, v in (secret.get("data") or {}).items()}
        names = ("token-id", "token-secret", "expiration", "description")
        found.append(Token(*(data.get(name, "") for name in names)))
    return sorted(found, key=lambda token: (token.expires or "~", token.id))


async def delete(client: Client, token: str, known: str) -> None:
    """By its id, or whole. Raises SampanError when there is none: `known` is the command that lists them."""
    try:
        await client.delete("secrets", _PREFIX + token.partition(".")[0], _SYSTEM)
    except ApiError as error:
        if error.code != 404:
            raise
        raise SampanError(
            f"there is no token {token.partition('.')[0]}", f"Which there are: {known}"
        ) from None
