"""Nodes reach the outside though the host's firewall drops what it forwards; what is not ours to open is named."""

from __future__ import annotations

import asyncio
import socket
import subprocess

import pytest
from looking import look

from sampan.node.network import expressions, fabric, namespace, obstacles, passage, rtnetlink
from sampan.node.network.expressions import ACCEPTED, DROPPED, IPV4
from sampan.node.network.netlink import NETFILTER, NetlinkSocket, attribute_dict, attributes
from sampan.node.network.nftables import BaseChain, Rule
from sampan.node.network.passage import Place, decide, decide_input
from sampan.node.network.passage_keeper import PassageKeeper

ACCEPT, DROP = 1, 0
NFTABLES_EVENTS = 1 << 6
MARK, LINK = "sampan-abcdef", "sampanabcdef"
FORWARD, DOCKER, INPUT = (Place(IPV4, chain) for chain in ("FORWARD", "DOCKER-USER", "INPUT"))


def rule(handle, *body, comment=""):
    return Rule(handle, b"".join(body), b"\0\x05" + comment.encode() + b"\0")


ours = [rule(8, comment=f"{MARK}: from nodes"), rule(9, comment=f"{MARK}: to nodes")]
others = [rule(7, comment="sampan-ffffff: from nodes"), rule(6, comment=f"not {MARK}")]
restored = [Rule(n, f"comment\0{MARK}: {way} nodes\0".encode()) for n, way in ((8, "from"), (9, "to"))]
to_docker = rule(1, expressions.counter(), expressions.then(expressions.jump("DOCKER-USER")))
drop_all = rule(2, expressions.counter(), expressions.then(DROPPED))
reject_all = rule(2, expressions.counter(), expressions.reject_tcp())
drop_some = rule(2, expressions.iifname(0), expressions.compare(0, bytes(16)), expressions.then(DROPPED))
accept_all = rule(2, expressions.then(ACCEPTED))


@pytest.mark.parametrize(
    ("policy", "forward", "docker", "removed", "inserted"),
    [
        (None, [], [], [], []),
        (ACCEPT, [], [], [], []),
        (ACCEPT, [drop_some], [], [], []),
        (ACCEPT, [drop_all, accept_all], [], [], []),
        (ACCEPT, [drop_all], [], [], [FORWARD]),
        (ACCEPT, [reject_all], [], [], [FORWARD]),
        (DROP, [], [], [], [FORWARD]),
        (DROP, others, [], [], [FORWARD]),
        (DROP, [*ours, *others], [], [], []),
        (DROP, restored, [], [], []),
        (DROP, ours[:1], [], [(FORWARD, 8)], [FORWARD]),
        (DROP, [*ours, *ours], [], [(FORWARD, 8), (FORWARD, 9)] * 2, [FORWARD]),
        (DROP, [to_docker], [], [], [DOCKER]),
        (DROP, [to_docker], ours, [], []),
        (DROP, [*ours, to_docker], [], [(FORWARD, 8), (FORWARD, 9)], [DOCKER]),
        # Docker has gone and left its chain, to which nothing leads.
        (DROP, [], ours, [(DOCKER, 8), (DOCKER, 9)], [FORWARD]),
        (ACCEPT, ours, [], [(FORWARD, 8), (FORWARD, 9)], []),
        (None, [], restored, [(DOCKER, 8), (DOCKER, 9)], []),
    ],
)
def test_rules_are_where_they_count_and_only_there(policy, forward, docker, removed, inserted):
    changes = decide(policy, forward, docker, MARK, IPV4)
    assert changes.remove == removed
    assert changes.insert == inserted


@pytest.mark.parametrize(
    ("policy", "rules", "removed", "inserted"),
    [
        (None, [], [], []),
        (ACCEPT, [drop_some], [], []),
        (ACCEPT, [drop_all], [], [INPUT]),
        (DROP, others, [], [INPUT]),
        (DROP, [ours[0], *others], [], []),
        (DROP, [ours[0], ours[0]], [(INPUT, 8), (INPUT, 8)], [INPUT]),
        (ACCEPT, [restored[0]], [(INPUT, 8)], []),
    ],
)
def test_what_comes_in_from_nodes_has_one_rule(policy, rules, removed, inserted):
    changes = decide_input(policy, rules, MARK, IPV4)
    assert changes.remove == removed
    assert changes.insert == inserted


def test_rules_are_in_the_words_of_iptables():
    for encoded, key in zip(passage.rules_for(LINK), (6, 7), strict=True):
        parts = [attribute_dict(part) for _, part in attributes(encoded)]
        assert [part[1] for part in parts] == [b"meta\0", b"cmp\0", b"counter\0", b"immediate\0"]
        assert attribute_dict(parts[0][2])[2] == bytes((0, 0, 0, key))
        assert attribute_dict(attribute_dict(parts[1][2])[3])[1] == LINK.encode() + bytes(4)


@pytest.mark.parametrize(
    ("chain", "link", "command"),
    [
        (BaseChain(1, "firewalld", "filter_FORWARD", DROP), LINK, f"--zone=trusted --add-interface={LINK} "),
        (BaseChain(1, "filter", "forward", DROP), LINK, f'inet filter forward oifname "{LINK}" accept'),
        (BaseChain(10, "mine", "f", DROP), obstacles.ANY, 'insert rule ip6 mine f iifname "sampan*" accept'),
    ],
)
def test_the_remedy_names_chain_and_interface(chain, link, command):
    assert command in obstacles.remedy(chain, link)


@pytest.mark.parametrize(
    ("rules", "opened"),
    [
        (b"", False),
        (b"sampanffffff\0\0\0\0", False),
        (b"x\0sampanabcdef\0\0\0\0", True),
        (b"x\0sampan\0\0", True),
    ],
)
def test_a_chain_that_names_the_interface_counts_as_opened(rules, opened):
    assert obstacles.mentions(rules, LINK) is opened


