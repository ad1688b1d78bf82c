"""GET and LIST through the whole request path."""

from __future__ import annotations

import asyncio
import gzip

import orjson
import pytest

from sampan.client.client import read_body

CMS = "/api/v1/namespaces/d/configmaps"


@pytest.fixture
async def filled(ready):
    api = ready
    for name, labels in (("a", {"app": "x"}), ("b", {"app": "y"}), ("c", {"app": "x"}), ("e", {})):
        await api.ok("POST", CMS, {"metadata": {"name": name, "labels": labels}, "data": {"k": name}})
    return api


def _names(answer):
    return [item["metadata"]["name"] for item in answer["items"]]


async def test_get_answers_the_object_and_404_names_the_resource(filled):
    assert (await filled.ok("GET", f"{CMS}/a"))["data"] == {"k": "a"}
    status, answer = await filled.call("GET", f"{CMS}/zz")
    assert (status, answer["message"]) == (404, 'configmaps "zz" not found')
    assert answer["details"] == {"name": "zz", "kind": "configmaps"}


async def test_what_a_list_holds_is_not_told_its_kind_again(filled):
    for accept in ("application/json", "application/yaml"):
        listed = (await filled.response("GET", CMS, headers={"accept": accept})).body
        assert b"ConfigMapList" in listed and listed.count(b"ConfigMap") == 1
    listed = await filled.ok("GET", CMS)
    assert set(listed["items"][0]) == {"metadata", "data"}
    assert set((await filled.ok("DELETE", CMS))["items"][0]) == {"metadata", "data"}
    partial = {"accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    shown = await filled.ok("GET", "/api/v1/namespaces", headers=partial)
    assert {item["kind"] for item in shown["items"]} == {"PartialObjectMetadata"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["a", "b", "c", "e"]),
        ("labelSelector=app%3Dx", ["a", "c"]),
        ("labelSelector=app!%3Dx", ["b", "e"]),
        ("fieldSelector=metadata.name%3Db", ["b"]),
        ("fieldSelector=metadata.name!%3Db,metadata.namespace%3Dd", ["a", "c", "e"]),
        ("fieldSelector=metadata.namespace%3Delse", []),
        ("labelSelector=app%3Dx&fieldSelector=metadata.name%3Dc", ["c"]),
    ],
)
async def test_selectors_choose_what_is_listed(filled, query, names):
    assert _names(await filled.ok("GET", f"{CMS}?{query}")) == names


async def test_a_kind_says_which_fields_it_can_be_selected_by(filled):
    status, answer = await filled.call("GET", f"{CMS}?fieldSelector=data.k%3Dx")
    assert status == 400
    assert answer["message"] == (
        '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'
    )
    status, answer = await filled.call("GET", "/api/v1/pods?fieldSelector=spec.hostname%3Dx")
    assert answer["message"] == "field label not supported: spec.hostname"


