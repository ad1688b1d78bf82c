"""CREATE, UPDATE and PATCH: what is stored, and what is refused how."""

from __future__ import annotations

import asyncio

import pytest

from sampan.base.clock import VirtualClock
from sampan.store.durable import DurableStore

CMS = "/api/v1/namespaces/d/configmaps"
PODS = "/api/v1/namespaces/d/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"
TEMPLATE = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
DEPLOYMENT = {
    "metadata": {"name": "w"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE},
}


def typed(kind: str) -> dict[str, str]:
    return {"content-type": f"application/{kind}"}


async def test_a_create_fills_in_what_the_server_owns(ready):
    sent = {
        "metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"},
        "data": {"k": "v"},
    }
    status, made = await ready.call("POST", CMS, sent)
    meta = made["metadata"]
    assert status == 201
    assert (made["apiVersion"], made["kind"], meta["namespace"]) == ("v1", "ConfigMap", "d")
    assert meta["uid"] not in ("", "mine")
    assert meta["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert meta["managedFields"][0]["manager"] == "test"
    assert await ready.ok("GET", f"{CMS}/a") == made


async def test_a_name_is_generated(ready):
    made = await ready.ok("POST", CMS, {"metadata": {"generateName": "job-"}})
    assert made["metadata"]["name"].startswith("job-")
    assert len(made["metadata"]["name"]) == len("job-") + 5


async def test_a_second_create_is_a_conflict(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    status, answer = await ready.call("POST", CMS, {"metadata": {"name": "a"}})
    assert (status, answer["reason"]) == (409, "AlreadyExists")
    assert answer["message"] == 'configmaps "a" already exists'


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (
            CMS,
            b"{",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind",
        ),
        (
            CMS,
            {"kind": "Secret", "apiVersion": "v1"},
            400,
            'Secret in version "v1" cannot be handled as a ConfigMap',
        ),
        (
            CMS,
            {},
            422,
            'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
        ),
        (
            CMS,
            {"metadata": {"name": "a", "namespace": "e"}},
            400,
            "the namespace of the object (e) does not match",
        ),
        (
            CMS,
            {"metadata": {"name": "a", "resourceVersion": "5"}},
            500,
            "resourceVersion should not be set on",
        ),
        (
            f"{CMS}?dryRun=Some",
            {"metadata": {"name": "a"}},
            422,
            'CreateOptions.meta.k8s.io "" is invalid: dryRun',
        ),
        (
            "/api/v1/configmaps",
            {"metadata": {"name": "a"}},
            405,
            "the server does not allow this method on the",
        ),
        ("/api/v1/namespaces/d/gizmos", {}, 404, "the server could not find the requested resource"),
    ],
)
async def test_refused_creates(ready, path, body, status, message):
    code, answer = await ready.call("POST", path, body)
    assert (code, answer["code"]) == (status, status)
    assert answer["message"].startswith(message)


async def test_a_dry_run_stores_nothing(ready):
    made = await ready.ok("POST", f"{CMS}?dryRun=All", {"metadata": {"name": "a"}})
    assert made["metadata"]["uid"]
    assert (await ready.call("GET", f"{CMS}/a"))[0] == 404


async def test_unknown_fields_are_dropped_warned_of_or_refused(ready):
    body = {"metadata": {"name": "a"}, "odd": 1}
    assert (
        "warning"
        not in (await ready.response("POST", f"{CMS}?fieldValidation=Ignore&dryRun=All", body)).headers
    )
    warned = await ready.response("POST", f"{CMS}?dryRun=All", body)
    assert warned.headers["warning"] == '299 - "unknown field \\"odd\\""'
    status, answer = await ready.call("POST", f"{CMS}?fieldValidation=Strict", body)
    assert status == 400
    assert answer["message"].endswith('strict decoding error: unknown field "odd"')


