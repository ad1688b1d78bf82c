"""Disruption budgets, quotas, autoscaling, certificates."""

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from world import START, World, template

from definitions import definition
from sampan.api import meta
from sampan.api.registry import Resource
from sampan.api.resources import BUILTIN
from sampan.base.clock import rfc3339
from sampan.controllers import certificates, disruption, hpa, replicaset, resourcequota
from sampan.testing import Cluster

APP = {"app": "a"}


def replicas(w, number, **container):
    body = {"replicas": number, "selector": {"matchLabels": APP}, "template": template(APP)}
    body["template"]["spec"]["containers"][0] |= container
    w.put("replicasets.apps", {"metadata": {"name": "r"}, "spec": body})


@pytest.mark.parametrize(
    "spec, desired, allowed",
    [
        ({"minAvailable": 2}, 2, 2),
        ({"minAvailable": "50%"}, 2, 2),
        ({"maxUnavailable": 1}, 3, 1),
        ({"maxUnavailable": "30%"}, 2, 2),
        ({"minAvailable": "100%"}, 4, 0),
    ],
)
def test_a_budget_allows_what_it_does_not_need(spec, desired, allowed):
    w = World(*replicaset.rules(), *disruption.rules(BUILTIN))
    replicas(w, 4)
    w.put(
        "poddisruptionbudgets.policy",
        {"metadata": {"name": "b"}, "spec": spec | {"selector": {"matchLabels": APP}}},
    )
    w.settle()
    w.all_ready()
    w.settle()
    status = w.get("poddisruptionbudgets.policy", "b", "default")["status"]
    assert (status["currentHealthy"], status["desiredHealthy"], status["disruptionsAllowed"]) == (
        4,
        desired,
        allowed,
    )
    assert status["conditions"][0]["reason"] == ("SufficientPods" if allowed else "InsufficientPods")


@pytest.mark.parametrize(
    "spec, expected, told", [({"minAvailable": 1}, 2, False), ({"maxUnavailable": 1}, 0, True)]
)
def test_pods_that_nobody_manages_count_only_against_a_number(spec, expected, told):
    w = World(*disruption.rules(BUILTIN))
    for name in ("x", "y"):
        w.put("pods", {"metadata": {"name": name, "labels": APP}, "spec": {}})
    budget = {"metadata": {"name": "b"}, "spec": spec | {"selector": {"matchLabels": APP}}}
    w.put("poddisruptionbudgets.policy", budget)
    w.all_ready()
    w.settle()
    status = w.get("poddisruptionbudgets.policy", "b", "default")["status"]
    assert (status["expectedPods"], status["disruptionsAllowed"]) == (expected, expected and 1)
    assert ({e.reason for e in w.events} == {"UnmanagedPods"}) == told


@pytest.mark.parametrize("subresources, expected", [(("scale",), 4), ((), 0)])
def test_custom_owners_are_asked_for_their_scale(subresources, expected):
    registry = BUILTIN.copy()
    registry.add(Resource("x.io", "v1", "Farm", "farms", True, subresources=subresources, custom=True))
    w = World(*disruption.rules(registry))
    scale = {"kind": "Scale", "metadata": {"name": "f", "uid": "u"}, "spec": {"replicas": 4}}
    w.live_only["farms.x.io/scale", "default", "f"] = scale
    owner = {"apiVersion": "x.io/v1", "kind": "Farm", "name": "f", "uid": "u", "controller": True}
    for name in ("x", "y", "z"):
        w.put("pods", {"metadata": {"name": name, "labels": APP, "ownerReferences": [owner]}, "spec": {}})
    spec = {"maxUnavailable": "50%", "selector": {"matchLabels": APP}}
    w.put("poddisruptionbudgets.policy", {"metadata": {"name": "b"}, "spec": spec})
    w.all_ready()
    w.settle()
    status = w.get("poddisruptionbudgets.policy", "b", "default")["status"]
    assert (status["expectedPods"], status["disruptionsAllowed"]) == (expected, expected and 1)
    assert ({e.reason for e in w.events} == {"UnmanagedPods"}) == (not expected)


