"""Backup and restore through the API of a running cluster."""

from __future__ import annotations

import asyncio

import pytest

from definitions import definition
from sampan.client.client import read_body

BACKUP, RESTORE = "/debug/sampan/backup", "/debug/sampan/restore"
MAPS = "/api/v1/namespaces/d/configmaps"
CRD = definition("widgets", "Widget")
WIDGETS = "/apis/x.io/v1/namespaces/d/widgets"


async def taken(api):
    response = await api.response("GET", BACKUP)
    assert response.status == 200
    return await read_body(response)


async def restore(api, data, part=5000):
    for at in range(0, len(data), part):
        await api.ok("POST", f"{RESTORE}?session=s&offset={at}", data[at : at + part])
    told = await api.ok("POST", f"{RESTORE}?session=s&commit=true", b"")
    await api.clock.settle()
    return told


async def test_a_cluster_is_put_back(full):
    api = full
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    await api.ok(
        "POST", WIDGETS, {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "n": 1}
    )
    kept = await api.ok("POST", MAPS, {"metadata": {"name": "kept"}, "data": {"k": "v"}})
    changed = await api.ok("POST", MAPS, {"metadata": {"name": "changed"}, "data": {"k": "old"}})
    gone = await api.ok("POST", MAPS, {"metadata": {"name": "gone"}})
    await api.clock.settle()
    data = await taken(api)

    await api.merge(f"{MAPS}/changed", {"data": {"k": "new"}})
    await api.ok("DELETE", f"{MAPS}/gone")
    await api.ok("POST", MAPS, {"metadata": {"name": "later"}})
    await api.ok("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.x.io")
    await api.clock.settle()
    assert (await api.call("GET", WIDGETS))[0] == 404
    watch = (
        await api.response("GET", f"{MAPS}?watch=1&resourceVersion={kept['metadata']['resourceVersion']}")
    ).body

    told = await restore(api, data)
    assert told["removed"] >= 1 and told["written"] >= 4 and told["unchanged"] > 50
    now = {m["metadata"]["name"]: m for m in (await api.ok("GET", MAPS))["items"]}
    assert set(now) == {"kept", "changed", "gone", "kube-root-ca.crt"} & set(now) | {
        "kept",
        "changed",
        "gone",
    }
    assert now["changed"]["data"] == {"k": "old"}
    assert now["gone"]["metadata"]["uid"] == gone["metadata"]["uid"]
    assert now["kept"]["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]
    assert int(now["changed"]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    assert (await api.ok("GET", f"{WIDGETS}/w"))["n"] == 1
    seen = b""
    while b'"DELETED"' not in seen or b'"later"' not in seen:
        seen += await asyncio.wait_for(anext(watch), 60)
    await watch.aclose()


async def test_a_backup_fits_another_cluster(full):
    from sampan.testing.cluster import Cluster

    await full.ok("POST", MAPS, {"metadata": {"name": "m"}, "data": {"k": "v"}})
    data = await taken(full)
    async with Cluster(nodes=0, seed=2) as other:
        api = type(full)(other.plane.server, other.clock)
        await restore(api, data)
        assert (await api.ok("GET", f"{MAPS}/m"))["data"] == {"k": "v"}
        assert (await api.ok("GET", "/api/v1/namespaces/default"))["status"]["phase"] == "Active"


async def test_uploads_must_be_whole_and_in_order(full):
    data = await taken(full)
    assert (await full.call("POST", f"{RESTORE}?session=a&offset=5", data[5:]))[0] == 409
    await full.ok("POST", f"{RESTORE}?session=a&offset=0", data[:1000])
    assert (await full.call("POST", f"{RESTORE}?session=a&offset=0", data[:1000]))[0] == 409
    status, answer = await full.call("POST", f"{RESTORE}?session=a&commit=true", b"")
    assert (status, answer["message"]) == (400, "the backup is not complete")
    status, answer = await full.call("POST", f"{RESTORE}?session=b&offset=0", b"nonsense" * 10)
    assert (status, answer["reason"]) == (400, "BadRequest")
    await full.ok("POST", f"{RESTORE}?session=c&offset=0", data[:1000])
    await full.clock.advance(200)
    assert (await full.call("POST", f"{RESTORE}?session=c&offset=1000", data[1000:]))[0] == 409


@pytest.mark.parametrize(("method", "path"), [("GET", BACKUP), ("POST", f"{RESTORE}?session=x&offset=0")])
async def test_only_those_who_may_do_everything_may_do_this(full, method, path):
    from sampan.client.messages import User

    status, answer = await full.call(method, path, b"x", user=User("bob", ("system:authenticated",)))
    assert (status, answer["reason"]) == (403, "Forbidden")
