"""Service-account tokens for projected volumes: requested for one pod, renewed before they expire (TokenRequest API)."""

from __future__ import annotations

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339_parse
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.pods.problems import VolumeError

_LONGEST = 24 * 3600.0  # a token is renewed at least daily


class Tokens:
    """Tokens by (pod uid, audience, lifetime)."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._held: dict[tuple[str, str, int], tuple[str, float]] = {}  # -> token, time of renewal

    async def get(self, pod: Object, source: Object) -> tuple[str, float]:
        """(token, when to ask again). Raises VolumeError with the server's refusal."""
        meta = pod["metadata"]
        audience, lifetime = source.get("audience", ""), source.get("expirationSeconds", 3600)
        key = (meta["uid"], audience, lifetime)
        now = self._clock.now()
        held = self._held.get(key)
        if held and held[1] > now:
            return held
        account = pod["spec"].get("serviceAccountName") or "default"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": lifetime,
                "boundObjectRef": bound,
            },
        }
        try:
            answer = await self._client.create(
                "serviceaccounts", request, meta["namespace"], name=account, subresource="token"
            )
        except ApiError as error:
            raise VolumeError(f"failed to fetch token: {error.message}") from error
        status = answer["status"]
        expires = rfc3339_parse(status["expirationTimestamp"])
        renewal = now + min((expires - now) * 0.8, _LONGEST)
        self._held[key] = (status["token"], renewal)
        return self._held[key]

    def forget(self, pod_uid: str) -> None:
        for key in [k for k in self._held if k[0] == pod_uid]:
            del self._held[key]