def test_quota_counts_what_is_there():
    w = World(*resourcequota.rules())
    hard = {"pods": "3", "requests.cpu": "1", "count/configmaps": "5", "services": "1"}
    w.put("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    for name, phase in (("a", "Running"), ("b", "Succeeded")):
        container = {"name": "c", "resources": {"requests": {"cpu": "250m"}}}
        w.put(
            "pods",
            {"metadata": {"name": name}, "spec": {"containers": [container]}, "status": {"phase": phase}},
        )
    w.put("configmaps", {"metadata": {"name": "m"}})
    w.settle()
    status = w.get("resourcequotas", "q", "default")["status"]
    assert status["hard"] == hard
    assert status["used"] == {"pods": "1", "requests.cpu": "250m", "count/configmaps": "1", "services": "0"}


class Scaling(World):
    """Serves metrics of pods: each uses `use` milli cpu of the 100 it asked for."""

    use = 100
    window = ""  # as old as what a metrics server tells; empty: it tells no times

    def plan(self, rule, resource, name, namespace="default"):
        metrics = [
            {
                "metadata": {"name": meta.name(p)},
                "containers": [{"name": "c", "usage": {"cpu": f"{self.use}m"}}],
                **({"timestamp": rfc3339(self.now), "window": self.window} if self.window else {}),
            }
            for p in self.list("pods")
        ]
        self.objects["pods.metrics.k8s.io"] = {("default", m["metadata"]["name"]): m for m in metrics}
        return super().plan(rule, resource, name, namespace)

    def list(self, resource, namespace=None):
        return super().list(resource, None if resource == "pods.metrics.k8s.io" else namespace)


def autoscaled(number, low=1, high=10, **more):
    registry = BUILTIN.copy()
    registry.add(Resource("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True))
    w = Scaling(*replicaset.rules(), *hpa.rules(registry))
    replicas(w, number, resources={"requests": {"cpu": "100m"}})
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    target = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r"}
    spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high, "metrics": [metric], **more}
    w.put("horizontalpodautoscalers.autoscaling", {"metadata": {"name": "h"}, "spec": spec})
    w.settle()
    w.all_ready()
    return w


def grown(w):
    w.settle()
    w.all_ready()
    w.settle()
    return w.get("replicasets.apps", "r", "default")["spec"]["replicas"]


def test_scales_up_to_what_the_use_asks_for():
    w = autoscaled(2)
    assert grown(w) >= 4
    w.use = 50
    w.now += 15
    kept = grown(w)
    found = w.get("horizontalpodautoscalers.autoscaling", "h", "default")["status"]
    assert found["currentReplicas"] == kept
    assert found["currentMetrics"][0]["resource"]["current"]["averageUtilization"] == 50
    assert [e.message for e in w.events if e.reason == "SuccessfulRescale"][0].endswith(
        "cpu resource utilization (percentage of request) above target"
    )


def able(w):
    status = w.get("horizontalpodautoscalers.autoscaling", "h", "default")["status"]
    return meta.condition({"status": status}, "AbleToScale")["reason"]


def test_what_a_pod_takes_to_start_does_not_scale():
    w = autoscaled(2)
    w.window = "1m0.5s"
    for seconds, size in ((15, 2), (45, 2), (15, 4)):  # the window begins to lie after the start
        w.now += seconds
        w.settle()
        assert w.get("replicasets.apps", "r", "default")["spec"]["replicas"] == size


def test_scales_down_only_after_the_window():
    w = autoscaled(4)
    w.use = 50
    assert grown(w) == 4
    assert able(w) == "ReadyForNewScale"
    w.use = 10
    for _ in range(19):
        w.now += 15
        assert grown(w) == 4
        assert able(w) == "ScaleDownStabilized"
    w.now += 30
    assert grown(w) < 4


def test_a_new_autoscaler_does_not_shrink_what_it_finds_before_the_window_is_over():
    w = autoscaled(4)
    w.use = 10
    assert grown(w) == 4
    assert able(w) == "ScaleDownStabilized"
    w.now += 270
    assert grown(w) == 4
    w.now += 30
    assert grown(w) == 1


def test_a_window_of_none_shrinks_at_once():
    w = autoscaled(4, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    w.use = 10
    assert grown(w) == 1


def test_a_new_autoscaler_knows_nothing_of_one_of_its_name_that_was_removed():
    w = autoscaled(4)
    w.use = 50
    assert grown(w) == 4
    w.now += 200
    resource = "horizontalpodautoscalers.autoscaling"
    old = w.objects[resource].pop(("default", "h"))
    (scaler,) = [r for r in w.rules if r.resource == resource]
    w.act(scaler, resource, "h")
    w.use = 10
    w.put(resource, {"metadata": {"name": "h"}, "spec": old["spec"]})
    for _ in range(19):  # its window begins with itself
        assert grown(w) == 4
        w.now += 15
    w.now += 15
    assert grown(w) < 4


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_the_window_is_as_long_when_the_clock_is_set(ahead):
    w = autoscaled(4)
    w.use = 50
    assert grown(w) == 4
    w.use = 10
    w.now += 15
    assert grown(w) == 4
    w.set_clock(ahead)
    w.now += 15
    assert grown(w) == 4
    w.now += 300
    assert grown(w) < 4


@pytest.mark.parametrize("number, low, high, expected", [(1, 3, 5, 3), (5, 1, 2, 2)])
def test_bounds_hold_without_metrics(number, low, high, expected):
    w = World(*replicaset.rules(), *hpa.rules(BUILTIN))
    replicas(w, number)
    target = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r"}
    spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high}
    w.put("horizontalpodautoscalers.autoscaling", {"metadata": {"name": "h"}, "spec": spec})
    w.settle()
    assert w.get("replicasets.apps", "r", "default")["spec"]["replicas"] == expected


def _request(name, organization):
    attributes = [(NameOID.COMMON_NAME, name), (NameOID.ORGANIZATION_NAME, organization)]
    subject = x509.Name([x509.NameAttribute(*a) for a in attributes])
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.mark.parametrize(
    "name, groups, approved",
    [
        ("system:node:n", ["system:bootstrappers"], True),
        ("system:node:n", ["system:nodes"], True),
        ("admin", ["system:bootstrappers"], False),
        ("system:node:n", ["others"], False),
    ],
)
def test_kubelet_certificates_are_approved_and_signed(name, groups, approved):
    w = World(*certificates.rules(sign=True))
    spec = {
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "request": _request(name, "system:nodes"),
        "usages": ["digital signature", "client auth"],
        "username": "system:node:n",
        "groups": groups,
    }
    csr = "certificatesigningrequests.certificates.k8s.io"
    w.put(csr, {"metadata": {"name": "x"}, "spec": spec})
    w.live_only["effect:sign", "", "x"] = {"certificate": "Q0VSVA=="}
    w.settle()
    status = w.get(csr, "x").get("status", {})
    assert (status.get("certificate") == "Q0VSVA==") == approved
    w.now += 3600 if approved else 86400
    w.settle()
    assert w.list(csr) == []


@pytest.mark.parametrize("status", [{}, {"conditions": [{"type": "Issued", "status": "True"}]}])
def test_requests_for_certificates_of_pods_go_after_a_quarter_of_an_hour(status):
    w = World(*certificates.rules(sign=False))
    resource = "podcertificaterequests.certificates.k8s.io"
    w.put(resource, {"metadata": {"name": "r"}, "spec": {}, "status": status})
    w.settle()
    assert len(w.list(resource)) == 1 and w.timers[0][2] == 900
    w.now += 900
    w.settle()
    assert w.list(resource) == []


def test_expired_bootstrap_tokens_go():
    w = World(*certificates.rules(sign=False))
    data = {"expiration": base64.b64encode(rfc3339(START + 60).encode()).decode()}
    body = {"metadata": {"name": "t", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token"}
    w.put("secrets", body | {"data": data})
    w.settle()
    assert w.timers[0][2] == 60
    w.now += 60
    w.settle()
    assert w.list("secrets") == []


CUSTOM = definition(
    "farms",
    "Farm",
    subresources={
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.field.size",
            "statusReplicasPath": ".status.size",
            "labelSelectorPath": ".status.selector",
        },
    },
)


async def test_a_custom_kind_is_scaled_by_the_paths_of_its_definition():
    async with Cluster(nodes=0) as cluster:
        await cluster.client.create("customresourcedefinitions.apiextensions.k8s.io", CUSTOM)
        await cluster.settle()
        farm = {"apiVersion": "x.io/v1", "kind": "Farm", "metadata": {"name": "f"}}
        farm |= {"spec": {"field": {"size": 1}}, "status": {"selector": "app=f"}}
        await cluster.client.create("farms.x.io", farm, "default")
        target = {"apiVersion": "x.io/v1", "kind": "Farm", "name": "f"}
        spec = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
        hpa = {"metadata": {"name": "h"}, "spec": spec}
        await cluster.client.create("horizontalpodautoscalers.autoscaling", hpa, "default")
        await cluster.advance(20)
        assert (await cluster.client.get("farms.x.io", "f", "default"))["spec"]["field"]["size"] == 3
        active = meta.condition(await cluster.get("hpa", "h"), "ScalingActive")
        assert (active["status"], active["reason"]) == ("False", "InvalidSelector")
        status = {"status": {"selector": "app=f"}}
        await cluster.client.patch("farms.x.io", "f", status, "default", subresource="status")
        await cluster.advance(20)
        active = meta.condition(await cluster.get("hpa", "h"), "ScalingActive")
        assert active["reason"] == "FailedGetResourceMetric"


@pytest.mark.parametrize("tolerance, expected", [(None, 2), ("0.3", 2), ("0.01", 3)])
def test_how_far_from_its_target_use_must_be_for_a_change(tolerance, expected):
    behavior = {"scaleUp": {"tolerance": tolerance}} if tolerance else {}
    w = autoscaled(2, **({"behavior": behavior} if behavior else {}))
    w.use = 54  # of 50
    w.settle()
    assert w.get("replicasets.apps", "r", "default")["spec"]["replicas"] == expected
