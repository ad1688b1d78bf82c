"""Node pressure: thresholds, conditions, who goes first, and what is said of it."""

from __future__ import annotations

import pytest

from sampan.node import pressure
from sampan.node.meter import Measured
from sampan.node.pressure import Observation, Pressure, Subject, Threshold

GI, MI = 1 << 30, 1 << 20


def used(memory: int = 0, processes: int = 1) -> Measured:
    return Measured(0.0, 0.0, 10.0, memory, memory, memory, processes)


def subject(name: str, memory: int = 0, *, request: str = "", priority: int = 0, **more) -> Subject:
    resources = {"requests": {"memory": request}} if request else {}
    meta = {"name": name, "namespace": "default", "uid": name, "annotations": more.pop("annotations", {})}
    pod = {
        "metadata": meta,
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]},
    }
    return Subject(pod, {"c": used(memory, more.pop("processes", 1))}, **more)


def test_thresholds_are_read_as_kubelet_reads_them():
    assert pressure.parse("memory.available<100Mi,nodefs.available<10%") == [
        Threshold("memory.available", "100Mi"),
        Threshold("nodefs.available", "10%"),
    ]
    (soft,) = pressure.parse("memory.available<1Gi", "memory.available=1m30s")
    assert soft.soft and soft.grace == 90
    for wrong in ("memory.available>1Gi", "swap<1Gi", "memory.available<lots"):
        with pytest.raises(ValueError):
            pressure.parse(wrong)


@pytest.mark.parametrize(
    ("amount", "available", "capacity", "met"),
    [
        ("100Mi", 99 * MI, GI, True),
        ("100Mi", 100 * MI, GI, False),
        ("10%", 9, 100, True),
        ("5%", 0, 0, False),
    ],
)
def test_a_threshold_is_met_when_less_is_left(amount, available, capacity, met):
    assert (
        Threshold("nodefs.available", amount).met({"nodefs.available": Observation(available, capacity)})
        is met
    )


def test_a_condition_stays_a_while_and_a_soft_threshold_waits():
    thresholds = pressure.parse("nodefs.available<10%") + pressure.parse(
        "memory.available<1Gi", "memory.available=30s"
    )
    state = Pressure(thresholds, transition=300)
    short = {"memory.available": Observation(MI, 2 * GI), "nodefs.available": Observation(50, 100)}
    well = {"memory.available": Observation(2 * GI, 2 * GI), "nodefs.available": Observation(50, 100)}
    assert state.observe(short, 0) == [] and state.conditions == ("MemoryPressure",)
    assert [t.signal for t in state.observe(short, 30)] == ["memory.available"]
    assert state.observe(well, 40) == [] and state.conditions == ("MemoryPressure",)
    assert state.observe(short, 50) == [], "the grace begins anew"
    state.observe(well, 349)
    assert state.conditions == ("MemoryPressure",)
    state.observe(well, 350)
    assert state.conditions == ()


def test_memory_is_acted_on_before_disk():
    state = Pressure(pressure.parse("nodefs.available<10%,memory.available<1Gi"), transition=0)
    both = {"memory.available": Observation(0, GI), "nodefs.available": Observation(0, 100)}
    assert [t.signal for t in state.observe(both, 0)] == ["memory.available", "nodefs.available"]
    assert state.conditions == ("MemoryPressure", "DiskPressure")


def test_who_uses_more_than_requested_goes_first_then_low_priority_then_the_largest_excess():
    pods = [
        subject("within", 900 * MI, request="1Gi"),
        subject("important", 800 * MI, priority=1000),
        subject("little-over", 200 * MI, request="100Mi"),
        subject("much-over", 500 * MI, request="100Mi"),
        subject("system", 900 * MI, priority=2_000_000_000),
        subject("static", 900 * MI, annotations={"kubernetes.io/config.source": "file"}),
        subject("mirror", 900 * MI, annotations={"kubernetes.io/config.mirror": "x"}),
    ]
    order = [s.pod["metadata"]["name"] for s in pressure.ranked(pods, "memory")]
    assert order == ["much-over", "little-over", "important", "within"]
    bomb = [
        subject("quiet", processes=3),
        subject("bomb", processes=500),
        subject("kept", processes=900, priority=9),
    ]
    assert [s.pod["metadata"]["name"] for s in pressure.ranked(bomb, "pids")] == ["bomb", "quiet", "kept"]
    full = [subject("small", disk=10), subject("large", disk=1000)]
    assert pressure.ranked(full, "ephemeral-storage")[0].pod["metadata"]["name"] == "large"


def test_the_message_says_what_was_short_and_who_used_it():
    (threshold,) = pressure.parse("memory.available<100Mi")
    text = pressure.message(threshold, Observation(50 * MI, GI), subject("p", 300 * MI, request="128Mi"))
    assert text == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 300Mi, request is 128Mi, has larger consumption of memory. "
    )


def test_the_message_names_who_filled_the_disk():
    (threshold,) = pressure.parse("nodefs.available<1Gi")
    fills = subject("p", 0)
    fills.disks = {"c": 3 * MI}
    assert pressure.message(threshold, Observation(512 * MI, 8 * GI), fills) == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 512Mi. "
        "Container c was using 3Mi, request is 0, has larger consumption of ephemeral-storage. "
    )


@pytest.mark.parametrize(
    ("qos", "conditions", "tolerations", "refused"),
    [
        ("BestEffort", (), [], False),
        ("BestEffort", ("MemoryPressure",), [], True),
        (
            "BestEffort",
            ("MemoryPressure",),
            [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}],
            False,
        ),
        ("Burstable", ("MemoryPressure",), [], False),
        ("Guaranteed", ("DiskPressure",), [], True),
        ("Guaranteed", ("MemoryPressure", "PIDPressure"), [], True),
    ],
)
def test_under_pressure_a_node_takes_only_some_pods(qos, conditions, tolerations, refused):
    pod = subject("p").pod
    pod["spec"]["tolerations"] = tolerations
    text = pressure.admits(pod, qos, conditions)
    assert text == (f"The node had condition: [{' '.join(conditions)}]. " if refused else "")
