"""Whatever users, nodes and crashes do to a whole cluster, in any order: it keeps its promises and comes to rest.

Random lives of a cluster in virtual time. Controllers and scheduler are killed at any point, also between two writes of
one plan. The promises are checked on every single write; what must hold in the end is checked at rest. The same seed
gives the same history, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.api import meta
from sampan.api.status import ApiError
from sampan.testing import Cluster

SURGE, UNAVAILABLE = 2, 1
NODES = ("node-1", "node-2", "node-3")
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": SURGE, "maxUnavailable": UNAVAILABLE}}
STEPS = st.one_of(
    st.tuples(st.just("deployment"), st.integers(0, 5)),
    st.tuples(st.just("image"), st.integers(1, 3)),
    st.tuples(st.just("statefulset"), st.integers(0, 3)),
    st.tuples(st.just("job"), st.integers(1, 4)),
    st.tuples(st.just("remove"), st.integers(0, 8)),
    st.tuples(st.just("delete pod"), st.integers(0, 20)),
    st.tuples(st.just("crash"), st.integers(0, 20)),
    st.tuples(st.just("evict"), st.integers(0, 20)),
    st.tuples(st.just("lose"), st.integers(0, 2)),
    st.tuples(st.just("return"), st.integers(0, 2)),
    st.tuples(st.just("restart"), st.integers(0, 60)),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 5, 45, 400])),
)


def template(app, image=1):
    container = {"name": "c", "image": f"img:{image}"}
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container]}}


def workload(kind, name, **spec):
    body = {"selector": {"matchLabels": {"app": name}}, "template": template(name)} | spec
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


class Life:
    """One cluster and what happens to it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.client = cluster.client
        self.killed = set()  # pods that no controller took away
        self.down = set()

    async def do(self, what, number):
        with suppress(ApiError):  # such as the eviction that a budget does not allow
            await getattr(self, what.replace(" ", "_"))(number)

    async def deployment(self, replicas):
        await self._scale("deployments.apps", workload("Deployment", "web", strategy=ROLLING), replicas)

    async def statefulset(self, replicas):
        await self._scale("statefulsets.apps", workload("StatefulSet", "db", serviceName="db"), replicas)

    async def _scale(self, resource, obj, replicas):
        obj["spec"]["replicas"] = replicas
        try:
            await self.client.create(resource, obj, "default")
        except ApiError:
            change = {"spec": {"replicas": replicas}}
            await self.client.patch(resource, meta.name(obj), change, "default")

    async def image(self, number):
        for resource, name in (("deployments.apps", "web"), ("statefulsets.apps", "db")):
            await self.client.patch(
                resource, name, {"spec": {"template": template(name, number)}}, "default", kind="strategic"
            )

    async def job(self, completions):
        spec = template("job")["spec"] | {"restartPolicy": "Never"}
        notes = {"annotations": {"sampan.dev/simulate": "exit=0 after=7s"}}
        body = {"completions": completions, "parallelism": 2, "template": {"metadata": notes, "spec": spec}}
        await self.client.create(
            "jobs.batch", {"metadata": {"name": f"j{completions}"}, "spec": body}, "default"
        )

    async def remove(self, number):
        which = ("deployments.apps", "web"), ("statefulsets.apps", "db"), ("jobs.batch", "j2")
        how = ("Background", "Foreground", "Orphan")[number % 3]
        await self.client.delete(*which[number // 3], "default", propagation=how)

    async def _pod(self, number):
        found = await self.cluster.list("pods")
        return found[number % len(found)] if found else None

    async def delete_pod(self, number):
        if pod := await self._pod(number):
            self.killed.add(meta.uid(pod))
            await self.client.delete("pods", meta.name(pod), "default")

    async def evict(self, number):
        if pod := await self._pod(number):
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta.name(pod)}}
            await self.client.create("pods", body, "default", name=meta.name(pod), subresource="eviction")
            self.killed.add(meta.uid(pod))

    async def crash(self, number):
        pod = await self._pod(number)
        node = pod and pod["spec"].get("nodeName")
        if node and node not in self.down:
            with suppress(KeyError):
                self.cluster.nodes[node].crash(meta.name(pod))

    async def lose(self, number):
        if len(self.down) < 2 and NODES[number] not in self.down:
            self.down.add(NODES[number])
            await self.cluster.nodes[NODES[number]].power_off()

    async def return_(self, number):
        if NODES[number] in self.down:
            self.down.remove(NODES[number])
            await self.cluster.nodes[NODES[number]].start()

    async def restart(self, turns):
        """The control plane's mind dies after so many turns of the loop, and starts with nothing but the store."""
        for _ in range(turns):
            await asyncio.sleep(0)
        plane = self.cluster.plane
        await plane.scheduler.stop()
        await plane.runner.stop()
        await plane.think()

    async def wait(self, seconds):
        await self.cluster.advance(seconds)


setattr(Life, "return", Life.return_)


async def live(steps):
    """The history of one life, and the pods that somebody else took away."""
    async with Cluster(nodes=len(NODES), seed=3, history=True) as cluster:
        budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        await cluster.client.create(
            "poddisruptionbudgets.policy", {"metadata": {"name": "b"}, "spec": budget}, "default"
        )
        life = Life(cluster)
        for what, number in steps:
            await life.do(what, number)
        for number in range(len(NODES)):
            await life.return_(number)
        await cluster.advance(3600)
        await at_rest(cluster)
        return cluster.writes, life.killed


