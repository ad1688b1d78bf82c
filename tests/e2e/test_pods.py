"""Pods: containers that share, volumes, environment, init containers, restarts, probes, hooks, limits, identities, ends."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path

import pytest
from harness import HOST, Kubectl, eventually, pod, server, shell


def container_status(kubectl: Kubectl, name: str, container: str = "main") -> dict:
    status = kubectl.get(f"pod/{name}")["status"]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((one for one in every if one["name"] == container), {})


def waiting(kubectl: Kubectl, name: str, container: str = "main") -> str:
    """Why a container waits, or an empty text."""
    return container_status(kubectl, name, container).get("state", {}).get("waiting", {}).get("reason", "")


def output_of(kubectl: Kubectl, name: str, command: str, **spec: object) -> str:
    """What a command wrote in a pod of its own that ran to its end."""
    container = {key: spec.pop(key) for key in list(spec) if key in _CONTAINER_FIELDS}
    kubectl.apply(pod(name, {"restartPolicy": "Never", "containers": [shell(command, **container)], **spec}))
    kubectl.phase(name, "Succeeded")
    return kubectl(f"logs {name}")


IMPATIENT = {
    "periodSeconds": 1,
    "failureThreshold": 1,
    "timeoutSeconds": 30,
}  # with what is wrong, not what is slow
_CONTAINER_FIELDS = ("env", "envFrom", "volumeMounts", "resources", "securityContext", "workingDir", "image")


def test_a_pod_has_its_own_address(kubectl: Kubectl) -> None:
    """Other pods, also on the other node, and this machine reach it there."""
    kubectl.apply(pod("web", {"nodeName": "node-1", "containers": [server()]}))
    kubectl.wait("pod/web")
    address = kubectl("get pod web -o jsonpath={.status.podIP}")
    kubectl('run far --image=localhost/host --overrides=\'{"spec":{"nodeName":"node-2"}}\' -- sleep infinity')
    kubectl(
        'run near --image=localhost/host --overrides=\'{"spec":{"nodeName":"node-1"}}\' -- sleep infinity'
    )
    kubectl.wait("pod/far pod/near")
    for other in ("far", "near", "web"):
        assert kubectl(f"exec {other} -- curl -s {address}:8080").strip() == "web"
    assert urllib.request.urlopen(f"http://{address}:8080", timeout=5).read() == b"web\n"


def test_containers_share_network_and_volumes(kubectl: Kubectl) -> None:
    """One address, one port space, and what one writes the other reads."""
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    kubectl.run_pod(
        "pair",
        {
            "containers": [
                shell("exec python3 -m http.server 8080 -d /shared", name="web", **mounts),
                shell("echo hello >/shared/word; exec sleep infinity", name="side", **mounts),
            ],
            "volumes": [{"name": "shared", "emptyDir": {}}],
        },
    )
    ask = "curl -s --retry 20 --retry-connrefused --retry-delay 1 localhost:8080/word"
    assert kubectl(f"exec pair -c side -- {ask}") == "hello\n"
    assert kubectl("exec pair -c web -- hostname") == kubectl("exec pair -c side -- hostname") == "pair\n"
    assert kubectl("get pod pair --no-headers").split()[1:3] == ["2/2", "Running"]


def test_empty_dir_in_memory(kubectl: Kubectl) -> None:
    said = output_of(
        kubectl,
        "memory",
        "stat -f -c %T /m; dd if=/dev/zero of=/m/big bs=1M count=2 2>&1 | grep -o 'No space left' || true",
        volumeMounts=[{"name": "m", "mountPath": "/m"}],
        volumes=[{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    )
    assert said.split("\n")[:2] == ["tmpfs", "No space left"]


def test_config_map_and_secret_volumes(kubectl: Kubectl) -> None:
    """Files with the modes asked for; a change of the object arrives in the running pod."""
    kubectl("create configmap settings --from-literal=colour=red --from-literal=size=big")
    kubectl("create secret generic key --from-literal=password=s3cret")
    kubectl.run_pod(
        "reader",
        {
            "containers": [
                shell(
                    "exec sleep infinity",
                    volumeMounts=[
                        {"name": "settings", "mountPath": "/settings"},
                        {"name": "key", "mountPath": "/key", "readOnly": True},
                        {"name": "settings", "mountPath": "/one/colour", "subPath": "colour"},
                    ],
                )
            ],
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {
                    "name": "key",
                    "secret": {
                        "secretName": "key",
                        "defaultMode": 0o400,
                        "items": [{"key": "password", "path": "a/b"}],
                    },
                },
            ],
        },
    )
    assert (
        kubectl("exec reader -- cat /settings/colour /settings/size /key/a/b /one/colour")
        == "redbigs3cretred"
    )
    assert kubectl("exec reader -- stat -L -c %a /key/a/b") == "400\n"
    assert "Read-only file system" in kubectl.refused("exec reader -- touch /key/new")
    kubectl('patch configmap settings --type=merge -p \'{"data":{"colour":"blue"}}\'')
    eventually(
        lambda: kubectl("exec reader -- cat /settings/colour") == "blue", "the change in the volume", 100
    )
    assert kubectl("exec reader -- cat /one/colour") == "red"  # sub-paths are not updated


def test_missing_config_map_is_waited_for(kubectl: Kubectl) -> None:
    kubectl.apply(
        pod(
            "patient",
            {
                "containers": [shell("exec sleep infinity", volumeMounts=[{"name": "v", "mountPath": "/v"}])],
                "volumes": [{"name": "v", "configMap": {"name": "later"}}],
            },
        )
    )
    eventually(
        lambda: 'configmap "later" not found' in kubectl.events_of("patient"), "an event that names it"
    )
    assert "FailedMount" in kubectl.events_of("patient")
    assert waiting(kubectl, "patient") == "ContainerCreating"
    kubectl("create configmap later --from-literal=a=1")
    kubectl.wait("pod/patient", seconds=100)


def test_host_path(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "from-host").write_text("hello")
    said = output_of(
        kubectl,
        "path",
        "cat /h/from-host; echo back >/h/from-pod",
        volumeMounts=[{"name": "h", "mountPath": "/h"}],
        volumes=[{"name": "h", "hostPath": {"path": str(tmp_path), "type": "Directory"}}],
    )
    assert said == "hello"
    assert (tmp_path / "from-pod").read_text() == "back\n"


def test_downward_api_and_projected(kubectl: Kubectl) -> None:
    """A pod learns about itself from files, and gets its account's token among them."""
    kubectl("create configmap settings --from-literal=colour=red")
    kubectl.apply(
        pod(
            "self",
            {
                "containers": [
                    shell(
                        "cat /d/labels /d/cpu; echo; cat /p/colour; echo; cat /p/token",
                        resources={"limits": {"cpu": "250m"}},
                        volumeMounts=[{"name": "d", "mountPath": "/d"}, {"name": "p", "mountPath": "/p"}],
                    )
                ],
                "restartPolicy": "Never",
                "volumes": [
                    {
                        "name": "d",
                        "downwardAPI": {
                            "items": [
                                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                                {
                                    "path": "cpu",
                                    "resourceFieldRef": {
                                        "containerName": "main",
                                        "resource": "limits.cpu",
                                        "divisor": "1m",
                                    },
                                },
                            ]
                        },
                    },
                    {
                        "name": "p",
                        "projected": {
                            "sources": [
                                {"configMap": {"name": "settings"}},
                                {
                                    "serviceAccountToken": {
                                        "path": "token",
                                        "audience": "robots",
                                        "expirationSeconds": 900,
                                    }
                                },
                            ]
                        },
                    },
                ],
            },
            labels={"tier": "front"},
        )
    )
    kubectl.phase("self", "Succeeded")
    labels_and_cpu, colour, token = kubectl("logs self").split("\n")
    assert (labels_and_cpu, colour) == ('tier="front"250', "red")
    claims = token.split(".")[1]
    payload = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert payload["aud"] == ["robots"]
    assert payload["kubernetes.io"]["pod"]["name"] == "self"


