"""A zygote and a runtime for tests with real namespaces; afterwards nothing of them may be left."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sampan
from sampan.base.clock import RealClock
from sampan.node.images import host
from sampan.node.native import cgroups
from sampan.node.native.runtime import NativeRuntime
from sampan.node.runtime import ContainerConfig, RuntimeFailure, SandboxConfig

PATIENCE = 60 * float(os.environ.get("SAMPAN_SLOW", "1"))  # seconds; an emulated machine says how slow it is
SOURCE = str(Path(sampan.__file__).parents[1])


class Zygote:
    """The zygote as its own process, in the test's mount namespace."""

    def __init__(self, path):
        self.path = path
        self.start()

    def start(self):
        code = f"import sys; sys.path.insert(0, {SOURCE!r}); from sampan.node.native import zygote; zygote.serve(sys.argv[1])"
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.process = subprocess.Popen([sys.executable, "-S", "-E", "-I", "-c", code, self.path])
        until = time.monotonic() + PATIENCE
        while not os.path.exists(self.path) and time.monotonic() < until:
            time.sleep(0.002)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Pods:
    """Short forms for what every test does."""

    patience = PATIENCE

    def __init__(self, directory, runtime, image):
        self.directory, self.runtime, self.image = directory, runtime, image
        self.exited = asyncio.Queue()
        self._count = 0

    async def sandbox(self, id_="s", **changes):
        config = SandboxConfig(
            id_, f"uid-{id_}", "pod", "default", 0, changes.pop("hostname", "pod"), **changes
        )
        await self.runtime.run_sandbox(config)
        return config

    def config(self, *args, sandbox="s", **changes):
        self._count += 1
        id_ = changes.pop("id", f"c{self._count}")
        log = str(self.directory / f"{id_}.log")
        env = changes.pop("env", {})
        return ContainerConfig(
            id_,
            sandbox,
            "main",
            0,
            changes.pop("image", self.image),
            args,
            env,
            changes.pop("cwd", "/"),
            log,
            **changes,
        )

    async def start(self, *args, **changes):
        return await self.runtime.start_container(self.config(*args, **changes))

    async def ended(self, id_):
        """Wait for its exit; its status."""
        while True:
            status = await self.runtime.status(id_)
            if status.state == "exited":
                return status
            await asyncio.wait_for(self.exited.get(), PATIENCE)

    async def run(self, script, **changes):
        """Run a shell script to its end: (status, output)."""
        status = await self.start("sh", "-c", script, **changes)
        status = await self.ended(status.config.id)
        return status, self.log(status.config.id)

    async def says(self, id_, words):
        """Wait until its log has these words."""
        log = self.directory / f"{id_}.log"
        async with asyncio.timeout(PATIENCE):
            while words not in log.read_text():
                await asyncio.sleep(0.01)

    def log(self, id_):
        lines = (self.directory / f"{id_}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    async def execute(self, id_, *args, **options):
        """Run a command to its end: (code, stdout, stderr)."""
        process = await self.runtime.exec(id_, args, **options)
        out = await drain(process.read_stdout)
        error = await drain(process.read_stderr)
        code = await process.wait()
        process.close()
        return code, out, error

    async def failure(self, *args, **changes):
        with pytest.raises(RuntimeFailure) as caught:
            await self.start(*args, **changes)
        return caught.value


async def drain(read):
    parts = []
    while data := await read():
        parts.append(data)
    return b"".join(parts).decode()


def traces(directory, group):
    """What could be left behind: our processes, mounts, groups."""
    processes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            inside = (
                os.readlink(f"/proc/{pid}/root") != "/"
                or str(directory) in Path(f"/proc/{pid}/cmdline").read_text()
            )
            zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if inside and not zombie and int(pid) != os.getpid():
            processes.append(int(pid))
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line
    ]
    groups = [at for root in set(cgroups.layout().values()) for at, _, _ in os.walk(f"{root}/{group}")]
    return processes, mounts, [at for at in groups if not at.endswith(group)]


@pytest.fixture(scope="session")
def host_image(tmp_path_factory):
    return host.build(str(tmp_path_factory.mktemp("host")), "localhost/host:v1")


@pytest.fixture
async def pods(tmp_path, host_image):
    group = f"sampan-test-{os.getpid()}"
    zygote = Zygote(str(tmp_path / "zygote.sock"))
    runtime = NativeRuntime(str(tmp_path / "node"), zygote.path, RealClock(), cgroup=group)
    pods = Pods(tmp_path, runtime, host_image)
    pods.zygote = zygote
    pods.group = group
    await runtime.start(pods.exited.put_nowait)
    try:
        yield pods
    finally:
        for one in await pods.runtime.sandboxes():
            await pods.runtime.remove_sandbox(one.config.id)
        await pods.runtime.close()
        zygote.kill()
        until = time.monotonic() + PATIENCE
        while any(traces(tmp_path, group)) and time.monotonic() < until:
            time.sleep(0.02)
        left = traces(tmp_path, group)
        cgroups.sweep(group)
        assert left == ([], [], [])
