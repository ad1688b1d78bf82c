"""Pods: what may be asked for, and what of a pod may still change."""

import pytest

POD = {"spec": {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always"}]}}
C = "spec.containers.0."
MOUNT = {"name": "v", "mountPath": "/v"}
LABEL = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("metadata.labels", {"a": "b"}, []),
        ("spec.containers", [], ["spec.containers: Required value"]),
        (C + "name", "A", [f'spec.containers[0].name: Invalid value: "A": {LABEL}']),
        (C + "image", " i", ["must not have leading or trailing whitespace"]),
        (C + "imagePullPolicy", "Soon", ['Unsupported value: "Soon": supported values: "Always", "IfNotPresent", "Never"']),
        (C + "ports", [{"containerPort": 0}], ["spec.containers[0].ports[0].containerPort: Required value"]),
        (C + "ports", [{"containerPort": 80, "hostPort": 70000}], ["ports[0].hostPort: Invalid value: 70000"]),
        (C + "env", [{"name": "A=B"}], ['spec.containers[0].env[0].name: Invalid value: "A=B"']),
        (C + "env", [{"name": "A.b-c", "value": "x"}], []),
        (C + "env", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.zone"}}}], ["field label not supported: spec.zone"]),
        (C + "env", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x.io/a']"}}}], []),
        (C + "envFrom", [{}], ["must specify one of: `configMapRef` or `secretRef`"]),
        (C + "volumeMounts", [MOUNT], ['spec.containers[0].volumeMounts[0].name: Not found: "v"']),
        (C + "resources", {"requests": {"fans": "1"}}, ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]),
        (C + "resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}, ['requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
        (C + "resources", {"requests": {"x.io/gpu": "1500m"}}, ["must be an integer", "Limit must be set for non overcommitable resources"]),
        (C + "livenessProbe", {"tcpSocket": {"port": "web"}}, []),
        (C + "livenessProbe", {"httpGet": {"port": 80}, "exec": {"command": ["x"]}}, ["may not specify more than 1 handler type"]),
        (C + "livenessProbe", {"grpc": {"port": 1}, "successThreshold": 2}, ["successThreshold: Invalid value: 2: must be 1"]),
        (C + "readinessProbe", {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 1}, ["must not be set for readinessProbes"]),
        (C + "securityContext", {"runAsUser": -1}, ["must be between 0 and 2147483647, inclusive"]),
        (C + "securityContext", {"privileged": True, "allowPrivilegeEscalation": False}, ["`privileged` to true"]),
        ("spec.restartPolicy", "Maybe", ['supported values: "Always", "OnFailure", "Never"']),
        (C + "restartPolicyRules", [{"action": "Restart", "exitCodes": {"operator": "In"}}], ["spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"]),
        ("spec.initContainers", [{"name": "s", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [{"action": "Stop"}]}], ['restartPolicyRules[0].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"', "restartPolicyRules[0].exitCodes: Required value: must be specified"]),
        ("spec.initContainers", [{"name": "s", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "Is", "values": [1] * 256}}]}], ['exitCodes.operator: Unsupported value: "Is": supported values: "In", "NotIn"', "exitCodes.values: Too many: 256: must have at most 255 items"]),
        ("spec.activeDeadlineSeconds", 0, ["must be between 1 and 2147483647, inclusive"]),
        ("spec.dnsPolicy", "None", ["must provide `dnsConfig` when `dnsPolicy` is None"]),
        ("spec.hostname", "a.b", ['spec.hostname: Invalid value: "a.b": must not contain dots']),
        ("spec.nodeSelector", {"a": "b c"}, ['spec.nodeSelector: Invalid value: "b c"']),
        ("spec.tolerations", [{"operator": "Exists"}], []),
        ("spec.tolerations", [{"key": "a", "effect": "Evict"}], ['Unsupported value: "Evict"']),
        ("spec.hostAliases", [{"ip": "home"}], ["must be a valid IP address"]),
        ("spec.ephemeralContainers", [{"name": "d", "image": "i"}], ["cannot be set on create"]),
        ("spec.schedulingGates", [{"name": "x.io/a"}, {"name": "x.io/a"}], ['schedulingGates[1]: Duplicate value: "x.io/a"']),
        ("spec.securityContext", {"sysctls": [{"name": "A"}]}, ["must have at most 253 characters and match regex"]),
        ("spec.os", {"name": "plan9"}, ['spec.os.name: Unsupported value: "plan9"']),
        ("spec.initContainers", [{"name": "c", "image": "i"}], ['initContainers[0].name: Duplicate value: "c"']),
        ("spec.initContainers", [{"name": "s", "image": "i", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}}], []),
        (C + "lifecycle", {"stopSignal": "SIGUSR1"}, ["spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"]),
        ("spec.containers.0.lifecycle", {"preStop": {"sleep": {"seconds": 31}}}, ["must be non-negative and less than terminationGracePeriodSeconds (30)"]),
        (C + "lifecycle", {"preStop": {"sleep": {"seconds": 30}}, "postStart": {"sleep": {}}}, []),
        (C + "lifecycle", {"preStop": {}}, ["lifecycle.preStop: Required value: must specify a handler type"]),
        (C + "lifecycle", {"preStop": {"exec": {"command": ["x"]}, "sleep": {"seconds": 31}}}, ["lifecycle.preStop.sleep: Forbidden: may not specify more than 1 handler type"]),
        ("spec.initContainers", [{"name": "s", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}], ["may not be set for init containers without restartPolicy=Always"]),
    ],
)  # fmt: skip
def test_one_thing_wrong(judge, put, path, value, expected):
    lines = judge.create("pods", put(POD, path, value))
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line


