"""Makes .venv and installs sampan in it with what the machine has: uv, venv with pip, or venv and pip from its wheel.

    python3 scripts/install.py DIR [EXTRA]

Standard library only, and readable by any Python 3 that may say that it is too old. The system's own packages are never touched (PEP 668).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path


def run(*command: str | Path) -> None:
    """Show a command and run it; the output appears only when it fails."""
    print("  $", " ".join(str(part) for part in command), flush=True)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr)
        raise SystemExit(f"sampan: installing failed at: {' '.join(map(str, command))}")


def pip_wheel(directory: str) -> Path:
    """Fetch pip's newest wheel from the package index: a wheel can run from its own zip file. Raises OSError."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    request = urllib.request.Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            files = json.load(answer)["files"]
        found = {_version(file["filename"]): file for file in files if _suitable(file)}
        wheel = found[max(found)]
        with urllib.request.urlopen(urllib.parse.urljoin(index, wheel["url"]), timeout=60) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != wheel["hashes"]["sha256"]:
            raise ValueError("the file is not the one the index names")
    except (ValueError, KeyError) as error:
        raise OSError(f"{index}: {error}") from None
    target = Path(directory) / wheel["filename"]
    target.write_bytes(content)
    return target


def _version(wheel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in wheel.split("-")[1].split("."))


def _suitable(file: dict[str, object]) -> bool:
    """A released wheel for this Python. (What needs a newer one says so with >=.)"""
    if file.get("yanked") or not re.match(r"pip-\d+(\.\d+)*-.*\.whl$", str(file["filename"])):
        return False
    least = re.search(r">=\s*(\d+)\.(\d+)", str(file.get("requires-python") or ""))
    return least is None or (int(least[1]), int(least[2])) <= sys.version_info[:2]


def install(here: Path, extra: str) -> None:
    venv, package = here / ".venv", f"{here}[{extra}]" if extra else str(here)
    python = venv / "bin" / "python"
    uv = shutil.which("uv")
    if uv:
        if not python.exists():
            run(uv, "venv", "-q", "--python", sys.executable, venv)
        run(uv, "pip", "install", "-q", "--python", python, "-e", package)
        return
    if (venv / "bin" / "pip").exists():
        return run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", package)
    if has("ensurepip"):
        run(sys.executable, "-m", "venv", venv)
        return run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", package)
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    if has("pip"):
        return run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "-e", package)
    try:
        with tempfile.TemporaryDirectory() as directory:
            wheel = pip_wheel(directory)
            run(python, f"{wheel}/pip", "install", "-q", "--disable-pip-version-check", "-e", package)
    except OSError as error:
        raise SystemExit(
            f"sampan: no pip on this machine, and fetching it failed: {error}\n  apt-get install python3-venv"
        ) from None


def has(module: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def is_current(here: Path) -> bool:
    """As the launcher sees it: installed since `pyproject.toml` was changed."""
    stamp = here / ".venv" / ".sampan"
    return stamp.exists() and stamp.stat().st_mtime >= (here / "pyproject.toml").stat().st_mtime


def main() -> None:
    if sys.hexversion < 0x030B0000:
        raise SystemExit(f"sampan: needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")
    here, extra = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else ""
    fcntl.flock(os.open(here, os.O_RDONLY), fcntl.LOCK_EX)  # one at a time, for as long as this process lives
    if not extra and is_current(here):
        return  # another launcher has done it meanwhile
    started = time.monotonic()
    print(f"sampan: installing into {here / '.venv'} with {sys.executable} (once)")
    install(here, extra)
    stamp = here / ".venv" / ".sampan"
    stamp.write_text(f"{sys.executable}\n")
    os.utime(stamp)
    print(f"sampan: installed in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