async def test_pods_of_one_template_are_looked_at_one_by_one(ready):
    """What a spec becomes is remembered; what is wrong with one, and all else of a pod, is said every time."""
    spec = {"containers": [{"name": "c", "image": "i"}]}
    stored = [await ready.ok("POST", PODS, {"metadata": {"name": f"p{n}"}, "spec": spec}) for n in range(3)]
    assert stored[0]["spec"]["restartPolicy"] == "Always"
    assert stored[0]["spec"] == stored[1]["spec"] == stored[2]["spec"]
    for _ in range(2):
        odd = {"metadata": {"name": "odd", "colour": "red"}, "spec": spec}
        status, answer = await ready.call("POST", f"{PODS}?fieldValidation=Strict", odd)
        assert status == 400 and 'unknown field "metadata.colour"' in answer["message"]
        status, answer = await ready.call("POST", PODS, {"metadata": {"labels": {"a": 1}}, "spec": spec})
        assert status == 400
        wrong = {"metadata": {"name": "wrong"}, "spec": {**spec, "colour": "red"}}
        await ready.ok("POST", f"{PODS}?fieldValidation=Ignore&dryRun=All", wrong)
        status, answer = await ready.call("POST", f"{PODS}?fieldValidation=Strict", wrong)
        assert status == 400 and 'unknown field "spec.colour"' in answer["message"]
        status, answer = await ready.call(
            "POST", PODS, {"metadata": {"name": "w"}, "spec": {"containers": []}}
        )
        assert status == 422


@pytest.mark.parametrize("kind", ["merge", "strategic-merge"])
@pytest.mark.parametrize(
    "more", [{}, {"spec": None}, {"spec": {"nodeName": "elsewhere"}}, {"spec": {"containers": None}}]
)
async def test_a_patch_of_a_status_leaves_the_spec(ready, kind, more):
    spec = {"containers": [{"name": "c", "image": "i"}]}
    before = await ready.ok("POST", PODS, {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec})
    patch = {"metadata": {"annotations": {"by": "node"}}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}
    headers = {"content-type": f"application/{kind}-patch+json"}
    after = await ready.ok("PATCH", f"{PODS}/p/status", patch | more, headers=headers)
    assert after == await ready.ok("GET", f"{PODS}/p") and after["spec"] == before["spec"]
    assert after["status"]["phase"] == "Running" and after["status"]["podIPs"] == [{"ip": "10.0.0.1"}]
    assert after["metadata"]["labels"] == {"a": "b"} and after["metadata"]["generation"] == 1
    assert [m.get("subresource", "") for m in after["metadata"]["managedFields"]] == ["", "status"]


