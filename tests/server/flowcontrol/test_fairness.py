"""Priority levels: seats, queues, borrowing, refusals, headers; and how long a request may take."""

from __future__ import annotations

import asyncio

import pytest

from sampan.api.status import ApiError
from sampan.client.messages import Response, User
from sampan.server import deadline, respond, route
from sampan.server.auth.audit import Audit, Policy
from sampan.server.flowcontrol import width
from sampan.server.flowcontrol.fairness import Fairness

_GROUP = "flowcontrol.apiserver.k8s.io"
BUCKETS = {
    "FlowSchema": f"flowschemas.{_GROUP}",
    "PriorityLevelConfiguration": f"prioritylevelconfigurations.{_GROUP}",
}
BOB, EVE = User("bob", ("users",)), User("eve", ("users",))
GET = route.parse("GET", "/api/v1/namespaces/d/pods/x", "")
ANY = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}


class Levels:
    """A server's fairness, with work that ends when told to."""

    def __init__(self, facts):
        self.facts = facts
        self.width = 1  # of lists
        self.fairness = Fairness(facts.lookup, facts.clock, lambda info, most: min(self.width, most))
        self.running: list[asyncio.Future] = []

    def put(self, kind, name, spec):
        obj = {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.facts.put(obj, BUCKETS[kind])

    def level(self, name, shares, queuing=None, **limited):
        response = {"type": "Queue", "queuing": queuing} if queuing else {"type": "Reject"}
        limited = {
            "nominalConcurrencyShares": shares,
            "limitResponse": response,
            "borrowingLimitPercent": 0,
            **limited,
        }
        return self.put("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})

    def schema(self, name, level, subject, precedence=1000, method="ByUser", **rule):
        kind, _, who = subject.partition(":")
        rules = [{"subjects": [{"kind": kind, kind.lower(): {"name": who}}], "resourceRules": [ANY], **rule}]
        spec = {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": rules,
        }
        return self.put("FlowSchema", name, {**spec, "distinguisherMethod": {"type": method}})

    def ask(self, user=BOB, info=GET):
        async def work():
            done = asyncio.get_running_loop().create_future()
            self.running.append(done)
            return Response(200, respond.JSON_HEADERS, await done)

        return asyncio.ensure_future(self.fairness.around(user, info, work))

    async def settle(self):
        await self.facts.clock.settle()

    async def finish(self, count=1):
        for _ in range(count):
            self.running.pop(0).set_result(b"x")
            await self.settle()


@pytest.fixture
async def levels(facts, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 4)
    return Levels(facts)


async def test_without_schemas_everything_passes(levels):
    asked = [levels.ask() for _ in range(10)]
    await levels.settle()
    await levels.finish(10)
    assert all(a.result().headers is respond.JSON_HEADERS for a in asked)


async def test_seats_are_limited_and_the_rest_is_refused(levels):
    levels.level("low", 1)
    levels.level("other", 1)
    levels.schema("all", "low", "Group:users")
    asked = [levels.ask() for _ in range(3)]
    await levels.settle()
    assert [a.done() for a in asked] == [False, False, True]
    refused = asked[2].result()
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["content-type"] == "text/plain; charset=utf-8"
    assert refused.body == b"Too many requests, please try again later.\n"
    await levels.finish(2)
    assert asked[0].result().headers["x-kubernetes-pf-flowschema-uid"]
    last = levels.ask()
    await levels.settle()
    await levels.finish()
    assert last.result().status == 200


async def test_requests_wait_in_queues_and_are_served_in_turn(levels):
    levels.level("low", 1, {"queues": 8, "handSize": 1, "queueLengthLimit": 2})
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")
    first = levels.ask()
    many = [levels.ask() for _ in range(3)]
    eve = levels.ask(EVE)
    await levels.settle()
    assert len(levels.running) == 1
    assert many[2].result().status == 429  # bob's queue is full, eve's is not
    await levels.finish(2)
    assert first.done() and (many[0].done() or eve.done())
    await levels.finish(2)
    assert all(a.result().status == 200 for a in (first, *many[:2], eve))


async def test_nobody_waits_for_ever(levels):
    levels.level("low", 1, {"queues": 1, "handSize": 1, "queueLengthLimit": 9})
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")
    levels.ask()
    waiting = levels.ask()
    gone = levels.ask()
    await levels.settle()
    gone.cancel()
    await levels.facts.clock.advance(16)
    assert waiting.result().status == 429
    await levels.finish()
    again = levels.ask()
    await levels.settle()
    await levels.finish()
    assert again.result().status == 200


async def test_idle_levels_lend_seats(levels):
    levels.level("low", 1, borrowingLimitPercent=100)
    levels.level("other", 3, lendablePercent=100)
    levels.schema("all", "low", "Group:users")
    asked = [levels.ask() for _ in range(4)]
    await levels.settle()
    assert [a.done() for a in asked] == [False, False, True, True]


async def test_wide_requests_wait_until_all_their_seats_are_free(levels, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 80)
    levels.level("low", 1, {"queues": 1, "handSize": 1, "queueLengthLimit": 9})
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")
    pods = route.parse("GET", "/api/v1/pods", "")
    levels.width = 99  # cut to 3 of 20
    lists = [levels.ask(info=pods) for _ in range(7)]
    await levels.settle()
    assert len(levels.running) == 6 and levels.fairness.levels["low"].taken == 18
    small = levels.ask()
    await levels.settle()
    assert len(levels.running) == 6  # two seats are free, but a list was there before
    await levels.finish()
    assert len(levels.running) == 7 and levels.fairness.levels["low"].taken == 19
    await levels.finish(7)
    assert all(a.result().status == 200 for a in lists)
    assert small.result().status == 200 and levels.fairness.levels["low"].taken == 0


async def test_who_gives_up_makes_way_for_smaller_ones(levels, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 80)
    levels.level("low", 1, {"queues": 1, "handSize": 1, "queueLengthLimit": 9})
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")
    levels.width = 3
    lists = [levels.ask(info=route.parse("GET", "/api/v1/pods", "")) for _ in range(7)]
    await levels.settle()
    levels.ask()
    await levels.settle()
    lists[6].cancel()
    await levels.settle()
    assert len(levels.running) == 7 and levels.fairness.levels["low"].taken == 19


async def test_exempt_levels_have_no_limit_and_come_first(levels):
    levels.put("PriorityLevelConfiguration", "exempt", {"type": "Exempt"})
    levels.level("low", 1)
    levels.schema("vip", "exempt", "User:eve", 1)
    levels.schema("all", "low", "Group:users", 9000)
    asked = [levels.ask(EVE) for _ in range(20)]
    await levels.settle()
    assert len(levels.running) == 20
    await levels.finish(20)
    assert {a.result().status for a in asked} == {200}


async def test_changes_apply_to_those_who_come_later(levels):
    levels.level("low", 1)
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")
    assert levels.fairness.flow(BOB, GET).level.seats == 1
    levels.level("low", 3)
    assert levels.fairness.flow(BOB, GET).level.seats == 2


async def test_long_answers_keep_their_seat(levels):
    levels.level("low", 1)
    levels.level("other", 3)
    levels.schema("all", "low", "Group:users")

    async def chunks():
        yield b"a"
        yield b"b"

    async def work():
        return Response(200, {}, chunks())

    response = await levels.fairness.around(BOB, GET, work)
    assert (await levels.fairness.around(BOB, GET, work)).status == 429
    assert [c async for c in response.body] == [b"a", b"b"]
    watch = route.parse("GET", "/api/v1/pods", "watch=1")
    await levels.fairness.around(BOB, watch, work)
    await levels.fairness.around(BOB, watch, work)


@pytest.mark.parametrize(
    ("subject", "user", "matches"),
    [
        ({"kind": "User", "user": {"name": "bob"}}, BOB, True),
        ({"kind": "User", "user": {"name": "*"}}, EVE, True),
        ({"kind": "Group", "group": {"name": "admins"}}, BOB, False),
        (
            {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}},
            User("system:serviceaccount:kube-system:x"),
            True,
        ),
        (
            {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "y"}},
            User("system:serviceaccount:kube-system:x"),
            False,
        ),
    ],
)
async def test_who_belongs_to_a_schema(levels, subject, user, matches):
    levels.level("low", 1)
    levels.schema("all", "low", "User:nobody", subjects=[subject])
    assert (levels.fairness.flow(user, GET) is not None) is matches


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ({}, "/api/v1/namespaces/d/pods/x/log", True),
        ({"resources": ["pods"]}, "/api/v1/namespaces/d/pods/x/log", False),
        ({"resources": ["pods/log"]}, "/api/v1/namespaces/d/pods/x/log", True),
        ({"namespaces": ["e"]}, "/api/v1/namespaces/d/pods", False),
        ({"clusterScope": False}, "/api/v1/nodes", False),
        ({"verbs": ["list"]}, "/api/v1/pods", True),
        ({"apiGroups": ["apps"]}, "/api/v1/pods", False),
        ({}, "/healthz", False),
    ],
)
async def test_what_belongs_to_a_schema(levels, rule, path, matches):
    levels.level("low", 1)
    levels.schema("all", "low", "Group:users", resourceRules=[{**ANY, **rule}])
    assert (levels.fairness.flow(BOB, route.parse("GET", path, "")) is not None) is matches


