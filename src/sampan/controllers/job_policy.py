"""Rules of a Job that need no pods to be made: index sets, what a failure counts for, when success is enough.

Source: API reference Job v1 (podFailurePolicy, successPolicy, backoffLimitPerIndex, completedIndexes).
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api import meta
from sampan.base.objects import Object

INDEX = "batch.kubernetes.io/job-completion-index"
_FIRST, _LAST = 10.0, 600.0  # seconds of back-off after the first failure, and at most


def parse(text: str | None) -> set[int]:
    """Indexes of text such as `1,3-5`."""
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def text(indexes: Iterable[int]) -> str:
    """`1,3-5` of indexes; two neighbours stay apart as in the original (`3,4`), three become a range."""
    parts: list[tuple[int, int]] = []
    for i in sorted(indexes):
        if parts and parts[-1][1] == i - 1:
            parts[-1] = (parts[-1][0], i)
        else:
            parts.append((i, i))
    return ",".join(str(a) if a == b else f"{a}{',' if b == a + 1 else '-'}{b}" for a, b in parts)


def index_of(pod: Object) -> int:
    """The completion index, or -1 without one."""
    found = meta.annotations(pod).get(INDEX, meta.labels(pod).get(INDEX, ""))
    return int(found) if found.isdigit() else -1


def failure_action(job: Object, pod: Object) -> tuple[str, str]:
    """(action, message) of the first podFailurePolicy rule that a failed pod matches; ("Count", "") without one."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    key = f"{meta.namespace(pod)}/{meta.name(pod)}"
    for number, rule in enumerate(rules):
        if rule.get("onExitCodes"):
            hit = _exit_code(rule["onExitCodes"], pod)
            if hit:
                name, code = hit
                why = f"Container {name} for pod {key} failed with exit code {code}"
                return rule["action"], f"{why} matching {rule['action']} rule at index {number}"
        for wanted in rule.get("onPodConditions") or ():
            condition = meta.condition(pod, wanted["type"])
            if condition and condition["status"] == wanted.get("status", "True"):
                why = f"Pod {key} has condition {wanted['type']}"
                return rule["action"], f"{why} matching {rule['action']} rule at index {number}"
    return "Count", ""


def _exit_code(rule: Object, pod: Object) -> tuple[str, int] | None:
    status = pod.get("status", {})
    for c in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        ended = (c.get("state") or {}).get("terminated")
        if not ended or (rule.get("containerName") and rule["containerName"] != c["name"]):
            continue
        code = ended.get("exitCode", 0)
        if code and (code in rule["values"]) == (rule["operator"] == "In"):
            return c["name"], code
    return None


def enough(job: Object, done: set[int]) -> int | None:
    """The number of the first successPolicy rule that the completed indexes meet; None without one."""
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        chosen = parse(rule["succeededIndexes"]) if rule.get("succeededIndexes") else None
        met = done & chosen if chosen is not None else done
        if len(met) >= (rule.get("succeededCount") or len(chosen or ()) or 1):
            return number
    return None


def backoff(failures: int, last: float, now: float) -> float:
    """Seconds still to wait after so many failures in a row, the last one at `last`."""
    if not failures:
        return 0.0
    return max(0.0, last + min(_FIRST * 2 ** (failures - 1), _LAST) - now)
