"""From a pod's spec and an image to a runtime's ContainerConfig: everything resolved, nothing left to look up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from sampan.api import quantity
from sampan.base.objects import Object
from sampan.node import qos
from sampan.node.pods import env, env_file, security, users
from sampan.node.pods.kit import Kit
from sampan.node.pods.podspec import all_containers
from sampan.node.pods.problems import ConfigProblem
from sampan.node.runtime import ContainerConfig, Image, PortMapping, SandboxStatus

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_HOSTNAME = 64
SIMULATE = "sampan.dev/simulate"


def hostname(pod: Object) -> str:
    """`spec.hostname` or the pod's name, cut to what the kernel takes; `spec.hostnameOverride` as it is (KEP-4762)."""
    override = pod["spec"].get("hostnameOverride")
    name = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return override or name[:63].rstrip("-.")


def full_name(pod: Object, domain: str) -> str:
    """host.subdomain.namespace.svc.domain; "" without a subdomain, or when the host's name is overridden."""
    subdomain = "" if pod["spec"].get("hostnameOverride") else pod["spec"].get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{pod['metadata']['namespace']}.svc.{domain}" if subdomain else ""


def kernel_hostname(pod: Object, domain: str) -> str:
    """What `hostname` prints inside. Raises ConfigProblem when setHostnameAsFQDN asks for more than the kernel takes."""
    full = full_name(pod, domain) if pod["spec"].get("setHostnameAsFQDN") else ""
    if len(full) > _LONGEST_HOSTNAME:
        raise ConfigProblem(
            "Failed to construct FQDN from pod hostname and cluster domain, "
            f"FQDN {full} is too long ({_LONGEST_HOSTNAME} is the max length, {len(full)} was constructed)"
        )
    return full or hostname(pod)


def simulation_labels(pod: Object) -> dict[str, str]:
    """Annotations that tell a simulated runtime how to behave."""
    annotations = pod["metadata"].get("annotations") or {}
    return {k: v for k, v in annotations.items() if k.startswith(SIMULATE)}


def host_ports(pod: Object) -> Iterable[PortMapping]:
    """The ports of the node that the pod's containers ask for."""
    for container in all_containers(pod):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                protocol, host_ip = port.get("protocol") or "TCP", port.get("hostIP") or ""
                yield PortMapping(protocol, port["hostPort"], port["containerPort"], host_ip)


async def container_config(
    kit: Kit,
    pod: Object,
    container: Object,
    image: Image,
    volumes: Mapping[str, Image],
    sandbox: SandboxStatus,
    ips: Sequence[str],
    attempt: int,
) -> ContainerConfig:
    """`volumes`: the images of its image volumes, by name.

    Raises ConfigProblem or VolumeError, whose text is what the user has to know.
    """
    name = container["name"]
    variables = await _variables(kit, pod, container, ips)
    image_user = image.config.get("User") or ""
    identity = await _identity(image, security.wanted_user(pod, container, image_user))
    secure = security.merge(pod, container, identity, image_user, f"{kit.config.root}/seccomp")
    mounts = await kit.volumes.mounts(pod, container, variables, ips, volumes)
    return ContainerConfig(
        id=(kit.ids.uid() + kit.ids.uid()).replace("-", ""),
        sandbox=sandbox.config.id,
        name=name,
        attempt=attempt,
        image=image,
        args=_args(container, image, variables),
        env=_environment(container, image, variables, identity),
        cwd=container.get("workingDir") or image.config.get("WorkingDir") or "/",
        log_path=kit.volumes.log_path(pod, name, attempt),
        uid=secure.uid,
        gid=secure.gid,
        groups=secure.groups,
        mounts=mounts,
        limits=qos.container_limits(pod, container, _memory(kit)),
        privileged=secure.privileged,
        capabilities=secure.capabilities,
        no_new_privileges=secure.no_new_privileges,
        readonly_root=secure.readonly_root,
        seccomp=secure.seccomp,
        masked_paths=secure.masked_paths,
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        stop_signal=_stop_signal(container, image),
        labels=_labels(pod, container),
    )


async def _variables(kit: Kit, pod: Object, container: Object, ips: Sequence[str]) -> dict[str, str]:
    """env and envFrom, with all that they refer to. Raises ConfigProblem, VolumeError."""
    namespace = pod["metadata"]["namespace"]
    found = {ref: await kit.lookup(ref[0], namespace, ref[1]) for ref in env.references(container)}
    allocatable = kit.node().get("status", {}).get("allocatable", {})
    services = env.service_variables(pod, kit.hooks.services)
    files = {ref: await _env_file(kit, pod, *ref) for ref in env_file.references(container)}
    return env.resolve(
        pod, container, found, services, ips=ips, host_ips=kit.host_ips, allocatable=allocatable, files=files
    )


async def _env_file(kit: Kit, pod: Object, volume: str, path: str) -> dict[str, str] | None:
    data = await kit.volumes.read(pod, volume, path, env_file.LARGEST)
    try:
        return None if data is None else env_file.parse(data.decode())
    except ValueError as error:  # of decode(), too
        raise ConfigProblem(f"couldn't parse env file {path} of volume {volume}: {error}") from None


async def _identity(image: Image, user: str) -> users.Identity:
    if not image.layers:
        return users.Identity(int(user) if user.isdigit() else 0, 0)
    return await asyncio.to_thread(users.look_up, image, user)


def _memory(kit: Kit) -> int:
    capacity = kit.node().get("status", {}).get("capacity", {})
    return quantity.value(capacity["memory"]) if "memory" in capacity else 0


def _stop_signal(container: Object, image: Image) -> str:
    own = (container.get("lifecycle") or {}).get("stopSignal")
    return own or image.config.get("StopSignal") or "SIGTERM"


def _args(container: Object, image: Image, variables: Mapping[str, str]) -> list[str]:
    """command replaces Entrypoint and drops Cmd; args replace Cmd (Pod v1 reference, "Entrypoint")."""
    command = [env.expand(word, variables) for word in container.get("command") or ()]
    args = [env.expand(word, variables) for word in container.get("args") or ()]
    if command:
        return command + args
    entrypoint = list(image.config.get("Entrypoint") or ())
    return entrypoint + (args or list(image.config.get("Cmd") or ()))


def _environment(
    container: Object, image: Image, variables: Mapping[str, str], identity: users.Identity
) -> dict[str, str]:
    result = {"PATH": _PATH}
    if container.get("tty"):
        result["TERM"] = "xterm"
    for entry in image.config.get("Env") or ():
        key, _, value = entry.partition("=")
        result[key] = value
    result |= variables
    result.setdefault("HOME", identity.home or ("/root" if identity.uid == 0 else "/"))
    return result


def _labels(pod: Object, container: Object) -> dict[str, str]:
    meta = pod["metadata"]
    return {
        "io.kubernetes.pod.name": meta["name"],
        "io.kubernetes.pod.namespace": meta["namespace"],
        "io.kubernetes.pod.uid": meta["uid"],
        "io.kubernetes.container.name": container["name"],
        "image": container.get("image", ""),
        **simulation_labels(pod),
    }
