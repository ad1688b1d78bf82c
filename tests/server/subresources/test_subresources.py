"""scale, binding, eviction, logs and the proxied streams."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from sampan.client.messages import Response, User

BOB = User("bob", groups=("system:authenticated",))
PODS = "/api/v1/namespaces/d/pods"
SETS = "/apis/apps/v1/namespaces/d/replicasets"
BUDGETS = "/apis/policy/v1/namespaces/d/poddisruptionbudgets"


async def _pod(api, *containers):
    spec = {"containers": [{"name": c, "image": "i"} for c in containers or ("c",)]}
    return await api.ok("POST", PODS, {"metadata": {"name": "p", "labels": {"app": "x"}}, "spec": spec})


async def _bind(api):
    return await api.call("POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "n"}})


class Nodes:
    """Remembers what was asked of a node."""

    def __init__(self):
        self.asked = []

    async def request(self, node_name, request):
        self.asked.append((node_name, request.method, request.path, parse_qs(request.query)))
        return Response(200, {"content-type": "text/plain"}, b"line\n")

    async def forward(self, scheme, host, port, request):
        self.asked.append((f"{scheme}://{host}:{port}", request.method, request.path, request.query))
        body = b'<a href="/next">n</a><img src=http://10.0.0.9:80/i.png><a href="http://elsewhere/x">o</a><i>/next</i>'
        headers = {"content-type": "text/html; charset=utf-8", "location": "/moved?a=b"}
        return Response(200, headers, body)


async def test_scale_shows_and_sets_replicas(ready):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await ready.ok("POST", SETS, {"metadata": {"name": "r"}, "spec": spec})
    scale = await ready.ok("GET", f"{SETS}/r/scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 0, "selector": "a=b"},
    )
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    shown = await ready.ok("GET", f"{SETS}/r/scale", headers=table)
    assert [c["name"] for c in shown["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert shown["rows"][0]["cells"][:3] == ["r", 2, 0]
    scale["spec"]["replicas"] = 5
    assert (await ready.ok("PUT", f"{SETS}/r/scale", scale))["spec"] == {"replicas": 5}
    assert (await ready.call("PUT", f"{SETS}/r/scale", scale))[0] == 409
    assert (await ready.merge(f"{SETS}/r/scale", {"spec": {"replicas": 0}}))[1]["spec"] == {}
    status, answer = await ready.merge(f"{SETS}/r/scale", {"spec": {"replicas": -1}})
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.replicas")
    assert (await ready.ok("GET", f"{SETS}/r"))["metadata"]["generation"] == 3


async def test_binding_assigns_a_node_once(ready):
    await _pod(ready)
    status, answer = await _bind(ready)
    assert (status, answer["status"]) == (201, "Success")
    pod = await ready.ok("GET", f"{PODS}/p")
    assert pod["spec"]["nodeName"] == "n"
    assert pod["status"]["conditions"][0]["type"] == "PodScheduled"
    status, answer = await _bind(ready)
    assert (status, answer["details"]["kind"]) == (409, "pods/binding")


async def test_a_budget_may_refuse_an_eviction(ready):
    await _pod(ready)
    await _bind(ready)
    await ready.merge(
        f"{PODS}/p/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
    )
    budget = {
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    }
    await ready.ok("POST", BUDGETS, budget)
    counted = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    await ready.merge(f"{BUDGETS}/b/status", {"status": counted})
    status, answer = await ready.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}})
    assert (status, answer["reason"]) == (429, "TooManyRequests")
    assert (
        answer["details"]["causes"][0]["message"]
        == "The disruption budget b needs 1 healthy pods and has 1 currently"
    )
    await ready.merge(f"{BUDGETS}/b/status", {"status": {"disruptionsAllowed": 1}})
    assert (await ready.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}}))[0] == 201
    spent = await ready.ok("GET", f"{BUDGETS}/b")
    assert (spent["status"]["disruptionsAllowed"], list(spent["status"]["disruptedPods"])) == (0, ["p"])
    gone = await ready.ok("GET", f"{PODS}/p")
    assert gone["metadata"]["deletionTimestamp"]
    told = [c for c in gone["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert [(c["status"], c["reason"]) for c in told] == [("True", "EvictionByEvictionAPI")]


@pytest.mark.parametrize("revision, code", [("now", 201), ("1", 409)])
async def test_an_eviction_of_a_certain_revision(ready, revision, code):
    await _pod(ready)
    await _bind(ready)
    current = (await ready.ok("GET", f"{PODS}/p"))["metadata"]["resourceVersion"]
    wanted = {"preconditions": {"resourceVersion": current if revision == "now" else revision}}
    body = {"metadata": {"name": "p"}, "deleteOptions": wanted}
    assert (await ready.call("POST", f"{PODS}/p/eviction", body))[0] == code
    after = (await ready.ok("GET", f"{PODS}/p"))["metadata"]
    assert ("deletionTimestamp" in after) == (code == 201)
    assert (after["resourceVersion"] == current) == (code == 409)


async def test_a_pod_without_a_node_has_an_empty_log_and_no_exec(ready):
    await _pod(ready)
    assert (await ready.response("GET", f"{PODS}/p/log")).status == 204
    status, answer = await ready.call("GET", f"{PODS}/p/exec?command=ls&stdout=1")
    assert (status, answer["message"]) == (400, "pod p does not have a host assigned")


async def test_logs_and_exec_are_asked_of_the_pods_node(ready):
    nodes = ready.server.nodes = Nodes()
    await _pod(ready)
    await _bind(ready)
    assert (await ready.call("GET", f"{PODS}/p/log?tailLines=3&follow=true&timestamps=false")) == (
        200,
        "line\n",
    )
    await ready.response("GET", f"{PODS}/p/exec?command=ls&command=-l&stdout=1&stdin=true&tty=0")
    await ready.response("POST", f"{PODS}/p/portforward?ports=80")
    assert nodes.asked == [
        ("n", "GET", "/containerLogs/d/p/c", {"tailLines": ["3"], "follow": ["true"]}),
        ("n", "GET", "/exec/d/p/c", {"command": ["ls", "-l"], "input": ["1"], "output": ["1"]}),
        ("n", "POST", "/portForward/d/p", {"port": ["80"]}),
    ]


ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/d"


@pytest.mark.parametrize("how", ["exec?command=ls", "attach", "portforward?ports=80"])
async def test_who_may_only_read_opens_no_connection(full, how):
    nodes = await _reachable(full)
    await _bind(full)
    rule = {
        "apiGroups": [""],
        "resources": ["pods/exec", "pods/attach", "pods/portforward"],
        "verbs": ["get"],
    }
    role = await full.ok("POST", f"{ROLES}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    to_bob = {"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "r"}, "roleRef": reference, "subjects": [to_bob]}
    await full.ok("POST", f"{ROLES}/rolebindings", binding)
    status, answer = await full.call("GET", f"{PODS}/p/{how}", user=BOB)
    resource = f"pods/{how.partition('?')[0]}"
    words = f'User "bob" cannot create resource "{resource}" in API group "" in the namespace "d"'
    assert (status, answer["message"]) == (403, f'pods "p" is forbidden: {words}')
    assert nodes.asked == []
    role["rules"][0]["verbs"].append("create")
    await full.ok("PUT", f"{ROLES}/roles/r", role)
    assert (await full.response("GET", f"{PODS}/p/{how}", user=BOB)).status == 200


POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


async def _refused_when(api, resource, operation, expression):
    """A policy whose message is a refusal of what `expression` holds of."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"!({expression})", "message": "not here"}],
    }
    await api.ok("POST", POLICIES, {"metadata": {"name": "p"}, "spec": spec})
    bound = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
    await api.ok("POST", POLICIES.replace("policies", "policybindings"), bound)
    await api.clock.settle()


