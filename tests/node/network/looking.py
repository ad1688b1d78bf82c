"""Looks at a network namespace with the tools people have."""

from __future__ import annotations

import subprocess


def look(netns: str, command: str) -> str:
    """What a command prints in a network namespace."""
    arguments = ["nsenter", f"--net={netns}", *command.split()]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
