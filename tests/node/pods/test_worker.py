"""The pod worker as a table: what is known in, what is to be done and reported out."""

from __future__ import annotations

import dataclasses

import pytest

from sampan.node.pods.actions import (
    Cleanup,
    MountVolumes,
    RemoveContainer,
    ResizeContainer,
    ResizePod,
    RunSandbox,
    StartContainer,
    StopContainer,
    Withdraw,
)
from sampan.node.pods.worker import step
from sampan.node.pods.world import Problem, World, fail, fail_pod, restarted
from sampan.node.runtime import ContainerConfig, ContainerStatus, Image, Limits, SandboxConfig, SandboxStatus

NOW = 1_767_225_600.0
NO_LIMITS = Limits(cpu_shares=2, oom_score_adj=1000)
IMAGE = Image("nginx:1", "sha256:1", "", (), {})


def make_pod(*, init=(), main=("c",), meta=None, **spec):
    def containers(names):
        return [n if isinstance(n, dict) else {"name": n, "image": "nginx:1"} for n in names]

    spec = {"restartPolicy": "Always", "containers": containers(main), **spec}
    if init:
        spec["initContainers"] = containers(init)
    meta = {"name": "p", "namespace": "ns", "uid": "u", **(meta or {})}
    return {"metadata": meta, "spec": spec, "status": {}}


def sandbox(ready=True, attempt=0):
    config = SandboxConfig(f"u_{attempt}", "u", "p", "ns", attempt, "p", "10.0.0.1")
    return SandboxStatus(config, ready, NOW)


def container(name, state="running", *, code=0, attempt=0, ran=5.0, ended=NOW, box="u_0"):
    config = ContainerConfig(
        f"{name}-{attempt}", box, name, attempt, IMAGE, (), {}, "/", "", limits=NO_LIMITS
    )
    if state == "running":
        return ContainerStatus(config, state, NOW - ran, NOW - ran)
    return ContainerStatus(config, state, ended - ran, ended - ran, ended, exit_code=code)


def make_world(*containers, box=True, volumes=True):
    world = World(first_seen=NOW, volumes=volumes)
    if box:
        world.sandbox, world.sandbox_attempt, world.ips = sandbox(), 1, ["10.0.0.1"]
    world.containers = {c.config.id: c for c in containers}
    return world


def actions(pod, world, now=NOW):
    return [type(a).__name__ + ":" + getattr(a, "name", "") for a in step(pod, world, now).actions]


SIDE = {"name": "side", "image": "nginx:1", "restartPolicy": "Always"}

FORWARD = [
    ("nothing yet: volumes first", make_pod(), make_world(box=False, volumes=False), [MountVolumes]),
    ("volumes there: the sandbox", make_pod(), make_world(box=False), [RunSandbox]),
    ("sandbox there: the container", make_pod(), make_world(), ["c"]),
    ("containers start one after the other", make_pod(main=("a", "b")), make_world(), ["a"]),
    ("the second follows the first", make_pod(main=("a", "b")), make_world(container("a")), ["b"]),
    ("all run: nothing to do", make_pod(), make_world(container("c")), []),
    ("init containers first", make_pod(init=("i", "j")), make_world(), ["i"]),
    ("one init container at a time", make_pod(init=("i", "j")), make_world(container("i")), []),
    ("the next init container", make_pod(init=("i", "j")), make_world(container("i", "exited")), ["j"]),
    (
        "a sidecar that runs lets the next go",
        make_pod(init=(SIDE, "i")),
        make_world(container("side")),
        ["i"],
    ),
    (
        "all init containers done",
        make_pod(init=("i",)),
        make_world(container("i", "exited")),
        ["c"],
    ),
    (
        "a failed init container is tried again",
        make_pod(init=("i",)),
        make_world(container("i", "exited", code=1)),
        ["i"],
    ),
    (
        "a crash is restarted at once the first time",
        make_pod(),
        make_world(container("c", "exited", code=1)),
        ["c"],
    ),
    ("an end is restarted too", make_pod(), make_world(container("c", "exited")), ["c"]),
    (
        "OnFailure leaves a success alone",
        make_pod(main=("a", "b"), restartPolicy="OnFailure"),
        make_world(container("a", "exited"), container("b")),
        [],
    ),
    (
        "Never leaves a failure alone",
        make_pod(main=("a", "b"), restartPolicy="Never"),
        make_world(container("a", "exited", code=1), container("b")),
        [],
    ),
    (
        "a sidecar is restarted whatever the policy",
        make_pod(init=(SIDE,), restartPolicy="Never"),
        make_world(container("side", "exited"), container("c")),
        ["side"],
    ),
    (
        "init containers run again in a new sandbox",
        make_pod(init=("i",)),
        make_world(container("i", "exited", box="old"), container("c", "exited", code=137, box="old")),
        ["i"],
    ),
]


