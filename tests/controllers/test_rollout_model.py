"""Whatever a user, the pods and chance do, a Deployment keeps its promises and comes to rest.

Promises: never more pods than replicas + maxSurge, and never fewer available ones than replicas - maxUnavailable by
the controller's own doing. Random steps, one reconcile at a time, so that a crash between any two is covered too.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from test_deployment import APP, RULES, roll, sizes, world
from world import template

from sampan.api import meta
from sampan.controllers import rolling

_STEPS = st.one_of(
    st.tuples(st.just("image"), st.integers(1, 4)),
    st.tuples(st.just("scale"), st.integers(0, 8)),
    st.tuples(st.just("ready"), st.integers(0, 20)),
    st.tuples(st.just("unready"), st.integers(0, 20)),
    st.tuples(st.just("kill"), st.integers(0, 20)),
    st.tuples(st.just("reconcile"), st.integers(0, 1)),
)


def alive(w):
    return [p for p in w.list("pods") if not meta.deleted(p)]


def available(w):
    return sum(meta.is_true(p, "Ready") for p in alive(w))


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(1, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    steps=st.lists(_STEPS, max_size=40),
)
def test_a_rollout_never_has_more_or_fewer_pods_than_it_may(start, surge, unavailable, steps):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    w = world(start, strategy)
    w.all_ready()
    w.settle()
    ceiling = start + surge
    for what, number in steps:
        pods = alive(w)
        if what == "image":
            w.change("deployments.apps", "d", {"spec": {"template": template(APP, f"img:{number}")}})
        elif what == "scale":
            w.change("deployments.apps", "d", {"spec": {"replicas": number}})
            ceiling = max(ceiling, number + surge)
        elif what in ("ready", "unready") and pods:
            w.ready(pods[number % len(pods)], state=what == "ready")
        elif what == "kill" and pods:
            del w.objects["pods"]["default", meta.name(pods[number % len(pods)])]
        elif what == "reconcile":
            _reconcile_all(w)
        assert len(alive(w)) <= ceiling
    roll(w)
    d = w.get("deployments.apps", "d", "default")
    current = d["spec"]["template"]["spec"]["containers"][0]["image"]
    assert {k: v for k, v in sizes(w).items() if v} == (
        {current: rolling.replicas(d)} if rolling.replicas(d) else {}
    )
    assert meta.condition(d, "Progressing")["reason"] == "NewReplicaSetAvailable"


def _reconcile_all(w):
    """One reconcile of everything; our own doing must not take availability below the minimum.

    ReplicaSets also go first: a Deployment that acts on an old status is wrong about availability, here and in the
    original, until its ReplicaSets have looked.
    """
    for rule in (*RULES[1:], *RULES):
        for obj in w.list(rule.resource):
            d = w.get("deployments.apps", "d", "default")
            minimum = rolling.replicas(d) - rolling.limits(d)[1]
            before = available(w)
            w.act(rule, rule.resource, meta.name(obj))
            scaling = any(
                rolling.desired(s) not in (None, rolling.replicas(d)) for s in w.list("replicasets.apps")
            )
            if not scaling:
                assert available(w) >= min(before, minimum)
