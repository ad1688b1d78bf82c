"""Network namespaces by path or process, entered only by short-lived threads: the agent's own threads stay at home.

A thread has its own network namespace (setns(2)), and a socket keeps the one it was opened in. So a thread enters,
opens a socket or writes a setting, and ends. Python 3.11 has no os.setns, hence ctypes; and not `threading`, since every
fork of a process that has loaded it costs a third of a millisecond and half a megabyte: the supervisor makes the nodes'
network here, and all pods are forks of it.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")

NEWNET = 0x40000000
_BIND, _DETACH = 0x1000, 0x2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)

Netns = str | int  # a path such as /run/x/net, or a process id


def path_of(netns: Netns) -> str:
    return f"/proc/{netns}/ns/net" if isinstance(netns, int) else netns


@contextlib.contextmanager
def opened(netns: Netns) -> Iterator[int]:
    """A file descriptor of the namespace while the block runs."""
    descriptor = os.open(path_of(netns), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def run_in(netns: Netns | None, function: Callable[[], T]) -> T:
    """Calls `function` in a thread inside the namespace (None: in place, in the caller's own) and gives its result.

    Raises what it raised, or OSError when the namespace cannot be entered.
    """
    if netns is None:
        return function()
    with opened(netns) as descriptor:

        def enter() -> None:
            _check(_libc.setns(descriptor, NEWNET), f"enter network namespace {path_of(netns)}")

        return _in_thread(enter, function)


def create(path: str) -> None:
    """Makes a network namespace that lives as long as its bind mount at `path` (or whoever is inside)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def unshare() -> None:
        _check(_libc.unshare(NEWNET), "create a network namespace")

    def keep() -> None:
        source = b"/proc/thread-self/ns/net"
        _check(_libc.mount(source, path.encode(), None, _BIND, None), f"mount network namespace at {path}")

    _in_thread(unshare, keep)


def remove(path: str) -> None:
    """Takes the mount away, if it is there; the namespace ends with its last process."""
    while _libc.umount2(path.encode(), _DETACH) == 0:
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def exists(path: str) -> bool:
    """Whether a namespace is mounted at `path` (not just the empty file of an interrupted `create`)."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def set_sysctls(netns: Netns | None, settings: Mapping[str, str]) -> dict[str, str]:
    """Writes /proc/sys/net/* of a namespace: {"ipv4/ip_forward": "1"}. Gives the former values of those that changed.

    A setting this kernel lacks is skipped (IPv6 may be switched off).
    """

    def write() -> dict[str, str]:
        former = {}
        for name, value in settings.items():
            with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{name}", "r+") as file:
                before = file.read().strip()
                if before != value:
                    file.seek(0)
                    file.write(value)
                    former[name] = before
        return former

    return run_in(netns, write)


def _in_thread(enter: Callable[[], None], function: Callable[[], T]) -> T:
    result: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            enter()
            result.append(function())
        except BaseException as error:  # handed to the caller below
            failure.append(error)
        finally:
            done.release()

    done = _thread.allocate_lock()
    with done:
        _thread.start_new_thread(work, ())
        done.acquire()
    if failure:
        raise failure[0]
    return result[0]


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