@pytest.mark.parametrize(
    ("path", "query", "seats"),
    [
        ("/api/v1/namespaces/d/configmaps", "", 6),  # 12 of 50 KB
        ("/api/v1/configmaps", "", 7),  # and 2 elsewhere
        ("/api/v1/namespaces/none/configmaps", "", 1),
        ("/api/v1/configmaps", "labelSelector=a", 7),
        ("/api/v1/configmaps", "limit=3", 2),
        ("/api/v1/configmaps", "limit=3&resourceVersion=0", 7),
        ("/api/v1/configmaps", "limit=junk", 7),
        ("/api/v1/configmaps", "fieldSelector=metadata.name%3Dx", 1),
        ("/api/v1/configmaps", "watch=1&sendInitialEvents=true", 7),
        ("/api/v1/configmaps", "watch=1", 1),
        ("/api/v1/pods", "", 1),
        ("/api/v1/unknown", "", 1),
    ],
)
async def test_a_list_is_as_wide_as_what_it_sends_is_heavy(api, path, query, seats):
    for name in ("d", "e"):
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for n in range(14):
        data = {"k": "v" * 49_500}
        space = "d" if n < 12 else "e"
        await api.ok(
            "POST", f"/api/v1/namespaces/{space}/configmaps", {"metadata": {"name": f"a{n}"}, "data": data}
        )
    server = api.server
    assert width.seats(server.store, server.registry, route.parse("GET", path, query), 10) == seats
    assert width.seats(server.store, server.registry, route.parse("GET", path, query), 2) == min(2, seats)


