"""Linux capabilities by name, and how a container process gets exactly those it was given. capabilities(7)."""

from __future__ import annotations

import errno

from sampan.node.native import syscalls

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = _NAMES.split()

_BITS = {name: number for number, name in enumerate(NAMES)}

# What a container has when its pod says nothing: the set every container runtime agrees on.
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)
DEFAULT = _DEFAULT.split()


def bit(name: str) -> int:
    """The number of a capability; `CAP_` in front and lower case are accepted. Raises ValueError."""
    try:
        return _BITS[name.upper().removeprefix("CAP_")]
    except KeyError:
        raise ValueError(f'unknown capability "{name}"') from None


def mask(names: list[str] | tuple[str, ...]) -> int:
    """A bit mask of capability names. Raises ValueError."""
    result = 0
    for name in names:
        result |= 1 << bit(name)
    return result


def everything() -> int:
    """All capabilities this kernel knows."""
    return (2 << last()) - 1


def last() -> int:
    """The highest capability number of this kernel."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def resolve(add: list[str], drop: list[str]) -> list[str]:
    """`securityContext.capabilities` over the default set, as a list of names for ContainerConfig.capabilities.

    ALL is understood in both; drop wins only over what was not added by name. API reference, Capabilities.
    """
    wanted = {name.upper().removeprefix("CAP_") for name in add}
    unwanted = {name.upper().removeprefix("CAP_") for name in drop}
    base = set(NAMES) if "ALL" in wanted else set(DEFAULT)
    if "ALL" in unwanted:
        base = set(NAMES) if "ALL" in wanted else set()
    return sorted((base - unwanted | wanted) - {"ALL"})


def limit_bounding(allowed: int, highest: int) -> None:
    """Take away for good every capability that is not in `allowed`."""
    for number in range(highest + 1):
        if not allowed >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise


def permitted() -> int:
    """The permitted mask of this process."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0


def become(allowed: int, held: int) -> None:
    """Root of a container: effective and permitted are `allowed` (of what we hold), nothing is inheritable."""
    syscalls.capset(allowed & held, allowed & held, 0)
