"""Seccomp filters: the RuntimeDefault profile from a short list of what is refused, and Localhost profiles from JSON.

A profile is compiled to classic BPF here, so that no libseccomp is needed. seccomp(2), OCI runtime spec "Seccomp".
"""

from __future__ import annotations

import ctypes
import errno
import json
import struct

from sampan.node.native import syscalls
from sampan.node.native.syscall_numbers import ARCHITECTURES, numbers

ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_KILL_THREAD = 0x00000000
_TRAP = 0x00030000
_ERRNO = 0x00050000
_TRACE = 0x7FF00000
_LOG = 0x7FFC0000
_NOT_PERMITTED = _ERRNO | errno.EPERM
_NOT_KNOWN = _ERRNO | errno.ENOSYS

# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06

_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone(2) in its low word
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)

# Refused unless the container holds one of the capabilities: a container may do what else Linux offers to any process.
_REFUSED = {
    "acct": "SYS_PACCT",
    "add_key keyctl request_key": "",
    "bpf": "SYS_ADMIN BPF",
    "chroot": "SYS_CHROOT",
    "clock_settime settimeofday": "SYS_TIME",
    "create_module get_kernel_syms query_module nfsservctl _sysctl uselib ustat sysfs afs_syscall tuxcall": "",
    "delete_module init_module finit_module": "SYS_MODULE",
    "fanotify_init lookup_dcookie mount mount_setattr move_mount open_tree open_tree_attr fsconfig fsmount fsopen": "SYS_ADMIN",
    "fspick quotactl quotactl_fd setdomainname sethostname setns umount2 unshare": "SYS_ADMIN",
    "get_mempolicy mbind set_mempolicy set_mempolicy_home_node": "SYS_NICE",
    "migrate_pages move_pages": "",
    "ioperm iopl": "SYS_RAWIO",
    "io_uring_setup io_uring_enter io_uring_register": "",
    "kcmp pidfd_getfd process_madvise": "SYS_PTRACE",
    "kexec_load kexec_file_load": "",
    "open_by_handle_at": "DAC_READ_SEARCH",
    "perf_event_open": "SYS_ADMIN PERFMON",
    "pivot_root swapon swapoff userfaultfd": "",
    "reboot": "SYS_BOOT",
    "syslog": "SYS_ADMIN SYSLOG",
    "vhangup": "SYS_TTY_CONFIG",
}


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _ranges(known: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in known:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _preamble(machine: str) -> list[bytes]:
    """Another architecture (32 bit on x86_64) is answered as if its calls did not exist."""
    return [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _NOT_KNOWN),
        _step(_LOAD, _NUMBER),
    ]


def runtime_default(machine: str, held: frozenset[str] | set[str] = frozenset()) -> bytes:
    """The RuntimeDefault program for a container that holds the capabilities `held` (names).

    Calls newer than our table get ENOSYS, so that a C library falls back to older ones.
    """
    table = numbers(machine)
    refused = {
        name for names, unless in _REFUSED.items() if not held & set(unless.split()) for name in names.split()
    }
    free = "SYS_ADMIN" in held
    special = {"socket", "personality"} if free else {"socket", "personality", "clone", "clone3"}
    allowed = sorted(number for name, number in table.items() if name not in refused | special)
    program = _preamble(machine)
    for low, high in _ranges(allowed):
        program += [
            _step(_JUMP_GREATER_EQUAL, low, 0, 2),
            _step(_JUMP_GREATER, high, 1, 0),
            _step(_RETURN, ALLOW),
        ]
    program += _clone_without_namespaces(table) if not free else []
    program += [
        _step(_JUMP_EQUAL, table["socket"], 0, 4),
        _step(_LOAD, _ARGUMENTS),
        _step(_JUMP_EQUAL, _AF_VSOCK, 0, 1),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_RETURN, ALLOW),
        _step(_JUMP_EQUAL, table["personality"], 0, len(_PERSONALITIES) + 3),
        _step(_LOAD, _ARGUMENTS),
    ]
    for index, value in enumerate(_PERSONALITIES):
        program.append(_step(_JUMP_EQUAL, value, len(_PERSONALITIES) - index, 0))
    program += [
        _step(_RETURN, _NOT_PERMITTED),
        _step(_RETURN, ALLOW),
        _step(_JUMP_GREATER, max(table.values()), 0, 1),
        _step(_RETURN, _NOT_KNOWN),
        _step(_RETURN, _NOT_PERMITTED),
    ]
    return b"".join(program)


def _clone_without_namespaces(table: dict[str, int]) -> list[bytes]:
    """clone() may not make namespaces; clone3() hides its flags in memory, so libraries are sent back to clone()."""
    return [
        _step(_JUMP_EQUAL, table["clone3"], 0, 1),
        _step(_RETURN, _NOT_KNOWN),
        _step(_JUMP_EQUAL, table["clone"], 0, 5),
        _step(_LOAD, _ARGUMENTS),
        _step(_AND, _NAMESPACES),
        _step(_JUMP_EQUAL, 0, 1, 0),
        _step(_RETURN, _NOT_PERMITTED),
        _step(_RETURN, ALLOW),
    ]


