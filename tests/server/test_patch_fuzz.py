"""Whatever is sent as a patch: an answer of the client's fault or an object that can be read, never a failure of ours."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS = st.sampled_from(
    ["metadata", "labels", "annotations", "spec", "template", "containers", "name", "image", "ports", "env"]
    + ["containerPort", "$patch", "$retainKeys", "$setElementOrder/containers", "replicas", "finalizers", "x"]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["delete", "replace", "merge", "a", "1Gi"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "?"])},
        optional={
            "path": st.lists(KEYS | st.sampled_from(["0", "-", "~1", "~", ""]), max_size=5).map(
                lambda parts: "".join(f"/{p}" for p in parts)
            ),
            "from": st.lists(KEYS, max_size=4).map(lambda parts: "".join(f"/{p}" for p in parts)),
            "value": JSON,
        },
    ),
    max_size=4,
)
BODIES = {
    "application/merge-patch+json": JSON,
    "application/strategic-merge-patch+json": JSON,
    "application/json-patch+json": OPERATIONS | JSON,
    "application/apply-patch+yaml": JSON,
}
WEB = {
    "metadata": {"name": "web", "labels": {"a": "b"}},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
        },
    },
}
DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"


@pytest.mark.parametrize("media", sorted(BODIES))
async def test_no_patch_makes_the_server_fail(ready, media):
    import asyncio

    loop = asyncio.get_running_loop()

    async def send(body: Any) -> None:
        await ready.call("DELETE", f"{DEPLOYMENTS}/web")
        await ready.ok("POST", DEPLOYMENTS, WEB)
        if media.endswith("yaml") and isinstance(body, dict):
            body = {"apiVersion": "apps/v1", "kind": "Deployment", **body}
        path = f"{DEPLOYMENTS}/web?fieldManager=fuzz&force=true"
        status, answer = await ready.call(
            "PATCH", path if media.endswith("yaml") else path.partition("&")[0], orjson.dumps(body),
            headers={"content-type": media},
        )  # fmt: skip
        # A patch without a type for its values is 500 without a reason in the original, too.
        assert status < 500 or answer.get("reason") != "InternalError", (status, answer)
        stored = await ready.ok("GET", f"{DEPLOYMENTS}/web")
        assert stored["metadata"]["name"] == "web" and isinstance(stored["spec"]["template"], dict)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BODIES[media])
    def fuzz(body: Any) -> None:
        asyncio.run_coroutine_threadsafe(send(body), loop).result(30)

    await asyncio.to_thread(fuzz)
