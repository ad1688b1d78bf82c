"""Events as kubectl describe shows them: one object for repeats, one for many alike, none for a flood."""

from __future__ import annotations

import re

import pytest

from sampan.client.events import EventRecorder
from sampan.client.plan import Event

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"},
}


@pytest.fixture
def recorder(client, clock, ids):
    return EventRecorder(client, clock=clock, ids=ids, component="kubelet", host="n1")


async def sent(client):
    return (await client.list("events"))["items"]


async def test_the_fields_that_kubectl_shows(recorder, client):
    recorder.record(Event(POD, "Normal", "Pulled", "Image is present"))
    await recorder.flush()
    (event,) = await sent(client)
    assert re.fullmatch(r"web\.[0-9a-f]{16}", event["metadata"].pop("name"))
    assert event["metadata"]["namespace"] == "default"
    del event["metadata"]
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "default",
            "name": "web",
            "uid": "u1",
            "resourceVersion": "7",
        },
        "type": "Normal",
        "reason": "Pulled",
        "message": "Image is present",
        "source": {"component": "kubelet", "host": "n1"},
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }


async def test_repeats_are_counted(recorder, client, clock):
    for _ in range(3):
        recorder.record(Event(POD, "Warning", "BackOff", "again"))
        await clock.advance(10)
    (event,) = await sent(client)
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        3,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:20Z",
    )


async def test_a_counted_event_that_was_removed_is_made_anew(recorder, client):
    recorder.record(Event(POD, "Normal", "A", "a"))
    await recorder.flush()
    await client.delete("events", (await sent(client))[0]["metadata"]["name"], "default")
    recorder.record(Event(POD, "Normal", "A", "a"))
    await recorder.flush()
    assert [e["count"] for e in await sent(client)] == [1]


async def test_many_alike_are_combined_and_a_flood_is_dropped(recorder, client, clock):
    for n in range(40):
        recorder.record(Event(POD, "Warning", "Failed", f"try {n}"))
    await recorder.flush()
    found = await sent(client)
    assert len(found) == 11
    (combined,) = [e for e in found if "combined" in e["message"]]
    assert combined["message"] == "(combined from similar events): try 24" and combined["count"] == 15


async def test_a_clock_that_is_set_back_silences_nobody(recorder, client, clock):
    recorder.record(Event(POD, "Normal", "Pulled", "one"))
    await recorder.flush()
    clock.set_wall(clock.now() - 86_400)
    recorder.record(Event(POD, "Normal", "Pulled", "two"))
    await recorder.flush()
    assert [e["message"] for e in await sent(client)] == ["one", "two"]


async def test_about_a_node_and_by_reference(recorder, client):
    recorder.record(Event({"kind": "Node", "name": "n1", "uid": "n1"}, "Normal", "NodeReady", "ready"))
    await recorder.flush()
    (event,) = await sent(client)
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"kind": "Node", "name": "n1", "uid": "n1"}


async def test_names_sort_as_things_happened(client, recorder):
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        recorder.record(Event(POD, "Normal", reason, reason))
    await recorder.flush()
    found = sorted(await sent(client), key=lambda e: e["metadata"]["name"])
    assert [e["reason"] for e in found] == ["Scheduled", "Pulled", "Created", "Started"]
