"""Logs: what of a CRI file a reader sees, and how a follower keeps up."""

from __future__ import annotations

import asyncio

import pytest

from sampan.client.messages import Request
from sampan.node.api import logs
from sampan.node.api.query import Query
from sampan.node.native.logs import LogWriter

LINES = [
    b"2026-01-01T00:00:00.000000001Z stdout F one",
    b"2026-01-01T00:00:01.000000001Z stderr F two",
    b"2026-01-01T00:00:02.000000001Z stdout P thr",
    b"2026-01-01T00:00:02.000000002Z stdout F ee",
    b"2026-01-01T00:00:03.000000001Z stdout F ",
]
START = 1_767_225_600.0


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, b"one\ntwo\nthree\n\n"),
        ({"stream": b"stderr"}, b"two\n"),
        ({"since": START + 1.5}, b"three\n\n"),
        ({"limit": 5}, b"one\nt"),
        (
            {"timestamps": True, "since": START + 1.5},
            b"2026-01-01T00:00:02.000000001Z three\n2026-01-01T00:00:03.000000001Z \n",
        ),
    ],
)
def test_lines_are_chosen_and_shown_as_asked(options, expected):
    assert logs.Formatter(logs.LogOptions(**options)).feed(LINES) == expected


@pytest.mark.parametrize("count, expected", [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (9, b"a\nb\nc\n")])
def test_a_tail_begins_so_many_lines_before_the_end(tmp_path, count, expected):
    path = tmp_path / "log"
    path.write_bytes(b"a\nb\nc\n")
    with path.open("rb") as file:
        assert path.read_bytes()[logs.tail_offset(file, count) :] == expected


def test_tail_of_a_long_file(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%06d\n" % n for n in range(50_000)))
    with path.open("rb") as file:
        assert path.read_bytes()[logs.tail_offset(file, 20_000) :].startswith(b"030000\n")


@pytest.mark.parametrize(
    "query, attribute, value",
    [
        ("follow=true", "follow", True),
        ("tailLines=5", "tail", 5),
        ("sinceSeconds=10", "since", START - 10),
        ("sinceTime=2026-01-01T00:00:00Z", "since", START),
        ("limitBytes=7", "limit", 7),
        ("stream=Stderr", "stream", b"stderr"),
    ],
)
def test_parameters_become_options(query, attribute, value):
    found = logs.parse(Query(Request("GET", "/", query)), START)
    assert getattr(found, attribute) == value


async def test_a_log_is_read_and_followed_while_there_is_no_file_of_its_name(tmp_path):
    """Between the renaming of the old file and the writer's opening of the next."""
    path, ended = tmp_path / "0.log", asyncio.Event()
    (tmp_path / "0.log.20260101-000000.gz").write_bytes(b"older")
    writer = LogWriter(str(path))
    writer.write(b"stdout", b"before\nalso before\n")
    path.rename(tmp_path / "0.log.20260101-000010")
    told = [chunk async for chunk in logs.read(str(path), logs.LogOptions(), ended.wait)]
    assert told == [b"before\nalso before\n"]

    follower = logs.read(str(path), logs.LogOptions(follow=True, tail=1), ended.wait)
    async with asyncio.timeout(60):
        assert await anext(follower) == b"also before\n"
        more = asyncio.get_running_loop().create_task(anext(follower))
        writer.write(b"stdout", b"still\n")
        assert await more == b"still\n"
        more = asyncio.get_running_loop().create_task(anext(follower))
        await asyncio.sleep(0)
        writer.reopen()
        writer.write(b"stdout", b"after\n")
        assert await more == b"after\n"
    await follower.aclose()


async def test_a_follower_reads_on_through_a_rotation_until_the_container_is_dead(tmp_path):
    path, ended = tmp_path / "0.log", asyncio.Event()
    path.write_bytes(LINES[0] + b"\n")
    seen: list[bytes] = []

    async def follow():
        async for chunk in logs.read(str(path), logs.LogOptions(follow=True), ended.wait):
            seen.append(chunk)

    async def until(text):
        while text not in b"".join(seen):
            await asyncio.sleep(0.001)

    task = asyncio.get_running_loop().create_task(follow())
    async with asyncio.timeout(60):
        await until(b"one\n")
        with path.open("ab") as file:
            file.write(LINES[1] + b"\n")
        await until(b"two\n")
        path.rename(tmp_path / "0.log.1")
        path.write_bytes(b"2026-01-01T00:00:05Z stdout F fresh\n")
        await until(b"fresh\n")
        with path.open("ab") as file:
            file.write(b"2026-01-01T00:00:06Z stdout F last\n")
        ended.set()
        await task
    assert b"".join(seen) == b"one\ntwo\nfresh\nlast\n"