def certificate(seconds=86_400, **changes):
    part = {
        "signerName": "a.b/c",
        "keyType": "ED25519",
        "credentialBundlePath": "p",
        "maxExpirationSeconds": seconds,
        **changes,
    }
    return {"projected": {"sources": [{"podCertificate": part}]}}


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"emptyDir": {}}, []),
        (
            {"emptyDir": {}, "hostPath": {"path": "/x"}},
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1"],
        ),
        ({"hostPath": {"path": "/a/../b"}}, ["must not contain '..'"]),
        ({"hostPath": {"path": "/a", "type": "Pipe"}}, ['hostPath.type: Unsupported value: "Pipe"']),
        (
            {"secret": {"secretName": "s", "defaultMode": 1024}},
            ["must be a number between 0 and 0777 (octal), both"],
        ),
        ({"configMap": {"name": "c", "items": [{"key": "k", "path": "/p"}]}}, ["must be a relative path"]),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
            ["10 minutes"],
        ),
        (certificate(3600), []),
        (certificate(3599), ["Invalid value: 3599: if provided, maxExpirationSeconds must be >= 3600"]),
        (
            certificate(7862401),
            ["Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400"],
        ),
        (
            certificate(86_401, signerName="kubernetes.io/kube-apiserver-client-pod"),
            ["Invalid value: 86401: if provided, maxExpirationSeconds must be <= 86400"],
        ),
        (certificate(signerName="c"), ["sources[0].podCertificate.signerName: Invalid value"]),
        (certificate(keyType="RSA1024"), ['podCertificate.keyType: Unsupported value: "RSA1024"']),
        (certificate(keyPath="../k"), ["podCertificate.keyPath: Invalid value"]),
        (certificate(keyPath="p"), ["conflicting duplicate paths"]),
        (certificate(credentialBundlePath=""), ["specify at least one of credentialBundlePath, keyPath"]),
        (certificate(userAnnotations={"a": "b"}), ["must be a domain-prefixed key"]),
        ({"downwardAPI": {"items": [{"path": "p"}]}}, ["one of fieldRef and resourceFieldRef is required"]),
        ({"persistentVolumeClaim": {}}, ["spec.volumes[0].persistentVolumeClaim.claimName: Required value"]),
        ({"nfs": {"server": "s", "path": "p"}}, ["must be an absolute path"]),
        ({"ephemeral": {}}, ["ephemeral.volumeClaimTemplate: Required value"]),
        ({"image": {}}, ["image.reference: Required value"]),
        ({"csi": {"driver": "A_"}}, ["spec.volumes[0].csi.driver"]),
    ],
)
def test_a_volume_has_one_source_and_what_that_needs(judge, put, volume, expected):
    pod = put(POD, "spec.volumes", [{"name": "v"} | volume])
    lines = judge.create("pods", pod)
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line


