"""One line for each kind that is not generic."""

from __future__ import annotations

from sampan.api.status import FieldError, invalid
from sampan.base.clock import rfc3339
from sampan.base.objects import Object
from sampan.server.strategies.base import Prep, Strategy
from sampan.server.strategies.definitions import DEFINITION
from sampan.server.strategies.pods import POD


def _namespace_create(obj: Object, prep: Prep) -> None:
    meta = obj["metadata"]
    finalizers = (obj.get("spec") or {}).get("finalizers") or []
    if "kubernetes" not in finalizers:
        finalizers = [*finalizers, "kubernetes"]
    obj["spec"] = {"finalizers": finalizers}
    if meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def _namespace_update(new: Object, old: Object, prep: Prep) -> None:
    meta = new["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def _namespace_status(new: Object, old: Object, prep: Prep) -> None:
    """The phase of a namespace follows its deletion, not the writer."""
    deleting = bool(old["metadata"].get("deletionTimestamp"))
    new.setdefault("status", {})["phase"] = "Terminating" if deleting else "Active"


def _job_create(obj: Object, prep: Prep) -> None:
    """A job selects its pods by its own uid unless it says otherwise. Source: Job, "Specifying your own Pod selector"."""
    spec, meta = obj.setdefault("spec", {}), obj["metadata"]
    if spec.get("manualSelector"):
        return
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    labels = dict(template.get("labels") or {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}controller-uid"] = meta["uid"]
        labels[f"{prefix}job-name"] = meta["name"]
    template["labels"] = labels
    selector = spec.setdefault("selector", {})
    selector["matchLabels"] = {
        **(selector.get("matchLabels") or {}),
        "batch.kubernetes.io/controller-uid": meta["uid"],
    }


def _csr_create(obj: Object, prep: Prep) -> None:
    """Who asks is recorded, whatever the request says. Source: CertificateSigningRequestSpec."""
    spec, user = obj.setdefault("spec", {}), prep.user
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    spec["username"] = user.name
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {k: list(v) for k, v in user.extra.items()}


_FINAL = ("Approved", "Denied")


def _csr_status(new: Object, old: Object, prep: Prep) -> None:
    """`/approval` writes the conditions of a decision, `/status` everything else."""
    status, before = new.setdefault("status", {}), old.get("status") or {}
    conditions = status.get("conditions") or []
    was = [c for c in before.get("conditions") or [] if c.get("type") in _FINAL]
    if prep.subresource == "approval":
        new["status"] = {**before, "conditions": conditions} if conditions else dict(before)
        if not conditions:
            new["status"].pop("conditions", None)
    else:
        now = [c for c in conditions if c.get("type") in _FINAL]
        for kind in _FINAL:
            if any(c.get("type") == kind for c in now) and not any(c.get("type") == kind for c in was):
                detail = f"updates may not add a condition of type {kind!r}".replace("'", '"')
                _refuse(
                    prep, new, FieldError("FieldValueForbidden", "status.conditions", f"Forbidden: {detail}")
                )
    for kind in (*_FINAL, "Failed"):
        had = any(c.get("type") == kind for c in before.get("conditions") or [])
        has = any(c.get("type") == kind for c in new["status"].get("conditions") or [])
        if had and not has:
            detail = f'updates may not remove a condition of type "{kind}"'
            _refuse(prep, new, FieldError("FieldValueForbidden", "status.conditions", f"Forbidden: {detail}"))
    _stamp_conditions(new["status"].get("conditions") or [], before.get("conditions") or [], prep)


def _stamp_conditions(conditions: list[Object], before: list[Object], prep: Prep) -> None:
    known = {c.get("type"): c for c in before}
    for condition in conditions:
        condition.setdefault("lastUpdateTime", rfc3339(prep.now))
        earlier = known.get(condition.get("type"))
        if not condition.get("lastTransitionTime"):
            same = earlier is not None and earlier.get("status") == condition.get("status")
            stamp = earlier.get("lastTransitionTime") if same and earlier else None
            condition["lastTransitionTime"] = stamp or rfc3339(prep.now)


def _pod_certificate_status(new: Object, old: Object, prep: Prep) -> None:
    """A verdict stays as it was given; a new one is dated."""
    given = {c.get("type"): c for c in (old.get("status") or {}).get("conditions") or []}
    conditions = (new.get("status") or {}).get("conditions") or []
    for index, condition in enumerate(conditions):
        conditions[index] = given.get(condition.get("type"), condition)
        if not conditions[index].get("lastTransitionTime"):
            conditions[index]["lastTransitionTime"] = rfc3339(prep.now)


def _refuse(prep: Prep, obj: Object, error: FieldError) -> None:
    raise invalid(prep.row.group, prep.row.kind, obj["metadata"].get("name", ""), [error])


def _daemon_create(obj: Object, prep: Prep) -> None:
    notes = obj["metadata"].setdefault("annotations", {})
    notes["deprecated.daemonset.template.generation"] = "1"


def _daemon_update(new: Object, old: Object, prep: Prep) -> None:
    """The old template generation still counts template changes, in an annotation."""
    name = "deprecated.daemonset.template.generation"
    before = (old["metadata"].get("annotations") or {}).get(name, "1")
    same = (new.get("spec") or {}).get("template") == (old.get("spec") or {}).get("template")
    notes = new["metadata"].setdefault("annotations", {})
    notes[name] = before if same or not before.isdigit() else str(int(before) + 1)


_ZERO = {"replicas": 0}
_SPEC = Strategy(generation=True)
_ON_UPDATE = Strategy(create_on_update=True)

STRATEGIES: dict[str, Strategy] = {
    "pods": POD,
    "namespaces": Strategy(
        create=_namespace_create,
        update=_namespace_update,
        update_status=_namespace_status,
        status={"phase": "Active"},
        frozen=("spec",),
        returns_deleted=True,
    ),
    "nodes": Strategy(keeps_status=True),
    "services": Strategy(status={"loadBalancer": {}}, create_on_update=True, returns_deleted=True),
    "serviceaccounts": Strategy(returns_deleted=True),
    "endpoints": _ON_UPDATE,
    "events": _ON_UPDATE,
    "limitranges": _ON_UPDATE,
    "podtemplates": Strategy(create_on_update=True, generation=True, returns_deleted=True),
    "resourcequotas": Strategy(returns_deleted=True),
    "persistentvolumes": Strategy(status={"phase": "Pending"}, returns_deleted=True),
    "persistentvolumeclaims": Strategy(status={"phase": "Pending"}, returns_deleted=True),
    "replicationcontrollers": Strategy(status=_ZERO, generation=True, orphans=True),
    "replicasets.apps": Strategy(status=_ZERO, generation=True),
    "deployments.apps": _SPEC,
    "statefulsets.apps": Strategy(status={"replicas": 0, "availableReplicas": 0}, generation=True),
    "daemonsets.apps": Strategy(
        create=_daemon_create,
        update=_daemon_update,
        status={
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        },
        generation=True,
    ),
    "jobs.batch": Strategy(create=_job_create, generation=True, orphans=True),
    "cronjobs.batch": _SPEC,
    "horizontalpodautoscalers.autoscaling": Strategy(
        status={"currentMetrics": None, "desiredReplicas": 0}, generation=True
    ),
    "poddisruptionbudgets.policy": Strategy(
        status={"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
        generation=True,
        needs_version=True,
    ),
    "ingresses.networking.k8s.io": Strategy(status={"loadBalancer": {}}, generation=True),
    "ingressclasses.networking.k8s.io": _SPEC,
    "networkpolicies.networking.k8s.io": _SPEC,
    "servicecidrs.networking.k8s.io": _SPEC,
    "ipaddresses.networking.k8s.io": _SPEC,
    "volumeattachments.storage.k8s.io": Strategy(status={"attached": False}),
    "leases.coordination.k8s.io": Strategy(create_on_update=True, needs_version=True),
    "roles.rbac.authorization.k8s.io": _ON_UPDATE,
    "rolebindings.rbac.authorization.k8s.io": _ON_UPDATE,
    "clusterroles.rbac.authorization.k8s.io": _ON_UPDATE,
    "clusterrolebindings.rbac.authorization.k8s.io": _ON_UPDATE,
    "priorityclasses.scheduling.k8s.io": _SPEC,
    "endpointslices.discovery.k8s.io": _SPEC,
    "certificatesigningrequests.certificates.k8s.io": Strategy(
        create=_csr_create, update_status=_csr_status, frozen=("spec",)
    ),
    "podcertificaterequests.certificates.k8s.io": Strategy(
        update_status=_pod_certificate_status, needs_version=True
    ),
    "customresourcedefinitions.apiextensions.k8s.io": DEFINITION,
    "apiservices.apiregistration.k8s.io": Strategy(needs_version=True),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _SPEC,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _SPEC,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _SPEC,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _SPEC,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": _SPEC,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _SPEC,
    "flowschemas.flowcontrol.apiserver.k8s.io": _SPEC,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _SPEC,
    "deviceclasses.resource.k8s.io": _SPEC,
    "resourceslices.resource.k8s.io": _SPEC,
}
