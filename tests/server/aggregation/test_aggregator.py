"""Servers behind APIServices: found, asked, believed only while they answer."""

import orjson
import pytest

from sampan.client.client import read_body
from sampan.client.messages import Request, Response, User
from sampan.testing import Cluster

ADMIN = User("admin", ("system:masters", "system:authenticated"))
PATH = "/apis/wardle.example.com/v1alpha1"
FLUNDERS = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "wardle.example.com/v1alpha1",
    "resources": [
        {
            "name": "flunders",
            "singularName": "flunder",
            "namespaced": True,
            "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list"],
            "shortNames": ["fl"],
        },
        {
            "name": "flunders/status",
            "singularName": "",
            "namespaced": True,
            "kind": "Flunder",
            "verbs": ["get"],
        },
    ],
}
INDEX = {"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": f"/openapi/v3{PATH}?hash=1"}}}


FLUNDER = {"type": "object", "properties": {"metadata": {"$ref": "#/definitions/Meta"}}}
SWAGGER = {
    "swagger": "2.0",
    "paths": {
        f"{PATH}/flunders": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Flunder"}}}}},
        "/apis/other/v1/": {"get": {"responses": {}}},
    },
    "definitions": {"Flunder": FLUNDER, "Meta": {"type": "object"}, "Unused": {"type": "object"}},
}


class Wardle:
    """What an extension server does, without its socket."""

    def __init__(self):
        self.up = True
        self.seen = []
        self.items = {}  # by namespace
        self.stubborn = False

    def kept(self, request):
        namespace = request.path.split("/")[5]
        if request.method == "DELETE" and not self.stubborn:
            name = request.path.split("/")[-1]
            self.items[namespace] = [i for i in self.items[namespace] if i != name]
        items = [{"metadata": {"name": name}} for name in self.items.get(namespace, ())]
        body = {"kind": "FlunderList", "items": items}
        status = 201 if request.method == "POST" else 200
        return Response(status, {"content-type": "application/json"}, orjson.dumps(body))

    async def __call__(self, backend, request):
        self.seen.append((backend, request))
        if not self.up:
            raise ConnectionRefusedError("connection refused")
        answers = {PATH: FLUNDERS, "/openapi/v3": INDEX, f"/openapi/v3{PATH}": {"openapi": "3.0.0"}}
        answers["/openapi/v2"] = SWAGGER
        if request.path.startswith(f"{PATH}/namespaces/"):
            return self.kept(request)
        body = answers.get(request.path, {"kind": "FlunderList", "items": []})
        return Response(
            201 if request.method == "POST" else 200,
            {"content-type": "application/json"},
            orjson.dumps(body),
        )


@pytest.fixture
async def cluster():
    async with Cluster(nodes=0) as cluster:
        cluster.wardle = cluster.plane.server.aggregator.connect = Wardle()
        yield cluster


async def ask(cluster, method, path, *, user=ADMIN, headers=None, body=b"", query=""):
    request = Request(method, path, query, {"accept": "application/json"} | (headers or {}), body, user)
    answer = await cluster.plane.server.handle(request)
    data = await read_body(answer)
    return answer.status, orjson.loads(data) if data[:1] in (b"{", b"[") else data.decode()


async def register(cluster, backing=True, group="wardle.example.com", version="v1alpha1"):
    spec = {
        "group": group,
        "version": version,
        "service": {"namespace": "default", "name": "sample-api", "port": 7443},
        "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 2000,
        "versionPriority": 200,
    }
    metadata = {"name": f"{version}.{group}"}
    await cluster.client.create("apiservices.apiregistration.k8s.io", {"metadata": metadata, "spec": spec})
    if backing:
        await back(cluster)
    await cluster.settle()


