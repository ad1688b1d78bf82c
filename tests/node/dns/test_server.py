"""DNS as a client sees it: real questions by dnspython over UDP and TCP, answers by the Kubernetes specification."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys

import dns.asyncquery
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../network"))
from network_objects import endpoint, service, slice_of
from picture import Picture

from sampan.base.clock import RealClock
from sampan.node.dns.server import DnsServer
from sampan.node.dns.upstream import Upstream, machine_resolvers


def host(address: str, name: str) -> dict:
    return endpoint(address) | {"hostname": name}


def picture() -> Picture:
    two_ports = [
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    return Picture(
        service("web", "10.96.1.1", ports=two_ports),
        service("dual", "10.96.1.2", clusterIPs=["10.96.1.2", "fd00:96::2"]),
        service("db", "None", ports=[{"name": "pg", "port": 5432}]),
        slice_of("db", host("10.244.1.2", "db-0"), host("10.244.2.2", "db-1"), port=5432, port_name="pg"),
        service("plain", "None"),
        slice_of("plain", endpoint("10.244.1.9"), endpoint("10.244.1.8", ready=False)),
        service("empty", "None"),
        service("alias", "", type="ExternalName", externalName="web.default.svc.cluster.local"),
        service("out", "", type="ExternalName", externalName="www.example.com"),
        service("loop", "", type="ExternalName", externalName="loop.default.svc.cluster.local"),
    )


class Outside(asyncio.DatagramProtocol):
    """A resolver upstream: every A is 192.0.2.7, except for names it does not know; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport):
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data, peer):
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(str(name))
        response = dns.message.make_response(query)
        if "missing" in str(name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            response.answer.append(dns.rrset.from_text(name, 300, "IN", "A", "192.0.2.7"))
        self.transport.sendto(response.to_wire(), peer)


@contextlib.asynccontextmanager
async def server(view, resolvers=()):
    clock = RealClock()
    for attempts_left in reversed(range(5)):
        made = DnsServer(view, clock, ["127.0.0.1"], Upstream(resolvers, clock), port=0)
        try:
            await made.start()
            break
        except OSError:  # somebody has a connection from the port that was free for UDP
            if not attempts_left:
                raise
    try:
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def outside():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Outside, local_addr=("127.0.0.1", 0))
    try:
        yield protocol
    finally:
        transport.close()


async def ask(made, name, kind="A", *, tcp=False, edns=True):
    query = dns.message.make_query(name, kind, use_edns=edns)
    asking = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await asking(query, "127.0.0.1", 3, made.ports[0])


def texts(response):
    return sorted(f"{dns.rdatatype.to_text(r.rdtype)} {d}" for r in response.answer for d in r)


C = "cluster.local."
ANSWERS = [
    ("web.default.svc." + C, "A", ["A 10.96.1.1"]),
    ("WEB.default.svc." + C, "A", ["A 10.96.1.1"]),
    ("web.default.svc." + C, "AAAA", []),
    ("dual.default.svc." + C, "AAAA", ["AAAA fd00:96::2"]),
    ("_http._tcp.web.default.svc." + C, "SRV", ["SRV 0 100 80 web.default.svc.cluster.local."]),
    ("_dns._udp.web.default.svc." + C, "SRV", ["SRV 0 100 53 web.default.svc.cluster.local."]),
    ("_dns._tcp.web.default.svc." + C, "SRV", "NXDOMAIN"),
    ("db.default.svc." + C, "A", ["A 10.244.1.2", "A 10.244.2.2"]),
    ("db-1.db.default.svc." + C, "A", ["A 10.244.2.2"]),
    ("db-2.db.default.svc." + C, "A", "NXDOMAIN"),
    (
        "_pg._tcp.db.default.svc." + C,
        "SRV",
        [f"SRV 0 50 5432 db-{i}.db.default.svc.cluster.local." for i in (0, 1)],
    ),
    ("plain.default.svc." + C, "A", ["A 10.244.1.9"]),
    ("10-244-1-9.plain.default.svc." + C, "A", ["A 10.244.1.9"]),
    ("empty.default.svc." + C, "A", "NXDOMAIN"),
    ("alias.default.svc." + C, "A", ["A 10.96.1.1", "CNAME web.default.svc.cluster.local."]),
    ("alias.default.svc." + C, "CNAME", ["CNAME web.default.svc.cluster.local."]),
    ("loop.default.svc." + C, "A", "SERVFAIL"),
    ("1-2-3-4.default.pod." + C, "A", ["A 1.2.3.4"]),
    ("1-2-3-4.nowhere.pod." + C, "A", "NXDOMAIN"),
    ("nosuch.default.svc." + C, "A", "NXDOMAIN"),
    ("web.nowhere.svc." + C, "A", "NXDOMAIN"),
    ("x.web.default.svc." + C, "A", "NXDOMAIN"),
    ("default.svc." + C, "A", []),
    ("svc." + C, "A", []),
    (C, "A", []),
    (C, "SOA", ["SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"]),
    (C, "NS", ["NS ns.dns.cluster.local."]),
    ("ns.dns." + C, "A", ["A 127.0.0.1"]),
    ("ns.dns." + C, "AAAA", []),
    ("dns." + C, "A", []),
    ("dns-version." + C, "TXT", ['TXT "1.1.0"']),
    ("1.1.96.10.in-addr.arpa.", "PTR", ["PTR web.default.svc.cluster.local."]),
    ("2.1.244.10.in-addr.arpa.", "PTR", ["PTR db-0.db.default.svc.cluster.local."]),
    ("9.9.244.10.in-addr.arpa.", "PTR", "NXDOMAIN"),
]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_names_of_the_cluster(tcp):
    async with server(picture()) as made:
        for name, kind, expected in ANSWERS:
            response = await ask(made, name, kind, tcp=tcp)
            if isinstance(expected, str):
                assert dns.rcode.to_text(response.rcode()) == expected, name
            else:
                assert response.rcode() == 0 and texts(response) == sorted(expected), name
                assert response.flags & dns.flags.AA
            if not response.answer and response.rcode() in (0, 3):
                (soa,) = response.authority
                assert soa.rdtype == dns.rdatatype.SOA, name
                assert soa.name.to_text() == ("in-addr.arpa." if name.endswith("arpa.") else C), name


