import copy

import pytest

from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.client.messages import User
from sampan.server.admission import Admission, Attrs, Context
from sampan.server.auth.authorize import Authorizer

BOB = User("bob", ("system:authenticated",))
N1 = User("system:node:n1", ("system:nodes", "system:authenticated"))


@pytest.fixture
def admission(facts):
    facts.make("Namespace", "x")
    facts.make("ServiceAccount", "default", "x")
    return Admission(Context(facts.lookup, facts.clock, facts.ids, Authorizer(facts.lookup), BUILTIN))


@pytest.fixture
def submit(admission):
    """Send an operation through the chain; the object as it came out and the warnings."""

    async def run(obj, resource="pods", op="CREATE", *, old=None, user=BOB, subresource="", **more):
        meta = (obj or old)["metadata"]
        obj = copy.deepcopy(obj)
        attrs = Attrs(
            op,
            BUILTIN.get(resource),
            subresource,
            meta.get("namespace", ""),
            meta["name"],
            obj,
            old,
            user,
            **more,
        )
        await admission.mutate(attrs)
        await admission.judge(attrs)
        return obj, attrs.warnings

    return run


def pod(name="p", namespace="x", annotations=None, **spec):
    spec.setdefault("containers", [{"name": "c", "image": "i"}])
    meta = {"name": name, "namespace": namespace}
    return {
        "kind": "Pod",
        "metadata": meta | ({"annotations": annotations} if annotations else {}),
        "spec": spec,
    }


def wants(requests=None, limits=None, name="c"):
    return {"name": name, "image": "i", "resources": {"requests": requests or {}, "limits": limits or {}}}


async def refused(submitted, code=403):
    with pytest.raises(ApiError) as caught:
        await submitted
    assert caught.value.code == code
    return caught.value


# Namespaces


async def test_nothing_is_made_in_a_missing_namespace(submit):
    error = await refused(submit(pod(namespace="none")), 404)
    assert error.message == 'namespaces "none" not found'


async def test_nothing_is_made_in_a_namespace_that_goes_away(facts, submit):
    facts.make("Namespace", "y", status={"phase": "Terminating"})
    error = await refused(submit(pod(namespace="y")))
    assert error.message == (
        'pods "p" is forbidden: unable to create new content in namespace y because it is being terminated'
    )
    assert error.details["causes"] == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace y is being terminated",
            "field": "metadata.namespace",
        }
    ]


@pytest.mark.parametrize(("name", "stays"), [("kube-system", True), ("default", True), ("x", False)])
async def test_the_first_namespaces_stay(submit, name, stays):
    deletion = submit(None, "namespaces", "DELETE", old={"metadata": {"name": name}})
    if stays:
        error = await refused(deletion)
        assert error.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    else:
        await deletion


# Service accounts


async def test_a_pod_gets_account_token_volume_and_tolerations(submit):
    made, _ = await submit(pod(containers=[{"name": "a"}, {"name": "b"}], initContainers=[{"name": "i"}]))
    spec = made["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    [volume] = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    assert token == {"expirationSeconds": 3607, "path": "token"}
    for container in spec["containers"] + spec["initContainers"]:
        [mount] = container["volumeMounts"]
        path = "/var/run/secrets/kubernetes.io/serviceaccount"
        assert mount == {"name": volume["name"], "readOnly": True, "mountPath": path}
    assert [(t["key"], t["tolerationSeconds"]) for t in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")


async def test_automount_off(facts, submit):
    made, _ = await submit(pod(automountServiceAccountToken=False))
    assert "volumes" not in made["spec"]
    facts.make(
        "ServiceAccount", "quiet", "x", automountServiceAccountToken=False, imagePullSecrets=[{"name": "reg"}]
    )
    made, _ = await submit(pod(serviceAccountName="quiet"))
    assert "volumes" not in made["spec"]
    assert made["spec"]["imagePullSecrets"] == [{"name": "reg"}]
    made, _ = await submit(pod(serviceAccountName="quiet", imagePullSecrets=[{"name": "mine"}]))
    assert made["spec"]["imagePullSecrets"] == [{"name": "mine"}]


async def test_a_missing_account_is_refused(submit):
    error = await refused(submit(pod(serviceAccountName="none")))
    assert error.message == (
        'pods "p" is forbidden: error looking up service account x/none: serviceaccount "none" not found'
    )


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ([{"operator": "Exists"}], []),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}], ["node.kubernetes.io/unreachable"]),
        (
            [{"key": "other", "operator": "Exists"}],
            ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"],
        ),
    ],
)
async def test_own_tolerations_are_kept(submit, given, keys):
    made, _ = await submit(pod(tolerations=given))
    assert [t["key"] for t in made["spec"]["tolerations"][len(given) :]] == keys