def test_errors_come_in_the_original_s_order(judge):
    spec = {
        "containers": [{"name": "A", "image": ""}],
        "restartPolicy": "No",
        "nodeSelector": {"a b": "c"},
        "hostname": "X",
    }
    fields = [line.split(":")[0] for line in judge.create("pods", {"spec": spec})]
    assert fields == [
        "spec.containers[0].name",
        "spec.containers[0].image",
        "spec.restartPolicy",
        "spec.nodeSelector",
        "spec.hostname",
    ]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (C + "image", "j", []),
        ("spec.activeDeadlineSeconds", 5, []),
        ("spec.tolerations", [{"key": "a", "operator": "Exists"}], []),
        (C + "image", "", ["spec.containers[0].image: Required value"]),
        (C + "command", ["x"], ["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"]),
        ("spec.nodeName", "n", ["spec: Forbidden: pod updates may not change fields"]),
        ("spec.containers", [{"name": "c", "image": "i"}] * 2, ["spec.containers: Forbidden: pod updates may not add or remove"]),
    ],
)  # fmt: skip
def test_only_a_few_fields_of_a_pod_may_change(judge, put, path, value, expected):
    lines = judge.update("pods", put(POD, path, value), POD)
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line


def test_a_deadline_only_comes_nearer(judge, put):
    five, nine = (put(POD, "spec.activeDeadlineSeconds", n) for n in (5, 9))
    assert judge.update("pods", five, nine) == []
    assert judge.update("pods", nine, five) == [
        "spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"
    ]
    assert "must not update from a positive integer to nil value" in judge.update("pods", POD, nine)[0]


def test_a_gated_pod_may_become_choosier(judge, put):
    gated = put(POD, "spec.schedulingGates", [{"name": "x.io/a"}])
    assert judge.update("pods", put(gated, "spec.nodeSelector", {"a": "b"}), gated) == []
    assert judge.update("pods", POD, gated) == []
    assert "only deletion is allowed" in judge.update("pods", gated, POD)[0]


def test_ephemeral_containers_are_only_added(judge, put):
    debug = put(POD, "spec.ephemeralContainers", [{"name": "d", "image": "i", "targetContainerName": "c"}])
    assert judge.update("pods", debug, POD, "ephemeralcontainers") == []
    assert "may not be removed" in judge.update("pods", POD, debug, "ephemeralcontainers")[0]
    other = put(debug, "spec.ephemeralContainers.0.image", "j")
    assert "may not be changed" in judge.update("pods", other, debug, "ephemeralcontainers")[0]
    lost = put(debug, "spec.ephemeralContainers.0.targetContainerName", "z")
    assert 'Not found: "z"' in judge.update("pods", lost, POD, "ephemeralcontainers")[0]


def test_what_has_ended_does_not_run_again(judge, put):
    never = put(POD, "spec.restartPolicy", "Never")
    ended = put(never, "status.containerStatuses", [{"name": "c", "state": {"terminated": {"exitCode": 0}}}])
    runs = put(never, "status.containerStatuses", [{"name": "c", "state": {"running": {}}}])
    assert judge.update("pods", ended, runs, "status") == []
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    init = [{"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [rule]}]
    assert (
        judge.update(
            "pods", put(runs, "spec.initContainers", init), put(ended, "spec.initContainers", init), "status"
        )
        == []
    )
    assert judge.update("pods", runs, ended, "status") == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    ]


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        ({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}, "must have at least one node selector term"),
        ({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["x"]}]}]}}}, "values[0]: Invalid value: \"x\": must be an integer"),
        ({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]}}, "must be in the range 1-100"),
        ({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a b"}]}}, "topologyKey: Invalid value"),
        ({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "z", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}]}}, "must be specified when `operator` is 'In' or 'NotIn'"),
    ],
)  # fmt: skip
def test_a_wrong_affinity_is_refused(judge, put, affinity, expected):
    (line,) = judge.create("pods", put(POD, "spec.affinity", affinity))
    assert expected in line