async def test_every_answer_says_where_it_belonged(full):
    for path, status in (("/readyz", 200), ("/api/v1/pods", 403)):
        response = await full.response("GET", path, user=None)
        assert response.status == status
        assert response.headers["x-kubernetes-pf-flowschema-uid"]
        assert response.headers["x-kubernetes-pf-prioritylevel-uid"]
    metrics = await full.call("GET", "/metrics")
    assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="global-default"}' in metrics[1]


async def _crowd(api, queuing=None, more=0, **limits):
    """One seat for strangers, and as many lists of theirs that are being read; `more` for seats they borrow."""
    path = f"/apis/{_GROUP}/v1/"
    response = {"type": "Queue", "queuing": queuing} if queuing else {"type": "Reject"}
    limited = {"nominalConcurrencyShares": 1, "limitResponse": response, "borrowingLimitPercent": 0, **limits}
    level = {"metadata": {"name": "strangers"}, "spec": {"type": "Limited", "limited": limited}}
    await api.ok("POST", f"{path}prioritylevelconfigurations", level)
    rules = [{"subjects": [{"kind": "User", "user": {"name": "system:anonymous"}}], "resourceRules": [ANY]}]
    spec = {"priorityLevelConfiguration": {"name": "strangers"}, "matchingPrecedence": 9, "rules": rules}
    await api.ok("POST", f"{path}flowschemas", {"metadata": {"name": "strangers"}, "spec": spec})
    binding = {
        "metadata": {"name": "strangers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:anonymous"}],
    }
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    maps = "/api/v1/namespaces/d/configmaps"
    for n in range(3):
        await api.ok("POST", maps, {"metadata": {"name": f"a{n}"}, "data": {"k": "v" * 200_000}})
    assert (await api.response("GET", f"{maps}/a0", user=None)).status == 200
    seats = api.server.fairness.levels["strangers"].seats
    held = [await api.response("GET", maps, user=None) for _ in range(seats + more)]
    assert held and all(not isinstance(r.body, bytes) for r in held)
    return maps, held