@pytest.mark.parametrize(
    ("asked", "expression"),
    [
        ("attach?stdin=true&container=c", "object.stdin && object.container == 'c' && !has(object.tty)"),
        ("exec?command=ls&command=-l&stdout=1", "object.command == ['ls', '-l'] && object.stdout"),
        ("portforward?ports=80", "object.ports == [80]"),
        ("proxy/a/b", "object.path == '/a/b'"),
    ],
)
async def test_policies_see_the_options_of_a_connection(full, asked, expression):
    nodes = await _reachable(full)
    await _bind(full)
    subresource = asked.partition("?")[0].partition("/")[0]
    await _refused_when(full, f"pods/{subresource}", "CONNECT", f"oldObject == null && {expression}")
    status, answer = await full.call("POST", f"{PODS}/p/{asked}")
    assert (status, "not here" in answer["message"], nodes.asked) == (422, True, [])


async def test_policies_are_asked_about_an_eviction_not_about_its_deletion(full):
    await _pod(full)
    await _refused_when(full, "pods", "DELETE", "true")
    assert (await full.call("DELETE", f"{PODS}/p"))[0] == 422
    await full.ok("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}})
    await _pod(full)
    await full.ok("DELETE", f"{POLICIES}/p")
    await full.ok("DELETE", POLICIES.replace("policies", "policybindings") + "/b")
    await _refused_when(full, "pods/eviction", "CREATE", "request.kind.kind == 'Eviction'")
    assert (await full.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}}))[0] == 422


