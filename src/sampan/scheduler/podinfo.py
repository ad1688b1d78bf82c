"""What scheduling needs to know of a pod, worked out once for all pods that are alike.

Sources: "Resource Management" (effective request: containers side by side, init containers one after the other,
sidecars beside both), "Assigning Pods to Nodes", "Pod Topology Spread Constraints".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sampan.api import meta, pod_resources, selectors
from sampan.base.objects import Object

Labels = Mapping[str, str]

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
# For scores only: what a container without a request is taken to need.
_DEFAULT_CPU, _DEFAULT_MEMORY = 100, 200 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Term:
    """Pods counted in each topology domain: those of `namespaces` (None: all) that `selector` matches.

    `owner` counts by controlling owner instead (default spreading); `living` leaves out terminating pods. Made by
    `term`: equal ones are one object, so that looking one up costs no comparison.
    """

    topology: str
    namespaces: frozenset[str] | None
    selector: str
    owner: str = ""
    namespace_selector: str = ""
    living: bool = False

    def matches(self, pod: PodInfo, namespaces: Mapping[str, Labels]) -> bool:
        """Whether a pod is one of those that the term is about. `namespaces`: the labels of each, for namespace selectors."""
        if self.owner:
            return pod.owner == self.owner
        if self.namespaces is not None and pod.namespace not in self.namespaces:
            chosen = self.namespace_selector
            if not chosen or not _selector(chosen).matches(namespaces.get(pod.namespace, {})):
                return False
        return bool(_selector(self.selector).matches(pod.labels))


term = functools.lru_cache(maxsize=50_000)(Term)


@dataclass(frozen=True)
class Spread:
    """One topology spread constraint. `hard` is DoNotSchedule."""

    term: Term
    skew: int
    hard: bool
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(eq=False)
class PodInfo:
    """Shared by all pods of one template in one namespace. Compared by identity, so caches key on it cheaply."""

    namespace: str
    labels: Labels
    owner: str
    spec: Object
    requests: dict[str, int]  # cpu in milli, others in units; "pods" is 1
    cpu: int  # for scores: with defaults for what was not said
    memory: int
    ports: tuple[tuple[str, str, int], ...]  # (address, protocol, port) on the host
    affinity: tuple[Term, ...]
    anti_affinity: tuple[Term, ...]
    preferred: tuple[tuple[Term, int], ...]  # weight below zero: anti-affinity
    spread: tuple[Spread, ...]
    priority: int
    images: tuple[str, ...]
    claims: tuple[str, ...]
    matched: dict[Term, bool] = field(default_factory=dict)  # answers of Term.matches, kept
    vector: Any = None  # requests in the order of a snapshot's resources
    vector_size: int = 0

    @property
    def plain(self) -> bool:
        """No rule about other pods: only its node and its size matter."""
        return not (self.affinity or self.anti_affinity or self.preferred or any(s.hard for s in self.spread))


_selectors: dict[str, selectors.LabelSelector] = {}


def _selector(text: str) -> selectors.LabelSelector:
    found = _selectors.get(text)
    if found is None:
        found = _selectors[text] = selectors.from_object(orjson.loads(text))
    return found


def _text(selector: Object | None) -> str:
    return orjson.dumps(selector, option=orjson.OPT_SORT_KEYS).decode()


class Infos:
    """PodInfo of a pod, made once for pods that are alike in everything that matters here."""

    def __init__(self, limit: int = 20_000) -> None:
        self._known: dict[bytes, PodInfo] = {}
        self._limit = limit

    def __call__(self, pod: Object) -> PodInfo:
        spec = pod["spec"]
        ref = meta.owner(pod)
        key = orjson.dumps(
            (
                meta.namespace(pod),
                meta.labels(pod),
                ref["uid"] if ref else "",
                [(c.get("resources"), c.get("ports"), c.get("image")) for c in spec.get("containers", ())],
                [
                    (c.get("resources"), c.get("restartPolicy"), c.get("ports"))
                    for c in spec.get("initContainers") or ()
                ],
                [
                    v["persistentVolumeClaim"]
                    for v in spec.get("volumes") or ()
                    if "persistentVolumeClaim" in v
                ],
                [v.get("name") for v in spec.get("volumes") or () if "ephemeral" in v] and meta.name(pod),
                *(spec.get(k) for k in _PARTS),
            )
        )
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._limit:
                self._known.clear()
            found = self._known[key] = _info(pod)
        return found


_PARTS = (
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "overhead",
    "priority",
    "resources",
    "resourceClaims",
    "hostNetwork",
    "preemptionPolicy",
)


def _info(pod: Object) -> PodInfo:
    spec, namespace, ref = pod["spec"], meta.namespace(pod), meta.owner(pod)
    owner = ref["uid"] if ref else ""
    requests, cpu, memory = _requests(spec)
    affinity = spec.get("affinity") or {}
    near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    preferred = [
        (_term(w["podAffinityTerm"], pod), sign * w["weight"])
        for sign, part in ((1, near), (-1, far))
        for w in part.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    ]
    return PodInfo(
        namespace=namespace,
        labels=meta.labels(pod),
        owner=owner,
        spec=spec,
        requests=requests,
        cpu=cpu,
        memory=memory,
        ports=_ports(spec),
        affinity=tuple(
            _term(t, pod) for t in near.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        ),
        anti_affinity=tuple(
            _term(t, pod) for t in far.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        ),
        preferred=tuple(preferred),
        spread=_spread(spec, pod, owner),
        priority=spec.get("priority") or 0,
        images=tuple(c.get("image", "") for c in spec.get("containers", ())),
        claims=_claims(pod),
    )


def _requests(spec: Object) -> tuple[dict[str, int], int, int]:
    """(requests, cpu and memory with defaults)."""
    total = {name: amount for name, amount in pod_resources.requests(spec).items() if amount}
    cpu = memory = 0
    for container in spec.get("containers", ()):
        own = pod_resources.of(container, "requests", pod_resources.count)
        cpu += own.get("cpu", _DEFAULT_CPU)
        memory += own.get("memory", _DEFAULT_MEMORY)
    total["pods"] = 1
    return total, max(cpu, total.get("cpu", 0)), max(memory, total.get("memory", 0))


def _ports(spec: Object) -> tuple[tuple[str, str, int], ...]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    found = {
        (p.get("hostIP") or "0.0.0.0", p.get("protocol", "TCP"), p["hostPort"])
        for c in [*spec.get("containers", ()), *sidecars]
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }
    return tuple(sorted(found))


def _claims(pod: Object) -> tuple[str, ...]:
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            found.append(f"{meta.name(pod)}-{volume['name']}")
    return tuple(found)


def _term(raw: Object, pod: Object) -> Term:
    """An affinity term; without namespaces it means the pod's own."""
    labels = meta.labels(pod)
    selector = raw.get("labelSelector")
    extra = [
        {"key": k, "operator": operator, "values": [labels[k]]}
        for field_name, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for k in raw.get(field_name) or ()
        if k in labels
    ]
    if extra and selector is not None:
        present = selector.get("matchExpressions") or []
        selector = selector | {"matchExpressions": present + [e for e in extra if e not in present]}
    named, by_label = raw.get("namespaces") or [], raw.get("namespaceSelector")
    if by_label is not None and not by_label:
        spaces = None
    else:
        spaces = frozenset(named or ([] if by_label else [meta.namespace(pod)]))
    return Term(
        raw["topologyKey"], spaces, _text(selector), namespace_selector=_text(by_label) if by_label else ""
    )


def _spread(spec: Object, pod: Object, owner: str) -> tuple[Spread, ...]:
    """The pod's own constraints; without any, replicas of one owner still prefer to be apart."""
    found = []
    for raw in spec.get("topologySpreadConstraints") or ():
        keys = {k: meta.labels(pod)[k] for k in raw.get("matchLabelKeys") or () if k in meta.labels(pod)}
        selector = raw.get("labelSelector")
        if keys and selector is not None:
            selector = selector | {"matchLabels": (selector.get("matchLabels") or {}) | keys}
        counted = term(raw["topologyKey"], frozenset([meta.namespace(pod)]), _text(selector), living=True)
        found.append(
            Spread(
                counted,
                raw["maxSkew"],
                raw["whenUnsatisfiable"] == "DoNotSchedule",
                raw.get("minDomains") or 1,
                raw.get("nodeAffinityPolicy", "Honor") == "Honor",
                raw.get("nodeTaintsPolicy", "Ignore") == "Honor",
            )
        )
    if not found and owner:
        found = [
            Spread(term(k, None, "", owner=owner, living=True), s, False)
            for k, s in ((HOSTNAME, 3), (ZONE, 5))
        ]
    return tuple(found)
