"""Changes of resources in place: granted, not now, or never."""

from __future__ import annotations

import pytest

from sampan.api import pod_resources
from sampan.node.pods import resize

NODE = {"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"}}}


def pod(cpu, memory="10Mi"):
    asked = {"cpu": cpu, "memory": memory}
    return {"spec": {"containers": [{"name": "c", "resources": {"requests": asked}}]}, "status": {}}


@pytest.mark.parametrize(
    "wanted, others, reason",
    [
        (pod("1500m"), [], None),
        (pod("3"), [], "Infeasible"),
        (pod("1", "2Gi"), [], "Infeasible"),
        (pod("1500m"), [pod("1")], "Deferred"),
        (pod("1"), [pod("1")], None),
    ],
)
def test_a_resize_is_granted_deferred_or_infeasible(wanted, others, reason):
    answer = resize.judge(wanted, NODE, [(o, pod_resources.requests(o["spec"])) for o in others])
    assert (answer[0] if answer else None) == reason


def test_a_pod_that_is_taken_over_has_what_was_reported():
    asked = pod("2")
    asked["status"]["containerStatuses"] = [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]
    assert pod_resources.requests(resize.as_reported(asked)["spec"]) == {"cpu": 1000}


def test_events_tell_the_resources_of_all_containers():
    resized = pod("1")
    resized["metadata"] = {"generation": 2}
    summary = (
        '"containers":[{"name":"c","resources":{"requests":{"cpu":"1","memory":"10Mi"}}}],"generation":2'
    )
    assert resize.message("started", resized) == f"Pod resize started: {{{summary}}}"
    assert resize.message("Deferred", resized, "no room") == (
        f'Pod resize Deferred: {{{summary},"error":"no room"}}'
    )
