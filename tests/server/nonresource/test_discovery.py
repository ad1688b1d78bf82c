"""What clients are told of the server."""

from __future__ import annotations

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


async def test_the_old_documents(api):
    assert (await api.ok("GET", "/api"))["versions"] == ["v1"]
    groups = {g["name"]: g for g in (await api.ok("GET", "/apis"))["groups"]}
    assert groups["autoscaling"]["preferredVersion"]["version"] == "v2"
    pods = next(r for r in (await api.ok("GET", "/api/v1"))["resources"] if r["name"] == "pods")
    assert (pods["shortNames"], pods["namespaced"], pods["kind"]) == (["po"], True, "Pod")
    assert (await api.ok("GET", "/version"))["minor"] == "37"
    assert (await api.call("GET", "/api/v9"))[0] == 404
    assert (await api.call("POST", "/apis/apps/v1", {}))[0] == 405


async def test_everything_at_once(api):
    response = await api.response("GET", "/apis", headers={"accept": AGGREGATED})
    assert response.headers["content-type"].startswith("application/json;g=apidiscovery.k8s.io;v=v2")
    again = await api.response(
        "GET", "/apis", headers={"accept": AGGREGATED, "if-none-match": response.headers["etag"]}
    )
    assert again.status == 304
    body = await api.ok("GET", "/apis", headers={"accept": AGGREGATED})
    apps = next(i for i in body["items"] if i["metadata"]["name"] == "apps")
    deployments = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
    assert [s["subresource"] for s in deployments["subresources"]] == ["scale", "status"]


async def test_health_is_told_check_by_check(api):
    assert await api.call("GET", "/healthz") == (200, "ok")
    assert await api.call("GET", "/livez/poststarthook/rbac/bootstrap-roles") == (200, "ok")
    assert (await api.call("GET", "/healthz/nothing"))[0] == 404
    _, ready = await api.call("GET", "/readyz?verbose&exclude=etcd&exclude=nothing")
    lines = ready.splitlines()
    assert lines[:4] == ["[+]ping ok", "[+]log ok", "[+]etcd excluded: ok", "[+]etcd-readiness ok"]
    assert lines[-3:] == [
        "[+]shutdown ok",
        'warn: some health checks cannot be excluded: no matches for "nothing"',
        "readyz check passed",
    ]
    api.server.troubles = lambda: "the disk is nearly full"
    assert "warn: the disk is nearly full\n" in (await api.call("GET", "/readyz?verbose"))[1]
    _, live = await api.call("GET", "/livez?verbose")
    assert "[+]poststarthook/crd-informer-synced ok\n" in live and "shutdown" not in live


async def test_anonymous_callers_are_refused_by_path_or_resource(api):
    status, answer = await api.call("GET", "/metrics", user=None)
    assert (status, answer["message"]) == (
        403,
        'forbidden: User "system:anonymous" cannot get path "/metrics"',
    )
    status, answer = await api.call("GET", "/api/v1/namespaces/d/pods/p/log", user=None)
    assert answer["message"] == (
        'pods "p" is forbidden: User "system:anonymous" cannot get resource "pods/log" in API group "" '
        'in the namespace "d"'
    )
