"""Makes .venv and installs sampan in it with what the machine has: uv, venv with pip, or venv and pip from its wheel.

    python3 scripts/install.py DIR [EXTRA]

Standard library only. The system's own packages are never touched (PEP 668).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
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
    """Fetch pip's newest wheel from the package index: a wheel can run from its own zip file."""
    with urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=30) as answer:
        files = json.load(answer)["urls"]
    wheel = next(file for file in files if file["packagetype"] == "bdist_wheel")
    target = Path(directory) / wheel["filename"]
    urllib.request.urlretrieve(wheel["url"], target)
    return target


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


def main() -> None:
    here, extra = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else ""
    started = time.monotonic()
    print(f"sampan: installing into {here / '.venv'} with {sys.executable} (once)")
    install(here, extra)
    stamp = here / ".venv" / ".sampan"
    stamp.write_text(f"{sys.executable}\n")
    os.utime(stamp)
    print(f"sampan: installed in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
