"""Facts of the machine a node runs on: capacity and nodeInfo, read from /proc and os.uname."""

from __future__ import annotations

import os
import platform
import shutil

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """The Go name of this machine's processor: amd64, arm64, ..."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def capacity(root: str, max_pods: int) -> dict[str, str]:
    """cpu, memory, ephemeral-storage, pods and hugepages as quantities."""
    memory = _meminfo().get("MemTotal", 0)
    usage = shutil.disk_usage(root or "/")
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "ephemeral-storage": f"{usage.total // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{memory}Ki",
        "pods": str(max_pods),
    }


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in KiB."""
    with open("/proc/meminfo") as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file if ":" in line}


def memory_total() -> int:
    """Bytes."""
    return _meminfo().get("MemTotal", 0) * 1024


def memory_available() -> int:
    """Bytes that can be had without swapping."""
    return _meminfo().get("MemAvailable", 0) * 1024


def node_info() -> dict[str, str]:
    """status.nodeInfo without the versions of kubelet and runtime."""
    return {
        "machineID": read_text("/etc/machine-id"),
        "systemUUID": read_text("/sys/class/dmi/id/product_uuid") or read_text("/etc/machine-id"),
        "bootID": read_text("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": os.uname().release,
        "osImage": _os_image(),
        "operatingSystem": "linux",
        "architecture": architecture(),
    }


def read_text(path: str) -> str:
    """What a small file says, without the white space around it; "" when it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in read_text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"
