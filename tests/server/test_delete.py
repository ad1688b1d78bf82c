"""DELETE: at once, gracefully, held by finalizers; answers and preconditions."""

from __future__ import annotations

import asyncio

import pytest

from sampan.base.clock import VirtualClock
from sampan.store.durable import DurableStore

CMS = "/api/v1/namespaces/d/configmaps"
PODS = "/api/v1/namespaces/d/pods"


async def _pod(api, node="", **status):
    spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 7}
    await api.ok("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
    if node:
        await api.ok("POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": node}})
    if status:
        await api.merge(f"{PODS}/p/status", {"status": status})


async def test_a_plain_kind_answers_a_status(ready):
    made = await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    answer = await ready.ok("DELETE", f"{CMS}/a")
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await ready.call("DELETE", f"{CMS}/a"))[0] == 404


async def test_a_finalizer_holds_an_object_and_its_name(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a", "finalizers": ["x.io/y"]}})
    held = (await ready.ok("DELETE", f"{CMS}/a"))["metadata"]
    assert (held["deletionTimestamp"], held["deletionGracePeriodSeconds"]) == ("2026-01-01T00:00:00Z", 0)
    assert (await ready.ok("DELETE", f"{CMS}/a"))["metadata"] == held
    status, answer = await ready.call("POST", CMS, {"metadata": {"name": "a"}})
    assert (status, answer["message"]) == (409, 'object is being deleted: configmaps "a" already exists')
    await ready.merge(f"{CMS}/a", {"metadata": {"finalizers": None}})
    assert (await ready.call("GET", f"{CMS}/a"))[0] == 404


@pytest.mark.parametrize(
    ("options", "finalizers"),
    [
        ({"propagationPolicy": "Foreground"}, ["x.io/y", "foregroundDeletion"]),
        ({"propagationPolicy": "Orphan"}, ["x.io/y", "orphan"]),
        ({"orphanDependents": True}, ["x.io/y", "orphan"]),
        ({"propagationPolicy": "Background"}, ["x.io/y"]),
    ],
)
async def test_propagation_adds_finalizers(ready, options, finalizers):
    await ready.ok("POST", CMS, {"metadata": {"name": "a", "finalizers": ["x.io/y"]}})
    assert (await ready.ok("DELETE", f"{CMS}/a", options))["metadata"]["finalizers"] == finalizers


async def test_a_pod_on_a_node_has_its_grace_and_a_second_delete_may_only_shorten_it(ready):
    await _pod(ready, node="n")
    assert (await ready.ok("DELETE", f"{PODS}/p"))["metadata"]["deletionGracePeriodSeconds"] == 7
    longer = await ready.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 60})
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 7
    shorter = await ready.ok("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 2})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 2
    assert shorter["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:02Z"
    await ready.ok("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    assert (await ready.call("GET", f"{PODS}/p"))[0] == 404


@pytest.mark.parametrize(
    ("node", "status"), [("", {}), ("n", {"phase": "Succeeded"}), ("n", {"phase": "Failed"})]
)
async def test_a_pod_that_does_not_run_goes_at_once(ready, node, status):
    await _pod(ready, node, **status)
    gone = await ready.ok("DELETE", f"{PODS}/p")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await ready.call("GET", f"{PODS}/p"))[0] == 404


async def test_a_deletion_that_another_one_completes_has_succeeded(make_api, tmp_path):
    api = make_api(store=DurableStore(tmp_path, VirtualClock(), on_fatal=pytest.fail))
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    await _pod(api, node="n")
    # The second one, as a node would send it, sees the mark of the first one before that is on disk.
    at_once = f"{PODS}/p?gracePeriodSeconds=0"
    user, node = await asyncio.gather(api.call("DELETE", at_once), api.call("DELETE", at_once))
    assert (user[0], node[0]) == (200, 200)
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404
    await api.server.store.close()


async def test_a_deletion_keeps_its_preconditions(ready):
    made = await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    meta = made["metadata"]
    status, answer = await ready.call("DELETE", f"{CMS}/a", {"preconditions": {"uid": "other"}})
    assert (status, answer["details"]) == (409, {"name": "a", "kind": "ConfigMap"})
    status, _ = await ready.call("DELETE", f"{CMS}/a", {"preconditions": {"resourceVersion": "1"}})
    assert status == 409
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    await ready.ok("DELETE", f"{CMS}/a", {"preconditions": right})


async def test_a_collection_answers_what_was_selected(ready):
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        await ready.ok("POST", CMS, {"metadata": {"name": name, "labels": {"app": label}}})
    answer = await ready.ok("DELETE", f"{CMS}?labelSelector=app%3Dx")
    assert [i["metadata"]["name"] for i in answer["items"]] == ["a", "c"]
    left = await ready.ok("GET", CMS)
    assert [i["metadata"]["name"] for i in left["items"]] == ["b"]


async def test_a_namespace_goes_when_it_is_finalized(ready):
    going = await ready.ok("DELETE", "/api/v1/namespaces/d")
    assert going["status"] == {"phase": "Terminating"}
    done = going | {"spec": {"finalizers": []}}
    await ready.ok("PUT", "/api/v1/namespaces/d/finalize", done)
    assert (await ready.call("GET", "/api/v1/namespaces/d"))[0] == 404


async def test_a_dry_run_removes_nothing(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    await ready.ok("DELETE", f"{CMS}/a?dryRun=All")
    assert (await ready.call("GET", f"{CMS}/a"))[0] == 200