async def test_pages_show_one_picture(filled):
    first = await filled.ok("GET", f"{CMS}?limit=2")
    assert (_names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 2)
    await filled.ok("DELETE", f"{CMS}/c")
    await filled.ok("POST", CMS, {"metadata": {"name": "d"}})
    token = first["metadata"]["continue"]
    second = await filled.ok("GET", f"{CMS}?limit=2&continue={token}")
    assert _names(second) == ["c", "e"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


async def test_pages_under_a_selector_count_what_is_selected(filled):
    first = await filled.ok("GET", f"{CMS}?limit=1&labelSelector=app%3Dx")
    assert _names(first) == ["a"]
    assert "remainingItemCount" not in first["metadata"]
    second = await filled.ok(
        "GET", f"{CMS}?limit=1&labelSelector=app%3Dx&continue={first['metadata']['continue']}"
    )
    assert _names(second) == ["c"]


async def test_the_past_can_be_listed(filled):
    then = (await filled.ok("GET", CMS))["metadata"]["resourceVersion"]
    await filled.ok("DELETE", f"{CMS}/a")
    past = await filled.ok("GET", f"{CMS}?resourceVersion={then}&resourceVersionMatch=Exact")
    assert _names(past) == ["a", "b", "c", "e"]
    assert "a" not in _names(await filled.ok("GET", f"{CMS}?resourceVersion={then}"))


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=abc", 400, 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ("labelSelector=a+in+(x", 400, "unable to parse requirement: found '', expected: ',' or ')'"),
        (
            "fieldSelector=metadata.name",
            400,
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        ("continue=abc", 400, "invalid continue token: continue key is not valid: invalid character 'i'"),
        (
            "resourceVersionMatch=Exact",
            422,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden',
        ),
        ("resourceVersion=999999", 504, "Timeout: Too large resource version: 999999, current: "),
    ],
)
async def test_refused_options(filled, query, status, message):
    code, answer = await filled.call("GET", f"{CMS}?{query}")
    assert code == status
    assert answer["message"].startswith(message)


_NEEDED = "resourceVersionMatch is forbidden unless resourceVersion is provided"
_NOT_ZERO = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
_INITIAL = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
_ALONE = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
_ONLY = 'Unsupported value: "Exact": supported values: "NotOlderThan"'


# API concepts, "Semantics for get and list": how many come and whether there is more, or why it is refused.
@pytest.mark.parametrize(
    ("version", "match", "limit", "expected"),
    [
        ("", "", "", (4, False)),
        ("", "", "2", (2, True)),
        ("", "Exact", "", _NEEDED),
        ("", "NotOlderThan", "2", _NEEDED),
        ("0", "", "", (4, False)),
        ("0", "", "2", (4, False)),  # from the cache, which knows no pages
        ("0", "Exact", "", _NOT_ZERO),
        ("0", "NotOlderThan", "", (4, False)),
        ("0", "NotOlderThan", "2", (2, True)),
        ("NOW", "", "", (4, False)),
        ("NOW", "", "2", (2, True)),
        ("NOW", "Exact", "", (4, False)),
        ("NOW", "Exact", "2", (2, True)),
        ("NOW", "NotOlderThan", "", (4, False)),
        ("NOW", "NotOlderThan", "2", (2, True)),
        ("NOW", "Sometimes", "", 'Unsupported value: "Sometimes": supported values: "Exact", "NotOlderThan"'),
    ],
)
async def test_every_combination_of_version_and_match(filled, version, match, limit, expected):
    now = (await filled.ok("GET", CMS))["metadata"]["resourceVersion"]
    query = (
        f"resourceVersion={now if version == 'NOW' else version}&resourceVersionMatch={match}&limit={limit}"
    )
    status, answer = await filled.call("GET", f"{CMS}?{query}")
    if isinstance(expected, str):
        assert status == 422 and expected in answer["message"]
    else:
        assert (len(answer["items"]), "continue" in answer["metadata"]) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sendInitialEvents=true", _INITIAL),
        ("sendInitialEvents=false&resourceVersion=0", _INITIAL),
        ("resourceVersionMatch=NotOlderThan", _ALONE),
        ("resourceVersionMatch=Exact&resourceVersion=NOW", _ALONE),
        ("resourceVersionMatch=Exact&sendInitialEvents=true", _ONLY),
        ("resourceVersionMatch=NotOlderThan&sendInitialEvents=true", 4),
        ("resourceVersionMatch=NotOlderThan&sendInitialEvents=true&resourceVersion=0", 4),
        ("resourceVersionMatch=NotOlderThan&sendInitialEvents=true&resourceVersion=NOW", 4),
        ("resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=1", 5),
        ("resourceVersionMatch=NotOlderThan&sendInitialEvents=false", 0),
        ("", 4),
        ("resourceVersion=0", 4),
        ("resourceVersion=NOW", 0),
    ],
)
async def test_what_a_watch_begins_with(filled, query, expected):
    now = (await filled.ok("GET", CMS))["metadata"]["resourceVersion"]
    path = f"{CMS}?watch=1&timeoutSeconds=1&{query.replace('NOW', now)}"
    if isinstance(expected, str):
        status, answer = await filled.call("GET", path)
        assert status == 422 and expected in answer["message"]
        return
    response = await filled.response("GET", path)
    reading = asyncio.ensure_future(read_body(response))
    await filled.clock.advance(2)
    assert len((await reading).splitlines()) == expected


async def test_unknown_parameters_are_ignored(filled):
    assert len((await filled.ok("GET", f"{CMS}?shardSelector=x&newIdea=1"))["items"]) == 4


