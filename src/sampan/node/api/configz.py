"""/configz: the node's settings under the names of KubeletConfiguration (v1beta1), for tools that ask a node about itself."""

from __future__ import annotations

from sampan.api import duration
from sampan.base.objects import Object
from sampan.node import pressure
from sampan.node.config import AgentConfig


def kubelet_configuration(config: AgentConfig) -> Object:
    """What is set here; fields that have no meaning for this node are left out."""
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.address,
        "port": config.port,
        "authentication": {"x509": {}, "webhook": {"enabled": True}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "Webhook"},
        "staticPodPath": config.static_pods,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": list(config.cluster_dns),
        "resolvConf": config.resolv_conf,
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit,
        "systemReserved": dict(config.reserved),
        "kubeReserved": dict(config.kube_reserved),
        "registerWithTaints": [dict(taint) for taint in config.taints],
        "cgroupDriver": "cgroupfs",
        "seccompDefault": True,
        "serializeImagePulls": False,
        "rotateCertificates": True,
        "allowedUnsafeSysctls": list(config.unsafe_sysctls),
        "nodeStatusReportFrequency": duration.of_seconds(config.status_period),
        "nodeLeaseDurationSeconds": config.lease_duration,
        "evictionHard": _thresholds(config.eviction_hard),
        "evictionSoft": _thresholds(config.eviction_soft),
        "evictionSoftGracePeriod": _graces(config),
        "evictionPressureTransitionPeriod": duration.of_seconds(config.pressure_transition),
        "evictionMaxPodGracePeriod": int(config.eviction_max_pod_grace),
        "imageGCHighThresholdPercent": int(config.image_gc_high),
        "imageGCLowThresholdPercent": int(config.image_gc_low),
        "imageMinimumGCAge": duration.of_seconds(config.image_gc_age),
        "containerLogMaxSize": config.log_max_size,
        "containerLogMaxFiles": config.log_max_files,
    }


def _thresholds(text: str) -> dict[str, str]:
    return {one.signal: one.amount for one in pressure.parse(text)}


def _graces(config: AgentConfig) -> dict[str, str]:
    soft = pressure.parse(config.eviction_soft, config.eviction_soft_grace)
    return {one.signal: duration.of_seconds(one.grace) for one in soft}