_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": _LOG,
}


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise ValueError(f'unknown seccomp action "{name}"')
    value = _ACTIONS[name]
    if value in (_ERRNO, _TRACE):
        value |= (errno.EPERM if number is None else int(number)) & 0xFFFF
    return value


def load_profile(path: str, machine: str, held: frozenset[str] | set[str] = frozenset()) -> bytes:
    """Compile a Localhost profile (JSON of the OCI runtime spec, or with `includes`/`excludes` as Docker writes them).

    Names this machine does not know are skipped. Raises OSError or ValueError that say what is wrong.
    """
    with open(path, "rb") as file:
        profile = json.load(file)
    if "defaultAction" not in profile:
        raise ValueError(f"seccomp profile {path}: defaultAction is missing")
    table = numbers(machine)
    program = _preamble(machine)
    for rule in profile.get("syscalls") or ():
        if not _applies(rule, machine, held):
            continue
        action = _action(rule["action"], rule.get("errnoRet"))
        for name in rule.get("names") or [rule.get("name", "")]:
            if name in table:
                program += _rule(table[name], rule.get("args") or (), action)
    program.append(_step(_RETURN, _action(profile["defaultAction"], profile.get("defaultErrnoRet"))))
    if len(program) > 4096:
        raise ValueError(f"seccomp profile {path}: {len(program)} instructions, more than Linux takes (4096)")
    return b"".join(program)


def _applies(rule: dict, machine: str, held: frozenset[str] | set[str]) -> bool:
    """Docker's conditions: rules for those who hold (or lack) a capability, or for an architecture."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    names = {f"CAP_{name}" for name in held}
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    if includes.get("caps") and not set(includes["caps"]) <= names:
        return False
    if excludes.get("caps") and set(excludes["caps"]) & names:
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    return not (excludes.get("arches") and architecture in excludes["arches"])


def _rule(number: int, arguments: list[dict] | tuple, action: int) -> list[bytes]:
    """One system call: all argument conditions hold, then the action; else fall through with the number loaded again."""
    body: list[tuple[int, int, bool]] = []  # code, value, whether a match goes on (else a miss does)
    for argument in arguments:
        body += _condition(argument)
    tail = [_step(_RETURN, action)]
    steps: list[bytes] = []
    remaining = len(body)
    for code, value, goes_on in body:
        remaining -= 1
        miss = remaining + len(tail)
        if code in (_LOAD, _AND):
            steps.append(_step(code, value))
        else:
            steps.append(_step(code, value, 0 if goes_on else miss, miss if goes_on else 0))
    block = steps + tail
    if body:
        block.append(_step(_LOAD, _NUMBER))
    return [_step(_JUMP_EQUAL, number, 0, len(block)), *block]


def _condition(argument: dict) -> list[tuple[int, int, bool]]:
    """Compare one argument; only its low word is ordered, both words are compared for (in)equality with a mask."""
    low = _ARGUMENTS + 8 * int(argument["index"])
    value, second = int(argument.get("value", 0)), int(argument.get("valueTwo", 0))
    word = 0xFFFFFFFF
    operator = argument["op"]
    if operator == "SCMP_CMP_MASKED_EQ":
        return [
            (_LOAD, low, True),
            (_AND, value & word, True),
            (_JUMP_EQUAL, second & word, True),
            (_LOAD, low + 4, True),
            (_AND, value >> 32, True),
            (_JUMP_EQUAL, second >> 32, True),
        ]
    if operator == "SCMP_CMP_EQ":
        return [
            (_LOAD, low, True),
            (_JUMP_EQUAL, value & word, True),
            (_LOAD, low + 4, True),
            (_JUMP_EQUAL, value >> 32, True),
        ]
    simple = {
        "SCMP_CMP_NE": (_JUMP_EQUAL, False),
        "SCMP_CMP_GT": (_JUMP_GREATER, True),
        "SCMP_CMP_LE": (_JUMP_GREATER, False),
        "SCMP_CMP_GE": (_JUMP_GREATER_EQUAL, True),
        "SCMP_CMP_LT": (_JUMP_GREATER_EQUAL, False),
    }
    if operator not in simple:
        raise ValueError(f'unknown seccomp operator "{operator}"')
    code, goes_on = simple[operator]
    return [(_LOAD, low, True), (code, value & word, goes_on)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install(program: bytes) -> None:
    """Filter this process from now on. Needs no_new_privs or CAP_SYS_ADMIN."""
    whole = _Program(len(program) // 8, program)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.byref(whole))
