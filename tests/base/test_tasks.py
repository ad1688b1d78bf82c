from __future__ import annotations

import asyncio

from sampan.base.tasks import Tasks


async def test_what_is_done_is_let_go():
    tasks = Tasks()
    task = tasks.start(asyncio.sleep(0, "done"))
    assert len(tasks) == 1
    assert await task == "done"
    await asyncio.sleep(0)  # a turn of the loop, for the callbacks of the task
    assert len(tasks) == 0


async def test_cancelled_work_has_ended_when_cancel_returns():
    tasks, seen = Tasks(), []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("tidied up")

    tasks.start(work())
    await asyncio.sleep(0)
    await tasks.cancel()
    assert seen == ["tidied up"] and len(tasks) == 0
