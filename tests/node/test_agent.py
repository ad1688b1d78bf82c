"""The agent over simulated containers: what a user sees of a pod's life, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

RESTART = {"resourceName": "cpu", "restartPolicy": "RestartContainer"}


async def test_a_node_registers_ready_and_keeps_a_lease(world):
    await world.clock.advance(0)
    node = world.api.get("nodes", "n1", "")
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert node["status"]["capacity"]["pods"] == "110"
    ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    lease = world.api.get("leases", "n1", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == "n1"
    before = lease["spec"]["renewTime"]
    await world.clock.advance(1001)
    assert world.api.get("leases", "n1", "kube-node-lease")["spec"]["renewTime"] > before


async def test_what_somebody_overwrote_in_the_status_is_put_right(world):
    """Clients that send a whole Node as a patch empty what they did not set."""
    await world.clock.advance(0)
    before = world.api.get("nodes", "n1", "")["status"]
    wiped = {"nodeInfo": {"kubeletVersion": ""}, "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}}
    world.api.change("nodes", "n1", {"status": wiped | {"capacity": {"example.com/foo": "3"}}}, "")
    await world.clock.advance(600)
    after = world.api.get("nodes", "n1", "")["status"]
    assert (after["nodeInfo"], after["daemonEndpoints"]) == (before["nodeInfo"], before["daemonEndpoints"])
    assert after["capacity"]["example.com/foo"] == after["allocatable"]["example.com/foo"] == "3"


async def test_a_pod_runs_and_is_deleted(world):
    world.pod()
    await world.clock.advance(0)
    status = world.status()
    assert status["phase"] == "Running"
    assert status["podIP"] and status["hostIP"]
    state = world.container()
    assert state["ready"] and state["started"] and state["restartCount"] == 0
    assert "startedAt" in state["state"]["running"]
    assert state["containerID"].startswith("sampan-simulated://")
    assert [c["type"] for c in status["conditions"]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    assert all(c["status"] == "True" for c in status["conditions"])
    assert [r for r, _ in world.api.events("p")] == ["Pulling", "Pulled", "Created", "Started"]

    world.api.delete("pods", "p")
    await world.clock.advance(0)
    assert world.api.get("pods", "p") is None
    assert ("Killing", "Stopping container c") in world.api.events("p")
    assert not world.node.agent.manager.drivers
    assert not await world.node.runtime.containers() and not await world.node.runtime.sandboxes()


async def test_a_pod_that_exits_well_succeeds(world):
    world.pod(annotations={"sampan.dev/simulate": "exit=0 after=5s"}, restartPolicy="Never")
    await world.clock.advance(1)
    assert world.status()["phase"] == "Running"
    await world.clock.advance(5)
    assert world.status()["phase"] == "Succeeded"
    assert world.container()["state"]["terminated"]["reason"] == "Completed"
    assert world.condition("Ready")["reason"] == "PodCompleted"


async def test_a_crashing_container_backs_off_longer_each_time(world):
    pod = world.pod(annotations={"sampan.dev/simulate": "exit=1 after=1s"})
    await world.clock.advance(1)  # first exit: restarted at once
    assert world.container()["restartCount"] == 1
    await world.clock.advance(1)
    state = world.container()["state"]["waiting"]
    uid = pod["metadata"]["uid"]
    assert state["reason"] == "CrashLoopBackOff"
    assert state["message"] == f"back-off 10s restarting failed container=c pod=p_default({uid})"
    assert world.container()["lastState"]["terminated"]["exitCode"] == 1
    assert world.status()["phase"] == "Running"
    assert world.condition("Ready")["message"] == "containers with unready status: [c]"
    starts = []
    for second in range(80):
        await world.clock.advance(1)
        count = world.container()["restartCount"]
        if not starts or starts[-1][0] != count:
            starts.append((count, second))
    assert starts == [(1, 0), (2, 9), (3, 30), (4, 71)]
    reasons = [r for r, _ in world.api.events("p")]
    assert "BackOff" in reasons


async def test_a_changed_container_does_not_wait_for_the_crashes_of_before(world):
    world.pod(annotations={"sampan.dev/simulate": "exit=1 after=1s"})
    await world.clock.advance(5)
    assert world.container()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    world.api.change("pods", "p", {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}})
    await world.clock.advance(0.5)
    assert world.container()["restartCount"] == 2 and "running" in world.container()["state"]
    await world.clock.advance(1)
    assert world.container()["state"]["waiting"]["message"].startswith("back-off 10s ")


@pytest.mark.parametrize("policy", ["Always", "Never"])
async def test_a_changed_container_starts_anew_whatever_the_restart_policy(world, policy):
    world.pod(restartPolicy=policy)
    await world.clock.advance(0)
    world.api.change("pods", "p", {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}})
    await world.clock.advance(31)
    assert world.status()["phase"] == "Running" and world.condition("Ready")["status"] == "True"
    assert (world.container()["restartCount"], world.container()["image"]) == (1, "nginx:2")
    assert "terminated" in world.container()["lastState"]


async def test_a_pod_the_node_does_not_take_says_which_generation_that_was(world):
    world.pod(containers=[{"name": "c", "image": "nginx:1", "resources": {"requests": {"cpu": "1k"}}}])
    await world.clock.advance(1)
    status = world.status()
    assert (status["phase"], status["reason"], status["observedGeneration"]) == ("Failed", "OutOfcpu", 1)


async def test_what_one_resize_frees_goes_to_the_most_important_that_waits(world):
    def wants(cpu):
        return {"containers": [{"name": "c", "image": "nginx:1", "resources": {"requests": {"cpu": cpu}}}]}

    def has(name):
        return world.container(pod=name)["resources"]["requests"]["cpu"]

    cores = int(world.api.get("nodes", "n1", "")["status"]["allocatable"]["cpu"])
    world.pod("large", **wants(f"{cores - 1}"))
    for name, priority in (("low", 0), ("high", 10)):
        world.pod(name, priority=priority, **wants("100m"))
    await world.clock.advance(1)
    for name in ("low", "high"):
        world.api.change("pods", name, {"spec": wants("2")})
    await world.clock.advance(1)
    pending = [c for c in world.status("high")["conditions"] if c["type"] == "PodResizePending"]
    assert (has("low"), has("high"), pending[0]["reason"]) == ("100m", "100m", "Deferred")
    world.api.change("pods", "large", {"spec": wants(f"{cores - 3}")})
    await world.clock.advance(1)
    assert (has("low"), has("high")) == ("100m", "2")
    assert not [c for c in world.status("high")["conditions"] if c["type"] == "PodResizePending"]


async def test_a_missing_image_says_so(world):
    world.pod(containers=[{"name": "c", "image": "missing:1"}])
    await world.clock.advance(0.5)
    assert world.container()["state"]["waiting"]["reason"] == "ErrImagePull"
    assert "not found" in world.container()["state"]["waiting"]["message"]
    await world.clock.advance(1)
    assert world.container()["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert world.status()["phase"] == "Pending"
    events = world.api.events("p")
    assert ("BackOff", 'Back-off pulling image "missing:1"') in events
    assert ("Failed", "Error: ErrImagePull") in events
    world.api.change("pods", "p", {"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
    await world.clock.advance(10)
    assert world.status()["phase"] == "Running"


def _with_volume(reference, policy="IfNotPresent", **more):
    """A pod of two containers, the second of which mounts an image volume."""
    mounts = [{"name": "v", "mountPath": "/v"}]
    return {
        "containers": [
            {"name": "c", "image": "nginx:1"},
            {"name": "reader", "image": "nginx:1", "volumeMounts": mounts},
        ],
        "volumes": [{"name": "v", "image": {"reference": reference, "pullPolicy": policy}}],
        **more,
    }


async def test_an_image_volume_is_pulled_for_who_mounts_it(world):
    world.pod(**_with_volume("data:1"))
    await world.clock.advance(0)
    assert world.status()["phase"] == "Running"
    pulls = [text for reason, text in world.api.events("p") if reason == "Pulling"]
    assert pulls == ['Pulling image "nginx:1"', 'Pulling image "data:1"']
    assert world.container("reader")["volumeMounts"] == [{"name": "v", "mountPath": "/v"}]


async def test_a_missing_image_volume_keeps_only_those_waiting_who_mount_it(world):
    world.pod(**_with_volume("missing:1"))
    await world.clock.advance(0.5)
    assert world.container("reader")["state"]["waiting"]["reason"] == "ErrImagePull"
    assert "running" in world.container("c")["state"]
    await world.clock.advance(1)
    waiting = world.container("reader")["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff"
    assert waiting["message"].startswith('Back-off pulling image "missing:1": ErrImagePull: ')
    events = world.api.events("p")
    assert ("BackOff", 'Back-off pulling image "missing:1"') in events
    assert ("Failed", "Error: ErrImagePull") in events


async def test_an_image_volume_that_must_be_there_already(world):
    world.pod(**_with_volume("data:1", "Never"))
    await world.clock.advance(0)
    waiting = world.container("reader")["state"]["waiting"]
    assert waiting["reason"] == "ErrImageNeverPull"
    assert waiting["message"] == 'Container image "data:1" is not present with pull policy of Never'
    await world.node.agent.kit.images.pull("data:1")
    await world.clock.advance(10)
    assert "running" in world.container("reader")["state"]


async def test_an_image_volume_nobody_mounts_holds_nobody_up(world):
    volumes = [{"name": "v", "image": {"reference": "missing:1", "pullPolicy": "Always"}}]
    world.pod(volumes=volumes)
    await world.clock.advance(0)
    assert world.status()["phase"] == "Running"


async def test_a_missing_config_map_says_so_and_recovers(world):
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}]
    world.pod(containers=[{"name": "c", "image": "nginx:1", "env": env}])
    await world.clock.advance(0)
    assert world.container()["state"]["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'configmap "cm" not found',
    }
    world.api.create("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"a": "1"}})
    await world.clock.advance(10)
    assert world.container()["ready"]
    [container] = await world.node.runtime.containers()
    assert container.config.env["A"] == "1"


async def test_a_runtime_class_whose_handler_is_not_here_keeps_the_pod_pending(world):
    for name, handler in (("own", "sampan"), ("other", "kata")):
        world.api.create("runtimeclasses", {"metadata": {"name": name}, "handler": handler})
    world.pod("a", runtimeClassName="own")
    world.pod("b", runtimeClassName="other")
    world.pod("c", runtimeClassName="absent")
    await world.clock.advance(1)
    assert [world.status(name)["phase"] for name in "abc"] == ["Running", "Pending", "Pending"]
    assert world.container(pod="b")["state"]["waiting"]["reason"] == "ContainerCreating"
    why = "Failed to create pod sandbox: "
    assert world.api.events("b") == [("FailedCreatePodSandBox", why + 'no runtime for "kata" is configured')]
    assert world.api.events("c") == [
        ("FailedCreatePodSandBox", why + 'runtimeclass.node.k8s.io "absent" not found')
    ]
    world.api.create("runtimeclasses", {"metadata": {"name": "absent"}, "handler": "sampan"})
    await world.clock.advance(300)
    assert world.status("c")["phase"] == "Running"


async def test_readiness_and_liveness(world):
    probes = {"readinessProbe": {"tcpSocket": {"port": 1}}, "livenessProbe": {"tcpSocket": {"port": 1}}}
    world.pod(containers=[{"name": "c", "image": "nginx:1", **probes}])
    await world.clock.advance(0)
    assert world.container()["ready"]
    world.node.set_ready("p", False)
    await world.clock.settle()
    assert not world.container()["ready"] and world.condition("Ready")["status"] == "False"
    world.node.set_live("p", False)
    await world.clock.advance(0)
    assert world.container()["restartCount"] == 1
    assert ("Killing", "Container c failed liveness probe, will be restarted") in world.api.events("p")


async def test_init_containers_run_in_order_and_sidecars_stay(world):
    world.pod(
        annotations={
            "sampan.dev/simulate.one": "exit=0 after=2s",
            "sampan.dev/simulate.two": "exit=0 after=2s",
        },
        initContainers=[
            {"name": "one", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always"},
            {"name": "two", "image": "i"},
        ],
    )
    await world.clock.advance(1)
    assert world.container("c")["state"] == {"waiting": {"reason": "PodInitializing"}}
    condition = world.condition("Initialized")
    assert condition["message"] == "containers with incomplete status: [one side two]"
    await world.clock.advance(2)
    assert "running" in world.container("side")["state"] and "running" in world.container("two")["state"]
    await world.clock.advance(2)
    assert world.status()["phase"] == "Running" and world.condition("Ready")["status"] == "True"
    world.api.delete("pods", "p")
    await world.clock.advance(0)
    stopped = [m for r, m in world.api.events("p") if r == "Killing"]
    assert stopped == ["Stopping container c", "Stopping container side"]


async def test_a_failing_init_container_fails_the_pod(world):
    world.pod(
        annotations={"sampan.dev/simulate.one": "exit=3"},
        restartPolicy="Never",
        initContainers=[{"name": "one", "image": "i"}],
    )
    await world.clock.advance(1)
    assert world.status()["phase"] == "Failed"
    assert world.container("one")["state"]["terminated"]["exitCode"] == 3


async def test_a_sidecar_ends_when_the_main_container_is_done(world):
    world.pod(
        annotations={"sampan.dev/simulate.c": "exit=0 after=2s"},
        restartPolicy="Never",
        initContainers=[{"name": "side", "image": "i", "restartPolicy": "Always"}],
    )
    await world.clock.advance(1)
    assert world.status()["phase"] == "Running"
    await world.clock.advance(3)
    assert world.status()["phase"] == "Succeeded"
    assert "terminated" in world.container("side")["state"]


async def test_the_deadline_ends_a_pod(world):
    world.pod(activeDeadlineSeconds=5)
    await world.clock.advance(4)
    assert world.status()["phase"] == "Running"
    await world.clock.advance(2)
    status = world.status()
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_restarted_agent_takes_pods_over_without_touching_them(world):
    world.pod()
    await world.clock.advance(0)
    await world.node.stop()
    before = world.api.get("pods", "p")["metadata"]["resourceVersion"]
    containers = await world.node.runtime.containers()
    await world.clock.advance(60)
    await world.node.start()
    await world.clock.advance(1)
    assert await world.node.runtime.containers() == containers
    assert world.api.get("pods", "p")["metadata"]["resourceVersion"] == before


async def test_a_pod_deleted_while_the_agent_was_away_is_swept(world):
    world.pod()
    await world.clock.advance(0)
    await world.node.stop()
    world.api.delete("pods", "p", grace=0)
    await world.node.start()
    await world.clock.advance(1)
    assert not await world.node.runtime.containers() and not await world.node.runtime.sandboxes()


async def test_after_a_power_cut_pods_start_again_and_count_it(world):
    world.pod()
    world.pod("done", annotations={"sampan.dev/simulate": "exit=0"}, restartPolicy="Never")
    await world.clock.advance(1)
    await world.node.power_off()
    await world.node.start()
    await world.clock.advance(1)
    assert world.container()["restartCount"] == 1 and world.container()["ready"]
    assert world.status("done")["phase"] == "Succeeded"
    assert len(await world.node.runtime.containers()) == 1


async def test_a_machine_that_was_booted_again_says_so(world):
    for boot in ("first", "first", "second"):
        await world.node.power_off()
        info = {**world.node._config.node_info, "bootID": boot}
        world.node._config = dataclasses.replace(world.node._config, node_info=info)
        await world.node.start()
        await world.clock.advance(1)
    told = [message for reason, message in world.api.events("n1") if reason == "Rebooted"]
    assert told == ["Node n1 has been rebooted, boot id: second"]


async def test_a_force_deleted_pod_is_ended(world):
    world.pod()
    await world.clock.advance(0)
    world.api.delete("pods", "p", grace=0)
    await world.clock.advance(5)
    assert not await world.node.runtime.containers()
    assert not world.node.agent.manager.drivers


async def test_no_signal_before_the_endpoint_is_withdrawn(world):
    calls = []

    async def withdrawn(pod):
        calls.append(pod["metadata"]["name"])
        await world.clock.sleep(3)

    world.node.agent.hooks.withdrawn = withdrawn
    world.pod()
    await world.clock.advance(0)
    world.api.delete("pods", "p")
    await world.clock.advance(3.4)
    assert calls == ["p"] and len(await world.node.runtime.containers()) == 1
    assert world.condition("Ready")["status"] == "True"
    await world.clock.advance(0.2)
    assert world.api.get("pods", "p") is None


async def test_a_node_that_shuts_down_ends_its_pods_first_critical_ones_last(world):
    world.pod("plain", {"sampan.dev/simulate": "stop=5s"})
    world.pod("critical", {"sampan.dev/simulate": "stop=1s"}, priority=2_000_000_000)
    await world.clock.advance(1)
    ending = asyncio.ensure_future(world.node.agent.shutdown(grace=30, critical=10))
    await world.clock.advance(1)
    assert world.status("critical")["phase"] == "Running"
    ready = next(c for c in world.api.get("nodes", "n1", "")["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["message"]) == ("False", "node is shutting down")
    told = dict(world.api.events("n1"))
    assert told["NodeNotReady"] == "Node n1 status is now: NodeNotReady" and "NodeShutdown" in told
    world.pod("late")
    await world.clock.advance(10)
    assert ending.done()
    for name in ("plain", "critical"):
        status = world.status(name)
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        assert status["message"] == "Pod was terminated in response to imminent node shutdown."
        assert world.condition("DisruptionTarget", name)["reason"] == "TerminationByKubelet"
    assert world.status("late")["reason"] == "NodeShutdown"


async def test_an_end_that_is_announced_before_the_start_returns_is_not_lost(world):
    runtime = world.node.runtime
    start = runtime.start_container

    async def start_slowly(config):
        status = await start(config)
        await world.clock.sleep(1)  # meanwhile it ends, and nobody knows yet that it is the pod's
        return status

    runtime.start_container = start_slowly
    world.pod(annotations={"sampan.dev/simulate": "exit=5"}, restartPolicy="Never")
    await world.clock.advance(2)
    assert world.status()["phase"] == "Failed"
    assert world.container()["state"]["terminated"]["exitCode"] == 5


RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}


def _gang(first="exit=42 after=5s times=1", **more):
    """A pod that never restarts anything, but for the exit code of one of its containers."""
    simulate = "sampan.dev/simulate"
    return {
        "annotations": {
            f"{simulate}.trigger": first,
            f"{simulate}.init": "exit=0",
            f"{simulate}.done": "exit=0",
        },
        "restartPolicy": "Never",
        "initContainers": [{"name": "init", "image": "nginx:1"}],
        "containers": [
            {"name": "trigger", "image": "nginx:1", "restartPolicy": "Never", "restartPolicyRules": [RULE]},
            {"name": "worker", "image": "nginx:1"},
            {"name": "done", "image": "nginx:1"},
        ],
        **more,
    }


async def test_an_exit_restarts_all_containers_in_place(world):
    world.pod(**_gang())
    await world.clock.advance(1)
    assert world.condition("AllContainersRestarting")["status"] == "False"
    address = world.status()["podIP"]
    await world.clock.advance(5)
    status = world.status()
    assert (status["phase"], status["podIP"]) == ("Running", address)
    assert {
        n: world.container(n)["restartCount"] for n in ("init", "trigger", "worker", "done")
    } == dict.fromkeys(("init", "trigger", "worker", "done"), 1)
    assert (
        "running" in world.container("worker")["state"] and "running" in world.container("trigger")["state"]
    )
    last = world.container("worker")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "RestartingAllContainers")
    assert world.condition("AllContainersRestarting")["status"] == "False"
    assert world.condition("Initialized")["status"] == "True"
    assert len(await world.node.runtime.sandboxes()) == 1
    await world.clock.advance(100)
    assert world.container("worker")["restartCount"] == 1


async def test_a_sidecar_that_keeps_restarting_all_backs_off(world):
    side = {"name": "side", "image": "nginx:1", "restartPolicy": "Always", "restartPolicyRules": [RULE]}
    annotations = {"sampan.dev/simulate.side": "exit=42 after=5s"}
    init = {"name": "init", "image": "nginx:1", "command": ["true"]}
    world.pod(annotations=annotations, restartPolicy="Never", initContainers=[init, side])
    await world.clock.advance(6)
    assert world.container("c")["restartCount"] == world.container("side")["restartCount"] == 1
    await world.clock.advance(6)  # the second time the back-off holds it up
    assert world.container("side")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert world.container("c")["state"]["waiting"]["reason"] in (
        "CrashLoopBackOff",
        "RestartingAllContainers",
    )
    assert world.status()["phase"] == "Running"
    await world.clock.advance(10)
    assert world.container("c")["restartCount"] == 2


async def test_an_exit_no_rule_names_is_an_ordinary_end(world):
    world.pod(**_gang("exit=1 after=5s"))
    await world.clock.advance(6)
    assert world.container("trigger")["state"]["terminated"]["exitCode"] == 1
    assert "running" in world.container("worker")["state"]


async def test_a_pod_that_is_deleted_while_it_restarts_is_gone(world):
    world.pod(**_gang("exit=42 after=5s"))
    await world.clock.advance(5)
    world.api.delete("pods", "p")
    await world.clock.advance(60)
    assert world.api.get("pods", "p") is None
    assert not await world.node.runtime.containers()


async def test_a_new_agent_knows_that_the_restart_is_over(world):
    gang = _gang()
    gang["annotations"]["sampan.dev/simulate.init"] = "exit=0 start=1s"
    world.pod(**gang)
    await world.clock.advance(8)
    assert world.container("trigger")["restartCount"] == 1
    await world.node.stop()
    await world.node.start()
    await world.clock.advance(20)
    assert {n: world.container(n)["restartCount"] for n in ("init", "trigger", "worker")} == {
        "init": 1,
        "trigger": 1,
        "worker": 1,
    }
    assert world.container("worker")["lastState"]["terminated"]["reason"] == "RestartingAllContainers"


@pytest.mark.parametrize("policy, further", [([], []), ([RESTART], ["Killing", "Pulled"])])
async def test_a_resize_is_told_as_it_begins_and_when_it_is_done(world, policy, further):
    asked = {"name": "c", "image": "nginx:1", "resizePolicy": policy, "imagePullPolicy": "IfNotPresent"}
    pod = world.pod(containers=[{**asked, "resources": {"requests": {"cpu": "1"}}}])
    await world.clock.advance(0)
    before = len(world.api.events("p"))
    more = {"containers": [{**asked, "resources": {"requests": {"cpu": "2"}}}]}
    world.api.change("pods", "p", {"spec": {**pod["spec"], **more}})
    await world.clock.advance(60)
    told = [reason for reason, _ in world.api.events("p")][before:]
    assert told == ["ResizeStarted", *further, "ResizeCompleted"]
