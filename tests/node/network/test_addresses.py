"""Pod addresses: none twice, none lost, whatever is restarted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.node.network import namespace, rtnetlink
from sampan.node.network.ipam import AddressPool, PoolExhausted
from sampan.node.network.pod import PodNetwork, veth_name
from sampan.node.runtime import SandboxConfig


def sandbox(name, ip=""):
    return SandboxConfig(name, f"uid-{name}", name, "default", 0, name, ip=ip)


def test_an_address_is_not_given_again_soon():
    pool = AddressPool("10.0.0.0/29")
    first = [pool.take() for _ in range(3)]
    pool.release(first[0])
    assert pool.take() not in first
    assert [pool.take(), pool.take()] == ["10.0.0.5", "10.0.0.6"]
    assert pool.take() == first[0]
    with pytest.raises(PoolExhausted, match="10.0.0.0/29"):
        pool.take()


@given(st.lists(st.one_of(st.none(), st.integers(0, 20))))
def test_no_address_is_given_twice(steps):
    """None takes an address, a number gives one back."""
    pool, held = AddressPool("10.0.0.0/28"), []
    for step in steps:
        if step is None:
            try:
                address = pool.take()
            except PoolExhausted:
                assert len(held) == 14
                continue
            assert address not in held
            held.append(address)
        elif held:
            pool.release(held.pop(step % len(held)))
    assert len(pool) == len(held)


@pytest.mark.root
async def test_addresses_survive_a_restart_of_the_agent(machine):
    first = await machine.pod("a", 0)
    second = await machine.pod("b", 0)
    restarted = PodNetwork(["10.244.0.0/24"], netns=machine.node(0))
    assert await restarted.adopt(machine.pods["a"], sandbox("a", first)) == first
    assert restarted.addresses("a") == machine.networks[0].addresses("a")
    namespace.create(f"{machine.directory}/pod-c")
    machine.pods["c"] = f"{machine.directory}/pod-c"
    third = await restarted.attach(machine.pods["c"], sandbox("c"))
    assert third not in (first, second)
    assert await restarted.attach(machine.pods["a"], sandbox("a")) == first


@pytest.mark.root
async def test_detach_leaves_nothing_and_may_be_repeated(machine):
    await machine.pod("a", 0)
    network = machine.networks[0]
    for _ in range(2):
        await network.detach(sandbox("a"))
    with rtnetlink.connect(machine.node(0)) as nl:
        assert rtnetlink.link_named(nl, veth_name("a")) is None
        assert not [
            r for r in rtnetlink.routes(nl, protocol=rtnetlink.PROTOCOL) if r.destination.endswith("/32")
        ]
    assert network.addresses("a") == ()


@pytest.mark.root
async def test_ipv6_between_pods(machine):
    await machine.pod("a", 0)
    await machine.pod("b", 0)
    address = machine.networks[0].addresses("b")[1]
    machine.serve("b", 8080, host="::")
    assert machine.ask("a", address, 8080) == f"b {machine.networks[0].addresses('a')[1]}"


@pytest.mark.root
async def test_a_namespace_that_is_not_there_is_an_error_and_gives_the_address_back(machine):
    network = machine.networks[0]
    with pytest.raises(OSError):
        await network.attach(f"{machine.directory}/nowhere", sandbox("x"))
    assert network.addresses("x") == ()
