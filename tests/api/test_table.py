"""What `kubectl get` shows: cells of the kinds people look at most, and the shape of a Table."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.registry import Resource
from sampan.api.resources import BUILTIN
from sampan.api.table import columns_of, render
from sampan.api.table.cells import duration
from sampan.base.clock import rfc3339
from sampan.base.objects import Object

NOW = 1_800_000_000.0


def row(name: str, kind: str, **parts: Any) -> dict[str, Any]:
    """Cells of one object by column."""
    resource = BUILTIN.get(name)
    assert resource is not None
    meta = {"name": "x", "creationTimestamp": rfc3339(NOW - 90), **parts.pop("metadata", {})}
    table = render(resource, [{"kind": kind, "metadata": meta, **parts}], NOW)
    return dict(zip((c["name"] for c in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))


def pod(*states: Any, phase: str = "Running", spec: Object | None = None, **status: Any) -> dict[str, Any]:
    """A pod whose containers have these states: a dict each, merged into a container status."""
    names = [f"c{i}" for i in range(len(states))]
    statuses = [{"name": n, "restartCount": 0, **s} for n, s in zip(names, states, strict=True)]
    wanted = {"containers": [{"name": n} for n in names], **(spec or {})}
    return row("pods", "Pod", spec=wanted, status={"phase": phase, "containerStatuses": statuses, **status})


RUNNING = {"ready": True, "state": {"running": {}}}
COMPLETED = {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}


def waiting(reason: str) -> Object:
    return {"state": {"waiting": {"reason": reason}}}


def init(*states: Any) -> dict[str, Any]:
    names = [f"i{i}" for i in range(len(states))]
    statuses = [{"name": n, **s} for n, s in zip(names, states, strict=True)]
    spec = {"initContainers": [{"name": n} for n in names]}
    return pod({}, phase="Pending", spec=spec, initContainerStatuses=statuses)


@pytest.mark.parametrize(
    ("cells", "ready", "status"),
    [
        (pod(RUNNING, RUNNING), "2/2", "Running"),
        (pod(RUNNING, waiting("CrashLoopBackOff")), "1/2", "CrashLoopBackOff"),
        (pod(waiting("ErrImagePull"), waiting("CrashLoopBackOff")), "0/2", "ErrImagePull"),
        (pod(waiting("ContainerCreating"), phase="Pending"), "0/1", "ContainerCreating"),
        (pod({"ready": True, **waiting("X")}), "0/1", "X"),
        (pod(RUNNING, COMPLETED, conditions=[{"type": "Ready", "status": "True"}]), "1/2", "Running"),
        (pod(RUNNING, COMPLETED), "1/2", "NotReady"),
        (pod({"state": {"terminated": {"exitCode": 137, "signal": 9}}}), "0/1", "Signal:9"),
        (pod({"state": {"terminated": {"exitCode": 3}}}), "0/1", "ExitCode:3"),
        (pod({}, phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (pod({}, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]), "0/1", "SchedulingGated"),
        (init(waiting("PodInitializing"), {}), "0/1", "Init:0/2"),
        (init({"state": {"terminated": {"exitCode": 0}}}, {"state": {"running": {}}}), "0/1", "Init:1/2"),
        (init({"state": {"terminated": {"exitCode": 9}}}), "0/1", "Init:ExitCode:9"),
        (init(waiting("ImagePullBackOff")), "0/1", "Init:ImagePullBackOff"),
    ],
)  # fmt: skip
def test_a_pod_in_a_word(cells: Object, ready: str, status: str) -> None:
    assert (cells["Ready"], cells["Status"]) == (ready, status)


def test_restarts_say_when() -> None:
    last = {"lastState": {"terminated": {"finishedAt": rfc3339(NOW - 30)}}}
    assert pod(RUNNING | {"restartCount": 3} | last)["Restarts"] == "3 (30s ago)"
    assert pod(RUNNING)["Restarts"] == "0"


def test_a_pod_being_deleted() -> None:
    cells = row(
        "pods", "Pod", metadata={"deletionTimestamp": rfc3339(NOW)}, spec={}, status={"phase": "Running"}
    )
    assert cells["Status"] == "Terminating"


READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("name", "parts", "expected"),
    [
        ("nodes", {"spec": {"unschedulable": True}, "status": {"conditions": [READY]}, "metadata": {"labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}}}, {"Status": "Ready,SchedulingDisabled", "Roles": "a,b", "Internal-IP": "<none>", "OS-Image": "<unknown>", "Version": ""}),
        ("nodes", {"status": {"conditions": [READY | {"status": "Unknown"}]}}, {"Status": "NotReady", "Roles": "<none>"}),
        ("services", {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]}}, {"External-IP": "<pending>", "Port(s)": "80:30000/TCP", "Selector": "<none>"}),
        ("services", {"spec": {"type": "ExternalName", "externalName": "a.b"}}, {"Cluster-IP": "<none>", "External-IP": "a.b", "Port(s)": "<none>"}),
        ("deployments.apps", {"spec": {"replicas": 3, "selector": {"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}, "status": {"readyReplicas": 1}}, {"Ready": "1/3", "Up-to-date": 0, "Containers": "c,d", "Images": "i,j", "Selector": "!a,b=1"}),
        ("endpoints", {"subsets": [{"addresses": [{"ip": f"10.0.0.{i}"} for i in range(5)], "ports": [{"port": 80}]}]}, {"Endpoints": "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."}),
        ("endpoints", {"subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]}, {"Endpoints": "[fd00::1]:80"}),
        ("ingresses.networking.k8s.io", {"spec": {"tls": [{}], "rules": [{}]}}, {"Class": "<none>", "Hosts": "*", "Ports": "80, 443"}),
        ("storageclasses.storage.k8s.io", {"provisioner": "p", "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}, {"Name": "x (default)", "AllowVolumeExpansion": False}),
        ("events", {"involvedObject": {"kind": "Pod", "name": "p"}}, {"Last Seen": "<unknown>", "Object": "pod/p", "Count": 1}),
        ("persistentvolumeclaims", {"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}, {"Status": "Pending", "Capacity": "", "Access Modes": ""}),
        ("roles.rbac.authorization.k8s.io", {}, {"Created At": rfc3339(NOW - 90)}),
        ("configmaps", {"data": {"a": "1"}, "binaryData": {"b": ""}}, {"Data": 2, "Age": "90s"}),
    ],
)  # fmt: skip
def test_other_kinds(name: str, parts: Object, expected: Object) -> None:
    resource = BUILTIN.get(name)
    assert resource is not None
    cells = row(name, resource.kind, **parts)
    assert {key: cells[key] for key in expected} == expected


@pytest.mark.parametrize("resource", [r for r in BUILTIN if "list" in r.verbs], ids=lambda r: r.name)
def test_every_kind_has_a_name_first_and_as_many_cells_as_columns(resource: Resource) -> None:
    spec: Object = {"containers": [], "selector": {}, "template": {"spec": {}}, "source": {}}
    spec |= {"scaleTargetRef": {"kind": "K", "name": "n"}, "maxReplicas": 1}
    role = {"roleRef": {"kind": "Role", "name": "r"}}
    obj = {"kind": resource.kind, "metadata": {"name": "x"}, "spec": spec, "status": {}, **role}
    columns, cells = columns_of(resource)
    assert len(cells(obj, NOW)) == len(columns)
    bare = render(resource, [{"kind": resource.kind, "metadata": {"name": "x"}}], NOW)["rows"][0]["cells"]
    assert len(bare) == len(columns)
    assert any(c["format"] == "name" for c in columns)


@pytest.mark.parametrize(("signer", "shown"), [("a.b/c", "a.b/c"), ("", "<none>")])
def test_trust_bundles_show_their_signer(signer: str, shown: str) -> None:
    cells = row("clustertrustbundles.certificates.k8s.io", "ClusterTrustBundle", spec={"signerName": signer})
    assert cells == {"Name": "x", "SignerName": shown}


@pytest.mark.parametrize(
    ("status", "state"), [({}, "Pending"), ({"conditions": [{"type": "Issued"}]}, "Issued")]
)
def test_requests_for_certificates_of_pods(status: Object, state: str) -> None:
    spec = {"podName": "p", "serviceAccountName": "a", "nodeName": "n", "signerName": "a.b/c"}
    resource = "podcertificaterequests.certificates.k8s.io"
    cells = row(resource, "PodCertificateRequest", spec=spec, status=status)
    assert list(cells.values()) == ["x", "p", "a", "n", "a.b/c", state]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (185, "3m5s"), (600, "10m"), (10800, "3h"), (11000, "3h3m"), (30 * 3600, "30h"),
     (3 * 86400 + 4 * 3600, "3d4h"), (400 * 86400, "400d"), (740 * 86400, "2y10d"), (-1, "0s"), (-60, "<invalid>")],
)  # fmt: skip
def test_an_age_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_shape_of_a_table() -> None:
    pods = BUILTIN.get("pods")
    assert pods is not None
    done = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {}, "status": {"phase": "Succeeded"}}
    table = render(pods, [done], NOW, include="None", headers=False)
    assert table["columnDefinitions"] == []
    assert table["rows"][0]["object"] is None
    assert table["rows"][0]["conditions"][0]["reason"] == "Succeeded"
    assert render(pods, [done], NOW, include="Object")["rows"][0]["object"] is done
    partial = render(pods, [done], NOW)["rows"][0]["object"]
    assert partial == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "x"},
    }


CUSTOM = [
    ("integer", 2.9, 2),
    ("integer", "2", None),
    ("number", 0.5, 0.5),
    ("boolean", True, True),
    ("boolean", "true", None),
    ("string", {"a": 1}, '{"a":1}'),
    ("string", "s", "s"),
    ("date", rfc3339(NOW - 60), "60s"),
    ("date", "soon", "<invalid>"),
]


@pytest.mark.parametrize(("kind", "value", "cell"), CUSTOM)
def test_columns_of_custom_resources(kind: str, value: Any, cell: Any) -> None:
    column = {"name": "C", "type": kind, "jsonPath": ".spec.v"}
    definition = {"spec": {"versions": [{"name": "v1", "additionalPrinterColumns": [column]}]}}
    resource = Resource("g", "v1", "K", "ks", True, custom=True, definition=definition)
    table = render(
        resource, [{"metadata": {"name": "x"}, "spec": {"v": value}}, {"metadata": {"name": "y"}}], NOW
    )
    assert [r["cells"] for r in table["rows"]] == [["x", cell], ["y", None]]


def test_custom_resources_without_columns_show_their_age() -> None:
    resource = Resource("g", "v1", "K", "ks", True, custom=True, definition={"spec": {"versions": []}})
    obj = {"metadata": {"name": "x", "creationTimestamp": rfc3339(NOW - 5)}}
    assert render(resource, [obj], NOW)["rows"][0]["cells"] == ["x", "5s"]


@pytest.mark.parametrize(
    ("status", "gone", "state"),
    [
        ({}, False, "pending"),
        ({}, True, "deleted"),
        ({"allocation": {"devices": {}}}, False, "allocated"),
        ({"allocation": {"devices": {}}, "reservedFor": [{"uid": "u"}]}, False, "allocated,reserved"),
        ({"allocation": {"devices": {}}}, True, "deleted,allocated"),
    ],
)
def test_states_of_resource_claims(status: Object, gone: bool, state: str) -> None:
    meta = {"deletionTimestamp": rfc3339(NOW)} if gone else {}
    cells = row("resourceclaims.resource.k8s.io", "ResourceClaim", metadata=meta, spec={}, status=status)
    assert cells == {"Name": "x", "State": state, "Age": "90s"}


@pytest.mark.parametrize(
    ("resource", "parts", "cells"),
    [
        ("deviceclasses.resource.k8s.io", {"spec": {}}, {}),
        ("resourceclaimtemplates.resource.k8s.io", {"spec": {}}, {}),
        (
            "resourceslices.resource.k8s.io",
            {"spec": {"nodeName": "n", "driver": "d.x", "pool": {"name": "p"}}},
            {"Node": "n", "Driver": "d.x", "Pool": "p"},
        ),
        ("volumeattributesclasses.storage.k8s.io", {"driverName": "d.x"}, {"DriverName": "d.x"}),
        (
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            {"spec": {"mutations": [{}, {}]}},
            {"Mutations": 2, "ParamKind": "<unset>"},
        ),
        (
            "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
            {"spec": {"policyName": "p", "paramRef": {"name": "c", "namespace": "d"}}},
            {"PolicyName": "p", "ParamRef": "d/c"},
        ),
    ],
)
def test_kinds_of_which_there_is_little_to_tell(resource: str, parts: Object, cells: Object) -> None:
    assert row(resource, "", **parts) == {"Name": "x", **cells, "Age": "90s"}
