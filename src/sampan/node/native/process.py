"""The last steps before a workload's execve: identity, capabilities, seccomp, environment, and finding its command."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import signal
import stat
from collections.abc import Iterable

from sampan.node.native import capabilities, seccomp, syscalls

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MACHINE = platform.machine()
LAST_CAPABILITY = capabilities.last()
_DEFAULT_MASK = capabilities.mask(capabilities.DEFAULT)
_DEFAULT_PROGRAM = b""
_HELD = capabilities.permitted()
_OPEN_FILES = 1 << 20


def prepare() -> None:
    """Compute what every container needs, once, before anything is forked."""
    global _DEFAULT_PROGRAM
    try:
        _DEFAULT_PROGRAM = seccomp.runtime_default(MACHINE, set(capabilities.DEFAULT))
    except KeyError:
        _DEFAULT_PROGRAM = b""  # no table for this machine: `doctor` says so


class StartError(Exception):
    """The command could not be started; the text is for the user."""


def default_signals() -> None:
    """Undo what Python and the zygote changed, so that the workload starts with a clean slate."""
    for number in (
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGCHLD,
        signal.SIGHUP,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def program_for(spec: dict) -> bytes:
    """The seccomp program of a container, b"" for none. Raises StartError. Read before the root changes."""
    profile = spec.get("seccomp") or "Unconfined"
    if spec.get("privileged") or profile == "Unconfined":
        return b""
    held = spec.get("capabilities")
    names = frozenset(held if held is not None else capabilities.DEFAULT)
    if profile == "RuntimeDefault":
        extra = names - set(capabilities.DEFAULT) or set(capabilities.DEFAULT) - names
        return seccomp.runtime_default(MACHINE, names) if extra and _DEFAULT_PROGRAM else _DEFAULT_PROGRAM
    try:
        return seccomp.load_profile(profile, MACHINE, names)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"open {profile}: {error.strerror.lower()}"
        raise StartError(f'cannot load seccomp profile "{profile}": {reason}') from None


def own_pipes(descriptors: Iterable[int], uid: int) -> None:
    """Make the user the owner of those that are pipes. Writing to an inherited one needs no right, but a program that
    opens /dev/stdout by name is asked who it is."""
    for fd in descriptors:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):  # else it may be the machine's /dev/null
            with contextlib.suppress(OSError):  # a user that does not exist here is refused later, with words
                os.fchown(fd, uid, -1)


def run(spec: dict, args: list[str], program: bytes, die_with_parent: bool) -> None:
    """Become the workload; returns only by raising StartError or OSError. We are in the container's namespaces."""
    environment = _environment(spec)
    held = spec.get("capabilities")
    if spec.get("privileged"):
        allowed = capabilities.everything()
    else:
        allowed = _DEFAULT_MASK if held is None else capabilities.mask(held)
    os.umask(0o022)
    os.chdir(spec.get("cwd") or "/")
    _resources(spec)
    early = program and not spec.get("no_new_privileges")
    capabilities.limit_bounding(allowed, LAST_CAPABILITY)
    _groups(spec)
    if early:
        seccomp.install(program)
    _become(spec.get("uid") or 0, allowed)
    if die_with_parent:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec.get("no_new_privileges"):
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if program:
            seccomp.install(program)
    _execute(args, environment)


def _resources(spec: dict) -> None:
    """Resource limits do not depend on the shell that started the cluster. Where there are no control groups (an
    ordinary user), a memory limit at least bounds what one process may allocate."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, _OPEN_FILES) if hard != resource.RLIM_INFINITY else _OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    memory = (spec.get("limits") or {}).get("memory")
    if memory and not spec.get("cgroup"):
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _groups(spec: dict) -> None:
    gid, extra = spec.get("gid") or 0, list(spec.get("groups") or ())
    single = syscalls.mapped_ids() == 1
    if not single:
        os.setgroups(sorted({gid, *extra}))
    if single and (gid or spec.get("uid")):
        raise StartError(
            f"user {spec.get('uid') or 0}:{gid} does not exist here: running rootless with a single id; "
            "a subordinate id range (/etc/subuid, newuidmap) is needed to run as another user"
        )
    os.setresgid(gid, gid, gid)


def _become(uid: int, allowed: int) -> None:
    if uid:
        os.setresuid(uid, uid, uid)  # leaving uid 0 clears the permitted and effective sets
    else:
        capabilities.become(allowed, _HELD)


def _environment(spec: dict) -> dict[str, str]:
    """The container's variables, and those every runtime gives when the pod did not."""
    result = dict(spec.get("env") or {})
    result.setdefault("PATH", DEFAULT_PATH)
    result.setdefault("HOSTNAME", os.uname().nodename)
    if spec.get("tty"):
        result.setdefault("TERM", "xterm")
    if not result.get("HOME"):
        result["HOME"] = _home(spec.get("uid") or 0)
    return result


def _home(uid: int) -> str:
    """The user's home in the container's /etc/passwd (not trusted: no device or pipe is opened), or "/"."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "/root" if uid == 0 else "/"
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "/"
        text = os.read(fd, 1 << 20).decode(errors="replace")
    finally:
        os.close(fd)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid) and fields[5]:
            return fields[5]
    return "/root" if uid == 0 else "/"


def _execute(args: list[str], environment: dict[str, str]) -> None:
    """execve, searching PATH as a shell does. The sentences are those kubectl users know from other runtimes."""
    if not args or not args[0]:
        raise StartError("no command specified")
    name = args[0]
    if "/" in name:
        try:
            os.execve(name, args, environment)
        except OSError as error:
            raise StartError(f'exec: "{name}": {_reason(error, name)}') from None
    denied = False
    for directory in environment["PATH"].split(":"):
        candidate = os.path.join(directory or ".", name)
        try:
            os.execve(candidate, args, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            denied = True
        except OSError as error:
            raise StartError(f'exec: "{candidate}": {_reason(error, candidate)}') from None
    cause = "permission denied" if denied else "executable file not found in $PATH"
    raise StartError(f'exec: "{name}": {cause}')


def _reason(error: OSError, name: str) -> str:
    if error.errno == errno.ENOENT:
        return (
            f"stat {name}: no such file or directory"
            if not os.path.lexists(name)
            else "no such file or directory"
        )
    if os.path.isdir(name):
        return "is a directory"
    if error.errno == errno.ENOEXEC:
        return "exec format error"
    return (error.strerror or str(error)).lower()
