"""The same cluster for an ordinary user: with a range of subordinate ids, and with the single id everybody has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, eventually

USERS = {"subordinate": "sampan-test-many", "single": "sampan-test-one"}


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """A copy of the project that the users can read, installed by the first of them as a newcomer would."""
    directory = Path(tempfile.mkdtemp(prefix="sampan-rootless-"))
    directory.chmod(0o755)
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, capture_output=True, text=True, check=True)
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    for kind, user in USERS.items():
        make_user(user, subordinate=kind == "subordinate")
    owner = pwd.getpwnam(USERS["subordinate"])
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    yield directory
    shutil.rmtree(directory)
    for user in USERS.values():
        subprocess.run(["userdel", "--remove", user], capture_output=True)


def make_user(name: str, *, subordinate: bool) -> None:
    subprocess.run(["userdel", "--remove", name], capture_output=True)
    options = [] if subordinate else ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
    subprocess.run(["useradd", "--create-home", *options, name], check=True, capture_output=True)


@pytest.fixture(params=USERS)
def shell(request: pytest.FixtureRequest, checkout: Path) -> Iterator[Shell]:
    shell = Shell(USERS[request.param], checkout, single=request.param == "single")
    yield shell
    shell("./sampan down")


class Shell:
    """Commands of one user, in the checkout."""

    def __init__(self, user: str, checkout: Path, *, single: bool) -> None:
        self.user, self.checkout, self.single = user, checkout, single
        self.home = Path(pwd.getpwnam(user).pw_dir)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [
                "runuser",
                "-u",
                self.user,
                "--",
                "env",
                "-i",
                f"HOME={self.home}",
                f"PATH={path}",
                "sh",
                "-c",
                command,
            ],
            cwd=self.checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def __call__(self, command: str) -> str:
        done = self.run(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def test_a_service_of_an_ordinary_user(shell: Shell) -> None:
    assert "is up" in shell("./sampan up --nodes 2")
    assert "2 node(s)" in shell("./sampan up")
    shell("kubectl apply -f examples/web.yaml")
    shell("kubectl rollout status deployment/web --timeout=90s")
    shell("kubectl expose deployment/web --type=NodePort --port=80 --target-port=8080")
    port = int(shell("kubectl get service web -o jsonpath='{.spec.ports[0].nodePort}'"))
    answer = eventually(lambda: fetch(f"http://127.0.0.1:{port}/"), "the node port on 127.0.0.1")
    assert answer.startswith("web-")
    assert "uid=0" in shell("kubectl exec deployment/web -- id")
    assert shell(
        "kubectl exec deployment/web -- python3 -c \"import socket; print(socket.gethostbyname('web'))\""
    )
    assert "listening" in shell("kubectl logs deployment/web")
    doctor = shell.run("./sampan doctor")
    assert doctor.returncode == 0 and "an ordinary user" in doctor.stdout
    assert ("containers have the single user 0" in doctor.stdout) == shell.single


def test_nothing_is_left_of_it(shell: Shell) -> None:
    shell("./sampan up --nodes 1")
    shell("kubectl run writer --image=localhost/host -- sh -c 'echo x >/root/file; exec sleep infinity'")
    shell("kubectl wait --for=condition=Ready pod/writer --timeout=60s")
    shell("./sampan down")
    assert processes_of(shell.user) == []
    left = [p for p in shell.home.rglob("*") if "sampan" in p.name or p.name == "config"]
    assert left == []
    assert not Path(f"/tmp/sampan-{pwd.getpwnam(shell.user).pw_uid}").exists()


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def processes_of(user: str) -> list[str]:
    found = subprocess.run(["ps", "-u", user, "-o", "args="], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if "<defunct>" not in line]
