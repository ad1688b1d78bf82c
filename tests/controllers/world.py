"""A cluster of dicts for tests of pure controllers: it is their View, and does to itself what a Plan says.

No server, no defaults, no validation: only what a controller's next reconcile must see.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

from sampan.api import meta, selectors
from sampan.api.mergepatch import merge_patch
from sampan.api.resources import BUILTIN
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.client.plan import Create, Delete, Event, Key, Patch, Plan, Subresource, Update

START = 1_700_000_000.0


class World:
    """`put` objects, `run` rules until nothing changes; `events` and `log` tell what happened."""

    def __init__(self, *rules: Any, now: float = START) -> None:
        self.rules = rules
        self.now = now
        self.set_ahead = 0.0  # seconds by which somebody has set the clock
        self.objects: dict[str, dict[tuple[str, str], Object]] = {}
        self.signs: dict[tuple[str, str, str], tuple[Any, float]] = {}
        self.fetched: dict[tuple[str, str, str], Any] = {}
        self.events: list[Event] = []
        self.log: list[str] = []
        self.timers: list[tuple[str, Key, float]] = []
        self.live_only: dict[tuple[str, str, str], Object] = {}
        self._ids = itertools.count(1)

    # View

    @property
    def moment(self) -> float:
        return self.now - self.set_ahead

    def last_sign(self, resource: str, name: str, namespace: str = "") -> float:
        return self.signs.get((resource, namespace, name), (None, -math.inf))[1]

    def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        return self.objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> list[Object]:
        found = self.objects.get(resource, {})
        return [found[k] for k in sorted(found) if not namespace or k[0] == namespace]

    def selected(self, resource: str, namespace: str, selector: Any) -> list[Object]:
        return [o for o in self.list(resource, namespace) if selector.matches(meta.labels(o))]

    def owned(self, resource: str, uid: str) -> list[Object]:
        return [o for o in self.list(resource) if (meta.owner(o) or {}).get("uid", "") == uid]

    def indexed(self, resource: str, index: str, value: str) -> list[Object]:
        for rule in self.rules:
            if index in rule.indexes.get(resource, {}):
                return [o for o in self.list(resource) if rule.indexes[resource][index](o) == value]
        field = index.split(".")[-1]
        return [o for o in self.list(resource) if o.get("spec", {}).get(field) == value]

    def count(self, resource: str, index: str = "", value: str = "") -> int:
        return len(self.indexed(resource, index, value) if index else self.list(resource))

    def dependents(self, uid: str) -> list[tuple[str, Object]]:
        found = ((r, o) for r in sorted(self.objects) for o in self.list(r))
        return [(r, o) for r, o in found if any(ref["uid"] == uid for ref in meta.owners(o))]

    def unseen(self) -> list[str]:
        return []

    def contents(self, namespace: str) -> list[tuple[str, Object]]:
        return [(r, o) for r in sorted(self.objects) for o in self.list(r, namespace)]

    # The user's side

    def set_clock(self, ahead: float) -> None:
        self.now += ahead
        self.set_ahead += ahead

    def put(self, resource: str, obj: Object) -> Object:
        obj = copy.deepcopy(obj)
        data = obj.setdefault("metadata", {})
        row = BUILTIN.get(resource)
        assert row is not None, resource
        obj.setdefault("apiVersion", row.api_version)
        obj.setdefault("kind", row.kind)
        if row.namespaced:
            data.setdefault("namespace", "default")
        if "name" not in data:
            data["name"] = data.pop("generateName") + f"{next(self._ids):05d}"
        data.setdefault("uid", f"uid-{data['name']}")
        data.setdefault("creationTimestamp", rfc3339(self.now))
        data.setdefault("generation", 1)
        data["resourceVersion"] = str(next(self._ids))
        key = (data.get("namespace", ""), data["name"])
        self.objects.setdefault(resource, {})[key] = obj
        self._note_sign(resource, key, obj)
        return obj

    def change(self, resource: str, name: str, patch: Object, namespace: str = "default") -> Object:
        old = self.objects[resource][namespace, name]
        new = merge_patch(copy.deepcopy(old), patch)
        if new != old:
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"]["generation"] + 1
            new["metadata"]["resourceVersion"] = str(next(self._ids))
            self.objects[resource][namespace, name] = new
            self._note_sign(resource, (namespace, name), new)
        return new

    def _note_sign(self, resource: str, key: tuple[str, str], obj: Object) -> None:
        for rule in self.rules:
            if resource in rule.signs:
                sign = rule.signs[resource](obj)
                if self.signs.get((resource, *key), (self,))[0] != sign:
                    self.signs[resource, *key] = sign, self.moment

    def ready(self, *pods: Object, state: bool = True) -> None:
        for pod in pods:
            condition = {"type": "Ready", "status": str(state), "lastTransitionTime": rfc3339(self.now)}
            status = {"phase": "Running", "podIP": pod.get("status", {}).get("podIP", "10.0.0.1")}
            status["conditions"] = [condition]
            self.change("pods", meta.name(pod), {"status": status}, meta.namespace(pod))

    def all_ready(self) -> None:
        self.ready(*[p for p in self.list("pods") if not meta.deleted(p)])

    def names(self, resource: str) -> list[str]:
        return [meta.name(o) for o in self.list(resource)]

    # The runner's side

    def plan(self, rule: Any, resource: str, name: str, namespace: str = "default") -> Plan:
        """The plan of one reconcile, with its reads answered; nothing is done."""
        target = self.get(resource, name, namespace)
        self.fetched = {}
        for _ in range(5):
            if target is None:
                plan = rule.removed(Key(namespace, name), self, self.now) if rule.removed else Plan()
            else:
                plan = rule.reconcile(target, self, self.now)
            missing = [r for r in plan.reads if r not in self.fetched]
            if not missing:
                return plan
            for r in missing:
                found = self.live_only.get(r) or self._read(*r)
                self.fetched[r] = found if r[2] else self.list(r[0], r[1])
        raise AssertionError("never enough reads")

    def _read(self, resource: str, namespace: str, name: str) -> Object | None:
        resource, _, subresource = resource.partition("/")
        found = self.get(resource, name, namespace)
        if found is None or not subresource:
            return found
        selector = str(selectors.from_object(found["spec"].get("selector")))
        kept = {k: found["metadata"][k] for k in ("name", "namespace", "uid")}
        spec = {"replicas": found["spec"].get("replicas", 1)}
        return {"kind": "Scale", "metadata": kept, "spec": spec, "status": {"selector": selector}}

    def settle(self, rounds: int = 50) -> None:
        """Runs every rule on every object until a round changes nothing."""
        for _ in range(rounds):
            before = next(self._ids)
            self.timers = []
            for rule in self.rules:
                for resource, obj in self._targets(rule):
                    self.act(rule, resource, meta.name(obj), meta.namespace(obj))
            if next(self._ids) == before + 1:
                return
        raise AssertionError("does not settle: " + "; ".join(self.log[-10:]))

    def _targets(self, rule: Any) -> list[tuple[str, Object]]:
        resources = sorted(self.objects) if rule.resource == "*" else [rule.resource]
        return [(r, o) for r in resources for o in self.list(r)]

    def act(self, rule: Any, resource: str, name: str, namespace: str = "default") -> Plan:
        plan = self.plan(rule, resource, name, namespace)
        for phase in plan.phases:
            for step in phase:
                self._do(step)
        self.events += [e for e in plan.events if "{error}" not in e.message]
        if plan.requeue_after is not None:
            self.timers.append((rule.name, Key(namespace, name), plan.requeue_after))
        return plan

    def _do(self, step: Any) -> None:
        self.log.append(str(step)[:300])
        if isinstance(step, Create):
            made = self.put(step.resource, step.obj)
            if step.event:
                text = step.event.message.replace("{name}", meta.name(made))
                self.events.append(Event(step.event.regarding, step.event.type, step.event.reason, text))
        elif isinstance(step, Patch):
            self._patch(step)
        elif isinstance(step, Update):
            if step.subresource == "finalize":
                self.objects["namespaces"].pop(("", meta.name(step.obj)))
                next(self._ids)
            elif step.subresource == "scale":
                change = {"spec": step.obj["spec"]}
                self.change(step.resource, meta.name(step.obj), change, meta.namespace(step.obj))
            else:
                self.put(step.resource, step.obj)
        elif isinstance(step, Delete):
            self.delete(step)
        else:
            assert isinstance(step, Subresource)

    def delete(self, step: Delete) -> None:
        old = self.get(step.resource, step.name, step.namespace)
        if old is None or (step.uid and meta.uid(old) != step.uid):
            return
        graceful = step.resource == "pods" and step.grace != 0 and old["spec"].get("nodeName")
        if graceful or meta.finalizers(old):
            if not meta.deleted(old):
                patch = {"metadata": {"deletionTimestamp": rfc3339(self.now)}}
                self.change(step.resource, step.name, patch, step.namespace)
            return
        del self.objects[step.resource][step.namespace, step.name]
        next(self._ids)

    def _patch(self, step: Patch) -> None:
        if step.missing_ok and self.get(step.resource, step.name, step.namespace) is None:
            return
        patch = {k: v for k, v in step.patch.items() if k not in ("metadata",)}
        data = {
            k: v for k, v in step.patch.get("metadata", {}).items() if k not in ("uid", "resourceVersion")
        }
        if step.kind == "strategic" and "ownerReferences" in data:
            old = self.get(step.resource, step.name, step.namespace)
            gone = {r["uid"] for r in data["ownerReferences"] if r.get("$patch") == "delete"}
            new = [r for r in data["ownerReferences"] if "$patch" not in r]
            data["ownerReferences"] = [r for r in meta.owners(old) if r["uid"] not in gone] + new
        if data:
            patch["metadata"] = data
        self.change(step.resource, step.name, patch, step.namespace)
        current = self.get(step.resource, step.name, step.namespace)
        held = step.resource == "pods" and bool(current and current["spec"].get("nodeName"))
        if current and meta.deleted(current) and "finalizers" in data and not data["finalizers"] and not held:
            del self.objects[step.resource][step.namespace, step.name]
            next(self._ids)


def node(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": spec, "status": {}}


def template(labels: dict[str, str], image: str = "img:1") -> Object:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
