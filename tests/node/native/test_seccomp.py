"""Filters decide as intended on both machines; checked with a small interpreter of classic BPF."""

import errno
import json
import struct

import pytest

from sampan.node.native import process, seccomp
from sampan.node.native.capabilities import DEFAULT
from sampan.node.native.syscall_numbers import ARCHITECTURES, numbers

MACHINES = ("x86_64", "aarch64")
ALLOW, DENY, UNKNOWN = seccomp.ALLOW, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def decide(program, machine, number, *arguments, architecture=None):
    data = struct.pack("<IIQ", number, architecture or ARCHITECTURES[machine], 0)
    data += struct.pack("<6Q", *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("<HBBI", program))
    at, value = 0, 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x54:
            value &= k
        else:
            holds = {0x15: value == k, 0x25: value > k, 0x35: value >= k}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("read", (), ALLOW),
        ("openat", (), ALLOW),
        ("execve", (), ALLOW),
        ("seccomp", (), ALLOW),
        ("chroot", (), ALLOW),
        ("ptrace", (), ALLOW),
        ("mount", (), DENY),
        ("umount2", (), DENY),
        ("unshare", (), DENY),
        ("setns", (), DENY),
        ("bpf", (), DENY),
        ("keyctl", (), DENY),
        ("reboot", (), DENY),
        ("kexec_load", (), DENY),
        ("open_by_handle_at", (), DENY),
        ("io_uring_setup", (), DENY),
        ("clone", (0x1200011,), ALLOW),
        ("clone", (0x20000011,), DENY),
        ("clone", (0x10000000,), DENY),
        ("clone3", (), UNKNOWN),
        ("socket", (2,), ALLOW),
        ("socket", (40,), DENY),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0x40000,), DENY),
    ],
)
def test_runtime_default(machine, name, arguments, verdict):
    program = seccomp.runtime_default(machine, set(DEFAULT))
    assert decide(program, machine, numbers(machine)[name], *arguments) == verdict


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_and_new_calls_do_not_exist(machine):
    program = seccomp.runtime_default(machine)
    assert decide(program, machine, 1, architecture=0x40000003) == UNKNOWN
    assert decide(program, machine, 1000) == UNKNOWN
    assert decide(program, machine, 0x40000000) == UNKNOWN


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "clone3"),
        ("SYS_TIME", "clock_settime"),
        ("SYS_BOOT", "reboot"),
        ("BPF", "bpf"),
    ],
)
def test_a_capability_opens_its_calls(machine, capability, name):
    number = numbers(machine)[name]
    assert decide(seccomp.runtime_default(machine, {*DEFAULT}), machine, number) != ALLOW
    assert decide(seccomp.runtime_default(machine, {*DEFAULT, capability}), machine, number) == ALLOW


@pytest.fixture
def profile(tmp_path):
    def write(**document):
        (tmp_path / "profile.json").write_text(json.dumps(document))
        return str(tmp_path / "profile.json")

    return write


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("operator", "value", "second", "given", "matches"),
    [
        ("SCMP_CMP_EQ", 5, 0, 5, True),
        ("SCMP_CMP_EQ", 5, 0, 5 | 1 << 40, False),
        ("SCMP_CMP_NE", 5, 0, 6, True),
        ("SCMP_CMP_NE", 5, 0, 5, False),
        ("SCMP_CMP_GT", 5, 0, 6, True),
        ("SCMP_CMP_GT", 5, 0, 5, False),
        ("SCMP_CMP_GE", 5, 0, 5, True),
        ("SCMP_CMP_LT", 5, 0, 4, True),
        ("SCMP_CMP_LT", 5, 0, 5, False),
        ("SCMP_CMP_LE", 5, 0, 5, True),
        ("SCMP_CMP_LE", 5, 0, 6, False),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, 0x2F, True),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, 0x3F, False),
    ],
)
def test_localhost_arguments(profile, machine, operator, value, second, given, matches):
    argument = {"index": 1, "op": operator, "value": value, "valueTwo": second}
    rules = [
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [argument]},
        {"names": ["mkdirat", "none_such"], "action": "SCMP_ACT_ERRNO"},
    ]
    program = seccomp.load_profile(profile(defaultAction="SCMP_ACT_ALLOW", syscalls=rules), machine)
    table = numbers(machine)
    assert decide(program, machine, table["kill"], 0, given) == (0x50000 | 22 if matches else ALLOW)
    assert decide(program, machine, table["mkdirat"]) == DENY
    assert decide(program, machine, table["read"]) == ALLOW


def test_localhost_conditions_on_capabilities(profile):
    rules = [{"names": ["reboot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_BOOT"]}}]
    path = profile(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=38, syscalls=rules)
    number = numbers("x86_64")["reboot"]
    assert decide(seccomp.load_profile(path, "x86_64"), "x86_64", number) == UNKNOWN
    assert decide(seccomp.load_profile(path, "x86_64", {"SYS_BOOT"}), "x86_64", number) == ALLOW


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "defaultAction is missing"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "unknown seccomp action"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["kill"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "~"}]}
                ],
            },
            "unknown seccomp operator",
        ),
    ],
)
def test_a_bad_profile_is_explained(profile, document, words):
    with pytest.raises(ValueError, match=words):
        seccomp.load_profile(profile(**document), "x86_64")


def test_a_container_may_use_its_default_capabilities():
    process.prepare()
    wanted = seccomp.runtime_default(process.MACHINE, set(DEFAULT))
    assert process.program_for({"seccomp": "RuntimeDefault", "capabilities": None}) == wanted
    assert process.program_for({"seccomp": "RuntimeDefault", "capabilities": sorted(DEFAULT)}) == wanted
