"""The cluster as arrays: one column a node, kept current pod by pod, so that a decision looks at all nodes at once.

Everything that depends on nodes alone (labels, taints) is cached by template until a node changes; what depends on
other pods is counted in arrays that each added or removed pod adjusts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sampan.api import meta, pod_resources
from sampan.base.objects import Object

from .budget import Budget
from .podinfo import Infos, Labels, PodInfo, Term

Array = Any  # numpy.ndarray; its element types are told in comments
_BASE = ("cpu", "memory", "ephemeral-storage", "pods")
_TERMS = 2000  # counted terms kept before those that count nothing are dropped


class Placed:
    """A pod on a node. `terminating` ones hold their resources, but no longer count for spreading."""

    __slots__ = ("info", "key", "name", "namespace", "node", "started", "terminating", "uid")

    def __init__(self, pod: Object, info: PodInfo, node: int) -> None:
        self.key = meta.key(pod)
        self.namespace, self.name, self.uid = meta.namespace(pod), meta.name(pod), meta.uid(pod)
        self.info = info
        self.node = node
        self.terminating = meta.deleted(pod)
        self.started: str = pod.get("status", {}).get("startTime", "")


class Snapshot:
    """Nodes in the order they came. `version` changes with anything about nodes but their pods."""

    def __init__(self) -> None:
        self.info = Infos()
        self.names: list[str] = []
        self.nodes: list[Object] = []
        self.index: dict[str, int] = {}
        self.version = 0
        self.resources: dict[str, int] = {name: row for row, name in enumerate(_BASE)}
        self.allocatable: Array = np.zeros((len(_BASE), 0), np.int64)
        self.requested: Array = np.zeros((len(_BASE), 0), np.int64)
        self.scored: Array = np.zeros((2, 0), np.int64)  # cpu, memory with defaults
        self.pods: dict[str, Placed] = {}
        self.on_node: list[dict[str, Placed]] = []
        self.ports: list[dict[tuple[str, str, int], int]] = []
        self.namespaces: dict[str, Labels] = {}
        self.claims: dict[tuple[str, str], Object] = {}
        self.volumes: dict[str, Object] = {}
        self.classes: dict[str, Object] = {}
        self.budgets: dict[tuple[str, str], Budget] = {}
        self.nominated: dict[str, tuple[PodInfo, str]] = {}
        # claim -> node and volume ("" for one to be made): decided, but not bound yet
        self.chosen: dict[tuple[str, str], tuple[str, str]] = {}
        self.caches: dict[Any, Any] = {}  # emptied with every `version`
        self._counts: dict[Term, Array] = {}
        self._carriers: dict[str, dict[Term, Array]] = {"anti": {}, "prefer": {}, "require": {}}
        self._lost: dict[str, dict[str, Placed]] = {}  # pods whose node is not known (yet)

    @property
    def size(self) -> int:
        return len(self.names)

    # Nodes

    def set_node(self, node: Object) -> bool:
        """Adds or replaces a node. Returns whether anything that scheduling looks at changed."""
        name = meta.name(node)
        at = self.index.get(name)
        if at is None:
            at = self._add_node(name, node)
        elif _face(self.nodes[at]) == _face(node):
            return False
        self.nodes[at] = node
        self._changed()
        amounts = node.get("status", {}).get("allocatable") or node.get("status", {}).get("capacity") or {}
        for resource in amounts:
            self._row(resource)
        self.allocatable[:, at] = 0
        for resource, text in amounts.items():
            row = self.resources[resource]
            self.allocatable[row, at] = pod_resources.count(resource, text)
        for placed in self._lost.pop(name, {}).values():
            placed.node = at
            self._place(placed)
        return True

    def _add_node(self, name: str, node: Object) -> int:
        at = self.index[name] = len(self.names)
        self.names.append(name)
        self.nodes.append(node)
        self.on_node.append({})
        self.ports.append({})
        self.allocatable = _wider(self.allocatable)
        self.requested = _wider(self.requested)
        self.scored = _wider(self.scored)
        for table in self._tables():
            for term in table:
                table[term] = _wider(table[term])
        return at

    def remove_node(self, name: str) -> None:
        """Takes a node out of all arrays. Its pods are kept in mind: a node of that name may come back before they go."""
        at = self.index.pop(name, None)
        if at is None:
            return
        for placed in list(self.on_node[at].values()):
            self._unplace(placed)
            self._lost.setdefault(name, {})[placed.key] = placed
        for listed in (self.names, self.nodes, self.on_node, self.ports):
            del listed[at]
        self.allocatable = np.delete(self.allocatable, at, axis=1)
        self.requested = np.delete(self.requested, at, axis=1)
        self.scored = np.delete(self.scored, at, axis=1)
        for table in self._tables():
            for term in table:
                table[term] = np.delete(table[term], at)
        for later in range(at, len(self.names)):
            self.index[self.names[later]] = later
            for placed in self.on_node[later].values():
                placed.node = later
        self._changed()

    def _tables(self) -> list[dict[Term, Array]]:
        return [self._counts, *self._carriers.values()]

    def _changed(self) -> None:
        self.version += 1
        self.caches.clear()

    def _row(self, resource: str) -> int:
        row = self.resources.get(resource)
        if row is None:
            row = self.resources[resource] = len(self.resources)
            empty = np.zeros((1, self.size), np.int64)
            self.allocatable = np.vstack([self.allocatable, empty])
            self.requested = np.vstack([self.requested, empty.copy()])
        return row

    def set_namespace(self, name: str, labels: Labels | None) -> None:
        """Labels of a namespace, for namespaceSelector; None when it is gone."""
        if self.namespaces.get(name) == labels:
            return
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = labels
        if any(t.namespace_selector for table in self._tables() for t in table):
            self._counts.clear()
            for placed in self.pods.values():
                placed.info.matched.clear()

    # Pods

    def vector(self, info: PodInfo) -> Array:
        """Requests in the order of `resources`, int64."""
        if info.vector_size != len(self.resources):
            for resource in info.requests:
                self._row(resource)
            info.vector = np.zeros(len(self.resources), np.int64)
            for resource, amount in info.requests.items():
                info.vector[self.resources[resource]] = amount
            info.vector_size = len(self.resources)
        return info.vector

    def set_pod(self, pod: Object, node: str) -> None:
        """A pod is on this node: bound, or assumed to be."""
        key = meta.key(pod)
        old = self.pods.get(key)
        if old is not None:
            same = old.uid == meta.uid(pod) and old.node >= 0 and self.names[old.node] == node
            if same and old.terminating == meta.deleted(pod) and old.info is self.info(pod):
                return
            self.remove_pod(key)
        placed = Placed(pod, self.info(pod), self.index.get(node, -1))
        self.pods[key] = placed
        if placed.node < 0:
            self._lost.setdefault(node, {})[key] = placed
        else:
            self._place(placed)

    def remove_pod(self, key: str) -> bool:
        """Whether a node has more room now."""
        placed = self.pods.pop(key, None)
        if placed is None:
            return False
        if placed.node < 0:
            for lost in self._lost.values():
                lost.pop(key, None)
            return False
        self._unplace(placed)
        return True

    def lift(self, placed: Placed) -> None:
        """Take a pod off its node for a thought experiment; `drop` puts it back."""
        self._unplace(placed)

    def drop(self, placed: Placed, at: int) -> None:
        placed.node = at
        self._place(placed)

    def _place(self, placed: Placed) -> None:
        self.on_node[placed.node][placed.key] = placed
        for port in placed.info.ports:
            self.ports[placed.node][port] = self.ports[placed.node].get(port, 0) + 1
        self._count(placed, 1)

    def _unplace(self, placed: Placed) -> None:
        del self.on_node[placed.node][placed.key]
        for port in placed.info.ports:
            left = self.ports[placed.node][port] - 1
            if left:
                self.ports[placed.node][port] = left
            else:
                del self.ports[placed.node][port]
        self._count(placed, -1)
        placed.node = -1

    def _count(self, placed: Placed, sign: int) -> None:
        at, info = placed.node, placed.info
        vector = self.vector(info)
        self.requested[:, at] += sign * vector
        self.scored[0, at] += sign * info.cpu
        self.scored[1, at] += sign * info.memory
        for term, counted in self._counts.items():
            if not (term.living and placed.terminating) and self.matches(term, info):
                counted[at] += sign
        if info.anti_affinity or info.preferred or info.affinity:
            for term in info.anti_affinity:
                self._carrier("anti", term)[at] += sign
            for term in info.affinity:
                self._carrier("require", term)[at] += sign
            for term, weight in info.preferred:
                self._carrier("prefer", term)[at] += sign * weight

    def _carrier(self, how: str, term: Term) -> Array:
        table = self._carriers[how]
        if term not in table:
            table[term] = np.zeros(self.size, np.int64)
        return table[term]

    # What is asked of pods by topology

    def matches(self, term: Term, info: PodInfo) -> bool:
        """`term.matches`, worked out once for each term and pod."""
        known = info.matched.get(term)
        if known is None:
            known = info.matched[term] = term.matches(info, self.namespaces)
        return known

    def carriers(self, how: str, info: PodInfo) -> list[tuple[Term, Array]]:
        """Terms of placed pods ("anti", "require" or "prefer") that speak about this pod, with their weight a node."""
        return [
            (t, counted)
            for t, counted in self._carriers[how].items()
            if counted.any() and self.matches(t, info)
        ]

    def counts(self, term: Term) -> Array:
        """Matching pods on each node, int64; counted once, then kept up to date."""
        found = self._counts.get(term)
        if found is None:
            if len(self._counts) >= _TERMS:
                self._counts.clear()
            found = self._counts[term] = np.zeros(self.size, np.int64)
            for placed in self.pods.values():
                if (
                    placed.node >= 0
                    and not (term.living and placed.terminating)
                    and self.matches(term, placed.info)
                ):
                    found[placed.node] += 1
        return found

    def topology(self, key: str) -> tuple[Array, int]:
        """(domain number of each node or -1 where the label is missing, number of domains)."""
        found = self.caches.get(("topology", key))
        if found is None:
            numbers: dict[str, int] = {}
            domains = np.full(self.size, -1, np.int64)
            for at, node in enumerate(self.nodes):
                value = meta.labels(node).get(key)
                if value is not None:
                    domains[at] = numbers.setdefault(value, len(numbers))
            found = self.caches["topology", key] = (domains, len(numbers))
        return found

    def by_domain(self, key: str, values: Array) -> Array:
        """For each node the sum of `values` over its domain; 0 where the node is in none."""
        domains, count = self.topology(key)
        if count == self.size:
            return values  # every node is its own domain (hostname)
        sums = np.bincount(domains + 1, weights=values, minlength=count + 1)
        sums[0] = 0
        return sums[domains + 1].astype(np.int64)

    def reserved(self, priority: int, but: str) -> Array | None:
        """Requests of nominated pods of at least this priority, or None; they wait for their victims to go."""
        total = None
        for key, (info, node) in self.nominated.items():
            at = self.index.get(node)
            if key != but and info.priority >= priority and at is not None:
                if total is None:
                    total = np.zeros_like(self.requested)
                vector = self.vector(info)
                if total.shape != self.requested.shape:
                    total = np.vstack(
                        [total, np.zeros((len(self.resources) - len(total), self.size), np.int64)]
                    )
                total[:, at] += vector
        return total


def _wider(array: Array) -> Array:
    """One more node at the end, with zeros."""
    return np.concatenate([array, np.zeros((*array.shape[:-1], 1), array.dtype)], axis=-1)


def _face(node: Object) -> tuple[Any, ...]:
    spec, status = node["spec"], node.get("status", {})
    parts = (spec.get("taints"), spec.get("unschedulable"), status.get("allocatable"), status.get("images"))
    return (meta.uid(node), meta.labels(node), *parts)
