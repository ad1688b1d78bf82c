"""Asking others: mutating webhooks one after the other, validating ones at the same time.

Source: Kubernetes documentation, "Dynamic Admission Control"; admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import weakref
from typing import Any

import orjson

from sampan.api import jsonpatch
from sampan.api.registry import Resource
from sampan.api.status import ApiError, bad_request, internal
from sampan.base.objects import Object
from sampan.server.admission import request
from sampan.server.admission.attrs import CONNECT, CREATE, DELETE, UPDATE, Attrs, Context, Plugin, only
from sampan.server.admission.matching import Criteria
from sampan.server.egress.callout import CalloutError
from sampan.server.lookup import Derived, Lookup

_GROUP = "admissionregistration.k8s.io"
_MUTATING = f"mutatingwebhookconfigurations.{_GROUP}"
_VALIDATING = f"validatingwebhookconfigurations.{_GROUP}"
_SPOKEN = ("v1", "v1beta1")  # versions of AdmissionReview
_CONDITION_BUDGET = 2_500_000  # cost of all match conditions of one webhook


class Hook:
    """One webhook of a configuration, ready to be matched."""

    __slots__ = (
        "again",
        "conditions",
        "config",
        "configuration",
        "criteria",
        "fails",
        "name",
        "quiet",
        "seconds",
        "version",
    )

    def __init__(self, configuration: str, raw: Object) -> None:
        self.configuration = configuration
        self.name: str = raw.get("name", "")
        self.config: Object = raw.get("clientConfig") or {}
        self.criteria = Criteria(raw, raw.get("rules") or [])
        self.conditions: list[Object] = raw.get("matchConditions") or []
        self.fails = raw.get("failurePolicy", "Fail") == "Fail"
        self.seconds = float(raw.get("timeoutSeconds") or 10)
        self.quiet = raw.get("sideEffects") in ("None", "NoneOnDryRun")
        self.again = raw.get("reinvocationPolicy") == "IfNeeded"
        asked = raw.get("admissionReviewVersions") or ()
        self.version: str = next((v for v in asked if v in _SPOKEN), "v1")

    def holds(self, attrs: Attrs, row: Resource, ctx: Context) -> bool:
        """Whether all match conditions hold. Raises 403 when that cannot be told and the webhook must not be missed."""
        if not self.conditions:
            return True
        from sampan.api.cel import CelError
        from sampan.api.cel.admission import condition
        from sampan.server.admission.asking import Asking

        asking = Asking(attrs, row, ctx, _CONDITION_BUDGET)
        values = asking.values()
        values = values[:3] + values[4:]  # as `api.cel.admission.CONDITION` has them
        try:
            programs = [(c.get("name", ""), condition(c.get("expression", ""))) for c in self.conditions]
            return asking.conditions(programs, values)
        except CelError as error:
            if self.fails:
                raise attrs.forbidden(str(error)) from None
            return False


# Which hooks there are

_hooks: weakref.WeakKeyDictionary[Lookup, dict[str, Derived]] = weakref.WeakKeyDictionary()


def _configured(ctx: Context, bucket: str) -> list[Hook]:
    """All hooks of a kind by configuration name, compiled anew when one changes."""
    derived = _hooks.setdefault(ctx.lookup, {})
    if bucket not in derived:
        lookup = ctx.lookup
        derived[bucket] = Derived(
            lookup,
            (bucket,),
            lambda: [
                Hook(c["metadata"]["name"], w) for c in lookup.list(bucket) for w in c.get("webhooks") or ()
            ],
        )
    hooks: list[Hook] = derived[bucket].get()
    return hooks


def _asked(attrs: Attrs, ctx: Context, bucket: str) -> list[tuple[Hook, Resource]]:
    if attrs.row.group == _GROUP:  # none must prevent its own repair
        return []
    found = []
    for hook in _configured(ctx, bucket):
        row = hook.criteria.row_for(attrs, ctx)
        if row is not None and hook.criteria.selects(attrs, ctx):
            found.append((hook, row))
    return found


# Calling them


async def _call(hook: Hook, row: Resource, attrs: Attrs, ctx: Context) -> Object:
    """The hook's response, {} when it failed and may be ignored. Raises ApiError when it refuses or must not fail."""
    if not hook.holds(attrs, row, ctx):
        return {}
    if attrs.dry_run and not hook.quiet:
        raise bad_request(f'admission webhook "{hook.name}" does not support dry run')
    uid = ctx.ids.uid()
    asked = request.request_of(uid, attrs, row)
    asked["object"] = await request.shown(attrs.obj, attrs.row, row, ctx)
    asked["oldObject"] = await request.shown(attrs.old, attrs.row, row, ctx)
    review = {
        "kind": "AdmissionReview",
        "apiVersion": f"admission.k8s.io/{hook.version}",
        "request": asked,
    }
    try:
        if ctx.call is None:
            raise CalloutError("this server cannot call webhooks")
        answer = await ctx.call(hook.config, review, hook.seconds)
        response = _response(answer, uid, hook.version)
    except CalloutError as error:
        if hook.fails:
            raise internal(f'failed calling webhook "{hook.name}": failed to call webhook: {error}') from None
        attrs.annotations[f"failed-open.admission.k8s.io/{hook.name}"] = hook.name
        return {}
    attrs.warnings += [str(w) for w in response.get("warnings") or ()]
    for key, value in (response.get("auditAnnotations") or {}).items():
        attrs.annotations[f"{hook.name}/{key}"] = str(value)
    if not response.get("allowed"):
        raise _denied(hook.name, response.get("status") or response.get("result") or {})
    return response


