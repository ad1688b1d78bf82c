"""Our reading and writing of DNS messages against dnspython's."""

from __future__ import annotations

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.node.dns import upstream, wire
from sampan.node.dns.cache import AnswerCache, aged, ttl_offsets
from sampan.node.dns.wire import Malformed


def reply(*answers, authority=(), rcode=0, edns=False):
    query = dns.message.make_query("www.example.com.", "A", use_edns=edns)
    made = dns.message.make_response(query)
    made.set_rcode(rcode)
    made.answer += [dns.rrset.from_text(*a) for a in answers]
    made.authority += [dns.rrset.from_text(*a) for a in authority]
    return made


A_RECORD = ("www.example.com.", 300, "IN", "A", "192.0.2.1", "192.0.2.2")
CNAME_RECORD = ("www.example.com.", 60, "IN", "CNAME", "web.example.com.")
SOA_RECORD = ("example.com.", 900, "IN", "SOA", "ns.example.com. host.example.com. 1 2 3 4 30")

LIFETIMES = [
    (reply(A_RECORD), 300),
    (reply(CNAME_RECORD, ("web.example.com.", 300, "IN", "A", "192.0.2.1")), 60),
    (reply(("www.example.com.", 99999, "IN", "A", "192.0.2.1")), 3600),
    (reply(authority=[SOA_RECORD], rcode=3), 30),
    (reply(authority=[SOA_RECORD]), 30),
    (reply(rcode=3), 5),
    (reply(rcode=2), 0),
    (reply(("www.example.com.", 0, "IN", "A", "192.0.2.1")), 0),
]


@pytest.mark.parametrize("message, seconds", LIFETIMES)
def test_how_long_an_answer_is_kept(message, seconds):
    assert upstream.lifetime(message.to_wire()) == seconds


def test_ttls_count_down():
    data = reply(CNAME_RECORD, ("web.example.com.", 300, "IN", "A", "192.0.2.1"), edns=True).to_wire()[2:]
    later = dns.message.from_wire(b"\0\0" + aged(data, ttl_offsets(data), 70))
    assert [rrset.ttl for rrset in later.answer] == [0, 230]
    assert later.edns == 0


def test_records_stand_alone():
    mail = ("www.example.com.", 60, "IN", "MX", "10 mail.example.com.")
    message = reply(CNAME_RECORD, ("web.example.com.", 300, "IN", "A", "192.0.2.1"), mail)
    code, found = upstream.answer_records(message.to_wire())
    head = dns.message.make_response(dns.message.make_query("x.", "A")).to_wire()
    joined = head[:6] + len(found).to_bytes(2, "big") + head[8:] + b"".join(found)
    assert code == 0 and dns.message.from_wire(joined).answer == message.answer


@given(st.binary(max_size=80))
def test_any_bytes_are_a_question_or_malformed(data):
    for attempt in (lambda: wire.parse(data), lambda: list(wire.records(data))):
        try:
            attempt()
        except Malformed:
            pass
    assert upstream.lifetime(data.ljust(12, b"\0")) >= 0


def test_a_name_that_goes_in_circles_is_malformed():
    with pytest.raises(Malformed):
        wire.read_name(b"\0" * 12 + b"\xc0\x0c", 12)


def test_the_cache_forgets_by_topic_by_time_and_by_size():
    cache = AnswerCache(size=2)
    cache.put(b"a", [b"1"], topic="t", expires=float("inf"), now=0)
    cache.put(b"b", [b"2"], topic="u", expires=5, now=0)
    assert (cache.get(b"a", 1), cache.get(b"b", 4)) == (b"1", b"2")
    cache.invalidate(["t"])
    assert cache.get(b"a", 1) is None and cache.get(b"b", 5) is None and len(cache) == 0
    for key in (b"c", b"d", b"e"):
        cache.put(key, [key], topic="t", expires=float("inf"), now=0)
    assert len(cache) == 2 and cache.get(b"c", 0) is None
