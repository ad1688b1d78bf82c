"""The volumes of a node's pods: set up before the sandbox, kept current while the pod lives, taken away after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from sampan.api import placement
from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339_micro
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.node.config import AgentConfig
from sampan.node.pods import env as environment
from sampan.node.pods.problems import ConfigProblem, VolumeError
from sampan.node.pods.spec import kernel_hostname
from sampan.node.runtime import Image, Mount
from sampan.node.volumes import atomic, kinds, mounting, payload, podfiles
from sampan.node.volumes.bundles import Bundles
from sampan.node.volumes.pod_certificates import PodCertificates, Record
from sampan.node.volumes.sources import Sources
from sampan.node.volumes.tokens import Tokens

log = logging.getLogger(__name__)
_MESSAGE_BYTES, _FALLBACK_BYTES, _FALLBACK_LINES = 4096, 2048, 80
_MESSAGE_PATH = "/dev/termination-log"


class VolumeManager:
    """Implements `pods.kit.Volumes` with files below `config.root`."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        config: AgentConfig,
        allocatable: Callable[[], Object],
        ids: Ids,
        node: Callable[[], Object],
        record: Record,
    ) -> None:
        """`node` answers the Node as it is now, `record` tells an event."""
        self._client = client
        self._clock = clock
        self._config = config
        self._allocatable = allocatable
        self._sources = Sources(client, clock, self._refresh_soon)
        self._bundles = Bundles(client, clock, self._refresh_soon)
        self._tokens = Tokens(client, clock)
        self._certificates = PodCertificates(client, clock, ids, node, record, self._refresh_soon)
        self._pods: dict[str, Object] = {}
        self._paths: dict[str, dict[str, str]] = {}  # pod uid -> volume name -> path on the node
        self._timers: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # refreshes under way
        self._stale: set[str] = set()  # pods whose refresh under way may have read what is old by now
        self._locks: dict[str, asyncio.Lock] = {}  # one set-up of a pod at a time
        self._writing: dict[str, asyncio.Future[None]] = {}  # threads cannot be cancelled

    # Places

    def _pod_dir(self, uid: str) -> str:
        return f"{self._config.root}/pods/{uid}"

    def _log_dir(self, pod: Object) -> str:
        meta = pod["metadata"]
        return f"{self._config.root}/logs/{meta['namespace']}_{meta['name']}_{meta['uid']}"

    def log_path(self, pod: Object, name: str, attempt: int) -> str:
        return f"{self._log_dir(pod)}/{name}/{attempt}.log"

    # Setting up

    async def mount(self, pod: Object) -> None:
        """All volumes of the pod, once; what they show follows its sources until `unmount`. Raises VolumeError."""
        uid = pod["metadata"]["uid"]
        self._pods[uid] = pod
        async with self._locks.setdefault(uid, asyncio.Lock()):
            await self._mount(pod, uid)

    async def _mount(self, pod: Object, uid: str) -> None:
        paths: dict[str, str] = {}
        renewal: float | None = None
        for volume in pod["spec"].get("volumes") or ():
            try:
                path, again = await self._set_up(pod, volume)
            except (VolumeError, OSError, ApiError) as error:
                text = error.message if isinstance(error, ApiError) else str(error)
                step = getattr(error, "step", VolumeError.step)
                name = getattr(error, "volume", "") or volume["name"]
                raise VolumeError(f'{step} failed for volume "{name}" : {text}') from error
            paths[volume["name"]] = path
            if again is not None:
                renewal = again if renewal is None else min(renewal, again)
        self._paths[uid] = paths
        if uid in self._timers:
            self._timers.pop(uid).cancel()
        if renewal is not None:
            delay = max(renewal - self._clock.now(), 1.0)
            self._timers[uid] = self._clock.call_later(delay, self._refresh_soon, uid)

    def know(self, pod: Object) -> None:
        """A new version of the pod: its labels and annotations may be shown in a volume."""
        uid = pod["metadata"]["uid"]
        old = self._pods.get(uid)
        if old is None:
            return
        self._pods[uid] = pod
        if any("downwardAPI" in str(v) for v in pod["spec"].get("volumes") or ()):
            parts = ("labels", "annotations")
            if any(old["metadata"].get(p) != pod["metadata"].get(p) for p in parts):
                self._refresh_soon(uid)

    def _refresh_soon(self, uid: str) -> None:
        if uid in self._tasks:
            self._stale.add(uid)
        elif uid in self._pods:
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._refresh(uid))

    async def _refresh(self, uid: str) -> None:
        """Until nothing has changed while the files were written."""
        try:
            while True:
                self._stale.discard(uid)
                await self._look(uid)
                if uid not in self._stale:
                    return
        finally:
            self._tasks.pop(uid, None)  # at once: a change from here on begins a new refresh

    async def _look(self, uid: str) -> None:
        try:
            await self.mount(self._pods[uid])
        except VolumeError as error:  # the files stay as they are; the next change tries again
            log.info("volumes of pod %s: %s", uid, error)
            if uid in self._pods:
                self._timers[uid] = self._clock.call_later(30.0, self._refresh_soon, uid)

    async def _set_up(self, pod: Object, volume: Object) -> tuple[str, float | None]:
        """(path on the node, when to look again)."""
        if payload.is_payload(volume):
            return await self._write_payload(pod, volume)
        if "hostPath" in volume:
            return await asyncio.to_thread(kinds.host_path, volume["hostPath"]), None
        if "image" in volume:
            return (
                "",
                None,
            )  # nothing on the node: each container that mounts it has the layers laid over each other
        group = _group(pod)
        if "persistentVolumeClaim" in volume:
            return await self._claim(pod, volume["persistentVolumeClaim"]["claimName"], group), None
        if "ephemeral" in volume:
            return await self._claim(pod, f"{pod['metadata']['name']}-{volume['name']}", group), None
        others = [k for k in volume if k not in ("name", "emptyDir")]
        if others:
            raise VolumeError(f"this node has no driver for {others[0]} volumes")
        directory = self._volume_dir(pod, "empty-dir", volume["name"])
        source = volume.get("emptyDir") or {}
        if volume["name"] not in self._paths.get(pod["metadata"]["uid"], {}):
            in_memory = source.get("medium") == "Memory"  # gone after the machine was restarted
            if in_memory or not await asyncio.to_thread(os.path.isdir, directory):
                size = kinds.memory_size(source, pod, self._allocatable())
                await asyncio.to_thread(kinds.empty_dir, directory, source, group, size)
        return directory, None

    def _volume_dir(self, pod: Object, kind: str, name: str) -> str:
        return f"{self._pod_dir(pod['metadata']['uid'])}/volumes/kubernetes.io~{kind}/{name}"

    async def _write_payload(self, pod: Object, volume: Object) -> tuple[str, float | None]:
        meta = pod["metadata"]
        found, issued, renewal = {}, {}, None
        for resource, name, _ in payload.objects(volume):
            key = (resource, meta["namespace"], name)
            found[resource, name] = await self._sources.get(key, meta["uid"])
        for source in payload.tokens(volume):
            issued[source["path"]], again = await self._tokens.get(pod, source)
            renewal = again if renewal is None else min(renewal, again)
        bundles = await self._bundles.all(meta["uid"]) if payload.trusts(volume) else ()
        credentials = {
            index: await self._certificates.get(pod, volume["name"], index)
            for index, _ in payload.certificates(volume)
        }
        try:
            files = payload.build(pod, volume, found, issued, self._allocatable(), bundles, credentials)
        except ConfigProblem as error:
            raise VolumeError(str(error)) from error
        kind = next(k for k in ("configMap", "secret", "downwardAPI", "projected") if k in volume)
        plugin = {"configMap": "configmap", "downwardAPI": "downward-api"}.get(kind, kind)
        directory = self._volume_dir(pod, plugin, volume["name"])
        stamp = _stamp(self._clock.now())

        def write() -> None:
            if kind != "configMap":  # Secrets and tokens never lie on the node's disk
                kinds.in_memory(directory)
            atomic.write(directory, files, stamp, _group(pod))

        self._writing[meta["uid"]] = writing = asyncio.ensure_future(asyncio.to_thread(write))
        await asyncio.shield(writing)
        return directory, renewal

    async def _claim(self, pod: Object, name: str, group: int | None) -> str:
        namespace = pod["metadata"]["namespace"]
        claim = await self._client.get("persistentvolumeclaims", name, namespace)
        bound = claim["spec"].get("volumeName")
        if not bound or claim.get("status", {}).get("phase") != "Bound":
            raise VolumeError(f'PersistentVolumeClaim "{namespace}/{name}" is not bound')
        volume = await self._client.get("persistentvolumes", bound)
        try:
            await self._reached(volume, pod["spec"].get("nodeName", ""))
            path = await asyncio.to_thread(kinds.persistent, volume)
        except VolumeError as error:
            error.volume = bound
            raise
        change = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy", "Always")
        if "local" in volume["spec"]:
            await asyncio.to_thread(kinds.give_group, path, group, change)
        return path

    async def _reached(self, volume: Object, node: str) -> None:
        """Whoever names a node in a pod passes by the scheduler, who would have looked. Raises VolumeError."""
        required = (volume["spec"].get("nodeAffinity") or {}).get("required")
        if required and not placement.matches(required, await self._client.get("nodes", node)):
            error = VolumeError("no matching NodeSelectorTerms")
            error.step = "MountVolume.NodeAffinity check"
            raise error

    # Into containers

    async def mounts(
        self,
        pod: Object,
        container: Object,
        env: Mapping[str, str],
        ips: Sequence[str],
        images: Mapping[str, Image],
    ) -> list[Mount]:
        """The mounts of one container, volumes first, then the files every container gets."""
        uid, name = pod["metadata"]["uid"], container["name"]
        paths = self._paths.get(uid, {})
        of_node = {v["name"] for v in pod["spec"].get("volumes") or () if "hostPath" in v}
        result = []
        for index, wanted in enumerate(container.get("volumeMounts") or ()):
            if wanted["name"] in images:
                result.append(_of_image(images[wanted["name"]], wanted, _sub_path(wanted, env)))
                continue
            root = paths.get(wanted["name"])
            if root is None:
                raise VolumeError(f'volume "{wanted["name"]}" is not set up')
            if wanted["name"] in of_node:
                await asyncio.to_thread(kinds.make_missing, root)
            result.append(await self._one(uid, name, index, root, wanted, env))
        taken = {m.target for m in result}
        own = await asyncio.to_thread(self._write_own_files, pod, ips)
        result += [Mount(source, target) for target, source in own.items() if target not in taken]
        path = container.get("terminationMessagePath") or _MESSAGE_PATH
        if path not in taken:
            file = await asyncio.to_thread(_message_file, f"{self._pod_dir(uid)}/containers/{name}")
            result.append(Mount(file, path))
        return result

    async def _one(
        self, uid: str, container: str, index: int, root: str, wanted: Object, env: Mapping[str, str]
    ) -> Mount:
        source, part = root, _sub_path(wanted, env)
        if part:
            place = f"{self._pod_dir(uid)}/volume-subpaths/{wanted['name']}/{container}/{index}"
            try:
                source = await asyncio.to_thread(mounting.hold, root, part, place)
            except OSError:  # whose text would tell of the machine's files
                raise VolumeError(
                    f'failed to prepare subPath for volumeMount "{wanted["name"]}" of container "{container}"'
                ) from None
        readonly = bool(wanted.get("readOnly"))
        return Mount(
            source=source,
            target=wanted["mountPath"],
            readonly=readonly,
            recursive_readonly=readonly and wanted.get("recursiveReadOnly") in ("Enabled", "IfPossible"),
            propagation=wanted.get("mountPropagation") or "None",
        )

    def _write_own_files(self, pod: Object, ips: Sequence[str]) -> dict[str, str]:
        """target in the container -> file on the node."""
        uid, domain = pod["metadata"]["uid"], self._config.cluster_domain
        directory = self._pod_dir(uid)
        os.makedirs(directory, exist_ok=True)
        host_network = bool(pod["spec"].get("hostNetwork"))
        node_hosts = _read("/etc/hosts") if host_network else ""
        texts = {
            "/etc/hosts": podfiles.hosts(pod, ips, domain, node_hosts),
            "/etc/resolv.conf": podfiles.resolv_conf(
                pod, self._config.cluster_dns, domain, _read(self._config.resolv_conf)
            ),
        }
        if not host_network:
            texts["/etc/hostname"] = kernel_hostname(pod, domain) + "\n"
        files = {}
        for target, text in texts.items():
            path = f"{directory}/{target.strip('/').replace('/', '-')}"
            if _read(path) != text:
                with open(path, "w") as file:
                    file.write(text)
                os.chmod(path, 0o644)
            files[target] = path
        return files

    async def read(self, pod: Object, volume: str, path: str, most: int) -> bytes | None:
        """A file of a volume that is set up; None if there is none. Raises VolumeError, also for more than `most` bytes."""
        root = self._paths.get(pod["metadata"]["uid"], {}).get(volume)
        if root is None:
            raise VolumeError(f'volume "{volume}" is not set up')
        try:
            data = await asyncio.to_thread(mounting.read_beneath, root, path, most + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # whose text would tell of the machine's files
            raise VolumeError(f'cannot read {path} of volume "{volume}"') from None
        if len(data) > most:
            raise VolumeError(f'{path} of volume "{volume}" is larger than {most} bytes')
        return data

    async def termination_message(self, pod: Object, container: Object, attempt: int, failed: bool) -> str:
        """What the container left in its message file; of a failed one the end of its log, if its policy says so."""
        path = f"{self._pod_dir(pod['metadata']['uid'])}/containers/{container['name']}/message"
        fallback = failed and container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        log_path = self.log_path(pod, container["name"], attempt)
        return await asyncio.to_thread(_message, path, log_path if fallback else "")

    def disk_paths(self, pod: Object) -> dict[str, str]:
        """Where the pod's emptyDir volumes on disk lie, by name."""
        paths = self._paths.get(pod["metadata"]["uid"], {})
        volumes = pod["spec"].get("volumes") or ()
        on_disk = [
            v["name"] for v in volumes if "emptyDir" in v and (v["emptyDir"] or {}).get("medium") != "Memory"
        ]
        return {name: paths[name] for name in on_disk if name in paths}

    def measured_paths(self, pod: Object) -> dict[str, str]:
        """Where the pod's volumes lie whose use can be told, by name: all but a node's own directories and images."""
        paths = self._paths.get(pod["metadata"]["uid"], {})
        volumes = pod["spec"].get("volumes") or ()
        wanted = [v["name"] for v in volumes if "hostPath" not in v and "image" not in v]
        return {name: paths[name] for name in wanted if name in paths}

    # Taking down

    async def unmount(self, pod_uid: str) -> None:
        """Take volumes and files of the pod away; its logs stay until `remove_logs`."""
        self._pods.pop(pod_uid, None)
        self._paths.pop(pod_uid, None)
        timer = self._timers.pop(pod_uid, None)
        if timer:
            timer.cancel()
        task = self._tasks.get(pod_uid)
        if task:
            task.cancel()
        self._sources.forget(pod_uid)
        self._bundles.forget(pod_uid)
        self._tokens.forget(pod_uid)
        self._certificates.forget(pod_uid)
        self._locks.pop(pod_uid, None)
        writing = self._writing.pop(pod_uid, None)
        if writing:
            await asyncio.wait({writing})
        await asyncio.to_thread(_remove_pod_dir, self._pod_dir(pod_uid))

    async def remove_logs(self, pod: Object) -> None:
        """The pod's record is gone, and its logs with it."""
        await asyncio.to_thread(shutil.rmtree, self._log_dir(pod), True)

    async def sweep(self, present: Set[str]) -> None:
        """Remove what is left of pods other than these (uids): they went while no agent was here."""

        def remove() -> None:
            for uid in _listed(f"{self._config.root}/pods"):
                if uid not in present:
                    _remove_pod_dir(self._pod_dir(uid))
            for name in _listed(f"{self._config.root}/logs"):
                if name.rpartition("_")[2] not in present:
                    shutil.rmtree(f"{self._config.root}/logs/{name}", ignore_errors=True)

        await asyncio.to_thread(remove)

    async def close(self) -> None:
        """Stop following; files stay."""
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await self._sources.close()
        await self._bundles.close()
        await self._certificates.close()


def _stamp(now: float) -> str:
    """The name of a set of files, as kubelet writes it: 2006_01_02_15_04_05.123456."""
    return rfc3339_micro(now).translate(str.maketrans("-T:", "___", "Z"))


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _sub_path(wanted: Object, env: Mapping[str, str]) -> str:
    """The part of a volume that is mounted, "" for all of it. Raises VolumeError."""
    part = wanted.get("subPath") or ""
    if wanted.get("subPathExpr"):
        part = environment.expand(wanted["subPathExpr"], env)
    if part.startswith("/") or ".." in part.split("/"):
        raise VolumeError(f'subPath "{part}" must not be absolute or contain ".."')
    return part


def _of_image(image: Image, wanted: Object, part: str) -> Mount:
    """An image volume is read-only, whatever the mount says (KEP-4639)."""
    return Mount(
        source=part,
        target=wanted["mountPath"],
        readonly=True,
        recursive_readonly=True,
        image=image.id,
        layers=image.layers,
        trees=image.trees,
    )


def _group(pod: Object) -> int | None:
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


def _message_file(directory: str) -> str:
    """An empty file for a container's termination message; each attempt gets a new one."""
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/message"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    os.chmod(path, 0o666)
    return path


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _message(path: str, log_path: str) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(_MESSAGE_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    if text or not log_path:
        return text
    try:
        with open(log_path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 4 * _FALLBACK_BYTES, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return ""
    words = [line.split(b" ", 3) for line in lines]
    texts = [w[3] + (b"\n" if w[2] == b"F" else b"") for w in words if len(w) == 4][-_FALLBACK_LINES:]
    return b"".join(texts)[-_FALLBACK_BYTES:].decode("utf-8", "replace")


def _remove_pod_dir(directory: str) -> None:
    """Unmount what is mounted below, deepest first, then remove: never through a mount that is still there."""
    try:
        with open("/proc/self/mountinfo") as file:
            points = [line.split()[4] for line in file]
    except OSError:
        points = []
    prefix = os.path.realpath(directory) + "/"
    for point in sorted((p for p in points if p.startswith(prefix)), reverse=True):
        mounting.unmount(point)
    if any(os.path.ismount(p) for p in points if p.startswith(prefix)):
        log.warning("%s is still in use", directory)
        return
    shutil.rmtree(directory, ignore_errors=True)