async def at_rest(cluster):
    """Everything is as wanted, and belongs to somebody who is there."""
    pods = await cluster.list("pods")
    sets = await cluster.list("replicasets")
    owners = sets + await cluster.list("statefulsets") + await cluster.list("jobs")
    there = {meta.uid(o): o for o in owners + await cluster.list("deployments")}
    for obj in pods + sets:
        assert not meta.deleted(obj), f"{meta.name(obj)} is still going"
        ref = meta.owner(obj)
        assert ref is None or ref["uid"] in there, f"{meta.name(obj)} is left of {ref}"
    active = [p for p in pods if p["status"]["phase"] not in ("Succeeded", "Failed")]
    assert all(meta.is_true(p, "Ready") for p in active)
    for owner in owners:
        mine = [p for p in active if any(ref["uid"] == meta.uid(owner) for ref in meta.owners(p))]
        if owner["kind"] == "Job":
            assert not mine and meta.is_true(owner, "Complete"), owner["status"]
            assert owner["status"]["succeeded"] == owner["spec"]["completions"]
        else:
            assert len(mine) == owner["spec"]["replicas"] == owner["status"].get("readyReplicas", 0)
    for deployment in await cluster.list("deployments"):
        status, wanted = deployment["status"], deployment["spec"]["replicas"]
        numbers = ("replicas", "updatedReplicas", "availableReplicas")
        assert [status.get(n, 0) for n in numbers] == [wanted] * 3
        assert meta.is_true(deployment, "Progressing")


class Replay:
    """What was true at every write."""

    def __init__(self, killed):
        self.killed = killed
        self.objects = defaultdict(dict)
        self.bounds = defaultdict(list)  # uid -> (time, specs) it has had
        self.now = 0.0

    def write(self, write):
        old = self.objects[write.resource].get(write.key)
        new = None if write.verb == "delete" else json.loads(write.value)
        if write.resource == "pods":
            if old is None and new:
                self.created(new)
            elif old and new and not meta.deleted(old) and meta.deleted(new):
                self.deleted(old)
        if new is None:
            self.objects[write.resource].pop(write.key, None)
            return
        self.objects[write.resource][write.key] = new
        if write.resource in ("replicasets.apps", "deployments.apps"):
            seen = self.bounds[meta.uid(new)]
            if not seen or seen[-1][1] != new["spec"]["replicas"]:
                seen.append((write.time, new["spec"]["replicas"]))
        if write.resource == "replicasets.apps" and new["spec"]["replicas"] > (old or {}).get("spec", {}).get(
            "replicas", 0
        ):
            self.grown(new, write.time)
        self.now = write.time

    def sizes(self, obj, now):
        """All sizes it has at this instant: a decision of this instant may be about any of them."""
        seen = self.bounds[meta.uid(obj)]
        return [size for at, size in seen if at >= now] + [s for at, s in seen if at < now][-1:]

    def of(self, resource, uid):
        return [o for o in self.objects[resource].values() if (meta.owner(o) or {}).get("uid") == uid]

    def owner(self, obj, resource):
        ref = meta.owner(obj)
        found = ref and self.objects[resource].get(f"default/{ref['name']}")
        return found if found and meta.uid(found) == ref["uid"] else None

    def created(self, pod):
        """Never more pods than a ReplicaSet wants."""
        rs = self.owner(pod, "replicasets.apps")
        if rs:
            active = [p for p in self.of("pods", meta.uid(rs)) if alive(p)]
            assert len(active) + 1 <= max(self.sizes(rs, self.now)), meta.name(pod)

    def grown(self, rs, now):
        """Never more than replicas + maxSurge in all ReplicaSets of a Deployment."""
        deployment = self.owner(rs, "deployments.apps")
        if deployment:
            total = sum(s["spec"]["replicas"] for s in self.of("replicasets.apps", meta.uid(deployment)))
            assert total <= max(self.sizes(deployment, now)) + SURGE, meta.name(rs)

    def deleted(self, pod):
        """Never fewer available than replicas - maxUnavailable by a rollout's doing."""
        rs = self.owner(pod, "replicasets.apps")
        deployment = rs and self.owner(rs, "deployments.apps")
        if not deployment or meta.deleted(deployment) or meta.uid(pod) in self.killed or not available(pod):
            return
        siblings = self.of("replicasets.apps", meta.uid(deployment))
        left = sum(available(p) for s in siblings for p in self.of("pods", meta.uid(s))) - 1
        assert left >= min(self.sizes(deployment, self.now)) - UNAVAILABLE, meta.name(pod)


def alive(pod):
    return not meta.deleted(pod) and pod["status"].get("phase") not in ("Succeeded", "Failed")


def available(pod):
    return alive(pod) and meta.is_true(pod, "Ready")


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_promises_and_rest(steps):
    writes, killed = asyncio.run(live([("deployment", 3), ("wait", 5), *steps]))
    replay = Replay(killed)
    for write in writes:
        replay.write(write)


def test_the_same_life_twice_is_the_same_history():
    life = [
        ("deployment", 4),
        ("statefulset", 2),
        ("restart", 25),
        ("job", 3),
        ("wait", 5),
        ("image", 2),
        ("restart", 40),
        ("lose", 1),
        ("crash", 3),
        ("wait", 400),
        ("return", 1),
        ("remove", 1),
    ]
    (first, _), (second, _) = asyncio.run(live(life)), asyncio.run(live(life))
    assert len(first) > 300
    for one, other in zip(first, second, strict=True):
        assert one == other
