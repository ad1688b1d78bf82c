"""Why things happened: which reconciles ran for an object, what woke them, what each did and how it ended.

A ring of the last few thousand; `sampan story` reads it. Reconciles that did nothing and had nothing to say are
only counted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sampan.base.clock import rfc3339_micro
from sampan.client.plan import Key

_ACTIONS = 20  # actions listed of one reconcile


class Action(NamedTuple):
    """One step that was carried out: create, update, patch, delete, or a subresource's name."""

    verb: str
    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.verb} {self.resource} {where}"


@dataclass(slots=True)
class Entry:
    """One reconcile. `cause` is what woke it, `outcome` "ok", "conflict" or the error; `times` counts idle repeats."""

    time: float
    controller: str
    resource: str
    key: Key
    cause: str
    why: str = ""
    actions: list[Action] = field(default_factory=list)
    more: int = 0  # actions beyond those listed
    outcome: str = "ok"
    times: int = 1

    def did(self, action: Action) -> None:
        """One more action; beyond a few they are only counted."""
        if len(self.actions) < _ACTIONS:
            self.actions.append(action)
        else:
            self.more += 1

    def as_json(self) -> dict[str, Any]:
        """For `/debug/sampan/story`, which `sampan story` asks."""
        return {
            "time": rfc3339_micro(self.time),
            "controller": self.controller,
            "resource": self.resource,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "cause": self.cause,
            "why": self.why,
            "actions": [str(action) for action in self.actions]
            + ([f"and {self.more} more"] if self.more else []),
            "outcome": self.outcome,
            "times": self.times,
        }


class Story:
    """The last `size` reconciles, oldest first."""

    def __init__(self, size: int = 5000) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)
        self._idle: dict[tuple[str, Key], Entry] = {}  # the last entry of a key, while it did nothing
        # (controller, resource, key) -> how often it had nothing to do, and when last
        self._looked: dict[tuple[str, str, Key], tuple[int, float]] = {}

    def looked(self, now: float, controller: str, resource: str, key: Key) -> None:
        """A reconcile had nothing to do and nothing to say."""
        who = (controller, resource, key)
        times, _ = self._looked.get(who, _NEVER)
        if not times and len(self._looked) >= (self._entries.maxlen or 1):
            self._looked.clear()
        self._looked[who] = (times + 1, now)

    def add(self, entry: Entry) -> None:
        """Remembers what was done, or that nothing was: the same idle answer again is only counted."""
        who = (entry.controller, entry.key)
        idle = not entry.actions and entry.outcome == "ok"
        last = self._idle.get(who)
        if idle and last is not None and last.why == entry.why:
            last.times += 1
            return
        self._entries.append(entry)
        if idle:
            self._idle[who] = entry
            if len(self._idle) > 2 * (self._entries.maxlen or 1):
                self._idle.clear()
        else:
            self._idle.pop(who, None)

    def about(self, resource: str = "", namespace: str = "", name: str = "") -> list[Entry]:
        """Reconciles of the object, and those of others that acted on it, then who had nothing to do.

        Empty arguments match everything.
        """
        idle = (
            Entry(last, controller, on, key, "", times=times)
            for (controller, on, key), (times, last) in self._looked.items()
        )
        return [e for e in (*self._entries, *idle) if _concerns(e, resource, namespace, name)]


_NEVER = (0, 0.0)


def _concerns(entry: Entry, resource: str, namespace: str, name: str) -> bool:
    own = (entry.resource, entry.key.namespace, entry.key.name)
    if entry.resource == "*":
        which, _, called = entry.key.name.partition("/")
        own = (which, entry.key.namespace, called)
    everyone = [own, *(action[1:] for action in entry.actions)]
    return any(resource in ("", r) and namespace in ("", ns) and name in ("", n) for r, ns, n in everyone)
