"""`sampan story KIND/NAME`: who did what to an object, when and why, from the memory of controllers and scheduler."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import orjson

from sampan.api.status import ApiError
from sampan.base.errors import SampanError
from sampan.cli import target
from sampan.client.client import Client, read_body
from sampan.cluster.debug import STORY


def story(arguments: argparse.Namespace) -> int:
    """Asks the control plane, which remembers in memory only. Raises SampanError when it knows of nothing."""
    kind, slash, name = arguments.object.partition("/")
    if not slash or not kind or not name:
        raise SampanError(
            f"{arguments.object!r} is not KIND/NAME", "For example: sampan story deployment/web"
        )
    _, _, client = target.running(arguments)
    query = {"resource": kind, "namespace": arguments.namespace, "name": name}
    try:
        told = asyncio.run(_ask(client, query))
    except ApiError as error:
        raise SampanError(error.message) from None
    if not told["entries"]:
        where = f" in namespace {told['namespace']}" if told["namespace"] else ""
        hint = "What happened before the control plane last started, or long ago, is forgotten."
        raise SampanError(f"nothing is known of {told['resource']} {name}{where}", hint)
    print("\n".join(tell(told)))
    return 0


def tell(told: dict[str, Any]) -> list[str]:
    """What happened, oldest first; who only looked is named at the end."""
    idle = [e for e in told["entries"] if not e["actions"] and not e["why"] and e["outcome"] == "ok"]
    text = [line for entry in told["entries"] if entry not in idle for line in lines(entry, told)]
    looked: dict[str, int] = {}
    for entry in idle:
        looked[entry["controller"]] = looked.get(entry["controller"], 0) + entry["times"]
    if looked:
        listed = ", ".join(f"{who} ({times})" for who, times in sorted(looked.items()))
        text.append(f"looked and had nothing to do: {listed}")
    return text


async def _ask(client: Client, query: dict[str, str]) -> dict[str, Any]:
    response = await client.request("GET", STORY, query)
    body = await read_body(response)
    if response.status >= 400:
        raise ApiError.from_status(orjson.loads(body))
    return orjson.loads(body)


def lines(entry: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """One reconcile, as a person reads it: time and who, then what woke it, what it decided, what it did."""
    who = f"{entry['resource']} {entry['name']}".removeprefix("* ").replace("/", " ", 1)
    subject = "" if who == f"{told['resource']} {told['name']}" else f" for {who}"
    often = f" ({entry['times']} times)" if entry["times"] > 1 else ""
    why = f": {entry['why']}" if entry["why"] else ""
    text = [f"{entry['time'][11:23]}  {entry['controller']}{subject}{why}{often}"]
    text.append(f"{'':14}woken by {entry['cause']}")
    text += [f"{'':14}-> {action}" for action in entry["actions"]]
    text += [f"{'':14}   not {node}: {', '.join(why)}" for node, why in entry.get("refused", {}).items()]
    if entry["outcome"] != "ok":
        text.append(f"{'':14}!! {entry['outcome']}")
    return text