def test_spread_constraints(judge, put):
    one = {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}
    lines = judge.create("pods", put(POD, "spec.topologySpreadConstraints", [one, one | {"maxSkew": 1}]))
    assert lines == [
        "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        'spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, ScheduleAnyway}"',
        "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if "
        "whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
        "spec.topologySpreadConstraints[1].minDomains: Invalid value: 2: can only use minDomains if "
        "whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
    ]


def test_a_resize_keeps_the_class_of_service(judge, put):
    def sized(**resources):
        return put(POD, C + "resources", resources)

    asked = sized(requests={"cpu": "1", "x.io/a": "1"}, limits={"x.io/a": "1"})
    assert judge.update("pods", put(asked, C + "resources.requests.cpu", "2"), asked, "resize") == []
    (line,) = judge.update("pods", sized(requests={"cpu": "1"}), POD, "resize")
    assert "Pod QOS Class may not change as a result of resizing" in line
    more = sized(requests={"cpu": "1", "x.io/a": "2"}, limits={"x.io/a": "2"})
    assert "only cpu and memory resources are mutable" in judge.update("pods", more, asked, "resize")[0]


def test_a_resize_leaves_the_containers_in_their_order(judge, put):
    def sized(*names, field="containers"):
        return put(POD, f"spec.{field}", [{"name": n, "image": "i"} for n in names])

    how = "Forbidden: containers may not be renamed or reordered on resize"
    for other in (sized("b", "a"), sized("c", "d")):
        lines = judge.update("pods", other, sized("a", "b"), "resize")
        assert lines == [f"spec.containers[0].name: {how}", f"spec.containers[1].name: {how}"]
    (line,) = judge.update("pods", sized("a"), sized("a", "b"), "resize")
    assert line == "spec: Forbidden: containers may not be added or removed on resize"


def test_a_resize_of_an_init_container(judge, put):
    def sized(cpu):
        asked = {"requests": {"cpu": cpu}}
        return put(POD, "spec.initContainers", [{"name": "i", "image": "i", "resources": asked}])

    assert judge.update("pods", sized("2"), sized("1"), "resize") == []


def test_env_files_lie_in_an_empty_dir(judge, put):
    def using(**ref):
        volumes = [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x"}}]
        pod = put(POD, "spec.volumes", volumes)
        return put(pod, C + "env", [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "A", **ref}}}])

    at = "spec.containers[0].env[0].valueFrom.fileKeyRef"
    assert judge.create("pods", using(volumeName="e", path="a/b.env")) == []
    assert judge.create("pods", using(volumeName="x", path="../b")) == [
        f"{at}.path: Invalid value: \"../b\": must not contain '..'",
        f'{at}.volumeName: Not found: "x"',
    ]
    (line,) = judge.create("pods", using(volumeName="h", path="b"))
    assert line == f'{at}.volumeName: Invalid value: "h": referenced volume must be of type emptyDir'


def test_an_overridden_hostname(judge, put):
    def named(name, **more):
        pod = put(POD, "spec.hostnameOverride", name)
        return put(pod, "spec", pod["spec"] | more)

    assert judge.create("pods", named("o.example.com", hostname="h", subdomain="s")) == []
    assert judge.create("pods", named("o" * 63 + ".xy", hostNetwork=True, setHostnameAsFQDN=True)) == [
        "spec.hostnameOverride: Too long: may not be more than 64 bytes",
        "spec.hostnameOverride: Forbidden: may not be set when setHostnameAsFQDN is true",
        "spec.hostnameOverride: Forbidden: may not be set when hostNetwork is true",
    ]
    (line,) = judge.create("pods", named("Not-RFC1123"))
    assert "a lowercase RFC 1123 subdomain must consist of" in line


def test_a_resize_of_the_whole_pod(judge, put):
    def sized(cpu, memory="1Gi"):
        return put(POD, "spec.resources", {"requests": {"cpu": cpu}, "limits": {"memory": memory}})

    assert judge.update("pods", sized("2", "2Gi"), sized("1"), "resize") == []
    less = put(sized("1"), "spec.resources.limits", {})
    assert "spec.resources.limits: Forbidden: resource limits cannot be removed" in judge.update(
        "pods", less, sized("1"), "resize"
    )