@pytest.mark.parametrize("why, pod, world, expected", FORWARD, ids=[row[0] for row in FORWARD])
def test_what_is_next_in_a_pods_life(why, pod, world, expected):
    found = step(pod, world, NOW).actions
    assert [a.name if isinstance(a, StartContainer) else type(a) for a in found] == expected


def test_looking_twice_asks_for_nothing_twice():
    world = make_world()
    [action] = step(make_pod(), world, NOW).actions
    world.busy.add(action.key)
    assert step(make_pod(), world, NOW).actions == []


def test_a_lost_sandbox_is_made_anew_when_all_containers_are_dead():
    world = make_world(container("c"))
    world.sandbox = sandbox(ready=False)
    assert actions(make_pod(), world) == []
    world.containers["c-0"] = container("c", "exited", code=137)
    assert step(make_pod(), world, NOW).actions == [RunSandbox(1)]


def test_back_off_grows_and_is_forgotten_after_ten_minutes():
    world = make_world()
    facts, delays = world.of("c"), []
    for _ in range(8):
        restarted(facts, 1.0)
        delays.append(facts.restart_delay)
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    restarted(facts, 601.0)
    assert facts.restart_delay == 10


def test_a_container_in_back_off_waits_for_its_time():
    world = make_world(container("c", "exited", code=1, attempt=1))
    world.of("c").restart_delay = 40.0
    out = step(make_pod(), world, NOW + 5)
    assert out.actions == [] and out.wake == NOW + 40
    waiting = out.status["containerStatuses"][0]["state"]["waiting"]
    assert waiting["message"] == "back-off 40s restarting failed container=c pod=p_ns(u)"
    assert [n.reason for n in out.notes] == ["BackOff"]
    assert actions(make_pod(), world, NOW + 40) == ["StartContainer:c"]


