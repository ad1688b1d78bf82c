"""PodDisruptionBudgets as the scheduler sees them: whose loss it should avoid when it makes room ("Pod Priority and Preemption")."""

from __future__ import annotations

from sampan.api import meta, selectors
from sampan.base.objects import Object

from .podinfo import Labels


class Budget:
    """What a PodDisruptionBudget allows now. Pods it has let go already cost nothing more."""

    __slots__ = ("_gone", "_namespace", "_selector", "allowed")

    def __init__(self, obj: Object) -> None:
        status = obj.get("status", {})
        self.allowed: int = status.get("disruptionsAllowed", 0)
        self._gone = status.get("disruptedPods") or {}
        self._namespace = meta.namespace(obj)
        self._selector = selectors.from_object(obj["spec"].get("selector"))

    def covers(self, namespace: str, name: str, labels: Labels) -> bool:
        """Whether it protects this pod; one that was evicted already counts no more."""
        if namespace != self._namespace or name in self._gone:
            return False
        return bool(self._selector.matches(dict(labels)))
