"""What one request costs the server, and which step of it how much: microseconds of processor time, steady on a busy machine.

    python bench/write_path.py [create status merge bind update get ...] [--requests N] [--steps]

The control plane runs in this process over a durable store, with TLS; the client is a process of its own. Each round
is measured against a yardstick of plain Python, so that a machine that is slow because others work on it does not count;
of several rounds the cheapest does. `--steps` wraps the functions of the way and
shows where the time goes; the wrapping costs some, so read its shares, not its sum.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from machine import busy, report

from api import POD, Caller
from sampan.base import pki
from sampan.base.clock import RealClock
from sampan.base.ids import Ids
from sampan.client.messages import User
from sampan.cluster import garbage
from sampan.cluster.planks import ControlPlane, Options
from sampan.controllers import Timing
from sampan.server import http
from sampan.store.open import open_store

TOKEN = "bench-token"
ADMIN = User("admin", ("system:masters",), "u1")
PODS = "/api/v1/namespaces/default/pods"
CONNECTIONS = 16

# The steps of the way, in its order: name, module and function (or Class.method) that is wrapped. What a step spends
# in another listed step counts there.
STEPS = (
    ("HTTP in", "sampan.server.http", "_Connection.data_received"),
    ("route", "sampan.server.route", "parse"),
    ("authenticate", "sampan.server.auth.authenticate", "Authenticator.authenticate"),
    ("authorize", "sampan.server.auth.authorize", "Authorizer.authorize"),
    ("flow", "sampan.server.flowcontrol.fairness", "Fairness.flow"),
    ("parse", "sampan.server.decode", "parse"),
    ("duplicates", "sampan.server.decode", "duplicate_fields"),
    ("normalize", "sampan.server.decode", "_normalize"),
    ("default", "sampan.server.decode", "default"),
    ("load", "sampan.server.objects", "load"),
    ("own", "sampan.server.write", "own"),
    ("prepare", "sampan.server.write", "prepare_create"),
    ("prepare part", "sampan.server.write", "prepare_part"),
    ("allocate", "sampan.server.app", "Server.allocate"),
    ("validate create", "sampan.server.app", "Server.validate_create"),
    ("validate update", "sampan.server.app", "Server.validate_update"),
    ("draft", "sampan.server.objects", "to_draft"),
    ("append", "sampan.store.log", "EmbeddedLog.append"),
    ("publish", "sampan.store.cache", "VersionedStore.durable"),
    ("views", "sampan.client.view", "CachedView._changed"),
    ("controllers", "sampan.client.runner", "Runner._changed"),
    ("scheduler", "sampan.scheduler.run", "Scheduler._changed"),
    ("answer", "sampan.server.respond", "item"),
)
ADMISSION = "admission"


class Steps:
    """Time spent in each wrapped function, less what others of them took in it."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = {}
        self._inner = [0]

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        taken, inner, clock = self.taken.setdefault(name, []), self._inner, time.perf_counter_ns

        def timed(*args: Any, **more: Any) -> Any:
            inner.append(0)
            began = clock()
            try:
                return function(*args, **more)
            finally:
                spent = clock() - began
                taken.append(spent - inner.pop())
                inner[-1] += spent

        return timed

    def install(self, plane: ControlPlane) -> None:
        for name, module, path in STEPS:
            owner: Any = importlib.import_module(module)
            *classes, last = path.split(".")
            for part in classes:
                owner = getattr(owner, part)
            setattr(owner, last, self.wrap(name, getattr(owner, last)))
        admission: Any = plane.server.admission
        of = admission._of

        def wrapped(attrs: Any) -> Any:
            return tuple(tuple(self.wrap(ADMISSION, step) for step in steps) for steps in of(attrs))

        admission._of = wrapped

    def report(self, requests: int) -> dict[str, float]:
        """Microseconds a request; of each step the slowest twentieth is left out: that was somebody else's work."""
        found = {}
        for name, taken in self.taken.items():
            if len(taken) >= requests // 50:
                kept = sorted(taken)[: len(taken) - len(taken) // 20]
                found[name] = round(statistics.fmean(kept) * len(taken) / requests / 1000, 1)
        return found


_FREE = 16.0  # milliseconds that the yardstick takes on a free core of the machine of our results


def yardstick() -> float:
    """How many times slower than usual this process gets on now: a busy machine's caches and clocks are shared, too."""
    began = time.process_time()
    text = json.dumps(POD)
    for _ in range(1000):
        value = json.loads(text)
        {key: str(item) for key, item in value["spec"].items()}
        json.dumps(value)
    return (time.process_time() - began) * 1000 / _FREE


# Scenarios: requests number `first` up to `last`


def _request(method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nUser-Agent: bench/1\r\n"
    if body is not None:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


def _pod(name: str, **spec: Any) -> dict[str, Any]:
    return POD | {"metadata": {**POD["metadata"], "name": name}, "spec": {**POD["spec"], **spec}}


def create(number: int) -> bytes:
    return _request("POST", PODS, _pod(f"c-{number}"))


def status(number: int) -> bytes:
    """What a node writes when a container has started."""
    condition = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    container = {
        "name": "main",
        "image": "registry.example/app:1",
        "imageID": "sha256:0",
        "containerID": f"sampan://{number}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": state,
    }
    body = {
        "status": {
            "phase": "Running",
            "hostIP": "10.0.0.1",
            "podIP": f"10.244.{number // 250 % 250}.{number % 250 + 1}",
            "conditions": [{"type": t, **condition} for t in ("Initialized", "Ready", "ContainersReady")],
            "containerStatuses": [container],
        }
    }
    return _request("PATCH", f"{PODS}/s-{number}/status", body, "application/strategic-merge-patch+json")


def merge(number: int) -> bytes:
    body = {"metadata": {"annotations": {"example.com/number": str(number)}}}
    return _request("PATCH", f"{PODS}/s-{number}", body, "application/merge-patch+json")


def bind(number: int) -> bytes:
    body = {"metadata": {"name": f"s-{number}"}, "target": {"kind": "Node", "name": "node-1"}}
    return _request("POST", f"{PODS}/s-{number}/binding", body)


def update(number: int) -> bytes:
    path = "/api/v1/namespaces/default/configmaps"
    body = {"metadata": {"name": f"m-{number}"}, "data": {f"key-{i}": f"{number}" for i in range(10)}}
    return _request("PUT", f"{path}/m-{number}", body)


def delete(number: int) -> bytes:
    return _request("DELETE", f"{PODS}/d-{number}", {"gracePeriodSeconds": 0})


def get(number: int) -> bytes:
    return _request("GET", f"{PODS}/s-{number}")


def _made_pod(number: int) -> bytes:
    return _request("POST", PODS, _pod(f"s-{number}"))


def _doomed_pod(number: int) -> bytes:
    return _request("POST", PODS, _pod(f"d-{number}"))


def _made_map(number: int) -> bytes:
    path = "/api/v1/namespaces/default/configmaps"
    return _request("POST", path, {"metadata": {"name": f"m-{number}"}, "data": {"key": "value"}})


# name -> (what is asked, what makes the object it is asked about)
SCENARIOS: dict[str, tuple[Callable[[int], bytes], Callable[[int], bytes] | None]] = {
    "create": (create, None),
    "status": (status, _made_pod),
    "merge": (merge, _made_pod),
    "bind": (bind, _made_pod),
    "update": (update, _made_map),
    "delete": (delete, _doomed_pod),
    "get": (get, _made_pod),
}


# The client's process


async def _ask(port: int, requests: Iterator[bytes]) -> set[bytes]:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    callers = []
    for _ in range(CONNECTIONS):
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: _Once(requests, [], set()), "127.0.0.1", port, ssl=tls
        )
        callers.append(caller)
    await asyncio.gather(*(caller.done for caller in callers))
    return set().union(*(caller.statuses for caller in callers))


class _Once(Caller):
    def ask(self) -> None:
        try:
            super().ask()
        except StopIteration:
            self.transport.close()


def _client(pipe: Any) -> None:
    port = pipe.recv()
    while (asked := pipe.recv()) is not None:
        function, first, last = asked
        requests = [function(n) for n in range(first, last)]
        pipe.send("ready")
        pipe.recv()
        pipe.send(uvloop.run(_ask(port, iter(requests))))


# The server's


async def _serve(
    directory: Path, pipe: Any, names: list[str], requests: int, rounds: int, steps: bool
) -> Any:
    clock, ids = RealClock(), Ids()
    store = open_store(directory / "store", clock=clock)
    timing = Timing(monitor_grace=3600.0)  # the node is but a name: nobody reports for it
    options = Options(token_key=pki.new_key(), static_tokens={TOKEN: ADMIN}, timing=timing)
    plane = ControlPlane(store, clock, ids, options)
    authority = pki.CA.create("bench")
    authority.issue("apiserver").save(directory / "crt", directory / "key")
    tls = pki.server_context(directory / "crt", directory / "key")
    watched = Steps()
    if steps:
        watched.install(plane)
    await plane.start()
    sockets = [socket.create_server(("127.0.0.1", 0))]
    listener = await http.serve(plane.server.handle, sockets, tls, clock, plane.server.at_once)
    await _account(plane)
    await plane.client().create("nodes", {"metadata": {"name": "node-1"}})  # pods of no node are collected
    garbage.settle()
    sys.setswitchinterval(0.001)
    loop = asyncio.get_running_loop()
    pipe.send(listener.addresses[0][1])

    async def round_(function: Callable[[int], bytes], number: int) -> float:
        before = yardstick()
        pipe.send((function, number * requests, (number + 1) * requests))
        await loop.run_in_executor(None, pipe.recv)
        for taken in watched.taken.values():
            taken.clear()
        began = time.process_time()
        pipe.send("go")
        statuses = await loop.run_in_executor(None, pipe.recv)
        assert statuses <= {b"200", b"201"}, (function.__name__, statuses)
        cost = (time.process_time() - began) / requests * 1e6
        return cost / ((before + yardstick()) / 2)

    results: dict[str, Any] = {}
    made: set[Any] = set()
    for name in names:
        function, maker = SCENARIOS[name]
        if maker is not None and maker not in made:
            made.add(maker)
            for number in range(rounds):
                await round_(maker, number)
        costs, shares = [], []
        for number in range(rounds):
            costs.append(await round_(function, number))
            shares.append(watched.report(requests))
        results[name] = {"us": round(min(costs), 1), "median_us": round(statistics.median(costs), 1)}
        if steps:
            results[name]["steps"] = shares[costs.index(min(costs))]
    await listener.close()
    await plane.stop()
    await store.close()
    return results


async def _account(plane: ControlPlane) -> None:
    """Pods need the account that a controller makes."""
    client = plane.client()
    async for event in client.watch("serviceaccounts", "default", initial=True):
        if b'"name":"default"' in event:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--requests", type=int, default=1000, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    before = busy()
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(prefix="sampan-bench-") as directory:
        client = multiprocessing.Process(target=_client, args=(theirs,), daemon=True)
        client.start()
        results = uvloop.run(
            _serve(
                Path(directory),
                ours,
                arguments.scenarios,
                arguments.requests,
                arguments.rounds,
                arguments.steps,
            )
        )
        ours.send(None)
        client.join()
    for name, found in results.items():
        print(f"{name:10} {found['us']:7.1f} us   (median {found['median_us']:.1f})")
        for step, cost in sorted(found.get("steps", {}).items(), key=lambda pair: -pair[1]):
            print(f"{'':10} {cost:7.1f}   {step}")
    if len(results) == len(SCENARIOS) and not arguments.steps:
        report("write_path", results, before)


if __name__ == "__main__":
    main()