@pytest.mark.parametrize("seconds, text", [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations_read_as_kubelet_writes_them(seconds, text):
    world = make_world(container("c", "exited", code=1))
    world.of("c").restart_delay = float(seconds)
    status = step(make_pod(), world, NOW).status["containerStatuses"][0]
    assert f"back-off {text} " in status["state"]["waiting"]["message"]


def test_an_image_that_cannot_be_pulled():
    world = make_world()
    fail(world.of("c"), "ErrImagePull", "no such host", NOW)
    out = step(make_pod(), world, NOW)
    assert out.actions == [] and out.wake == NOW + 1
    assert out.status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"
    later = step(make_pod(), world, NOW + 2)
    waiting = later.status["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff" and "no such host" in waiting["message"]
    assert later.status["phase"] == "Pending"
    assert actions(make_pod(), world, NOW + 10) == ["StartContainer:c"]


def test_a_failing_container_does_not_hold_up_the_others():
    world = make_world()
    fail(world.of("a"), "CreateContainerConfigError", 'configmap "x" not found', NOW)
    assert actions(make_pod(main=("a", "b")), world) == ["StartContainer:b"]


def test_volumes_that_fail_are_tried_again_later_and_later():
    world = make_world(box=False, volumes=False)
    waits = []
    now = NOW
    for _ in range(4):
        fail_pod(world, "FailedMount", "x", now)
        waits.append(world.trouble.retry_at - now)
        assert step(make_pod(), world, now).actions == []
        now = world.trouble.retry_at
    assert waits == [0.5, 1, 2, 4]


@pytest.mark.parametrize("probe", ["liveness", "startup"])
def test_a_failed_probe_stops_the_container(probe):
    world = make_world(container("c"))
    world.of("c").probes[probe] = False
    [action] = step(make_pod(terminationGracePeriodSeconds=7), world, NOW).actions
    assert isinstance(action, StopContainer) and action.grace == 7
    assert action.why == f"Container c failed {probe} probe, will be restarted"


def test_a_probe_may_have_its_own_grace():
    probed = {"name": "c", "image": "nginx:1", "livenessProbe": {"terminationGracePeriodSeconds": 1}}
    world = make_world(container("c"))
    world.of("c").probes["liveness"] = False
    [action] = step(make_pod(main=(probed,)), world, NOW).actions
    assert action.grace == 1


def test_a_changed_image_restarts_the_container():
    running = container("c")
    config = dataclasses.replace(running.config, labels={"image": "nginx:0"})
    world = make_world(dataclasses.replace(running, config=config))
    [action] = step(make_pod(), world, NOW).actions
    assert action.why == "Container c definition changed, will be restarted"


def test_a_container_that_is_replaced_is_shown_as_it_was_until_the_next_one_starts_or_cannot():
    pod, world = make_pod(restartPolicy="Never"), make_world(container("c", "exited", code=137))
    world.of("c").replaced = "c-0"
    found = step(pod, world, NOW)
    assert found.actions == [StartContainer("c", 1, None, "start:c")]
    [shown] = found.status["containerStatuses"]
    assert (list(shown["state"]), shown["ready"], shown["lastState"]) == (["running"], True, {})
    assert found.status["phase"] == "Running"
    world.of("c").problem = Problem("ErrImagePull", "not found", NOW, NOW + 10)
    [shown] = step(pod, world, NOW).status["containerStatuses"]
    assert (shown["state"]["waiting"]["reason"], shown["ready"]) == ("ErrImagePull", False)
    assert shown["lastState"]["terminated"]["exitCode"] == 137


def test_changed_resources_are_applied_in_place():
    bigger = {"name": "c", "image": "nginx:1", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}
    [action] = step(make_pod(main=(bigger,)), make_world(container("c")), NOW).actions
    assert isinstance(action, ResizeContainer)
    assert (action.limits.cpu_quota, action.limits.memory, action.limits.oom_score_adj) == (
        50_000,
        1 << 30,
        1000,
    )


def test_a_running_container_reports_its_resources_even_without_any():
    assert step(make_pod(), make_world(container("c")), NOW).status["containerStatuses"][0]["resources"] == {}


def test_a_resize_policy_may_ask_for_a_restart():
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    bigger = {
        "name": "c",
        "image": "nginx:1",
        "resources": {"limits": {"memory": "1Gi"}},
        "resizePolicy": policy,
    }
    [action] = step(make_pod(main=(bigger,)), make_world(container("c")), NOW).actions
    assert isinstance(action, StopContainer)
    assert action.why == "Container c resize requires restart"


def test_a_request_for_memory_alone_counts_for_the_resize_policy():
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    more = {"name": "c", "image": "nginx:1", "resources": {"requests": {"memory": "1Gi"}}}
    [action] = step(make_pod(main=(more,)), make_world(container("c")), NOW).actions
    assert isinstance(action, ResizeContainer)
    [action] = step(
        make_pod(main=({**more, "resizePolicy": policy},)), make_world(container("c")), NOW
    ).actions
    assert isinstance(action, StopContainer)


def test_an_init_container_is_resized_while_it_runs():
    more = {"name": "i", "image": "nginx:1", "resources": {"limits": {"cpu": "500m"}}}
    found = step(make_pod(init=(more,)), make_world(container("i")), NOW)
    [action] = found.actions
    assert isinstance(action, ResizeContainer) and action.id == "i-0"
    assert "PodResizeInProgress" in {c["type"] for c in found.status["conditions"]}


def test_the_resources_of_the_whole_pod_are_applied_when_its_containers_have_theirs():
    whole = {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    own = {"name": "c", "image": "nginx:1", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}
    running = container("c")
    first = step(make_pod(main=(own,), resources=whole), make_world(running), NOW)
    assert [type(a) for a in first.actions] == [ResizeContainer]
    done = dataclasses.replace(running.config, limits=first.actions[0].limits)
    world = make_world(dataclasses.replace(running, config=done))
    found = step(make_pod(main=(own,), resources=whole), world, NOW)
    assert found.actions == [ResizePod()]
    assert "PodResizeInProgress" in {c["type"] for c in found.status["conditions"]}
    config = dataclasses.replace(
        world.sandbox.config, limits=Limits(cpu_shares=1024, cpu_quota=200_000, memory=1 << 30)
    )
    world.sandbox = dataclasses.replace(world.sandbox, config=config)
    found = step(make_pod(main=(own,), resources=whole), world, NOW)
    assert not found.actions and found.status["resources"] == whole
    assert found.status["allocatedResources"] == whole["requests"]


def test_old_attempts_are_removed_but_the_last_two():
    dead = [container("c", "exited", code=1, attempt=n) for n in range(3)]
    world = make_world(*dead, container("c", attempt=3))
    found = step(make_pod(), world, NOW).actions
    assert [a.id for a in found if isinstance(a, RemoveContainer)] == ["c-0", "c-1"]


# The end

GOING = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}


def test_a_deleted_pod_that_was_ready_is_withdrawn_before_any_signal():
    world = make_world(container("c"))
    world.was_ready, world.ending_since = True, NOW
    assert step(make_pod(meta=GOING), world, NOW).actions == [Withdraw(limit=15.0)]
    world.withdrawn = True
    [action] = step(make_pod(meta=GOING), world, NOW + 4).actions
    assert isinstance(action, StopContainer) and action.grace == 26


def test_a_deleted_pod_that_was_not_ready_is_stopped_at_once():
    world = make_world(container("c"))
    world.ending_since = NOW
    [action] = step(make_pod(meta=GOING), world, NOW).actions
    assert isinstance(action, StopContainer) and action.why == "Stopping container c"


def test_sidecars_stop_last_and_in_reverse():
    second = {**SIDE, "name": "second"}
    pod = make_pod(init=(SIDE, second), meta=GOING)
    world = make_world(container("side"), container("second"), container("c"))
    world.ending_since = NOW
    order = []
    for _ in range(3):
        [action] = step(pod, world, NOW).actions
        order.append(action.name)
        world.containers[action.id] = container(action.name, "exited")
    assert order == ["c", "second", "side"]
    assert step(pod, world, NOW).actions == [Cleanup(delete=True)]


def test_a_shortened_grace_asks_again():
    world = make_world(container("c"))
    world.ending_since = NOW
    [first] = step(make_pod(meta=GOING), world, NOW).actions
    world.busy.add(first.key)
    sooner = {**GOING, "deletionGracePeriodSeconds": 3}
    [second] = step(make_pod(meta=sooner), world, NOW + 1).actions
    assert second.key != first.key and second.grace == 2


def test_the_end_waits_for_what_is_being_started():
    world = make_world()
    world.ending_since = NOW
    world.busy.add("start:c")
    assert step(make_pod(meta=GOING), world, NOW).actions == []


def test_nothing_starts_in_a_pod_that_is_going():
    world = make_world(box=False, volumes=False)
    world.ending_since = NOW
    assert step(make_pod(meta=GOING), world, NOW).actions == [Cleanup(delete=True)]


def test_a_finished_pod_is_cleaned_up_but_kept():
    pod = make_pod(restartPolicy="Never")
    world = make_world(container("c", "exited"))
    assert step(pod, world, NOW).actions == [Cleanup(delete=False)]
    world.cleaned = True
    assert step(pod, world, NOW).actions == []


def test_an_evicted_pod_fails_with_its_reason():
    world = make_world(container("c"))
    world.verdict = ("Evicted", "The node was low on resource: memory.")
    out = step(make_pod(), world, NOW)
    assert isinstance(out.actions[0], StopContainer) and out.status["phase"] == "Running"
    world.containers["c-0"] = container("c", "exited", code=137)
    status = step(make_pod(), world, NOW).status
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")


# Phase

PHASES = [
    ("Always", [None], False, "Pending"),
    ("Always", [0, None], False, "Pending"),
    ("Always", [0], False, "Running"),
    ("OnFailure", [0, 0], False, "Succeeded"),
    ("OnFailure", [0, 1], False, "Running"),
    ("Never", [0, 0], False, "Succeeded"),
    ("Never", [0, 1], False, "Failed"),
    ("Never", [1, "running"], False, "Running"),
    ("Always", [0, 0], True, "Succeeded"),
    ("Always", [0, 143], True, "Failed"),
]


@pytest.mark.parametrize("policy, ends, going, phase", PHASES)
def test_how_containers_end_decides_the_phase(policy, ends, going, phase):
    names = [f"c{i}" for i in range(len(ends))]
    states = [
        container(n, "running") if e == "running" else container(n, "exited", code=e)
        for n, e in zip(names, ends, strict=True)
        if e is not None
    ]
    pod = make_pod(main=names, restartPolicy=policy, meta=GOING if going else None)
    assert step(pod, make_world(*states), NOW).status["phase"] == phase


def test_ready_waits_for_gates_and_says_which():
    pod = make_pod(readinessGates=[{"conditionType": "example.com/ok"}])
    status = step(pod, make_world(container("c")), NOW).status
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (
        ready["message"] == 'corresponding condition of pod readiness gate "example.com/ok" does not exist.'
    )
    pod["status"] = {"conditions": [{"type": "example.com/ok", "status": "True"}]}
    status = step(pod, make_world(container("c")), NOW).status
    assert next(c for c in status["conditions"] if c["type"] == "Ready")["status"] == "True"


def test_started_and_ready_follow_the_probes():
    probed = {"name": "c", "image": "nginx:1", "startupProbe": {"exec": {}}, "readinessProbe": {"exec": {}}}
    pod, world = make_pod(main=(probed,)), make_world(container("c"))

    def seen():
        status = step(pod, world, NOW).status["containerStatuses"][0]
        return status["started"], status["ready"]

    assert seen() == (False, False)
    world.of("c").probes["startup"] = True
    assert seen() == (True, False)
    world.of("c").probes["readiness"] = True
    assert seen() == (True, True)
    world.of("c").hooked = False
    assert seen() == (False, False)


def test_probes_wait_for_the_hook():
    probed = {"name": "c", "image": "nginx:1", "livenessProbe": {"exec": {}}}
    pod, world = make_pod(main=(probed,)), make_world(container("c"))
    assert list(step(pod, world, NOW).probes) == ["c"]
    world.of("c").hooked = False
    assert not step(pod, world, NOW).probes