def test_the_environment_has_all_it_refers_to(kubectl: Kubectl) -> None:
    """Literal values, references to others, to fields, resources, configMaps and secrets; whole maps at once."""
    kubectl("create configmap settings --from-literal=colour=red")
    kubectl("create secret generic key --from-literal=password=s3cret")
    env = [
        {"name": "PLAIN", "value": "one"},
        {"name": "NESTED", "value": "$(PLAIN)-two-$$(PLAIN)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
        {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
    ]
    more = {"envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "SET_"}], "workingDir": "/tmp"}
    said = output_of(kubectl, "env", "env; pwd", env=env, resources={"limits": {"memory": "32Mi"}}, **more)
    lines = said.splitlines()
    address = kubectl("get pod env -o jsonpath={.status.podIP}")
    for line in (
        "PLAIN=one",
        "NESTED=one-two-$(PLAIN)",
        "NAME=env",
        f"ADDRESS={address}",
        "LIMIT=33554432",
        "COLOUR=red",
        "PASSWORD=s3cret",
        "SET_colour=red",
        "HOSTNAME=env",
        "/tmp",
    ):
        assert line in lines
    assert not any(line.startswith("MAYBE") for line in lines)
    assert any(line.startswith("KUBERNETES_SERVICE_HOST=") for line in lines)


def test_command_and_arguments(kubectl: Kubectl, busybox: str) -> None:
    """command replaces the image's entrypoint, args its command; both expand $(VAR)."""
    kubectl.apply(
        pod(
            "args",
            {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "image": busybox,
                        "command": ["/bin/echo", "$(WHO)"],
                        "args": ["and", "$(WHO)", "$$(WHO)"],
                        "env": [{"name": "WHO", "value": "me"}],
                    }
                ],
            },
        )
    )
    kubectl.phase("args", "Succeeded")
    assert kubectl("logs args") == "me and me $(WHO)\n"


def test_init_containers(kubectl: Kubectl) -> None:
    """One after the other, each to its end, before the others start; kubectl shows how far they are."""
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    kubectl.apply(
        pod(
            "prepared",
            {
                "initContainers": [
                    shell(
                        "until [ -e /v/go ]; do sleep 0.1; done; echo 1 >>/v/order", name="first", **mounts
                    ),
                    shell("echo 2 >>/v/order", name="second", **mounts),
                ],
                "containers": [shell("echo 3 >>/v/order; exec sleep infinity", **mounts)],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        )
    )
    eventually(lambda: "Init:0/2" in kubectl("get pod prepared"), "Init:0/2")
    assert waiting(kubectl, "prepared") == "PodInitializing"
    eventually(lambda: kubectl.run("exec prepared -c first -- touch /v/go").returncode == 0)
    kubectl.wait("pod/prepared")
    eventually(lambda: kubectl("exec prepared -- cat /v/order") == "1\n2\n3\n")
    assert container_status(kubectl, "prepared", "first")["state"]["terminated"]["reason"] == "Completed"


def test_failing_init_container(kubectl: Kubectl) -> None:
    broken = {"initContainers": [shell("exit 3", name="first")], "containers": [shell("true")]}
    kubectl.apply(pod("again", broken), pod("never", broken | {"restartPolicy": "Never"}))
    eventually(lambda: "Init:CrashLoopBackOff" in kubectl("get pod again"), "Init:CrashLoopBackOff")
    assert container_status(kubectl, "again", "first")["lastState"]["terminated"]["exitCode"] == 3
    kubectl.phase("never", "Failed")
    assert "Init:Error" in kubectl("get pod never")


def test_a_sidecar_runs_from_before_the_others_start(kubectl: Kubectl) -> None:
    """An init container that restarts always runs beside the others, from before they start."""
    kubectl.apply(
        pod(
            "helped",
            {
                "initContainers": [
                    server()
                    | {
                        "restartPolicy": "Always",
                        "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    }
                ],
                "containers": [shell("curl -s --retry 3 localhost:8080")],
                "restartPolicy": "Never",
            },
        )
    )
    kubectl.phase("helped", "Succeeded")
    assert kubectl("logs helped -c main") == "helped\n"


@pytest.mark.parametrize(
    "policy, command, phase, restarts",
    [
        ("Never", "exit 0", "Succeeded", False),
        ("Never", "exit 5", "Failed", False),
        ("OnFailure", "exit 0", "Succeeded", False),
        ("OnFailure", "exit 5", "Running", True),
        ("Always", "exit 0", "Running", True),
    ],
)
def test_restart_policy(kubectl: Kubectl, policy: str, command: str, phase: str, restarts: bool) -> None:
    kubectl.apply(pod("short", {"restartPolicy": policy, "containers": [shell(command)]}))
    if restarts:
        eventually(lambda: container_status(kubectl, "short").get("restartCount", 0) >= 1, "a restart")
        eventually(lambda: waiting(kubectl, "short") == "CrashLoopBackOff", "CrashLoopBackOff")
        eventually(lambda: "BackOff" in kubectl.events_of("short"), "an event")
        assert "back-off" in container_status(kubectl, "short")["state"]["waiting"]["message"]
    ended = kubectl.phase("short", phase)
    if not restarts:
        state = ended["status"]["containerStatuses"][0]["state"]["terminated"]
        code = int(command.split()[1])
        assert (state["exitCode"], state["reason"]) == (code, "Error" if code else "Completed")


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["test", "-e", "/tmp/ok"]}},
        {"httpGet": {"path": "/ok", "port": 8080}},
        {"tcpSocket": {"port": 8080}},
    ],
    ids=["exec", "http", "tcp"],
)
def test_readiness_probes(kubectl: Kubectl, probe: dict) -> None:
    """Ready follows what the probe finds, both ways."""
    wait_and_serve = "until [ -e /tmp/ok ]; do sleep 0.05; done; exec python3 -m http.server 8080 -d /tmp"
    probing = probe | IMPATIENT
    kubectl.apply(pod("probed", {"containers": [shell(wait_and_serve, readinessProbe=probing)]}))
    eventually(lambda: "Unhealthy" in kubectl.events_of("probed"), "a failed probe")
    assert kubectl("get pod probed --no-headers").split()[1:3] == ["0/1", "Running"]
    kubectl("exec probed -- touch /tmp/ok")
    kubectl.wait("pod/probed")
    if "tcpSocket" not in probe:
        kubectl("exec probed -- rm /tmp/ok")
        kubectl.wait("pod/probed", "condition=Ready=False")