# Priority and runtime class


async def test_priority_classes(facts, submit):
    facts.make("PriorityClass", "high", value=1234, preemptionPolicy="Never")
    spec = (await submit(pod(priorityClassName="high")))[0]["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1234, "Never")
    assert (await submit(pod(priorityClassName="system-node-critical")))[0]["spec"]["priority"] == 2000001000
    error = await refused(submit(pod(priorityClassName="none")))
    assert error.message == 'pods "p" is forbidden: no PriorityClass with name none was found'
    error = await refused(submit(pod(priority=7)))
    assert error.message == (
        'pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission '
        "controller computed 0 from the given PriorityClass name"
    )
    facts.make("PriorityClass", "usual", value=5, globalDefault=True)
    spec = (await submit(pod()))[0]["spec"]
    assert (spec["priorityClassName"], spec["priority"]) == ("usual", 5)
    second = {"metadata": {"name": "more"}, "value": 6, "globalDefault": True}
    error = await refused(submit(second, "priorityclasses.scheduling.k8s.io"))
    assert "PriorityClass usual is already marked as default" in error.message


async def test_runtime_class(facts, submit):
    error = await refused(submit(pod(runtimeClassName="none")))
    assert error.message == 'pods "p" is forbidden: pod rejected: RuntimeClass "none" not found'
    facts.make(
        "RuntimeClass",
        "vm",
        handler="vm",
        overhead={"podFixed": {"memory": "64Mi"}},
        scheduling={"nodeSelector": {"vm": "yes"}},
    )
    spec = (await submit(pod(runtimeClassName="vm", nodeSelector={"a": "b"})))[0]["spec"]
    assert (spec["overhead"], spec["nodeSelector"]) == ({"memory": "64Mi"}, {"a": "b", "vm": "yes"})


# Defaults that depend on the cluster


async def test_storage_classes_and_protection(facts, submit):
    claim = {"metadata": {"name": "c", "namespace": "x"}, "spec": {}}
    made, _ = await submit(claim, "persistentvolumeclaims")
    assert "storageClassName" not in made["spec"]
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    facts.make("StorageClass", "slow")
    facts.make("StorageClass", "fast", annotations={"storageclass.kubernetes.io/is-default-class": "true"})
    assert (await submit(claim, "persistentvolumeclaims"))[0]["spec"]["storageClassName"] == "fast"
    claim["spec"]["storageClassName"] = ""
    assert (await submit(claim, "persistentvolumeclaims"))[0]["spec"]["storageClassName"] == ""


async def test_a_claim_grows_only_where_its_class_allows(facts, submit):
    def claim(size, phase="Bound"):
        spec = {"storageClassName": "s", "resources": {"requests": {"storage": size}}}
        return {"metadata": {"name": "c", "namespace": "x"}, "spec": spec, "status": {"phase": phase}}

    for old, text in (
        (claim("1Gi"), "must support resize"),
        (claim("1Gi", "Pending"), "Only bound persistent"),
    ):
        error = await refused(submit(claim("2Gi"), "persistentvolumeclaims", "UPDATE", old=old))
        assert text in error.message
    facts.make("StorageClass", "s", allowVolumeExpansion=True)
    await submit(claim("2Gi"), "persistentvolumeclaims", "UPDATE", old=claim("1Gi"))


async def test_a_new_node_is_tainted(submit):
    made, _ = await submit({"metadata": {"name": "n"}, "spec": {}}, "nodes")
    assert made["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    made, _ = await submit(made, "nodes")
    assert len(made["spec"]["taints"]) == 1


async def test_a_binding_carries_the_topology_of_its_node(facts, submit):
    facts.make("Node", "n", labels={"topology.kubernetes.io/zone": "z1", "other": "o"})
    made, _ = await submit(
        {"metadata": {"name": "p", "namespace": "x"}, "target": {"name": "n"}}, subresource="binding"
    )
    assert made["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z1"}


# Limits


def limit(facts, **item):
    facts.make("LimitRange", "l", "x", spec={"limits": [{"type": "Container", **item}]})


async def test_limits_fill_in_what_is_missing(facts, submit):
    limit(facts, default={"cpu": "500m"}, defaultRequest={"cpu": "100m"})
    spec = pod(
        containers=[wants(), wants({"cpu": "50m"}, {"cpu": "60m"}, "own")], initContainers=[wants(name="i")]
    )
    made, _ = await submit(spec)
    full = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    first, own = (c["resources"] for c in made["spec"]["containers"])
    assert (first, own) == (full, {"requests": {"cpu": "50m"}, "limits": {"cpu": "60m"}})
    assert made["spec"]["initContainers"][0]["resources"] == full
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c; "
        "cpu request for init container i; cpu limit for init container i"
    )


@pytest.mark.parametrize(
    ("item", "container", "why"),
    [
        (
            {"max": {"cpu": "1"}},
            wants({}, {"cpu": "2"}),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        ({"max": {"cpu": "1"}}, wants(), "maximum cpu usage per Container is 1.  No limit is specified"),
        (
            {"min": {"memory": "64Mi"}},
            wants({"memory": "32Mi"}),
            "minimum memory usage per Container is 64Mi, but request is 32Mi",
        ),
        (
            {"max": {"cpu": "1"}, "min": {"cpu": "100m"}},
            wants({"cpu": "50m"}, {"cpu": "3"}),
            "[minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per Container is 1, but "
            "limit is 3]",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            wants({"cpu": "100m"}, {"cpu": "300m"}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}},
            wants({}, {"cpu": "2"}),
            "maximum cpu usage per Pod is 1, but limit is 2",
        ),
    ],
)
async def test_limits_refuse(facts, submit, item, container, why):
    limit(facts, **item)
    error = await refused(submit(pod(containers=[container])))
    assert error.message == f'pods "p" is forbidden: {why}'


async def test_a_pod_is_not_resized_beyond_its_node(facts, submit):
    def sized(cpu, memory, generation):
        made = pod(containers=[wants({"cpu": cpu, "memory": memory})], nodeName="n")
        made["metadata"]["generation"] = generation
        return made

    async def resize(new):
        await submit(new, op="UPDATE", old=sized("1", "1Gi", 1), subresource="resize")

    error = await refused(resize(sized("2", "1Gi", 2)))
    assert error.message == 'pods "p" is forbidden: node "n" not found'
    facts.make("Node", "n", status={"allocatable": {"cpu": "1500m", "memory": "2Gi"}})
    await resize(sized("1500m", "2Gi", 2))
    error = await refused(resize(sized("2", "3Gi", 2)))
    assert error.message == (
        """pods "p" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2000, """
        "allocatable: 1500; memory, requested: 3221225472, allocatable: 2147483648"
    )
    assert error.details["causes"] == [{"reason": "NodeCapacity"}]


async def test_limits_hold_when_a_pod_is_resized(facts, submit):
    limit(facts, max={"cpu": "1"})
    old, more = pod(containers=[wants({}, {"cpu": "1"})]), pod(containers=[wants({}, {"cpu": "2"})])
    await submit(more, op="UPDATE", old=old)  # labels, say: what a pod has is not judged again
    error = await refused(submit(more, op="UPDATE", old=old, subresource="resize"))
    assert error.message == 'pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2'


async def test_limits_of_claims(facts, submit):
    limit(facts, type="PersistentVolumeClaim", min={"storage": "2Gi"})
    claim = {
        "metadata": {"name": "d", "namespace": "x"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
    }
    error = await refused(submit(claim, "persistentvolumeclaims"))
    assert error.message == (
        'persistentvolumeclaims "d" is forbidden: minimum storage usage per PersistentVolumeClaim is 2Gi, but request is '
        "1Gi"
    )


# Quota


def quota(facts, scopes=(), **hard):
    hard = {k.replace("__", "/").replace("_", "."): v for k, v in hard.items()}
    facts.make("ResourceQuota", "q", "x", spec={"hard": hard, **({"scopes": list(scopes)} if scopes else {})})


async def test_quota_counts_what_is_there(facts, submit):
    quota(facts, pods="1")
    await submit(pod())
    facts.put(pod())
    error = await refused(submit(pod("p2")))
    assert error.message == (
        'pods "p2" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    )
    facts.put(pod() | {"status": {"phase": "Succeeded"}})  # a finished pod no longer counts
    await submit(pod("p2"))


async def test_quota_of_amounts(facts, submit):
    quota(facts, requests_cpu="1")
    facts.put(pod(containers=[wants({"cpu": "700m"})]))
    error = await refused(submit(pod("p2", containers=[wants({"cpu": "400m"})])))
    assert error.message == (
        'pods "p2" is forbidden: exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=700m, '
        "limited: requests.cpu=1"
    )
    await submit(pod("p2", containers=[wants({"cpu": "300m"})]))
    error = await refused(submit(pod("p2")))
    assert error.message == 'pods "p2" is forbidden: failed quota: q: must specify requests.cpu for: c'


@pytest.mark.parametrize(
    ("hard", "obj", "resource", "why"),
    [
        (
            {"requests_example_com__gpu": "1"},
            pod(containers=[wants({"example.com/gpu": "2"}, {"example.com/gpu": "2"})]),
            "pods",
            "requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=1",
        ),
        (
            {"count__deployments_apps": "0"},
            {"metadata": {"name": "p", "namespace": "x"}},
            "deployments.apps",
            "requested: count/deployments.apps=1, used: count/deployments.apps=0, limited: count/deployments.apps=0",
        ),
        (
            {"requests_storage": "1Gi"},
            {
                "metadata": {"name": "p", "namespace": "x"},
                "spec": {"resources": {"requests": {"storage": "2Gi"}}},
            },
            "persistentvolumeclaims",
            "requested: requests.storage=2Gi, used: requests.storage=0, limited: requests.storage=1Gi",
        ),
        (
            {"services_nodeports": "1"},
            {"metadata": {"name": "p", "namespace": "x"}, "spec": {"type": "NodePort", "ports": [{}, {}]}},
            "services",
            "requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1",
        ),
    ],
)
async def test_quota_of_other_things(facts, submit, hard, obj, resource, why):
    quota(facts, **hard)
    error = await refused(submit(obj, resource))
    assert error.message.endswith(f"exceeded quota: q, {why}")


async def test_quota_scopes(facts, submit):
    quota(facts, ["BestEffort"], pods="0")
    await submit(pod(containers=[wants({"cpu": "1m"})]))
    await refused(submit(pod()))
    quota(facts, ["Terminating"], pods="0")
    await submit(pod())
    await refused(submit(pod(activeDeadlineSeconds=5)))


async def test_an_update_that_needs_no_more_is_allowed_over_quota(facts, submit):
    facts.put(pod())
    quota(facts, pods="0")
    await submit(pod(), op="UPDATE", old=pod())


async def test_two_writers_never_share_the_last_place(facts, submit, monkeypatch):
    """A write on its way to disk counts, though no reader sees it yet."""
    quota(facts, pods="1")
    facts.put(pod())
    shown = facts.store.list("pods").items
    facts.remove("Pod", "x/p")
    change = type("Change", (), {"key": "x/p", "item": shown[0]})
    monkeypatch.setattr(facts.store, "pending", lambda bucket: [change] if bucket == "pods" else [])
    await refused(submit(pod("p2")))


# Pod security


def guarded(facts, **labels):
    facts.make("Namespace", "x", labels={f"pod-security.kubernetes.io/{k}": v for k, v in labels.items()})


GOOD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


@pytest.mark.parametrize(
    ("level", "spec", "why"),
    [
        (
            "baseline",
            {"hostNetwork": True, "hostPID": True},
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            "baseline",
            {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
            'privileged (container "c" must not set securityContext.privileged=true)',
        ),
        (
            "baseline",
            {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
            'hostPath volumes (volume "v")',
        ),
        (
            "baseline",
            {"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]},
            'hostPort (container "c" uses hostPort 80)',
        ),
        (
            "baseline",
            {"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (
            "restricted",
            {"containers": [{"name": "a"}, {"name": "b"}]},
            'allowPrivilegeEscalation != false (containers "a", "b" must set '
            'securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "a", "b" must set '
            'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "a", "b" must set '
            'securityContext.runAsNonRoot=true), seccompProfile (pod or containers "a", "b" must set '
            'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
        ),
    ],
)
async def test_pod_security_refuses(facts, submit, level, spec, why):
    guarded(facts, enforce=level)
    error = await refused(submit(pod(**spec)))
    assert error.message == f'pods "p" is forbidden: violates PodSecurity "{level}:latest": {why}'


async def test_pod_security_lets_through_and_warns(facts, submit):
    guarded(facts, enforce="baseline", warn="restricted")
    _, warnings = await submit(pod())
    assert warnings[0].startswith(
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
    )
    _, warnings = await submit(pod(**GOOD))
    assert warnings == []
    template = {
        "metadata": {"name": "d", "namespace": "x"},
        "spec": {"template": {"spec": pod(hostPID=True)["spec"]}},
    }
    _, warnings = await submit(template, "deployments.apps")
    assert "host namespaces (hostPID=true)" in warnings[0]


async def test_stricter_labels_warn_about_pods_there_are(facts, submit):
    facts.put(pod(hostPID=True))
    old = {"metadata": {"name": "x"}}
    new = {"metadata": {"name": "x", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    _, warnings = await submit(new, "namespaces", "UPDATE", old=old)
    assert warnings == [
        'existing pods in namespace "x" violate the new PodSecurity enforce level "baseline:latest"',
        "p: host namespaces",
    ]
    new["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "tight"
    error = await refused(submit(new, "namespaces", "UPDATE", old=old), 422)
    assert error.details["causes"][0]["field"] == "metadata.labels[pod-security.kubernetes.io/enforce]"


# Nodes


def node(name="n1", labels=None, **spec):
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}


MIRROR = {"kubernetes.io/config.mirror": "x"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((node("n2"), "nodes"), 'node "n1" is not allowed to modify node "n2"'),
        ((node(), "nodes"), ""),
        ((node(labels={"topology.kubernetes.io/zone": "z", "team": "a"}), "nodes"), ""),
        (
            (node(labels={"node-restriction.kubernetes.io/x": "a"}), "nodes"),
            'node "n1" is not allowed to set labels: node-restriction.kubernetes.io/x',
        ),
        (
            (pod(), "pods"),
            'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods',
        ),
        ((pod(annotations=MIRROR, nodeName="n1"), "pods"), ""),
        (
            (pod(annotations=MIRROR, nodeName="n2"), "pods"),
            'node "n1" can only create pods with spec.nodeName set to itself',
        ),
        (
            ({"metadata": {"name": "n2", "namespace": "kube-node-lease"}}, "leases.coordination.k8s.io"),
            "can only access node lease with the same name as the requesting node",
        ),
    ],
)
async def test_node_restriction(facts, submit, arguments, why):
    facts.make("Namespace", "kube-node-lease")
    if why:
        assert (await refused(submit(*arguments, user=N1))).message.endswith(why)
    else:
        await submit(*arguments, user=N1)


async def test_a_node_does_not_free_itself_of_taints_nor_touch_pods_of_others(facts, submit):
    tainted = node(taints=[{"key": "a", "effect": "NoSchedule"}])
    error = await refused(submit(node(), "nodes", "UPDATE", old=tainted, user=N1))
    assert "is not allowed to modify taints" in error.message
    mine, theirs = pod(nodeName="n1"), pod(nodeName="n2")
    await submit(None, op="DELETE", old=mine, user=N1)
    error = await refused(submit(None, op="DELETE", old=theirs, user=N1))
    assert "can only delete pods with spec.nodeName set to itself" in error.message
    error = await refused(submit(theirs, op="UPDATE", old=theirs, user=N1, subresource="status"))
    assert "can only update status for pods" in error.message
    token = {"metadata": {"name": "default", "namespace": "x"}, "spec": {}}
    error = await refused(submit(token, "serviceaccounts", user=N1, subresource="token"))
    assert "not bound to a pod" in error.message


# Certificates


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("podName", "p", ""),
        ("nodeName", "n2", 'PodCertificateRequest.Spec.NodeName="n2", which is not the requesting node "n1"'),
        ("nodeUID", "other", 'names node UID "other", inconsistent with the running node'),
        ("podName", "none", 'contains pod UID ("pod") which differs from running pod'),
        ("podUID", "other", 'contains pod UID ("other") which differs from running pod'),
        ("serviceAccountName", "other", 'serviceAccountName ("other") that differs from running pod'),
        ("serviceAccountUID", "other", 'names service account UID "other", which differs from the running'),
        ("podName", "far", 'pod "x/far" is not running on node "n1" named in the PodCertificateRequest'),
        ("podName", "mirror", 'pod "x/mirror" is a mirror pod'),
    ],
)
async def test_a_node_asks_for_certificates_of_its_own_pods(facts, submit, field, value, why):
    facts.put({"kind": "Node", "metadata": {"name": "n1", "uid": "node"}})
    facts.put({"kind": "ServiceAccount", "metadata": {"name": "app", "namespace": "x", "uid": "account"}})
    for name, where, notes in (("p", "n1", {}), ("far", "n2", {}), ("mirror", "n1", MIRROR)):
        body = pod(name, annotations=notes, nodeName=where, serviceAccountName="app")
        body["metadata"]["uid"] = "pod"
        facts.put(body)
    spec = {"nodeName": "n1", "nodeUID": "node", "podName": "p", "podUID": "pod"}
    spec |= {"serviceAccountName": "app", "serviceAccountUID": "account", field: value}
    request = {"metadata": {"name": "r", "namespace": "x"}, "spec": spec}
    submitted = submit(request, "podcertificaterequests.certificates.k8s.io", user=N1)
    if why:
        assert why in (await refused(submitted)).message
    else:
        await submitted


async def test_approving_needs_the_right_for_the_signer(facts, submit):
    csr = {"metadata": {"name": "c"}, "spec": {"signerName": "example.com/a"}}
    change = {
        "resource": "certificatesigningrequests.certificates.k8s.io",
        "op": "UPDATE",
        "subresource": "approval",
    }
    error = await refused(submit(csr, old=csr, **change))
    assert 'user not permitted to approve requests with signerName "example.com/a"' in error.message
    rule = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"]}
    facts.make("ClusterRole", "r", rules=[{**rule, "resourceNames": ["example.com/*"]}])
    ref = {"kind": "ClusterRole", "name": "r"}
    facts.make("ClusterRoleBinding", "r", roleRef=ref, subjects=[{"kind": "User", "name": "bob"}])
    await submit(csr, old=csr, **change)