async def back(cluster):
    ports = [{"name": "https", "port": 7443, "targetPort": 443}]
    service = {"metadata": {"name": "sample-api"}, "spec": {"ports": ports}}
    await cluster.client.create("services", service, "default")
    piece = {
        "metadata": {"name": "sample-api-1", "labels": {"kubernetes.io/service-name": "sample-api"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": 443}],
    }
    await cluster.client.create("endpointslices.discovery.k8s.io", piece, "default")


async def available(cluster, name="v1alpha1.wardle.example.com"):
    found = await cluster.client.get("apiservices.apiregistration.k8s.io", name)
    [condition] = [c for c in found["status"]["conditions"] if c["type"] == "Available"]
    return condition["status"], condition["reason"], condition["message"]


async def test_requests_are_passed_on_with_the_callers_identity(cluster):
    await register(cluster)
    assert await available(cluster) == ("True", "Passed", "all checks passed")
    jane = User("jane", ("system:masters", "a b"), "u-1", {"example.com/Scopes": ("x", "y")})
    headers = {"authorization": "Bearer secret", "x-remote-user": "root", "x-extra": "kept"}
    status, answer = await ask(
        cluster,
        "POST",
        f"{PATH}/namespaces/default/flunders",
        user=jane,
        headers=headers,
        body=b"{}",
        query="dryRun=All",
    )
    assert status == 201 and answer["kind"] == "FlunderList"
    backend, request = cluster.wardle.seen[-1]
    assert (backend.host, backend.port, backend.name, backend.lax) == (
        "10.0.0.7",
        443,
        "sample-api.default.svc",
        True,
    )
    assert (request.method, request.query, request.body) == ("POST", "dryRun=All", b"{}")
    assert "authorization" not in request.headers and "x-remote-user" not in request.headers
    assert request.headers["x-extra"] == "kept"
    assert list(request.repeated) == [
        ("X-Remote-User", "jane"),
        ("X-Remote-Uid", "u-1"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Group", "a b"),
        ("X-Remote-Extra-example.com%2FScopes", "x"),
        ("X-Remote-Extra-example.com%2FScopes", "y"),
    ]


async def test_who_may_not_is_refused_before_the_other_server_is_asked(cluster):
    await register(cluster)
    asked = len(cluster.wardle.seen)
    nobody = User("nobody", ("system:authenticated",))
    status, answer = await ask(cluster, "GET", f"{PATH}/namespaces/default/flunders", user=nobody)
    assert (
        status == 403
        and 'cannot list resource "flunders" in API group "wardle.example.com"' in answer["message"]
    )
    assert len(cluster.wardle.seen) == asked


async def test_discovery_and_openapi_include_what_the_other_server_has(cluster):
    await register(cluster)
    _, groups = await ask(cluster, "GET", "/apis")
    [group] = [g for g in groups["groups"] if g["name"] == "wardle.example.com"]
    assert group["preferredVersion"] == {"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"}
    assert (await ask(cluster, "GET", "/apis/wardle.example.com"))[1]["kind"] == "APIGroup"
    assert (await ask(cluster, "GET", PATH))[1] == FLUNDERS
    accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    _, everything = await ask(cluster, "GET", "/apis", headers=accept)
    [group] = [g for g in everything["items"] if g["metadata"]["name"] == "wardle.example.com"]
    [version] = group["versions"]
    kind = {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}
    assert (version["version"], version["freshness"]) == ("v1alpha1", "Current")
    assert version["resources"] == [
        {
            "resource": "flunders",
            "responseKind": kind,
            "scope": "Namespaced",
            "singularResource": "flunder",
            "verbs": ["create", "delete", "get", "list"],
            "shortNames": ["fl"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}],
        }
    ]
    _, index = await ask(cluster, "GET", "/openapi/v3")
    assert index["paths"][PATH[1:]] == INDEX["paths"][PATH[1:]] and "api/v1" in index["paths"]
    assert (await ask(cluster, "GET", f"/openapi/v3{PATH}"))[1] == {"openapi": "3.0.0"}


async def test_the_older_document_has_the_paths_of_the_other_server(cluster):
    _, before = await ask(cluster, "GET", "/openapi/v2")
    await register(cluster)
    _, after = await ask(cluster, "GET", "/openapi/v2")
    assert set(after["paths"]) - set(before["paths"]) == {f"{PATH}/flunders"}
    assert set(after["definitions"]) - set(before["definitions"]) == {"Flunder", "Meta"}
    assert after["definitions"]["Flunder"] == FLUNDER
    await cluster.client.delete("apiservices.apiregistration.k8s.io", "v1alpha1.wardle.example.com")
    await cluster.settle()
    assert (await ask(cluster, "GET", "/openapi/v2"))[1] == before


async def condition(cluster, namespace, kind):
    found = await cluster.client.get("namespaces", namespace)
    [one] = [c for c in found["status"]["conditions"] if c["type"] == kind]
    return one["status"], one["message"]


async def test_a_namespace_goes_after_its_objects_at_other_servers(cluster):
    await register(cluster)
    await cluster.client.create("namespaces", {"metadata": {"name": "n"}})
    cluster.wardle.items["n"] = ["a", "b"]
    cluster.wardle.items["default"] = ["c"]
    cluster.wardle.stubborn = True
    await cluster.client.delete("namespaces", "n")
    await cluster.settle()
    remains = ("True", "Some resources are remaining: flunders.wardle.example.com has 2 resource instances")
    assert await condition(cluster, "n", "NamespaceContentRemaining") == remains
    cluster.wardle.stubborn = False
    await cluster.advance(6)
    assert cluster.wardle.items == {"n": [], "default": ["c"]}
    assert (await ask(cluster, "GET", "/api/v1/namespaces/n"))[0] == 404


async def test_a_namespace_stays_while_another_server_cannot_be_asked(cluster):
    await register(cluster, backing=False)
    await cluster.client.create("namespaces", {"metadata": {"name": "n"}})
    await cluster.client.delete("namespaces", "n")
    await cluster.settle()
    status, message = await condition(cluster, "n", "NamespaceDeletionDiscoveryFailure")
    assert status == "True" and message.startswith("Discovery failed for some groups, 1 failing: unable to")
    await back(cluster)
    await cluster.advance(40)
    assert (await ask(cluster, "GET", "/api/v1/namespaces/n"))[0] == 404


async def test_its_condition_says_what_is_missing(cluster):
    await register(cluster, backing=False)
    assert await available(cluster) == (
        "False",
        "ServiceNotFound",
        'service/sample-api in "default" is not present',
    )
    assert await ask(cluster, "GET", PATH) == (503, "service unavailable\n")
    await back(cluster)
    await cluster.settle()
    assert (await available(cluster))[0] == "True"
    cluster.wardle.up = False
    await cluster.advance(31)
    status, reason, message = await available(cluster)
    assert (status, reason) == ("False", "FailedDiscoveryCheck")
    assert message.startswith(f"failing or missing response from https://sample-api.default.svc{PATH}: ")
    accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    _, everything = await ask(cluster, "GET", "/apis", headers=accept)
    [group] = [g for g in everything["items"] if g["metadata"]["name"] == "wardle.example.com"]
    assert group["versions"][0]["freshness"] == "Stale"


async def test_conditions_of_others_are_kept(cluster):
    await register(cluster)
    mine = {"type": "StatusUpdated", "status": "True", "reason": "E2E", "message": "Set from a test"}
    live = await cluster.client.get("apiservices.apiregistration.k8s.io", "v1alpha1.wardle.example.com")
    live["status"]["conditions"].append(mine)
    await cluster.client.update("apiservices.apiregistration.k8s.io", live, "status")
    cluster.wardle.up = False
    await cluster.advance(31)
    live = await cluster.client.get("apiservices.apiregistration.k8s.io", "v1alpha1.wardle.example.com")
    assert mine in live["status"]["conditions"] and (await available(cluster))[0] == "False"


async def test_only_metrics_can_be_taken_over(cluster):
    await cluster.settle()
    await cluster.client.delete("apiservices.apiregistration.k8s.io", "v1.apps")
    await register(cluster, group="apps", version="v1")
    assert (await ask(cluster, "GET", "/apis/apps/v1"))[1]["groupVersion"] == "apps/v1"
    assert (await ask(cluster, "GET", "/apis/metrics.k8s.io/v1beta1"))[0] == 200
    await register(cluster, backing=False, group="metrics.k8s.io", version="v1beta1")
    # Whoever is there now speaks of flunders: it does not count as available.
    assert (await ask(cluster, "GET", "/apis/metrics.k8s.io/v1beta1"))[0] == 503


async def test_every_group_version_has_an_apiservice(cluster):
    await cluster.settle()
    assert await available(cluster, "v1.") == ("True", "Local", "Local APIServices are always available")
    assert await available(cluster, "v1.apps")
    definition = {
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    await cluster.client.create("customresourcedefinitions.apiextensions.k8s.io", definition)
    await cluster.settle()
    made = await cluster.client.get("apiservices.apiregistration.k8s.io", "v1.example.com")
    assert made["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    await cluster.client.delete("customresourcedefinitions.apiextensions.k8s.io", "foos.example.com")
    await cluster.settle()
    assert (await ask(cluster, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com"))[0] == 404


async def test_other_servers_learn_whom_to_believe(cluster):
    found = await cluster.client.get("configmaps", "extension-apiserver-authentication", "kube-system")
    assert found.get("data", {}) == {}  # this cluster has no certificates
    async with Cluster(nodes=0, cluster_ca="CA", front_proxy_ca="FRONT") as other:
        found = await other.client.get("configmaps", "extension-apiserver-authentication", "kube-system")
        assert found["data"] == {
            "client-ca-file": "CA",
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-client-ca-file": "FRONT",
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