def test_liveness_probe(kubectl: Kubectl) -> None:
    """A container that is no longer well is started anew."""
    probe = {"exec": {"command": ["test", "-e", "/tmp/well"]}, **IMPATIENT}
    kubectl.apply(
        pod("ill", {"containers": [shell("touch /tmp/well; exec sleep infinity", livenessProbe=probe)]})
    )
    kubectl.wait("pod/ill")
    kubectl("exec ill -- rm /tmp/well")
    eventually(lambda: container_status(kubectl, "ill")["restartCount"] == 1, "a restart")
    kubectl.wait("pod/ill")
    events = kubectl.events_of("ill")
    assert "Liveness probe failed" in events and "will be restarted" in events


def test_startup_probe_holds_the_others_back(kubectl: Kubectl) -> None:
    startup = {
        "exec": {"command": ["test", "-e", "/tmp/started"]},
        "periodSeconds": 1,
        "failureThreshold": 60,
    }
    liveness = {
        "exec": {"command": ["test", "-e", "/tmp/started"]},
        **IMPATIENT,
    }
    kubectl.apply(
        pod(
            "slow",
            {"containers": [shell("exec sleep infinity", startupProbe=startup, livenessProbe=liveness)]},
        )
    )
    eventually(lambda: "Startup probe failed" in kubectl.events_of("slow"), "a failed startup probe")
    assert container_status(kubectl, "slow")["started"] is False
    kubectl("exec slow -- touch /tmp/started")
    kubectl.wait("pod/slow")
    assert container_status(kubectl, "slow")["restartCount"] == 0