def _response(answer: Object, uid: str, version: str) -> Object:
    """The response in a review; v1beta1 never had its kind, uid and patchType looked at. Raises CalloutError."""
    response = answer.get("response")
    if version == "v1beta1" and isinstance(response, dict):
        return {**response, "patchType": "JSONPatch"}
    if answer.get("kind") != "AdmissionReview" or not isinstance(response, dict):
        raise CalloutError("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview")
    if response.get("uid") != uid:
        raise CalloutError(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    return response


def _denied(name: str, status: Object) -> ApiError:
    head = f'admission webhook "{name}" denied the request'
    if status.get("message"):
        message = f"{head}: {status['message']}"
    elif status.get("reason"):
        message = f"{head}: {status['reason']}"
    else:
        message = f"{head} without explanation"
    return ApiError(
        max(status.get("code") or 0, 400), status.get("reason", ""), message, status.get("details")
    )


async def _mutate(attrs: Attrs, ctx: Context) -> None:
    asked = _asked(attrs, ctx, _MUTATING)
    last: dict[int, bytes] = {}  # hook -> the object it left
    for _ in range(2):
        for number, (hook, row) in enumerate(asked):
            if number in last and (not hook.again or last[number] == orjson.dumps(attrs.obj)):
                continue
            await _patch(await _call(hook, row, attrs, ctx), hook, row, attrs, ctx)
            last[number] = orjson.dumps(attrs.obj) if hook.again else b""
        if not any(hook.again for hook, _ in asked):
            return


async def _patch(response: Object, hook: Hook, row: Resource, attrs: Attrs, ctx: Context) -> None:
    if not response.get("patch") or attrs.obj is None:
        return
    if response.get("patchType") != "JSONPatch":
        raise internal(f'webhook "{hook.name}" returned response.patch but not response.patchType')
    try:
        patch = orjson.loads(base64.b64decode(response["patch"]))
    except (ValueError, binascii.Error) as error:
        raise internal(f'webhook "{hook.name}" returned a patch that cannot be read: {error}') from None
    patched = jsonpatch.json_patch(await request.shown(attrs.obj, attrs.row, row, ctx), patch)
    request.replace(attrs, await request.shown(patched, row, attrs.row, ctx) or {})


async def _validate(attrs: Attrs, ctx: Context) -> None:
    asked = _asked(attrs, ctx, _VALIDATING)
    calls = (_call(hook, row, attrs, ctx) for hook, row in asked)
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


# Without any hook nothing is awaited, not even a coroutine made: this is on the path of every write.


def admit(attrs: Attrs, ctx: Context) -> Any:
    return _mutate(attrs, ctx) if ctx.lookup.store.count(_MUTATING) else None


def validate(attrs: Attrs, ctx: Context) -> Any:
    return _validate(attrs, ctx) if ctx.lookup.store.count(_VALIDATING) else None


_OPERATIONS = only(CREATE, UPDATE, DELETE, CONNECT)
MUTATING = Plugin(
    "MutatingAdmissionWebhook",
    None,
    _OPERATIONS,
    admit=admit,
    subresources=None,
    reads=(_MUTATING,),
    sleeps=True,
)
VALIDATING = Plugin(
    "ValidatingAdmissionWebhook",
    None,
    _OPERATIONS,
    validate=validate,
    subresources=None,
    reads=(_VALIDATING,),
    sleeps=True,
)
