"""Carries out a Plan: phases in order, the steps of a phase side by side, every answer folded into the view at once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sampan.api.status import ApiError
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.plan import Create, Delete, Event, Patch, Plan, Step, Subresource, Update
from sampan.client.story import Action
from sampan.client.view import CachedView

Effect = Callable[[str, str], Awaitable[Any]]

CONCURRENCY = 32  # steps of one phase on their way at once

log = logging.getLogger(__name__)


class Executor:
    """Does what plans say, through one client. `effects` are what `effect:NAME` reads call with (namespace, name)."""

    def __init__(self, client: Client, view: CachedView, effects: Mapping[str, Effect] | None = None) -> None:
        self.client = client
        self._view = view
        self._effects = effects or {}

    async def fetch(self, read: tuple[str, str, str]) -> Any:
        """What a Plan's read names: an object or None, the list of a collection, or an effect's result."""
        resource, namespace, name = read
        if resource.startswith("effect:"):
            return await self._effects[resource.removeprefix("effect:")](namespace, name)
        if not name:
            return (await self.client.list(resource, namespace)).get("items") or []
        try:
            resource, _, subresource = resource.partition("/")
            return await self.client.get(resource, name, namespace, subresource)
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    async def run(self, plan: Plan, did: Callable[[Action], None], record: Callable[[Event], None]) -> None:
        """Raises the first error of the phase that failed, after rescue steps and events said so."""
        try:
            for phase in plan.phases:
                await self._phase(phase, did, record)
        except Exception as error:
            if not (isinstance(error, ApiError) and error.reason == "Conflict"):
                await self._rescue(plan, error, did, record)
            raise
        for event in plan.events:
            if "{error}" not in event.message:
                record(event)

    async def _rescue(
        self, plan: Plan, error: Exception, did: Callable[[Action], None], record: Callable[[Event], None]
    ) -> None:
        text = error.message if isinstance(error, ApiError) else str(error)
        for event in plan.events:
            if "{error}" in event.message:
                record(dataclasses.replace(event, message=event.message.replace("{error}", text)))
        if plan.rescue:
            try:
                await self._phase([_filled(step, text) for step in plan.rescue], did, record)
            except Exception as second:
                log.info("rescue after %s: %s", text, second)

    async def _phase(
        self, steps: Sequence[Step], did: Callable[[Action], None], record: Callable[[Event], None]
    ) -> None:
        """Starts with one step and doubles with success (a quota that refuses all is asked once, not 500 times)."""
        done = 0
        width = 1
        while done < len(steps):
            batch = steps[done : done + width]
            if len(batch) == 1:
                await self._step(batch[0], did, record)
            else:
                results = await asyncio.gather(
                    *[self._step(step, did, record) for step in batch], return_exceptions=True
                )
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
            done += len(batch)
            width = min(width * 2, CONCURRENCY)

    async def _step(self, step: Step, did: Callable[[Action], None], record: Callable[[Event], None]) -> None:
        try:
            action = await self._do(step)
        except ApiError as error:
            if error.code in (404, 409):
                await self._refresh(step)
            raise
        did(action)
        if isinstance(step, Create) and step.event is not None:
            message = step.event.message.replace("{name}", action.name)
            record(dataclasses.replace(step.event, message=message))

    async def _do(self, step: Step) -> Action:
        view, client = self._view, self.client
        if isinstance(step, Create):
            namespace = step.namespace or step.obj["metadata"].get("namespace", "")
            try:
                made = await client.create(step.resource, step.obj, namespace)
            except ApiError as error:
                if not (step.exists_ok and error.reason == "AlreadyExists"):
                    raise
                await self._refresh(step)
                return Action("found", step.resource, namespace, step.obj["metadata"]["name"])
            view.apply_result(step.resource, made)
            return Action("create", step.resource, namespace, made["metadata"]["name"])
        if isinstance(step, Update):
            made = await client.update(step.resource, step.obj, step.subresource)
            if step.subresource != "scale":  # which answers a Scale, not the object
                view.apply_result(step.resource, made)
            meta = step.obj["metadata"]
            return Action(_verb("update", step), step.resource, meta.get("namespace", ""), meta["name"])
        if isinstance(step, Patch):
            return await self._patch(step)
        if isinstance(step, Delete):
            return await self._delete(step)
        await client.create(
            step.resource, step.obj, step.namespace, name=step.name, subresource=step.subresource
        )
        return Action(step.subresource, step.resource, step.namespace, step.name)

    async def _patch(self, step: Patch) -> Action:
        try:
            made = await self.client.patch(
                step.resource,
                step.name,
                step.patch,
                step.namespace,
                kind=step.kind,
                subresource=step.subresource,
                manager=self.client.agent if step.kind == "apply" else "",
                force=step.kind == "apply",
            )
        except ApiError as error:
            if not (step.missing_ok and error.code == 404):
                raise
            self._view.apply_deletion(step.resource, step.name, step.namespace)
            return Action("missed", step.resource, step.namespace, step.name)
        self._view.apply_result(step.resource, made)
        return Action(_verb("patch", step), step.resource, step.namespace, step.name)

    async def _delete(self, step: Delete) -> Action:
        action = Action("delete", step.resource, step.namespace, step.name)
        try:
            answer = await self.client.delete(
                step.resource,
                step.name,
                step.namespace,
                uid=step.uid,
                resource_version=step.resource_version,
                grace=step.grace,
                propagation=step.propagation,
            )
        except ApiError as error:
            if error.code == 404:
                self._view.apply_deletion(step.resource, step.name, step.namespace, step.uid)
                return action
            if error.code == 409 and step.uid:
                live = await self._refresh(step)
                if live is None or live["metadata"].get("uid") != step.uid:
                    return action  # that very object had gone before
            raise
        meta = answer.get("metadata") or {}
        if answer.get("kind") == "Status" or not meta.get("resourceVersion"):
            self._view.apply_deletion(step.resource, step.name, step.namespace, step.uid)
        elif meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
            self._view.apply_result(step.resource, answer)  # on its way
        else:
            self._view.apply_deletion(
                step.resource, step.name, step.namespace, meta.get("uid", ""), int(meta["resourceVersion"])
            )
        return action

    async def _refresh(self, step: Step) -> Object | None:
        """Fold in what is really there, after an answer showed that the view is behind."""
        if isinstance(step, Create | Update):
            meta = step.obj["metadata"]
            namespace, name = (
                getattr(step, "namespace", "") or meta.get("namespace", ""),
                meta.get("name", ""),
            )
        else:
            namespace, name = step.namespace, step.name
        if not name:
            return None
        try:
            live = await self.client.get(step.resource, name, namespace)
        except ApiError as error:
            if error.code == 404:
                self._view.apply_deletion(step.resource, name, namespace)
            return None
        self._view.apply_result(step.resource, live)
        return live


def _verb(verb: str, step: Update | Patch) -> str:
    return f"{verb} {step.subresource} of" if step.subresource else verb


def _filled(step: Step, text: str) -> Step:
    """The step with `{error}` replaced in every string of its object or patch."""
    if isinstance(step, Patch):
        return dataclasses.replace(step, patch=_replace(step.patch, text))
    if isinstance(step, Create | Update | Subresource):
        return dataclasses.replace(step, obj=_replace(step.obj, text))
    return step


def _replace(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return value.replace("{error}", text)
    if isinstance(value, dict):
        return {k: _replace(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [_replace(v, text) for v in value]
    return value