async def test_an_expired_page_is_told_how_to_go_on(make_api):
    api = make_api()
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    for name in "abc":
        await api.ok("POST", CMS, {"metadata": {"name": name}})
    first = (await api.ok("GET", f"{CMS}?limit=1"))["metadata"]
    await api.clock.advance(100)
    for name in "defgh":
        await api.ok("POST", CMS, {"metadata": {"name": name}})
    await api.clock.advance(1000)
    status, refused = await api.call("GET", f"{CMS}?limit=1&continue={first['continue']}")
    assert (status, refused["reason"]) == (410, "Expired")
    assert "continue parameter is too old to display a consistent list result" in refused["message"]
    rest = await api.ok("GET", f"{CMS}?continue={refused['metadata']['continue']}")
    assert _names(rest) == ["b", "c", "d", "e", "f", "g", "h"]
    old = f"{CMS}?resourceVersion={first['resourceVersion']}&resourceVersionMatch=Exact"
    status, refused = await api.call("GET", old)
    assert (status, refused["reason"], "metadata" in refused and refused["metadata"]) == (410, "Expired", {})


async def test_other_forms(filled):
    partial = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    answer = await filled.ok("GET", CMS, headers=partial)
    assert answer["kind"] == "PartialObjectMetadataList"
    assert {"data"} & answer["items"][0].keys() == set()
    table = await filled.ok("GET", CMS, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert [row["cells"][0] for row in table["rows"]] == ["a", "b", "c", "e"]
    yaml = await filled.response("GET", f"{CMS}/a", headers={"accept": "application/yaml"})
    assert b"\ndata:\n  k: a\n" in yaml.body


async def test_large_lists_come_in_chunks_and_squeezed_when_asked(filled):
    for number in range(300):
        await filled.ok("POST", CMS, {"metadata": {"name": f"n{number}"}, "data": {"k": "v" * 2000}})
    response = await filled.response("GET", CMS)
    assert not isinstance(response.body, bytes)
    whole = await read_body(response)
    squeezed = await filled.response("GET", CMS, headers={"accept-encoding": "gzip"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(await read_body(squeezed)) == whole


async def test_events_are_spoken_in_two_versions(filled):
    event = {
        "metadata": {"name": "e", "namespace": "d"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"},
        "reason": "R",
        "message": "m",
        "type": "Normal",
    }
    await filled.ok("POST", "/api/v1/namespaces/d/events", event)
    new = await filled.ok("GET", "/apis/events.k8s.io/v1/namespaces/d/events/e")
    assert (new["apiVersion"], new["note"], new["regarding"]["name"]) == ("events.k8s.io/v1", "m", "p")
    listed = await filled.ok("GET", "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp")
    assert _names(listed) == ["e"]


async def test_people_get_many_lines_and_programs_one(api):
    path = "/api/v1/namespaces/default"
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    curl = {"user-agent": "curl/8.0"}
    for query, headers, many in [
        ("", {}, False),
        ("?pretty=true", {}, True),
        ("", curl, True),
        ("?pretty=false", curl, False),
    ]:
        body = (await api.response("GET", path + query, headers=headers)).body
        assert (body.count(b"\n") > 5) is many and orjson.loads(body)["kind"] == "Namespace"
    refused = await api.response("GET", "/api/v1/namespaces/none", headers=curl)
    assert refused.body.startswith(b'{\n  "')
    assert (await api.response("GET", "/version")).body.startswith(b'{\n  "major"')


async def test_components_are_healthy(api):
    listed = await api.response("GET", "/api/v1/componentstatuses")
    assert listed.headers["warning"] == '299 - "v1 ComponentStatus is deprecated in v1.19+"'
    names = [i["metadata"]["name"] for i in orjson.loads(listed.body)["items"]]
    assert names == ["controller-manager", "etcd-0", "scheduler"]
    one = await api.ok("GET", "/api/v1/componentstatuses/etcd-0")
    assert one["conditions"] == [{"type": "Healthy", "status": "True", "message": "ok"}]
    assert (await api.call("GET", "/api/v1/componentstatuses/x"))[0] == 404


async def test_deprecated_kinds_say_so(api):
    listed = await api.response("GET", "/api/v1/endpoints")
    assert "use discovery.k8s.io/v1 EndpointSlice" in listed.headers["warning"]
    assert "warning" not in (await api.response("GET", "/api/v1/pods")).headers
