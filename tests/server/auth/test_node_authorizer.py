import pytest

from sampan.client.messages import User
from sampan.server.auth.authorize import Attributes, Authorizer

N1 = User("system:node:n1", ("system:nodes", "system:authenticated"))
POD = {
    "nodeName": "n1",
    "serviceAccountName": "app",
    "imagePullSecrets": [{"name": "pull"}],
    "volumes": [
        {"name": "a", "secret": {"secretName": "vol"}},
        {"name": "b", "projected": {"sources": [{"configMap": {"name": "proj"}}]}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "d", "ephemeral": {}},
    ],
    "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]}],
    "containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env"}}}]}],
}


@pytest.fixture
def authorizer(facts):
    facts.make("Pod", "p", "x", spec=POD)
    facts.make(
        "Pod",
        "other",
        "x",
        spec={"nodeName": "n2", "volumes": [{"name": "a", "secret": {"secretName": "far"}}]},
    )
    facts.make("PersistentVolume", "pv", spec={"claimRef": {"namespace": "x", "name": "claim"}})
    facts.make("PersistentVolume", "pv2", spec={"claimRef": {"namespace": "x", "name": "foreign"}})
    facts.make("PodCertificateRequest", "mine", "x", spec={"nodeName": "n1"})
    facts.make("PodCertificateRequest", "far", "x", spec={"nodeName": "n2"})
    return Authorizer(facts.lookup)


def ask(verb, resource, name="", namespace="x", group="", selector=""):
    resource, _, subresource = resource.partition("/")
    return Attributes(N1, verb, group, "v1", resource, subresource, namespace, name, field_selector=selector)


def certificates(verb, name="", part="", selector=""):
    return ask(verb, f"podcertificaterequests{part}", name, "x", "certificates.k8s.io", selector)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (ask("get", "secrets", "vol"), True),
        (ask("get", "secrets", "pull"), True),
        (ask("watch", "secrets", "init"), True),
        (ask("get", "secrets", "far"), False),
        (ask("get", "secrets", "vol", "y"), False),
        (ask("update", "secrets", "vol"), False),
        (ask("list", "secrets"), False),
        (ask("get", "configmaps", "env"), True),
        (ask("get", "configmaps", "proj"), True),
        (ask("get", "persistentvolumeclaims", "claim"), True),
        (ask("get", "persistentvolumeclaims", "p-d"), True),
        (ask("update", "persistentvolumeclaims/status", "claim"), True),
        (ask("update", "persistentvolumeclaims", "claim"), False),
        (ask("get", "persistentvolumes", "pv", ""), True),
        (ask("get", "persistentvolumes", "pv2", ""), False),
        (ask("create", "serviceaccounts/token", "app"), True),
        (ask("create", "serviceaccounts/token", "default"), False),
        (ask("update", "leases", "n1", "kube-node-lease", "coordination.k8s.io"), True),
        (ask("update", "leases", "n2", "kube-node-lease", "coordination.k8s.io"), False),
        (ask("create", "leases", "", "x", "coordination.k8s.io"), False),
        (ask("get", "csinodes", "n1", "", "storage.k8s.io"), True),
        (ask("get", "csinodes", "n2", "", "storage.k8s.io"), False),
        (ask("get", "nodes", "n1", ""), True),
        (ask("get", "nodes", "n2", ""), False),
        (ask("patch", "nodes/status", "n1", ""), True),
        (ask("get", "pods", "p"), True),
        (ask("get", "pods", "other"), False),
        (ask("list", "pods", namespace="", selector="spec.nodeName=n1"), True),
        (ask("list", "pods", namespace="", selector="spec.nodeName=n2"), False),
        (ask("patch", "pods/status", "p"), True),
        (ask("create", "events"), True),
        (ask("list", "services", namespace=""), True),
        (ask("delete", "deployments", "d", "x", "apps"), False),
        (certificates("create"), True),
        (certificates("get", "mine"), True),
        (certificates("get", "far"), False),
        (certificates("watch", selector="metadata.name=mine,spec.nodeName=n1"), True),
        (certificates("list", selector="spec.nodeName=n2"), False),
        (certificates("list"), False),
        (certificates("delete", "mine"), False),
        (certificates("get", "mine", "/status"), False),
    ],
)
def test_a_node_reads_what_its_pods_need(authorizer, asked, allowed):
    assert authorizer.authorize(N1, asked)[0] is allowed


def test_the_reason_is_told_and_the_right_ends_with_the_pod(facts, authorizer):
    asked = ask("get", "secrets", "vol")
    assert authorizer.authorize(N1, asked)[0]
    facts.remove("Pod", "x/p")
    assert authorizer.authorize(N1, asked) == (
        False,
        "no relationship found between node 'n1' and this object",
    )


def test_only_members_of_the_group_are_nodes(authorizer):
    assert not authorizer.authorize(User("system:node:n1"), ask("get", "secrets", "vol"))[0]