async def test_a_full_level_refuses_and_others_go_on(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    maps, held = await _crowd(full)
    refused = await full.response("GET", maps, user=None)
    assert refused.status == 429 and refused.headers["retry-after"] == "1"
    assert refused.headers["x-kubernetes-pf-flowschema-uid"]
    assert refused.body == b"Too many requests, please try again later.\n"
    assert (await full.response("GET", f"{maps}?watch=1", user=None)).status == 429  # it would list at first
    assert (await full.response("GET", maps)).status == 200
    assert (await full.response("GET", "/readyz", user=None)).status == 200
    _, text = await full.call("GET", "/metrics")
    of = 'flow_schema="strangers",priority_level="strangers"'
    assert f'apiserver_flowcontrol_rejected_requests_total{{{of},reason="concurrency-limit"}} 2' in text
    assert f"apiserver_flowcontrol_current_executing_requests{{{of}}} {len(held)}" in text
    for response in held:
        await response.body.aclose()  # not read at all
    assert (await full.response("GET", f"{maps}/a0", user=None)).status == 200


async def test_seats_of_recorded_requests_are_given_back_by_who_leaves(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    policy, lines = Policy({"rules": [{"level": "Metadata"}]}), []
    full.server.audit = Audit(policy, lines.append, full.clock, full.server.ids)
    maps, held = await _crowd(full)
    await anext(aiter(held[0].body))
    assert (await full.response("GET", maps, user=None)).status == 429
    assert b"authorization.k8s.io/decision" not in lines[-1]
    await held[0].body.aclose()
    assert (await full.response("GET", f"{maps}/a0", user=None)).status == 200


async def test_a_busy_level_borrows_from_idle_ones(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    maps, held = await _crowd(full, more=3, borrowingLimitPercent=300)
    assert (await full.response("GET", maps, user=None)).status == 429
    _, text = await full.call("GET", "/metrics")
    assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="strangers"} 1\n' in text
    assert 'apiserver_flowcontrol_current_limit_seats{priority_level="strangers"} 4\n' in text
    for response in held:
        await response.body.aclose()
    _, text = await full.call("GET", "/metrics")
    assert 'apiserver_flowcontrol_current_limit_seats{priority_level="strangers"} 1\n' in text


async def test_a_watch_keeps_its_seat_until_what_was_there_is_sent(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    maps, held = await _crowd(full)
    await held[0].body.aclose()
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    for ending in ("read", "left"):
        watch = await full.response("GET", f"{maps}?{query}", user=None)
        assert watch.status == 200
        assert (await full.response("GET", maps, user=None)).status == 429
        if ending == "read":
            chunks = aiter(watch.body)
            while b"initial-events-end" not in await anext(chunks):
                pass
            following = asyncio.ensure_future(anext(chunks))
            await full.clock.settle()
            assert (await full.response("GET", f"{maps}/a0", user=None)).status == 200
            following.cancel()
            await asyncio.wait([following])
        await watch.body.aclose()
    assert (await full.response("GET", f"{maps}/a0", user=None)).status == 200
    _, text = await full.call("GET", "/metrics")
    of = 'flow_schema="strangers",priority_level="strangers",type="watch"'
    assert f"apiserver_flowcontrol_request_execution_seconds_count{{{of}}} 2\n" in text


async def test_times_are_told_by_schema(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    maps, held = await _crowd(full, {"queues": 1, "handSize": 1, "queueLengthLimit": 5})
    waiting = [asyncio.ensure_future(full.response("GET", maps, user=None)) for _ in range(2)]
    await full.clock.settle()
    _, text = await full.call("GET", "/metrics")
    assert 'apiserver_current_inqueue_requests{request_kind="readOnly"} 2\n' in text
    assert 'apiserver_current_inflight_requests{request_kind="readOnly"} 1\n' in text
    await full.clock.advance(3)
    await held[0].body.aclose()
    await full.clock.advance(13)
    assert [(await one).status for one in waiting] == [200, 429]
    await waiting[0].result().body.aclose()
    _, text = await full.call("GET", "/metrics")
    of = 'flow_schema="strangers",priority_level="strangers"'
    waits = "apiserver_flowcontrol_request_wait_duration_seconds"
    assert f'{waits}_bucket{{{of},execute="true",le="2"}} 2\n' in text
    assert f'{waits}_count{{{of},execute="true"}} 3\n' in text
    assert f'{waits}_count{{{of},execute="false"}} 1\n' in text
    assert f'apiserver_flowcontrol_request_execution_seconds_count{{{of},type="regular"}} 3\n' in text


async def test_who_waits_is_shown(full, monkeypatch):
    monkeypatch.setattr("sampan.server.flowcontrol.fairness.SEATS", 30)
    maps, held = await _crowd(full, {"queues": 2, "handSize": 1, "queueLengthLimit": 5})
    waiting = asyncio.ensure_future(full.response("GET", f"{maps}/a1", user=None))
    await full.clock.settle()
    dump = "/debug/api_priority_and_fairness/dump_"
    _, levels = await full.call("GET", f"{dump}priority_levels")
    row = next(line for line in levels.splitlines() if line.startswith("strangers"))
    assert row == f"strangers, 1, false, false, 1, {len(held)}, {len(held) + 1}, 0, 0, 0"
    _, queues = await full.call("GET", f"{dump}queues")
    assert sum(int(line.split(", ")[2]) for line in queues.splitlines() if line.startswith("strangers")) == 1
    _, requests = await full.call("GET", f"{dump}requests?includeRequestDetails=1")
    assert requests.splitlines()[1].endswith(f"system:anonymous, get, {maps}/a1, d, a1, v1, configmaps, ")
    async for _ in held[0].body:
        pass
    assert (await waiting).status == 200
    assert (await full.call("GET", f"{dump}else"))[0] == 404


# Deadlines


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/api/v1/pods", "", 60.0),
        ("/api/v1/pods", "timeout=5s", 5.0),
        ("/api/v1/pods", "timeout=1h", 60.0),
        ("/api/v1/pods", "timeout=0s", 60.0),
        ("/api/v1/pods", "watch=1", None),
        ("/api/v1/namespaces/d/pods/x/log", "follow=1", None),
    ],
)
def test_how_long_a_request_may_take(path, query, expected):
    assert deadline.seconds(route.parse("GET", path, query)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", 'time: invalid duration "x"'),
        ("9" * 5000, "time: invalid duration"),
        ("9999999h", "time: invalid duration"),
    ],
)
def test_a_timeout_that_is_none_is_refused(text, why):
    with pytest.raises(ApiError, match=f"invalid timeout specified in the request URL - .*{why}"):
        deadline.seconds(route.parse("GET", "/api/v1/pods", f"timeout={text}"))


async def test_a_request_that_takes_too_long_ends(facts):
    clock = facts.clock

    async def slow():
        await clock.sleep(1)
        await clock.sleep(100)

    waiting = asyncio.ensure_future(deadline.Deadlines(clock).within(5, slow()))
    await clock.advance(6)
    error = waiting.exception()
    assert (error.code, error.reason) == (504, "Timeout")
    assert error.message == "Timeout: request did not complete within the allotted timeout"


async def test_requests_of_the_usual_minute_end_in_the_order_they_came(facts):
    clock, deadlines = facts.clock, deadline.Deadlines(facts.clock)
    ended = []

    async def asks(name: str, seconds: float):
        try:
            return await deadlines.within(deadline.LIMIT, clock.sleep(seconds))
        finally:
            ended.append(name)

    first = asyncio.ensure_future(asks("first", 100))
    await clock.advance(20)
    second, third = asyncio.ensure_future(asks("second", 100)), asyncio.ensure_future(asks("third", 30))
    await clock.advance(39)
    assert ended == ["third"]
    await clock.advance(2)
    assert ended == ["third", "first"]
    await clock.advance(20)
    assert ended == ["third", "first", "second"]
    assert [first.exception().code, second.exception().code, third.result()] == [504, 504, None]


async def test_a_client_that_goes_is_no_timeout(facts):
    waiting = asyncio.ensure_future(deadline.Deadlines(facts.clock).within(60, facts.clock.sleep(100)))
    await facts.clock.settle()
    waiting.cancel()
    await facts.clock.settle()
    assert waiting.cancelled()


async def test_requests_in_time_give_what_they_give(facts):
    clock = facts.clock

    async def quick():
        return 1

    async def waits():
        await clock.sleep(1)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0)
        except TimeoutError:
            return 2

    async def fails():
        await clock.sleep(1)
        raise ValueError("no")

    assert await deadline.Deadlines(clock).within(5, quick()) == 1
    waiting = asyncio.ensure_future(deadline.Deadlines(clock).within(5, waits()))
    await clock.advance(2)
    assert await waiting == 2
    failing = asyncio.ensure_future(deadline.Deadlines(clock).within(5, fails()))
    await clock.advance(2)
    assert str(failing.exception()) == "no"
