"""Whom a change of an object does not concern, has nothing to do with it, whatever else there is."""

import pytest

from sampan import controllers
from sampan.api.resources import BUILTIN

RULES = {rule.name: rule for rule in controllers.build(controllers.Config(BUILTIN)) if rule.concerns}
OWNED = {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}]}
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"]}


def pod(meta=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "d", "name": "p", "uid": "1", **(meta or {})},
        "spec": {"tolerations": [], **spec},
        "status": {"phase": "Failed"},
    }


PODS = [pod(meta, **spec) for meta in ({}, OWNED, GOING, OWNED | GOING) for spec in ({}, {"nodeName": "n"})]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("obj", PODS)
def test_nothing_is_done_for_what_does_not_concern(name, obj):
    rule = RULES[name]
    if not rule.concerns(obj):
        plan = rule.reconcile(obj, None, 0.0)  # without a view: there is nothing that it could look at
        assert plan.idle and plan.requeue_after is None and not plan.why


@pytest.mark.parametrize("name", RULES)
def test_nothing_is_left_to_do_for_what_is_gone(name):
    assert RULES[name].removed is None


@pytest.mark.parametrize(
    "name, concerned",
    [
        ("pod-garbage-collector", [pod(nodeName="n"), pod(GOING)]),
        ("taint-eviction-controller", [pod(nodeName="n")]),
        ("generic-garbage-collector", [pod(OWNED), pod(GOING)]),
    ],
)
def test_whom_it_concerns(name, concerned):
    assert all(map(RULES[name].concerns, concerned)) and not RULES[name].concerns(pod())


class Everything:
    """A view in which there is one object of every resource, which selects and is named like any."""

    OBJECT = {
        "metadata": {**GOING, "namespace": "d", "name": "o"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "strategy": {"type": "Recreate"}},
    }

    def get(self, resource, name, namespace=""):
        return self.OBJECT

    def list(self, resource, namespace=None):
        return [self.OBJECT]


ALL = controllers.build(controllers.Config(BUILTIN))
MARKED = [
    (r.name, m) for r in ALL for m in r.watches.values() if getattr(m, "by_metadata", False)
]  # what they look at is compared before they are asked


@pytest.mark.parametrize("name, mapper", MARKED)
@pytest.mark.parametrize("kind", ["ReplicaSet", "Job", "DaemonSet", "Other", None])
def test_who_looks_at_labels_and_owners_alone_sees_nothing_else(name, mapper, kind):
    owner = [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": True}]
    bare = {
        "namespace": "d",
        "name": "p",
        "labels": {"app": "a"},
        **({"ownerReferences": owner} if kind else {}),
    }
    whole = pod({**bare, **GOING, "annotations": {"a": "b"}, "generation": 7}, nodeName="n")
    assert list(mapper({"metadata": bare}, Everything())) == list(mapper(whole, Everything()))