async def test_an_update_needs_the_version_it_was_made_from(ready):
    first = await ready.ok("POST", CMS, {"metadata": {"name": "a"}})
    second = await ready.ok("PUT", f"{CMS}/a", first | {"data": {"k": "1"}})
    status, answer = await ready.call("PUT", f"{CMS}/a", first | {"data": {"k": "2"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"].endswith("please apply your changes to the latest version and try again")
    unconditional = {"metadata": {"name": "a"}, "data": {"k": "3"}}
    third = await ready.ok("PUT", f"{CMS}/a", unconditional)
    assert third["metadata"]["uid"] == second["metadata"]["uid"]


async def test_a_write_that_changes_nothing_keeps_the_revision(ready):
    made = await ready.ok("POST", DEPLOYMENTS, DEPLOYMENT)
    await ready.clock.advance(5)
    assert await ready.ok("PUT", f"{DEPLOYMENTS}/w", DEPLOYMENT) == made
    status, patched = await ready.merge(f"{DEPLOYMENTS}/w", {"spec": {"replicas": 1}})
    assert patched == made


async def test_generation_counts_changes_of_spec_and_status_is_apart(ready):
    await ready.ok("POST", DEPLOYMENTS, DEPLOYMENT | {"status": {"replicas": 9}})
    _, now = await ready.merge(
        f"{DEPLOYMENTS}/w", {"metadata": {"labels": {"a": "b"}}, "status": {"replicas": 9}}
    )
    assert (now["metadata"]["generation"], now["status"]) == (1, {})
    _, now = await ready.merge(f"{DEPLOYMENTS}/w", {"spec": {"replicas": 2}})
    assert now["metadata"]["generation"] == 2
    _, now = await ready.merge(
        f"{DEPLOYMENTS}/w/status", {"spec": {"replicas": 7}, "status": {"replicas": 2}}
    )
    assert (now["metadata"]["generation"], now["spec"]["replicas"], now["status"]) == (2, 2, {"replicas": 2})


async def test_kinds_of_patches(ready):
    await ready.ok("POST", DEPLOYMENTS, DEPLOYMENT)
    path = f"{DEPLOYMENTS}/w"
    patch = [{"op": "replace", "path": "/spec/replicas", "value": 3}]
    assert (await ready.ok("PATCH", path, patch, headers=typed("json-patch+json")))["spec"]["replicas"] == 3
    more = {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j"}]}}}}
    now = await ready.ok("PATCH", path, more, headers=typed("strategic-merge-patch+json"))
    assert {c["name"] for c in now["spec"]["template"]["spec"]["containers"]} == {"c", "d"}
    status, answer = await ready.call("PATCH", path, {}, headers=typed("json"))
    assert (status, answer["message"]) == (415, "415: Unsupported Media Type")


async def test_apply_creates_owns_and_conflicts(ready):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    apply = typed("apply-patch+yaml")
    status, _ = await ready.call("PATCH", f"{CMS}/a?fieldManager=one", body, headers=apply)
    assert status == 201
    other = body | {"data": {"k": "2"}}
    status, answer = await ready.call("PATCH", f"{CMS}/a?fieldManager=two", other, headers=apply)
    assert (status, answer["details"]["causes"][0]["field"]) == (409, ".data.k")
    forced = await ready.ok("PATCH", f"{CMS}/a?fieldManager=two&force=true", other, headers=apply)
    assert forced["data"] == {"k": "2"}


async def test_an_object_too_large_for_its_managed_fields_goes_without(ready):
    data = {f"{'x' * 100}{n}": "v" for n in range(8000)}
    made = await ready.ok("POST", CMS, {"metadata": {"name": "a"}, "data": data})
    assert "managedFields" not in made["metadata"]
    await ready.ok("POST", CMS, {"metadata": {"name": "b"}, "data": {"k": "1"}})
    _, now = await ready.merge(f"{CMS}/b", {"data": data})
    assert (len(now["data"]), now["metadata"].get("managedFields")) == (8001, None)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}
    status, _ = await ready.call(
        "PATCH", f"{CMS}/b?fieldManager=one", body, headers=typed("apply-patch+yaml")
    )
    assert status == 413


async def test_managed_fields_are_not_written_through_a_status(ready):
    await ready.ok("POST", DEPLOYMENTS, DEPLOYMENT)
    claimed = [
        {
            "manager": "thief",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
    ]
    patch = {"metadata": {"managedFields": claimed}, "status": {"replicas": 1}}
    _, now = await ready.merge(f"{DEPLOYMENTS}/w/status", patch)
    assert [(e["manager"], e.get("subresource")) for e in now["metadata"]["managedFields"]] == [
        ("test", None),
        ("test", "status"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "owned"),
    [
        (PODS, {"kind": "Pod", "apiVersion": "v1"}, {"f:metadata": {"f:labels": {"f:a": {}}}}),
        (
            DEPLOYMENTS,
            {"kind": "Deployment", "apiVersion": "apps/v1"},
            None,
        ),  # its status leaves labels alone
    ],
)
async def test_an_applied_status_owns_the_metadata_it_changes(ready, path, body, owned):
    spec = TEMPLATE["spec"] if path == PODS else DEPLOYMENT["spec"]
    await ready.ok("POST", path, {"metadata": {"name": "w"}, "spec": spec})
    body = body | {"metadata": {"name": "w", "labels": {"a": "b"}}}
    answer = await ready.ok(
        "PATCH", f"{path}/w/status?fieldManager=one", body, headers=typed("apply-patch+yaml")
    )
    entries = {e["manager"]: e["fieldsV1"] for e in answer["metadata"]["managedFields"]}
    assert entries.get("one") == owned
    assert ("labels" in answer["metadata"]) == (owned is not None)


async def test_what_an_apply_cannot_change_is_no_conflict(ready):
    """Manifests often carry the status their object once had."""
    apply = typed("apply-patch+yaml")
    whole = DEPLOYMENT | {"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 1}}
    status = whole | {"status": {"replicas": 2}, "spec": {"replicas": 7}}
    await ready.ok("PATCH", f"{DEPLOYMENTS}/w?fieldManager=one", whole, headers=apply)
    await ready.ok("PATCH", f"{DEPLOYMENTS}/w/status?fieldManager=two", status, headers=apply)
    now = await ready.ok("PATCH", f"{DEPLOYMENTS}/w?fieldManager=one", whole, headers=apply)
    assert (now["spec"]["replicas"], now["status"]["replicas"]) == (1, 2)
    code, answer = await ready.call("PATCH", f"{DEPLOYMENTS}/w/status?fieldManager=one", whole, headers=apply)
    assert (code, [c["field"] for c in answer["details"]["causes"]]) == (409, [".status.replicas"])


async def test_what_will_surprise_comes_with_a_warning(ready):
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"memory": "128m"}}}]},
    }
    body = {"metadata": {"name": "w"}, "spec": DEPLOYMENT["spec"] | {"template": template}}
    made = await ready.response("POST", DEPLOYMENTS, body)
    assert (made.status, made.headers["warning"]) == (
        201,
        '299 - "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value '
        '\\"128m\\" is invalid, must be an integer"',
    )


