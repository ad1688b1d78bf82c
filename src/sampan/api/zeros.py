"""Which fields keep an empty value that was sent, and which lose it.

In the original a field is either a pointer (an explicit `false`, `0` or `""` is kept and means something) or a plain
value that is left out when it is zero. OpenAPI does not tell them apart, so the exceptions to the rule of thumb
(strings, lists and maps are values; booleans and numbers are pointers; objects are always kept) are listed here.
Source: API reference, the types of each group; API conventions, "Optional vs. Required".
"""

from __future__ import annotations

from sampan.api.schema import Node

_PLAIN_BOOLEANS = frozenset(
    """
    readOnly stdin stdinOnce tty hostIPC hostNetwork hostPID unschedulable publishNotReadyAddresses paused
    chapAuthDiscovery chapAuthSession sslEnabled clusterScope authenticated denied globalDefault deprecated nullable
    uniqueItems exclusiveMaximum exclusiveMinimum x-kubernetes-embedded-resource x-kubernetes-int-or-string
    preserveUnknownFields insecureSkipTLSVerify
    """.split()
)

_PLAIN_NUMBERS = frozenset(
    """
    minReadySeconds observedGeneration generation hostPort sizeBytes signal nodePort healthCheckNodePort
    availableReplicas readyReplicas updatedReplicas unavailableReplicas fullyLabeledReplicas numberAvailable
    numberUnavailable updatedNumberScheduled currentReplicas failed succeeded deprecatedCount initialDelaySeconds
    timeoutSeconds periodSeconds successThreshold failureThreshold
    """.split()
)

_PLAIN_NUMBERS_OF = frozenset(
    {
        ("Event", "count"),
        ("EventSeries", "count"),
        ("JobStatus", "active"),
        ("DeploymentStatus", "replicas"),
        ("ScaleSpec", "replicas"),
        ("AWSElasticBlockStoreVolumeSource", "partition"),
        ("GCEPersistentDiskVolumeSource", "partition"),
        ("CustomResourceColumnDefinition", "priority"),
    }
)

_POINTER_NUMBERS_OF = frozenset(
    {
        ("MutatingWebhook", "timeoutSeconds"),
        ("ValidatingWebhook", "timeoutSeconds"),
        ("ClientIPConfig", "timeoutSeconds"),
        ("StatefulSetStatus", "availableReplicas"),
    }
)

_POINTER_STRINGS = frozenset(
    """
    appProtocol completionMode fsGroupChangePolicy fsGroupPolicy holderIdentity hostnameOverride ingressClassName
    internalTrafficPolicy ipFamilyPolicy loadBalancerClass localhostProfile managedBy
    nodeAffinityPolicy nodeTaintsPolicy podReplacementPolicy preemptionPolicy preferredHolder procMount
    recursiveReadOnly reclaimPolicy resourceClaimName resourceClaimTemplateName runtimeClassName
    strategy supplementalGroupsPolicy timeZone trafficDistribution volumeAttributesClassName volumeBindingMode
    volumeMode zone gmsaCredentialSpec gmsaCredentialSpecName runAsUserName
    unhealthyPodEvictionPolicy url failurePolicy matchPolicy reinvocationPolicy parameterNotFoundAction
    """.split()
)

_POINTER_STRINGS_OF = frozenset(
    {
        ("PersistentVolumeClaimSpec", "storageClassName"),
        ("HostPathVolumeSource", "type"),
        ("GRPCAction", "service"),
        ("EndpointAddress", "nodeName"),
        ("Endpoint", "nodeName"),
        ("Endpoint", "hostname"),
        ("TypedLocalObjectReference", "apiGroup"),
        ("TypedObjectReference", "apiGroup"),
        ("TypedObjectReference", "namespace"),
        ("IngressClassParametersReference", "apiGroup"),
        ("IngressClassParametersReference", "namespace"),
        ("IngressClassParametersReference", "scope"),
        ("NetworkPolicyPort", "protocol"),
        ("Container", "restartPolicy"),
        ("EphemeralContainer", "restartPolicy"),
        ("Lifecycle", "stopSignal"),
        ("ServiceReference", "path"),
        ("RuleWithOperations", "scope"),
        ("NamedRuleWithOperations", "scope"),
        ("Validation", "reason"),
        ("CSIVolumeSource", "fsType"),
        ("AzureDiskVolumeSource", "fsType"),
        ("AzureDiskVolumeSource", "cachingMode"),
        ("LocalVolumeSource", "fsType"),
        ("ISCSIVolumeSource", "initiatorName"),
        ("ISCSIPersistentVolumeSource", "initiatorName"),
        ("PodDNSConfigOption", "value"),
        ("RoleRef", "apiGroup"),
        ("Preconditions", "uid"),
        ("Preconditions", "resourceVersion"),
        ("DeleteOptions", "propagationPolicy"),
        ("CustomResourceSubresourceScale", "labelSelectorPath"),
        ("CustomResourceDefinitionVersion", "deprecationWarning"),
    }
)

_DISCOVERY_PORT = "io.k8s.api.discovery.v1.EndpointPort"  # its name and protocol are pointers, core's are not

_KEPT_LISTS = frozenset(
    {
        ("Role", "rules"),
        ("ClusterRole", "rules"),
        ("EndpointSlice", "endpoints"),
        ("EndpointSlice", "ports"),
        ("ObjectMeta", "managedFields"),  # an explicit empty list resets ownership
    }
)


def keeps_zero(owner: Node, key: str, child: Node) -> bool:
    """Whether `owner.key` stays in an object when its value is `""`, `0`, `false`, `[]` or `{}`."""
    if key in owner.required:
        return True
    short = owner.name.rpartition(".")[2]
    match child.type:
        case "string":
            return (
                key in _POINTER_STRINGS
                or (short, key) in _POINTER_STRINGS_OF
                or owner.name == _DISCOVERY_PORT
            )
        case "boolean":
            return key not in _PLAIN_BOOLEANS
        case "integer":
            if (short, key) in _POINTER_NUMBERS_OF:
                return True
            return key not in _PLAIN_NUMBERS and (short, key) not in _PLAIN_NUMBERS_OF
        case "array":
            return (short, key) in _KEPT_LISTS
        case "object":
            return child.additional is None
    return True
