"""ConfigMaps, Secrets, quotas, limits, priorities, nodes, namespaces, leases, events, roles."""

import pytest
from lines import same

QUOTAS, LIMITS = "resourcequotas", "limitranges"


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        ("configmaps", {"data": {"a.b-C_1": "x"}}, []),
        ("configmaps", {"data": {"a/b": "x"}}, ['data[a/b]: Invalid value: "a/b": a valid config key must consist of']),
        ("configmaps", {"data": {"..a": "x"}}, ["must not start with '..'"]),
        ("configmaps", {"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, ["duplicate of key present in binaryData"]),
        ("configmaps", {"data": {"a": "x" * 1048577}}, ["[]: Too long: may not be more than 1048576 bytes"]),
        ("secrets", {"type": "kubernetes.io/tls"}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        ("secrets", {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}, ['"<secret contents redacted>": invalid character \'x\'']),
        ("secrets", {"type": "kubernetes.io/basic-auth"}, ["data[username]", "data[password]"]),
        ("secrets", {"type": "kubernetes.io/service-account-token"}, ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]),
        ("secrets", {"type": "mine", "data": {"a": ""}}, []),
        (QUOTAS, {"spec": {"hard": {"pods": "5", "count/x.y": "1", "requests.x.io/gpu": "2"}}}, []),
        (QUOTAS, {"spec": {"hard": {"pods": "1500m"}}}, ['spec.hard[pods]: Invalid value: "1500m": must be an integer']),
        (QUOTAS, {"spec": {"hard": {"fans": "1"}}}, ["must be a standard resource type or fully qualified", "for quota"]),
        (QUOTAS, {"spec": {"hard": {"services": "1"}, "scopes": ["Terminating"]}}, ["unsupported scope applied to resource"]),
        (QUOTAS, {"spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}}, ["conflicting scopes"]),
        (LIMITS, {"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}, ["min value 2 is greater than max value 1", "default request value 1", "min value 2 is greater than default value 1"]),
        (LIMITS, {"spec": {"limits": [{"type": "Pod", "default": {"cpu": "1"}}]}}, ["may not be specified when `type` is 'Pod'"]),
        (LIMITS, {"spec": {"limits": [{"type": "PersistentVolumeClaim"}]}}, ["either minimum or maximum storage value is required"]),
        (LIMITS, {"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}}, ['limits[1].type: Duplicate value: "Pod"']),
        ("nodes", {"spec": {"taints": [{"key": "a", "effect": "Scare"}]}}, ['metadata.taints[0].effect: Unsupported value: "Scare"']),
        ("namespaces", {"spec": {"finalizers": ["held"]}}, ["name is neither a standard finalizer name nor"]),
        ("events", {"involvedObject": {"namespace": "elsewhere"}}, ["does not match event.namespace"]),
        ("leases.coordination.k8s.io", {"spec": {"leaseDurationSeconds": 0}}, ["must be greater than 0"]),
        ("priorityclasses.scheduling.k8s.io", {"value": 1000000001}, ["maximum allowed value of a user defined priority is 1000000000"]),
        ("priorityclasses.scheduling.k8s.io", {"metadata": {"name": "system-mine"}, "value": 1}, ["system-mine is not a known system priority class"]),
        ("runtimeclasses.node.k8s.io", {"handler": "A_"}, ['handler: Invalid value: "A_"']),
        ("poddisruptionbudgets.policy", {"spec": {"minAvailable": 1, "maxUnavailable": "10%"}}, ["cannot be both set"]),
        ("poddisruptionbudgets.policy", {"spec": {"minAvailable": "101%"}}, ["must not be greater than 100%"]),
        ("roles.rbac.authorization.k8s.io", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}, ["rules[0].verbs: Required value: verbs must contain at least one value"]),
        ("roles.rbac.authorization.k8s.io", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}, ["namespaced rules cannot apply to non-resource URLs"]),
        ("clusterroles.rbac.authorization.k8s.io", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}, []),
        ("clusterrolebindings.rbac.authorization.k8s.io", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}, ['Unsupported value: "Role": supported values: "ClusterRole"', "subjects[0].namespace: Required value"]),
    ],
)  # fmt: skip
def test_a_new_map_or_secret_is_refused_for_its_keys_or_size(judge, resource, obj, expected):
    same(judge.create(resource, obj), expected)


@pytest.mark.parametrize(
    ("resource", "new", "old", "expected"),
    [
        ("configmaps", {"data": {"a": "y"}}, {"data": {"a": "x"}, "immutable": True}, ["immutable: Forbidden: field is immutable when `immutable` is set", "data: Forbidden"]),
        ("secrets", {"type": "b"}, {"type": "a"}, ['type: Invalid value: "b": field is immutable']),
        (QUOTAS, {"spec": {"scopes": ["Terminating"]}}, {}, ['spec.scopes: Invalid value: ["Terminating"]: field is immutable']),
        ("priorityclasses.scheduling.k8s.io", {"value": 2}, {"value": 1}, ["value: Forbidden: may not be changed in an update."]),
        ("nodes", {"spec": {"providerID": "b"}}, {"spec": {"providerID": "a"}}, ["spec.providerID: Forbidden: node updates may not change"]),
        ("nodes", {"spec": {"unschedulable": True}}, {}, []),
        ("rolebindings.rbac.authorization.k8s.io", {"roleRef": {"kind": "Role", "name": "b"}}, {"roleRef": {"kind": "Role", "name": "a"}}, ["cannot change roleRef"]),
    ],
)  # fmt: skip
def test_what_is_immutable_stays_and_so_does_a_secrets_type(judge, resource, new, old, expected):
    same(judge.update(resource, new, old), expected)