async def test_concurrent_patches_all_arrive(ready):
    await ready.ok("POST", CMS, {"metadata": {"name": "a"}, "data": {}})
    await asyncio.gather(*(ready.merge(f"{CMS}/a", {"data": {f"k{n}": "v"}}) for n in range(20)))
    assert len((await ready.ok("GET", f"{CMS}/a"))["data"]) == 20


async def test_a_put_creates_kinds_that_allow_it(ready):
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}}
    path = "/apis/coordination.k8s.io/v1/namespaces/d/leases/l"
    assert (await ready.call("PUT", path, lease))[0] == 201
    assert (await ready.call("PUT", f"{CMS}/nope", {"metadata": {"name": "nope"}}))[0] == 404


async def test_a_job_selects_its_own_pods(ready):
    job = {
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}},
    }
    made = await ready.ok("POST", "/apis/batch/v1/namespaces/d/jobs", job)
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"]["job-name"] == "j"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("PATCH", "", {"data": {"a": "b"}}), ("PATCH", "", {})),
        (("PATCH", "", {"data": {"a": "b"}}), ("PATCH", "?dryRun=All", {"data": {"c": "d"}})),
        (("DELETE", "", None), ("DELETE", "", None)),  # the object stays for its finalizer
    ],
)
async def test_who_changes_nothing_sees_what_was_there(make_api, tmp_path, first, second):
    """An answer without a write of its own may rest on one that is on its way to disk; it does not come before that."""
    store = DurableStore(tmp_path / "s", VirtualClock(), on_fatal=pytest.fail)
    api, merge = make_api(store), {"content-type": "application/merge-patch+json"}
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
    for number in range(20):
        await api.ok("POST", CMS, {"metadata": {"name": f"m{number}", "finalizers": ["x.io/held"]}})
        one, other = (
            api.call(method, f"{CMS}/m{number}{query}", body, headers=merge)
            for method, query, body in (first, second)
        )
        change = asyncio.ensure_future(one)
        await asyncio.sleep(0)
        assert store.pending("configmaps")
        assert (await other)[0] == 200
        assert not store.pending("configmaps")
        assert (await change)[0] == 200
    await store.close()


async def test_who_is_refused_sees_what_was_in_the_way(make_api, tmp_path):
    """A refusal may rest on a write that is on its way to disk; whoever then reads again must find it."""
    store = DurableStore(tmp_path / "s", VirtualClock(), on_fatal=pytest.fail)
    api, path = make_api(store), "/api/v1/namespaces"
    made = await api.ok("POST", path, {"metadata": {"name": "d"}})
    for number in range(20):
        wanted = {**made, "metadata": {**made["metadata"], "labels": {"n": str(number)}}}
        first = asyncio.ensure_future(api.call("PUT", f"{path}/d", wanted))
        await asyncio.sleep(0)
        assert (await api.call("PUT", f"{path}/d", wanted))[0] == 409
        made = await api.ok("GET", f"{path}/d")
        assert made["metadata"]["labels"]["n"] == str(number)
        assert (await first)[0] == 200
    await store.close()