async def test_answers_follow_changes_at_once():
    view = picture()
    async with server(view) as made:
        assert (await ask(made, "new.default.svc." + C)).rcode() == dns.rcode.NXDOMAIN
        view.put(service("new", "10.96.5.5"))
        assert texts(await ask(made, "new.default.svc." + C)) == ["A 10.96.5.5"]
        assert texts(await ask(made, "5.5.96.10.in-addr.arpa.", "PTR")) == [
            "PTR new.default.svc.cluster.local."
        ]
        view.put(slice_of("db", host("10.244.7.7", "db-0"), port=5432, port_name="pg"))
        assert texts(await ask(made, "db.default.svc." + C)) == ["A 10.244.7.7"]
        view.delete(service("new", "10.96.5.5"))
        assert (await ask(made, "new.default.svc." + C)).rcode() == dns.rcode.NXDOMAIN
        assert (await ask(made, "5.5.96.10.in-addr.arpa.", "PTR")).rcode() == dns.rcode.NXDOMAIN


async def test_addresses_of_a_headless_service_take_turns():
    async with server(picture()) as made:
        first = {str((await ask(made, "db.default.svc." + C)).answer[0][0]) for _ in range(4)}
        assert first == {"10.244.1.2", "10.244.2.2"}


async def test_a_large_answer_is_truncated_and_comes_whole_by_tcp():
    view = picture()
    view.put(slice_of("db", *[host(f"10.244.3.{i}", f"db-{i}") for i in range(100)]))
    async with server(view) as made:
        small = await ask(made, "db.default.svc." + C, edns=False)
        assert small.flags & dns.flags.TC and len(small.to_wire()) <= 512
        assert len(small.answer[0]) == 29  # for those who cannot ask by TCP
        whole = await ask(made, "db.default.svc." + C, tcp=True)
        assert len(whole.answer[0]) == 100


async def test_other_names_are_asked_upstream_and_kept():
    async with outside() as resolver, server(picture(), [("127.0.0.1", resolver.port)]) as made:
        for _ in range(3):
            assert texts(await ask(made, "www.example.com.")) == ["A 192.0.2.7"]
            assert (await ask(made, "missing.example.com.")).rcode() == dns.rcode.NXDOMAIN
        assert sorted(resolver.asked) == ["missing.example.com.", "www.example.com."]
        chain = await ask(made, "out.default.svc." + C)
        assert texts(chain) == ["A 192.0.2.7", "CNAME www.example.com."]


async def test_without_a_resolver_outside_names_fail_at_once():
    async with server(picture()) as made:
        assert (await ask(made, "www.example.com.")).rcode() == dns.rcode.SERVFAIL
        assert texts(await ask(made, "out.default.svc." + C)) == ["CNAME www.example.com."]


async def test_nonsense_is_ignored():
    async with server(picture()) as made:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", made.ports[0])
        )
        for nonsense in (b"", b"x", b"\xff" * 40, struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3fabc"):
            transport.sendto(nonsense)
        assert texts(await ask(made, "web.default.svc." + C)) == ["A 10.96.1.1"]
        transport.close()


def test_resolvers_of_the_machine(tmp_path):
    plain, stub, real = (tmp_path / name for name in ("plain", "stub", "real"))
    plain.write_text("search x\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 198.51.100.1\n")
    assert machine_resolvers(str(plain), str(real)) == ["192.0.2.1", "192.0.2.2"]
    assert machine_resolvers(str(stub), str(real)) == ["198.51.100.1"]
    assert machine_resolvers(str(tmp_path / "none"), str(real)) == []


async def test_stub_domains_and_other_resolvers():
    """`configure` sends domains elsewhere at once, and takes them back."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_datagram_endpoint(Outside, local_addr=("127.0.0.1", 0)) for _ in range(2)]
    (_, stub), (_, machine) = opened
    clock = RealClock()
    server = DnsServer(
        picture(), clock, ["127.0.0.1"], Upstream([("127.0.0.1", machine.port)], clock), port=0
    )
    await server.start()

    async def look_up(name: str) -> None:
        await dns.asyncquery.udp(
            dns.message.make_query(name, "A"), "127.0.0.1", port=server.ports[0], timeout=5
        )

    await look_up("www.acme.example")
    assert (len(stub.asked), len(machine.asked)) == (0, 1)
    server.configure({"acme.example": [("127.0.0.1", stub.port)]})
    await look_up("www.acme.example")
    await look_up("www.other.example")
    assert (len(stub.asked), len(machine.asked)) == (1, 2)
    server.configure({}, [("127.0.0.1", stub.port)])
    await look_up("www.acme.example")
    assert (len(stub.asked), len(machine.asked)) == (2, 2)
    server.configure({})
    await look_up("www.acme.example")
    assert (len(stub.asked), len(machine.asked)) == (2, 3)
    await server.stop()
    for transport, _ in opened:
        transport.close()