def test_hooks_run_after_the_start_and_before_the_stop(kubectl: Kubectl, tmp_path: Path) -> None:
    """postStart runs beside the command; preStop runs to its end before the container is asked to stop."""
    kubectl.run_pod(
        "hooked",
        {
            "terminationGracePeriodSeconds": 20,
            "containers": [
                shell(
                    "trap 'echo term >>/h/order; exit' TERM; while true; do sleep 0.1; done",
                    lifecycle={
                        "postStart": {"exec": {"command": ["sh", "-c", "echo start >>/h/order"]}},
                        "preStop": {"exec": {"command": ["sh", "-c", "sleep 0.5; echo stop >>/h/order"]}},
                    },
                    volumeMounts=[{"name": "h", "mountPath": "/h"}],
                )
            ],
            "volumes": [{"name": "h", "hostPath": {"path": str(tmp_path)}}],
        },
    )
    kubectl("delete pod hooked --timeout=60s")
    assert (tmp_path / "order").read_text().split() == ["start", "stop", "term"]


def test_out_of_memory(kubectl: Kubectl) -> None:
    eater = shell("exec python3 -c 'b = bytearray(200_000_000); print(len(b))'")
    eater["resources"] = {"limits": {"memory": "64Mi"}}
    kubectl.apply(pod("eater", {"restartPolicy": "Never", "containers": [eater]}))
    ended = kubectl.phase("eater", "Failed")
    state = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)
    assert "OOMKilled" in kubectl("get pod eater")


