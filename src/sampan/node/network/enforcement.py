"""Keeps the kernel at what the NetworkPolicies say: follows policies, pods and namespaces, one transaction a change.

Sets and chains that a change needs are made, elements moved, and what nobody uses any more deleted together: there is
no moment at which a pod is open that should not be, or the other way round. A pod of this node is isolated before its
first container starts (`isolate`), and connections from before a policy are judged anew after it (`verdicts`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sampan.base.clock import Clock
from sampan.base.objects import Object
from sampan.client.view import CachedView
from sampan.node.network import namespace, nftables, policy, verdicts
from sampan.node.network.damage import DamageWatcher
from sampan.node.network.expressions import FAMILIES, jump
from sampan.node.network.gathering import Gathering
from sampan.node.network.nftables import Transaction
from sampan.node.network.policy import Policy, Selection
from sampan.node.network.programming import Delta, Programmed, Value
from sampan.node.network.services import Element

log = logging.getLogger(__name__)

POLICIES, PODS, NAMESPACES = "networkpolicies.networking.k8s.io", "pods", "namespaces"
TABLE = "sampan-policy"
_GATHER = 0.002  # seconds the first change waits for others
_RETRY = 5.0
_PATIENCE = 10.0
_SLICE = 100  # pods decided upon before other tasks get their turn

Chains = dict[str, tuple[str, list[Policy]]]


class PolicyEnforcer:
    """For the pods of one node. `view` is a CachedView of its own that follows networkpolicies.networking.k8s.io.

    All pods and all namespaces of the cluster are followed from the first policy on: without one that costs nothing.
    """

    def __init__(
        self, view: CachedView, clock: Clock, node: str, netns: namespace.Netns | None = None
    ) -> None:
        self._view = view
        self._wide = False
        self._clock = clock
        self._node = node
        self._netns = netns
        self._policies: dict[str, list[Policy]] = {}  # by namespace
        self._selections: list[Selection] = []
        self._state = Programmed()
        self._chains_of: dict[str, Chains] = {}  # by pod
        self._sets: set[str] = set()
        self._chains: set[str] = set()
        self._dirty: set[str] = set()
        self._everything = False
        self._rewrite = False
        self._busy = False
        self._own: dict[str, Object] = {}  # pods of this node with the addresses the agent gave them
        self._changed, self._settled = Gathering(clock, _GATHER), asyncio.Event()
        self._judging = False
        self._judge_again, self._judged = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._nl: nftables.NftSocket | None = None
        self._watcher: DamageWatcher | None = None

    async def start(self) -> None:
        """Writes the table, then follows. Raises OSError."""
        self._nl = await asyncio.to_thread(nftables.connect, self._netns)
        self._view.subscribe(self._notice)
        await self._read_policies()
        self._state.change(await self._decide(self._all_pods()))
        await asyncio.to_thread(self._nl.commit, self._whole())
        self._watcher = DamageWatcher(TABLE, self._nl.port, self._netns, self._damaged)
        self._judge_again.set()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(), name="network policies"),
            loop.create_task(self._judge_for_ever(), name="connections under network policies"),
        ]

    async def stop(self) -> None:
        """Stops following; the rules stay in force."""
        self._view.unsubscribe(self._notice)
        self._changed.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watcher:
            self._watcher.close()
        if self._nl:
            self._nl.close()

    async def settled(self) -> None:
        """Waits until everything noticed so far is in force, for connections from before too."""
        await self._programmed()
        while self._judging or self._judge_again.is_set():
            self._judged.clear()
            await self._judged.wait()

    async def _programmed(self) -> None:
        while self._busy or self._dirty or self._everything or self._rewrite:
            self._settled.clear()
            await self._settled.wait()

    async def isolate(self, pod: Object, addresses: Sequence[str]) -> None:
        """A pod of this node has got these addresses: returns when its policies are in force. None: it is gone.

        Raises OSError when that does not come about within seconds: the pod must not start then.
        """
        key = _key(pod)
        known = self._own.get(key)
        if addresses:
            status = {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
            self._own[key] = {**pod, "status": status}
        elif known is None or known["metadata"].get("uid") != pod["metadata"].get("uid"):
            return  # another pod of that name has come meanwhile
        else:
            del self._own[key]
        if not self._policies and not self._everything:
            return
        self._dirty.add(key)
        self._changed.now()
        if addresses:
            try:
                async with self._clock.timeout(_PATIENCE):
                    await self._programmed()
            except TimeoutError:
                raise OSError("the network policies of the pod could not be put in force") from None

    # What the view tells

    def _notice(self, resource: str, old: Object | None, new: Object | None) -> None:
        if resource == PODS:
            self._dirty.add(_key(new or old or {}))
        elif resource == POLICIES:
            self._everything = True
        elif resource == NAMESPACES:
            if old is None or new is None or old["metadata"].get("labels") != new["metadata"].get("labels"):
                self._everything = True
            else:
                return
        else:
            return
        self._changed.soon()

    def _damaged(self) -> None:
        log.warning("somebody changed the table %s; writing it anew", TABLE)
        self._rewrite = True
        self._changed.soon()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            keys, self._dirty = self._dirty, set()
            everything, self._everything = self._everything, False
            rewrite, self._rewrite = self._rewrite, False
            self._busy = True
            try:
                await self._program(keys, everything, rewrite)
            except Exception as error:
                log.warning("programming network policies: %s; writing the whole table", error)
                self._everything = self._rewrite = True
                await self._clock.sleep(_RETRY)
                self._changed.soon()
            else:
                self._busy = False
                self._settled.set()

    # What is done about it

    async def _program(self, keys: set[str], everything: bool, rewrite: bool) -> None:
        assert self._nl is not None
        if everything:
            await self._read_policies()
            keys = self._all_pods() | set(self._state.by_service)
        delta = self._state.change(await self._decide(keys))
        changes = self._whole() if rewrite else self._difference(delta)
        if changes:
            await asyncio.to_thread(self._nl.commit, changes)
            self._judge_again.set()

    async def _read_policies(self) -> None:
        listed = self._view.list(POLICIES)
        if listed and not self._wide:
            self._wide = True
            for resource in (PODS, NAMESPACES):
                self._view.add(resource)
            await self._view.synced()
        self._policies = {}
        found: dict[Selection, None] = {}
        for obj in listed:
            try:
                read = policy.read(obj)
            except ValueError as error:
                log.warning("network policy %s: %s", _key(obj), error)
                continue
            self._policies.setdefault(obj["metadata"]["namespace"], []).append(read)
            found.update(dict.fromkeys(read.selections()))
        self._selections = list(found)

    def _all_pods(self) -> set[str]:
        followed = self._view.list(PODS) if self._wide else ()
        return {_key(pod) for pod in followed} | set(self._own)

    async def _decide(self, keys: Iterable[str]) -> dict[str, Any]:
        """Pod -> its elements, in slices that leave the loop to others."""
        result = {}
        for count, key in enumerate(sorted(keys), 1):
            result[key], chains = self._pod(key)
            if chains:
                self._chains_of[key] = chains
            else:
                self._chains_of.pop(key, None)
            if count % _SLICE == 0:
                await self._clock.sleep(0)
        return result

    def _pod(self, key: str) -> tuple[dict[Any, Any], Chains]:
        space, name = key.split("/", 1)
        pod, own = self._view.get(PODS, name, space) if self._wide else None, self._own.get(key)
        if own is not None and (pod is None or pod["metadata"].get("uid") == own["metadata"].get("uid")):
            # The agent knows its pods before the API shows their addresses, and longer than they are listed.
            pod = own if pod is None else {**pod, "status": {**(pod.get("status") or {}), **own["status"]}}
        if pod is None:
            return {}, {}
        labels = ((self._view.get(NAMESPACES, space) or {}).get("metadata") or {}).get("labels") or {}
        local = (pod.get("spec") or {}).get("nodeName") == self._node
        return policy.pod_elements(pod, self._selections, self._policies.get(space, ()), labels, local)

    # Connections from before

    async def _judge_for_ever(self) -> None:
        while True:
            await self._judge_again.wait()
            self._judge_again.clear()
            self._judging = True
            try:
                await self._judge()
            except OSError as error:
                log.warning("judging connections by network policies: %s", error)
            self._judging = False
            self._judged.set()

    async def _judge(self) -> None:
        flows = await asyncio.to_thread(verdicts.listed, self._netns)
        chains = self._wanted_chains()
        changed = []
        for count, flow in enumerate(flows, 1):
            allowed = verdicts.allows(self._state, chains, flow)
            if allowed == bool(flow.mark & policy.ENDED):
                changed.append((flow, allowed))
            if count % _SLICE == 0:
                await self._clock.sleep(0)
        if changed:
            await asyncio.to_thread(verdicts.mark, self._netns, changed)

    def _wanted_chains(self) -> Chains:
        return {name: what for chains in self._chains_of.values() for name, what in chains.items()}

    def _difference(self, delta: Delta) -> Transaction:
        sets, chains = {s.set for s in self._selections}, self._wanted_chains()
        result = Transaction(FAMILIES[0], TABLE)
        for family in FAMILIES:
            changes = Transaction(family, TABLE)
            for name in sorted(sets - self._sets):
                changes.add_set(policy.selection_set(family, name))
            new = [policy.policy_chain(family, n, *chains[n]) for n in sorted(chains.keys() - self._chains)]
            for chain in new:
                changes.add_chain(chain)
            for chain in new:
                changes.add_rules(chain)
            for name, elements in _grouped(family.version, delta.removed).items():
                if name in sets or name not in self._sets:  # a set that goes takes its elements along
                    changes.delete_elements(name, elements)
            for name, elements in _grouped(family.version, delta.added).items():
                changes.add_elements(name, elements)
            for name in sorted(self._chains - chains.keys()):
                changes.delete_chain(name)
            for name in sorted(self._sets - sets):
                changes.delete_set(name)
            result.merge(changes)
        self._sets, self._chains = sets, set(chains)
        return result

    def _whole(self) -> Transaction:
        sets, chains = {s.set for s in self._selections}, self._wanted_chains()
        result = Transaction(FAMILIES[0], TABLE)
        for family in FAMILIES:
            changes = Transaction(family, TABLE)
            changes.fresh_table()
            for spec in policy.fixed_sets(family):
                changes.add_set(spec)
            for name in sorted(sets):
                changes.add_set(policy.selection_set(family, name))
            all_chains = [policy.policy_chain(family, name, *what) for name, what in sorted(chains.items())]
            all_chains += policy.fixed_chains(family)
            for chain in all_chains:
                changes.add_chain(chain)
            for chain in all_chains[:-1]:
                changes.add_rules(chain)
            for name, elements in _grouped(family.version, self._state.effective()).items():
                changes.add_elements(name, elements)
            changes.add_rules(all_chains[-1])
            result.merge(changes)
        self._sets, self._chains = sets, set(chains)
        return result


def _grouped(version: int, elements: Mapping[Element, Value]) -> dict[str, dict[bytes, bytes | None]]:
    """Set name -> key -> encoded value."""
    result: dict[str, dict[bytes, bytes | None]] = {}
    for element, value in elements.items():
        if element.version == version:
            encoded = jump(value) if isinstance(value, str) else None
            result.setdefault(element.set, {})[element.key] = encoded
    return result


def _key(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
