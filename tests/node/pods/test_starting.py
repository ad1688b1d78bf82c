"""Containers that start: what their hooks decide."""

from __future__ import annotations

from sampan.testing import Cluster


async def test_who_failed_its_hook_is_not_ready_while_it_ends():
    """What fails its postStart has never started, as slowly as it may end; then it is tried again."""
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "exit 3"]}}}
    async with Cluster() as cluster:
        await cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", "annotations": {"sampan.dev/simulate": "stop=20s"}},
                "spec": {"containers": [{"name": "c", "image": "x", "lifecycle": hook}]},
            }
        )
        await cluster.advance(10)
        [status] = (await cluster.get("pod", "p"))["status"]["containerStatuses"]
        assert not status["ready"] and not status["started"] and status["restartCount"] == 0
        assert "FailedPostStartHook" in {event["reason"] for event in await cluster.list("events")}
        await cluster.advance(15)
        [status] = (await cluster.get("pod", "p"))["status"]["containerStatuses"]
        assert status["restartCount"] == 1
