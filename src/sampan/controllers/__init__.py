"""The mind: what every built-in kind means, as pure functions `reconcile(object, view, now) -> Plan`.

`build(config)` gives all controllers for `client.runner.Runner`. Each file is one kind or one duty; none imports
another's decisions, except where they share a definition (pods, slices, adoption).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.api.registry import Registry

from . import (
    account_tokens,
    aggregation,
    apiservice,
    bootstrap_signer,
    certificates,
    cronjob,
    daemonset,
    deployment,
    disruption,
    endpoints,
    endpointslice,
    eviction,
    flowcontrol,
    gc,
    hpa,
    identity,
    job,
    loadbalancer,
    namespace,
    node_lifecycle,
    persistentvolume,
    podgc,
    policy_status,
    replicaset,
    resourcequota,
    serviceaddress,
    servicecidr,
    statefulset,
    ttl,
)
from .base import Rule
from .node_lifecycle import Timing

__all__ = ["Config", "Rule", "Timing", "build"]


@dataclass(frozen=True)
class Config:
    """What the controllers must be told. `registry` is the server's own, so that custom resources are known."""

    registry: Registry
    cluster_ca: str = ""  # PEM, for kube-root-ca.crt in every namespace
    load_balancer_pool: str = ""  # CIDR or first-last; empty: services of type LoadBalancer stay pending
    volumes: str = ""  # directory for volumes of the local-path provisioner; empty: nobody provisions them
    sign: bool = False  # whether the runner has the effect `sign` for certificates
    timing: Timing = field(default_factory=Timing)
    disabled: frozenset[str] = frozenset()  # controller names


def build(config: Config) -> list[Rule]:
    """All controllers, in a fixed order; each named as its service account in kube-system."""
    rules = [
        *replicaset.rules(),
        *deployment.rules(),
        *statefulset.rules(),
        *daemonset.rules(),
        *job.rules(),
        *cronjob.rules(),
        *endpointslice.rules(),
        *endpoints.rules(),
        *servicecidr.rules(),
        *serviceaddress.rules(),
        *loadbalancer.rules(config.load_balancer_pool),
        *namespace.rules(),
        *gc.rules(config.registry),
        *node_lifecycle.rules(config.timing),
        *eviction.rules(),
        *podgc.rules(),
        *identity.rules(config.cluster_ca),
        *account_tokens.rules(config.cluster_ca),
        *bootstrap_signer.rules(),
        *aggregation.rules(),
        *ttl.rules(),
        *disruption.rules(config.registry),
        *hpa.rules(config.registry),
        *resourcequota.rules(),
        *persistentvolume.rules(config.volumes),
        *certificates.rules(config.sign),
        *policy_status.rules(config.registry),
        *flowcontrol.rules(),
        *apiservice.rules(),
    ]
    return [rule for rule in rules if rule.name not in config.disabled]
