"""Eviction: a deletion that a PodDisruptionBudget may refuse. Source: "API-initiated Eviction", policy/v1."""

from __future__ import annotations

import orjson

from sampan.api import meta, selectors
from sampan.api.registry import Resource
from sampan.api.status import ApiError, bad_request, internal, not_found
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import admit, decode, delete, negotiate, objects, respond
from sampan.server.call import Call
from sampan.server.options import DeleteOptions, delete_options, write_options
from sampan.store.protocol import Conflict, Item

EVICTION = Resource("policy", "v1", "Eviction", "evictions", True)
_BUDGETS = "poddisruptionbudgets.policy"
_RETRIES = 20
_DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


async def evict(call: Call) -> Response:
    """POST to `pods/NAME/eviction`: 201, or 429 when a budget has nothing left."""
    options = write_options(call.info.query, "CreateOptions")
    eviction = _decoded(call, options.validation)
    info = call.info
    if eviction["metadata"].get("name", info.name) != info.name:
        raise bad_request("name in URL does not match name in Eviction object")
    wanted = delete_options(call.info.query, eviction.get("deleteOptions"))
    dry_run = options.dry_run or wanted.dry_run
    item = call.server.store.get("pods", f"{info.namespace}/{info.name}")
    if item is None:
        raise not_found("", "pods", info.name)
    await admit.admit(call, "CREATE", eviction, None, options, shape=EVICTION)
    pod = orjson.loads(item.value)
    if _counts(pod):
        await _spend(call, pod, dry_run)
    if not dry_run:
        await _announce(call, wanted)
    wanted.dry_run = dry_run
    info.subresource = ""
    await delete.delete_object(call, info.name, wanted, admitted=True)
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return respond.obj(call, status, 201)


def _decoded(call: Call, validation: str) -> Object:
    """An Eviction of policy/v1, or v1beta1 as older clients send it."""
    obj = decode.parse(call, EVICTION, negotiate.body_type(call.request.headers))
    if obj.get("kind", "Eviction") != "Eviction":
        raise bad_request("expected Eviction")
    obj["kind"], obj["apiVersion"] = "Eviction", "policy/v1"
    return decode.finish(call, EVICTION, obj, validation)


def _counts(pod: Object) -> bool:
    """Whether losing the pod is a disruption: not one that has ended, waits, or goes already."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed", "Pending") and not pod["metadata"].get("deletionTimestamp")


async def _spend(call: Call, pod: Object, dry_run: bool) -> None:
    """Take one disruption from the pod's budget. Raises 429 when there is none."""
    store = call.server.store
    row = call.server.registry.get(_BUDGETS)
    for _ in range(_RETRIES):
        budgets = _matching(call, pod)
        if not budgets:
            return
        if len(budgets) > 1:
            raise internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        item, budget = budgets[0]
        if _unhealthy_may_go(budget, pod):
            return
        changed = _spent(budget, pod["metadata"]["name"], call.server.clock.now())
        if dry_run or row is None:
            return
        try:
            draft = objects.to_draft(call.server.registry, row, changed)
            await store.put(_BUDGETS, item.key, draft, item.revision)
            return
        except Conflict:
            continue
    raise _too_many("Cannot evict pod as it would violate the pod's disruption budget.", "")


async def _announce(call: Call, wanted: DeleteOptions) -> None:
    """The pod is told why it goes (KEP-3329): Jobs may forgive it. A precondition on its revision moves along."""
    store, registry = call.server.store, call.server.registry
    key, row = f"{call.info.namespace}/{call.info.name}", registry.get("pods")
    for _ in range(_RETRIES):
        item = store.get("pods", key)
        if item is None or row is None:
            return
        pod = orjson.loads(item.value)
        asked = wanted.uid or pod["metadata"]["uid"], wanted.resource_version or str(item.revision)
        if meta.deleted(pod) or asked != (pod["metadata"]["uid"], str(item.revision)):
            return  # the deletion says what is wrong
        status = pod.setdefault("status", {})
        status["conditions"] = meta.set_condition(
            status.get("conditions"), _DISRUPTED, call.server.clock.now()
        )
        try:
            item = await store.put("pods", key, objects.to_draft(registry, row, pod), item.revision)
        except Conflict:
            continue
        if wanted.resource_version:
            wanted.resource_version = str(item.revision)
        return


def _matching(call: Call, pod: Object) -> list[tuple[Item, Object]]:
    labels = pod["metadata"].get("labels") or {}
    found = []
    for item in call.server.store.list(_BUDGETS, pod["metadata"]["namespace"] + "/").items:
        budget = orjson.loads(item.value)
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and selectors.from_object(selector).matches(labels):
            found.append((item, budget))
    return found


def _unhealthy_may_go(budget: Object, pod: Object) -> bool:
    """KEP-3017: a pod that is not ready costs nothing, if the policy or the count of healthy ones allows it."""
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in (pod.get("status") or {}).get("conditions") or []
    )
    if ready:
        return False
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    return status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0


def _spent(budget: Object, pod: str, now: float) -> Object:
    status = dict(budget.get("status") or {})
    name = budget["metadata"]["name"]
    refused = "Cannot evict pod as it would violate the pod's disruption budget."
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _too_many(refused, f"The disruption budget {name} is still being processed by the server.")
    if status.get("disruptionsAllowed", 0) <= 0:
        need, have = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _too_many(
            refused, f"The disruption budget {name} needs {need} healthy pods and has {have} currently"
        )
    status["disruptionsAllowed"] -= 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: rfc3339(now)}
    return {**budget, "status": status}


def _too_many(message: str, cause: str) -> ApiError:
    details: Object = {"retryAfterSeconds": 10} if "processed" in cause else {}
    if cause:
        details["causes"] = [{"reason": "DisruptionBudget", "message": cause}]
    return ApiError(
        429, "TooManyRequests", message, details, retry_after=10 if "processed" in cause else None
    )