async def _reachable(api):
    """A pod with an address, and what asks it."""
    nodes = api.server.nodes = Nodes()
    await _pod(api)
    await api.merge(f"{PODS}/p/status", {"status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}})
    return nodes


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_any_method_is_passed_on_to_a_pod(ready, method):
    nodes = await _reachable(ready)
    assert (await ready.response(method, f"{PODS}/http:p:8080/proxy/a/b/?q=1")).status == 200
    assert nodes.asked == [("http://10.0.0.9:8080", method, "/a/b/", "q=1")]


async def test_a_proxy_without_a_path_sends_readers_to_its_root(ready):
    nodes = await _reachable(ready)
    answer = await ready.response("GET", f"{PODS}/p/proxy?q=1")
    assert (answer.status, answer.headers["location"]) == (301, f"{PODS}/p/proxy/?q=1")
    assert not nodes.asked
    await ready.response("POST", f"{PODS}/p/proxy?q=1")
    assert nodes.asked == [("http://10.0.0.9:80", "POST", "/", "q=1")]


async def test_links_of_a_proxied_page_lead_through_the_proxy(ready):
    await _reachable(ready)
    answer = await ready.response("GET", f"{PODS}/p/proxy/x")
    way = f"{PODS}/p/proxy"
    assert answer.headers["location"] == f"{way}/moved?a=b"
    assert answer.body.decode() == (
        f'<a href="{way}/next">n</a><img src={way}/i.png><a href="http://elsewhere/x">o</a><i>/next</i>'
    )


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "a container name must be specified for pod p, choose one of: [c e]"),
        ("container=z", 400, "container z is not valid for pod p"),
        ("tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        (
            "sinceSeconds=0",
            422,
            'PodLogOptions "p" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0',
        ),
    ],
)
async def test_refused_logs(ready, query, status, message):
    await _pod(ready, "c", "e")
    code, answer = await ready.call("GET", f"{PODS}/p/log?{query}")
    assert (code, answer["message"]) == (status, message)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/namespaces/d/configmaps/a/status", 404),
        ("DELETE", f"{PODS}/p/status", 405),
        ("POST", f"{PODS}/p/status", 405),
        ("GET", "/apis/apps/v1/namespaces/d/daemonsets/a/scale", 404),
    ],
)
async def test_what_a_subresource_is_not(ready, method, path, status):
    assert (await ready.call(method, path))[0] == status
