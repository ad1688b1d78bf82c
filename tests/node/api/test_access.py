"""Who may ask a node: certificates and tokens, judged by the API server as kubelet has it judged."""

from __future__ import annotations

import pytest

from sampan.client.messages import Request
from sampan.node.api.access import wanted
from sampan.testing import Cluster

MONITORING = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: metrics}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metrics}
rules:
- {apiGroups: [""], resources: [nodes/metrics, nodes/pods], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics}
subjects: [{kind: ServiceAccount, name: metrics, namespace: default}]
"""


@pytest.fixture
async def cluster():
    async with Cluster() as cluster:
        yield cluster


async def ask(cluster, path, method="GET", **who):
    token, peer = who.get("token"), who.get("peer")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = Request(method, path, "", headers, b"")
    request.peer = peer
    answer = await cluster.nodes["node-1"].api.answer(request)
    return answer.status, answer.body.decode()


async def token_of(cluster, account):
    made = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}}
    answer = await cluster.client.create(
        "serviceaccounts", made, "default", name=account, subresource="token"
    )
    return answer["status"]["token"]


@pytest.mark.parametrize(
    "method, path, verb, subresources",
    [
        ("GET", "/stats/summary", "get", ["stats"]),
        ("GET", "/metrics/resource", "get", ["metrics"]),
        ("GET", "/logs/", "get", ["log"]),
        ("GET", "/pods", "get", ["pods", "proxy"]),
        ("GET", "/runningpods/", "get", ["pods", "proxy"]),
        ("GET", "/healthz/ping", "get", ["healthz", "proxy"]),
        ("GET", "/configz", "get", ["configz", "proxy"]),
        ("GET", "/containerLogs/a/b/c", "get", ["proxy"]),
        ("POST", "/exec/a/b/c", "create", ["proxy"]),
        ("GET", "/metricsx", "get", ["proxy"]),
    ],
)
def test_what_a_request_needs(method, path, verb, subresources):
    assert wanted(method, path) == (verb, subresources)


async def test_a_token_with_rights_reads_what_they_name_and_nothing_else(cluster):
    await cluster.apply(*MONITORING.split("---"))
    token = await token_of(cluster, "metrics")
    assert (await ask(cluster, "/metrics/resource", token=token))[0] == 200
    assert (await ask(cluster, "/pods", token=token))[0] == 200
    assert await ask(cluster, "/stats/summary", token=token) == (
        403,
        "Forbidden (user=system:serviceaccount:default:metrics, verb=get, resource=nodes, subresource(s)=[stats])\n",
    )
    assert (await ask(cluster, "/exec/default/p/c", "POST", token=token))[0] == 403


async def test_who_shows_nothing_good_is_unauthorized(cluster):
    assert await ask(cluster, "/pods") == (401, "Unauthorized")
    assert await ask(cluster, "/healthz", token="made-up") == (401, "Unauthorized")


async def test_a_certificate_is_a_user_with_his_groups(cluster):
    jane = {"cn": "jane", "o": ["dev"]}
    status, body = await ask(cluster, "/configz", peer=jane)
    assert (status, body) == (
        403,
        "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[configz proxy])\n",
    )
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "dev"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:kubelet-api-admin",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}],
    }
    await cluster.apply(binding)
    assert (await ask(cluster, "/configz", peer=jane))[0] == 403, "a refusal is kept for half a minute"
    await cluster.advance(31)
    assert (await ask(cluster, "/configz", peer=jane))[0] == 200


async def test_answers_are_kept(cluster):
    await cluster.apply(*MONITORING.split("---"))
    token = await token_of(cluster, "metrics")
    assert (await ask(cluster, "/metrics", token=token))[0] == 200
    await cluster.client.delete("serviceaccounts", "metrics", "default")
    assert (await ask(cluster, "/metrics", token=token))[0] == 200
    await cluster.advance(121)
    assert (await ask(cluster, "/metrics", token=token))[0] == 401
