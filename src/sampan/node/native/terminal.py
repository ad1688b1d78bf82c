"""Pseudo-terminals made inside a container's own /dev/pts, and handed out of it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pair() -> tuple[int, int]:
    """(master, terminal) of this mount namespace's devpts; the terminal is opened without a path."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    terminal = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, terminal


def take(terminal: int) -> None:
    """Make it the controlling terminal and standard streams of this session leader."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(terminal, number)


def resize(master: int, columns: int, rows: int) -> None:
    """Tell the terminal its size; the foreground process gets SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
