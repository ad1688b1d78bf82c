"""What the benchmarks share: a cluster of their own, a description of the machine, results in bench/results/."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
TICKS = os.sysconf("SC_CLK_TCK")


class Cluster:
    """`with Cluster(nodes=1) as cluster`: up, and down again. `up_seconds` is how long it took."""

    def __init__(self, nodes: int, *options: str) -> None:
        self.nodes, self.options = nodes, options
        self.token = "bench-token"

    def __enter__(self) -> Cluster:
        self.directory = Path(tempfile.mkdtemp(prefix="sampan-bench-"))
        tokens = self.directory / "tokens.csv"
        tokens.write_text(f'{self.token},admin,u1,"system:masters"\n')
        self.name = f"bench{os.getpid()}"
        self.kubeconfig = str(self.directory / "kubeconfig")
        self.environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        started = time.perf_counter()
        try:
            self.sampan("up", "--nodes", str(self.nodes), "--token-auth-file", str(tokens), *self.options)
        except BaseException:
            self.__exit__()
            raise
        self.up_seconds = time.perf_counter() - started
        config = json.loads((self.directory / "data" / "cluster.json").read_text())
        self.port: int = config["port"]
        return self

    def __exit__(self, *failure: object) -> None:
        self.sampan("down")
        shutil.rmtree(self.directory)

    def sampan(self, verb: str, *arguments: str) -> str:
        where = [
            "--name",
            self.name,
            "--data-dir",
            str(self.directory / "data"),
            "--kubeconfig",
            self.kubeconfig,
        ]
        return run([str(ROOT / "sampan"), verb, *where, *arguments], self.environment)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return run(["kubectl", *arguments], self.environment, input)

    def pids(self) -> dict[int, str]:
        """All processes of the cluster and what each is: control_plane, agent, or something small."""
        data = str(self.directory / "data")
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if any(data in word for word in words) and "-c" not in words:
                modules = (w.rpartition(".")[2] for w in words if w.startswith("sampan.cluster."))
                found[int(entry.name)] = next(modules, "others")
            elif any(data in word for word in words):
                found[int(entry.name)] = "others"
        return found

    def control_plane(self) -> int:
        return next(pid for pid, name in self.pids().items() if name == "control_plane")


def run(command: list[str], environment: dict[str, str], input: str | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, input=input)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_megabytes(pid: int) -> float:
    """Proportional set size: shared pages count by share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def describe() -> dict[str, Any]:
    """The machine, as far as it matters for a number."""
    models = (
        line.split(": ")[1]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 2**20
    commit = run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], dict(os.environ)).strip()
    return {
        "cpu": next(models, platform.machine()),
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
    }


def busy() -> float:
    """Share of the machine that is in use now, by anyone: what a result must be read with."""

    def ticks() -> tuple[int, int]:
        values = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values) - values[3] - values[4], sum(values)

    used, total = ticks()
    time.sleep(1.0)
    used_later, total_later = ticks()
    return round((used_later - used) / max(1, total_later - total), 2)


def report(name: str, results: Any, before: float) -> None:
    """Print results, and keep them with the date, the machine and how busy it was before."""
    RESULTS.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    path = RESULTS / f"{today}-{name}.json"
    machine = describe() | {"busy_before": before}
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"-> {path.relative_to(ROOT)}")