def test_limits_and_qos(kubectl: Kubectl) -> None:
    """Requests default to limits; both make the quality of service."""
    kubectl.apply(
        pod("best", "true"),
        pod("burst", {"containers": [shell("true", resources={"requests": {"cpu": "10m"}})]}),
        pod("sure", {"containers": [shell("true", resources={"limits": {"cpu": "50m", "memory": "32Mi"}})]}),
    )
    classes = kubectl("get pods best burst sure -o jsonpath={.items[*].status.qosClass}")
    assert classes.split() == ["BestEffort", "Burstable", "Guaranteed"]
    requests = kubectl.get("pod sure")["spec"]["containers"][0]["resources"]["requests"]
    assert requests == {"cpu": "50m", "memory": "32Mi"}


def test_security_context(kubectl: Kubectl) -> None:
    """Who a container runs as, and what it may not."""
    kubectl.run_pod(
        "guarded",
        {
            "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456},
            "containers": [
                shell(
                    "exec sleep infinity",
                    securityContext={
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    volumeMounts=[{"name": "v", "mountPath": "/v"}],
                )
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    )
    assert kubectl("exec guarded -- sh -c 'id -u; id -g; id -G'").split() == ["1234", "2345", "2345", "3456"]
    assert "Read-only file system" in kubectl.refused("exec guarded -- touch /tmp/x")
    assert kubectl("exec guarded -- sh -c 'touch /v/x && stat -c %g /v/x'") == "3456\n"
    assert "NoNewPrivs:\t1" in kubectl("exec guarded -- cat /proc/1/status")
    assert "CapEff:\t0000000000000000" in kubectl("exec guarded -- cat /proc/1/status")


def test_run_as_non_root(kubectl: Kubectl) -> None:
    kubectl.apply(pod("proud", {"securityContext": {"runAsNonRoot": True}, "containers": [shell("true")]}))
    eventually(lambda: waiting(kubectl, "proud") == "CreateContainerConfigError")
    assert "image will run as root" in container_status(kubectl, "proud")["state"]["waiting"]["message"]


def test_phases_and_conditions(kubectl: Kubectl) -> None:
    """A running pod's conditions are all true, and a finished one says so."""
    kubectl.run_pod("well")
    status = kubectl.get("pod well")["status"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert {"PodScheduled", "Initialized", "ContainersReady", "Ready"} <= set(conditions)
    assert set(conditions.values()) == {"True"}
    assert status["hostIP"] == kubectl(
        f"get node {kubectl('get pod well -o jsonpath={.spec.nodeName}')} -o jsonpath={{.status.addresses[0].address}}"
    )
    assert status["startTime"] and status["podIPs"] == [{"ip": status["podIP"]}]
    (one,) = status["containerStatuses"]
    assert (
        one["ready"]
        and one["started"]
        and one["image"].startswith(HOST)
        and one["containerID"]
        and one["imageID"]
    )
    kubectl("run done --image=localhost/host --restart=Never -- true")
    done = kubectl.phase("done", "Succeeded")
    ready = next(c for c in done["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    assert kubectl("get pod done --no-headers").split()[1:3] == ["0/1", "Completed"]


def test_image_that_cannot_be_pulled(kubectl: Kubectl) -> None:
    kubectl("run lost --image=localhost/nobody/made-this:v1")
    eventually(
        lambda: waiting(kubectl, "lost", "lost") in ("ErrImagePull", "ImagePullBackOff"), "why it waits"
    )
    eventually(lambda: waiting(kubectl, "lost", "lost") == "ImagePullBackOff", "the back-off")
    events = kubectl.events_of("lost")
    assert 'Failed to pull image "localhost/nobody/made-this:v1"' in events
    assert "Back-off pulling image" in eventually(
        lambda: "Back-off" in kubectl.events_of("lost") and kubectl.events_of("lost")
    )
    kubectl("run never --image=localhost/nobody/made-this:v1 --image-pull-policy=Never")
    eventually(lambda: waiting(kubectl, "never", "never") == "ErrImageNeverPull")
    kubectl.apply(pod("wrong", {"containers": [shell("true", image="Not:An:Image")]}))
    eventually(lambda: waiting(kubectl, "wrong") == "InvalidImageName")


def test_command_that_does_not_exist(kubectl: Kubectl) -> None:
    kubectl("run typo --image=localhost/host --restart=Never --command -- pyhton3")
    failed = kubectl.phase("typo", "Failed")
    state = failed["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["reason"] in ("StartError", "ContainerCannotRun") and state["exitCode"] in (127, 128)
    assert "pyhton3" in state["message"]
    assert "pyhton3" in kubectl("describe pod typo")


def test_termination_message(kubectl: Kubectl) -> None:
    kubectl.apply(
        pod(
            "last-words",
            {"restartPolicy": "Never", "containers": [shell("echo goodbye >/dev/termination-log; exit 1")]},
        )
    )
    ended = kubectl.phase("last-words", "Failed")
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "goodbye\n"


def test_active_deadline(kubectl: Kubectl) -> None:
    kubectl.apply(pod("late", {"activeDeadlineSeconds": 1, "containers": [shell("exec sleep infinity")]}))
    assert kubectl.phase("late", "Failed")["status"]["reason"] == "DeadlineExceeded"


def test_shared_process_namespace(kubectl: Kubectl) -> None:
    kubectl.run_pod(
        "shared",
        {
            "shareProcessNamespace": True,
            "containers": [shell("exec sleep 12345"), shell("exec sleep infinity", name="other")],
        },
    )
    assert "sleep 12345" in kubectl("exec shared -c other -- ps ax")
    assert kubectl("exec shared -c other -- cat /proc/1/cmdline") == "/pause\0", "as the pause image has it"


def test_host_aliases_and_dns_config(kubectl: Kubectl) -> None:
    said = output_of(
        kubectl,
        "names",
        "getent hosts my.alias; cat /etc/resolv.conf",
        hostAliases=[{"ip": "10.1.2.3", "hostnames": ["my.alias"]}],
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["10.9.8.7"],
            "searches": ["a.example"],
            "options": [{"name": "ndots", "value": "3"}],
        },
    )
    assert "10.1.2.3" in said
    for line in ("nameserver 10.9.8.7", "search a.example", "options ndots:3"):
        assert line in said


def test_describe_pod(kubectl: Kubectl) -> None:
    kubectl.run_pod("shown", {"containers": [server()]}, labels={"a": "b"}, annotations={"note": "x"})
    text = kubectl("describe pod shown")
    for part in (
        "Name:             shown",
        "Labels:           a=b",
        "Annotations:      note: x",
        "Status:           Running",
        "Containers:",
        "Readiness:      tcp-socket :8080",
        "QoS Class:                   BestEffort",
        "Successfully assigned",
        "Started",
    ):
        assert part in text
