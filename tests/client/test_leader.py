"""Of several candidates one leads at any moment, and another takes over when it fails."""

from __future__ import annotations

import asyncio

import pytest

from sampan.api.status import ApiError
from sampan.client.leader import LeaderElector

LEASES = "leases.coordination.k8s.io"


@pytest.fixture
async def candidate(client, clock, ids):
    tasks = []
    leaders = []

    def start(name):
        elector = LeaderElector(client, "mind", name, clock=clock, ids=ids)

        async def lead():
            leaders.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                leaders.remove(name)

        tasks.append(asyncio.ensure_future(elector.run(lead)))
        return tasks[-1]

    start.leaders = leaders
    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_leads_and_renews(candidate, client, clock):
    candidate("a")
    await clock.settle()
    candidate("b")
    for _ in range(30):
        await clock.advance(2)
        assert candidate.leaders == ["a"]
    spec = (await client.get(LEASES, "mind", "kube-system"))["spec"]
    assert spec["holderIdentity"] == "a" and spec["acquireTime"] < spec["renewTime"]


async def test_who_stops_gives_the_lease_back(candidate, client, clock):
    first = candidate("a")
    await clock.settle()
    candidate("b")
    await clock.advance(1)
    first.cancel()
    await clock.advance(5)
    assert candidate.leaders == ["b"]
    assert (await client.get(LEASES, "mind", "kube-system"))["spec"]["leaseTransitions"] == 1


async def test_who_cannot_renew_stops_before_another_leads(candidate, client, clock, server):
    first = candidate("a")
    await clock.settle()

    def refuse(request):
        raise ApiError(503, "ServiceUnavailable", "away")

    server.refuse = refuse
    candidate("b")
    await clock.advance(9)
    assert candidate.leaders == ["a"]
    await clock.advance(3)
    assert candidate.leaders == [] and first.done()
    server.refuse = lambda request: None
    await clock.advance(25)
    assert candidate.leaders == ["b"]
