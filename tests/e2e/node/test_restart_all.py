"""A container whose exit restarts all of its pod (KEP-5532), on a real node."""

from __future__ import annotations

from harness import Kubectl, eventually, shell


def test_an_exit_code_restarts_the_whole_pod_where_it_is(kubectl: Kubectl) -> None:
    mounts = [{"name": "work", "mountPath": "/gang"}]
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    trigger = shell(
        "if [ -e /gang/seen ]; then exec sleep infinity; fi; until [ -e /gang/go ]; do sleep 0.1; done; touch /gang/seen; exit 42",
        name="trigger",
        restartPolicy="Never",
        restartPolicyRules=[rule],
        volumeMounts=mounts,
    )
    worker = shell("exec sleep infinity", name="worker", volumeMounts=mounts)
    init = shell("echo again >> /gang/inits", name="init", volumeMounts=mounts)
    spec = {
        "restartPolicy": "Never",
        "initContainers": [init],
        "containers": [trigger, worker],
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
    kubectl.run_pod("gang", spec)
    before = kubectl.get("pod/gang")["status"]
    kubectl("exec gang -c worker -- touch /gang/go")

    def again() -> bool:
        statuses = kubectl.get("pod/gang")["status"]["containerStatuses"]
        return all(s["restartCount"] == 1 and s["ready"] for s in statuses)

    eventually(again, "both run for the second time")
    after = kubectl.get("pod/gang")["status"]
    assert (after["phase"], after["podIP"]) == ("Running", before["podIP"])
    last = after["containerStatuses"][1]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "RestartingAllContainers")
    assert kubectl("exec gang -c worker -- cat /gang/inits") == "again\nagain\n"