# With the kernel

DROPPING = "add chain {0} filter FORWARD {{ type filter hook forward priority 0; policy drop; }}"


def nft(netns, *commands):
    subprocess.run(["nsenter", f"--net={netns}", "nft", "; ".join(commands)], check=True)


def closed(netns, *families):
    for family in families:
        nft(netns, f"add table {family} filter", DROPPING.format(family))


def docker(netns):
    nft(netns, "add chain ip filter DOCKER-USER", "add rule ip filter DOCKER-USER counter return")
    nft(netns, "add rule ip filter FORWARD counter jump DOCKER-USER")


def position(netns, chain, family="ip"):
    """The interfaces' directions in our rules, in the order of the chain."""
    lines = look(netns, f"nft list chain {family} filter {chain}").splitlines()
    return [line.split()[0] for line in lines if MARK in line]


@pytest.mark.root
def test_settling_is_repeatable_and_removing_leaves_the_chain_as_it_was(host):
    closed(host, "ip", "ip6")
    docker(host)
    before = look(host, "nft -s list ruleset")
    for _ in range(2):
        passage.settle(LINK, MARK, (4, 6), host)
        assert position(host, "DOCKER-USER") == ["iifname", "oifname"]
        assert position(host, "FORWARD") == []
        assert position(host, "FORWARD", "ip6") == ["iifname", "oifname"]
    passage.settle(LINK, MARK, (4,), host)
    assert position(host, "FORWARD", "ip6") == []
    for _ in range(2):
        passage.remove(MARK, host)
        assert look(host, "nft -s list ruleset") == before


@pytest.mark.root
def test_two_clusters_do_not_take_each_others_rules(host):
    closed(host, "ip")
    passage.settle(LINK, MARK, (4,), host)
    passage.settle("sampanffffff", "sampan-ffffff", (4,), host)
    passage.remove("sampan-ffffff", host)
    assert position(host, "FORWARD") == ["iifname", "oifname"]


@pytest.mark.root
def test_a_host_without_a_firewall_gets_none(host):
    passage.settle(LINK, MARK, (4, 6), host)
    assert look(host, "nft -s list ruleset") == ""


@pytest.mark.root
@pytest.mark.parametrize("with_docker", [False, True])
def test_a_node_reaches_the_outside_through_a_host_that_drops(host, tmp_path, with_docker):
    path, node, outside = (str(tmp_path / name) for name in ("run/fabric", "node", "outside"))
    closed(host, "ip")
    if with_docker:
        docker(host)
    before = look(host, "nft -s list ruleset")
    for netns in (node, outside):
        namespace.create(netns)
    with namespace.opened(outside) as descriptor, rtnetlink.connect(host) as nl:
        nl.run(
            rtnetlink.add_veth("wan", "wan", peer_netns=descriptor, peer_mac="02:00:00:00:00:02", mtu=1500)
        )
    for netns, address in ((host, "192.0.2.1/24"), (outside, "192.0.2.2/24")):
        look(netns, f"ip address add {address} dev wan")
        look(netns, "ip link set wan up")
    look(outside, "ip route add default via 192.0.2.1")
    listener = namespace.run_in(outside, lambda: socket.create_server(("192.0.2.2", 8080)))

    def call(timeout):
        namespace.run_in(node, lambda: socket.create_connection(("192.0.2.2", 8080), timeout).close())

    try:
        fabric.create(path)
        fabric.join_host(path, "a", "10.89.1.1/24", host=host)
        fabric.join(path, node, 1, "10.89.1.2/24", gateways=["10.89.1.1"])
        call(60)
        passage.remove(fabric.host_table("a"), host)
        with pytest.raises(TimeoutError):
            call(0.5)
    finally:
        listener.close()
        fabric.destroy(path, "a", host=host)
        for netns in (node, outside):
            namespace.remove(netns)
    assert look(host, "nft -s list ruleset") == before


@pytest.mark.root
def test_obstacles_are_told_until_they_are_opened(host):
    def found(link=LINK, versions=(4, 6)):
        return namespace.run_in(host, lambda: obstacles.find(link, versions))

    closed(host, "ip", "ip6", "inet")
    nft(
        host,
        "add table ip6 mine",
        "add chain ip6 mine f { type filter hook forward priority 0; policy drop; }",
    )
    assert [obstacle.what for obstacle in found()] == ["inet filter FORWARD", "ip6 mine f"]
    assert [obstacle.what for obstacle in found(versions=(4,))] == ["inet filter FORWARD"]
    for obstacle in found():
        subprocess.run(["nsenter", f"--net={host}", "sh", "-c", obstacle.remedy], check=True)
    assert found() == []
    assert len(found("sampanffffff")) == 2


@pytest.mark.root
def test_rules_that_somebody_flushes_come_back(host):
    closed(host, "ip")

    async def scenario():
        heard = namespace.run_in(host, lambda: NetlinkSocket(NETFILTER, NFTABLES_EVENTS)).socket
        heard.setblocking(False)
        keeper = PassageKeeper(LINK, MARK, (4,), lambda: 0, host)

        async def rules_come():
            while position(host, "FORWARD") != ["iifname", "oifname"]:
                await asyncio.get_running_loop().sock_recv(heard, 1 << 16)

        async with asyncio.timeout(60):
            await keeper.start()
            await rules_come()
            nft(host, "flush chain ip filter FORWARD")
            await rules_come()
            nft(host, "delete table ip filter", "add table ip filter", DROPPING.format("ip"))
            await rules_come()
            await keeper.stop()
        heard.close()

    asyncio.run(scenario())
