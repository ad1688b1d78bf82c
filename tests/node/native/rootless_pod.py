"""Run by test_init as an ordinary user in a user namespace, with the standard library alone: a pod from start to end."""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

SOURCE, DIRECTORY, PATIENCE = sys.argv[1:4]
sys.path.insert(0, SOURCE)

from sampan.base.clock import RealClock  # noqa: E402
from sampan.node.images import host  # noqa: E402
from sampan.node.images.store import Store  # noqa: E402
from sampan.node.native.runtime import NativeRuntime  # noqa: E402
from sampan.node.runtime import ContainerConfig, Mount, RuntimeFailure, SandboxConfig  # noqa: E402

SCRIPT = """
id -u; hostname; grep Seccomp: /proc/self/status
touch /usr/new && echo cow; python3 -c 'print(6 * 7)'
exec sleep 100
"""


def layer(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid = len(data), 33
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def output(name):
    with open(f"{DIRECTORY}/{name}.log") as file:
        return [line.rstrip("\n").split(" ", 3)[3] for line in file]


async def main(runtime):
    image = host.build(f"{DIRECTORY}/host", "localhost/host:v1")

    async def start(name, *args, image=image, **changes):
        log = f"{DIRECTORY}/{name}.log"
        await runtime.start_container(
            ContainerConfig(name, "s", name, 0, image, args, {}, "/", log, **changes)
        )

    await runtime.run_sandbox(SandboxConfig("s", "uid", "pod", "default", 0, "pod"))
    await start("main", "sh", "-c", SCRIPT)
    until = time.monotonic() + float(PATIENCE)
    while not os.path.exists(f"{DIRECTORY}/main.log") or len(output("main")) < 5:
        assert time.monotonic() < until, output("main")
        await asyncio.sleep(0.02)
    print("\n".join(output("main")))
    process = await runtime.exec("main", ["sh", "-c", "exit 3"], tty=True)
    print("exec", await process.wait())
    store = Store(f"{DIRECTORY}/images")
    lower, _ = store.add_layer(layer(d__a=b"1", d__b=b"2"))
    upper, _ = store.add_layer(layer(**{"d__.wh.a": b""}))
    layers = [store.layer_path(upper), store.layer_path(lower), *image.layers]
    await start("white", "ls", "/d", image=replace(image, layers=layers))
    while (await runtime.status("white")).state != "exited":
        await asyncio.sleep(0.02)
    print("whiteout", *output("white"))
    volume = Mount("d", "/image", True, True, image="sha256:1", layers=layers[:2])
    await start("volume", "sh", "-c", "ls /image; touch /image/x 2>/dev/null || echo kept", mounts=[volume])
    while (await runtime.status("volume")).state != "exited":
        await asyncio.sleep(0.02)
    print("volume", *output("volume"))
    try:
        await start("user", "id", uid=1000)
    except RuntimeFailure:
        print((await runtime.status("user")).reason)
    await runtime.remove_sandbox("s")
    print(
        "left",
        len(os.listdir(f"{DIRECTORY}/node/containers")) + len(os.listdir(f"{DIRECTORY}/node/sandboxes")),
    )


async def run():
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); from sampan.node.native import zygote; zygote.serve(sys.argv[1])"
    zygote = subprocess.Popen([sys.executable, "-S", "-E", "-I", "-c", code, f"{DIRECTORY}/zygote.sock"])
    runtime = NativeRuntime(f"{DIRECTORY}/node", f"{DIRECTORY}/zygote.sock", RealClock())
    try:
        await runtime.start(lambda _: None)
        await main(runtime)
        await runtime.close()
    finally:
        zygote.kill()


asyncio.run(run())
