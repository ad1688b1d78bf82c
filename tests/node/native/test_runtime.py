"""Containers as their processes see them, with real namespaces."""

import asyncio
import dataclasses
import os
import signal
import socket
import time

import pytest

from sampan.base.clock import RealClock
from sampan.node.native.runtime import NativeRuntime
from sampan.node.runtime import Limits, Mount, RuntimeFailure

pytestmark = pytest.mark.root


async def drain(read):
    parts = []
    while data := await read():
        parts.append(data)
    return b"".join(parts).decode()


async def test_a_container_has_its_pods_name_network_and_its_own_processes(pods):
    await pods.sandbox(hostname="web-0")
    status, output = await pods.run("hostname; echo $$; ls /sys/class/net; echo $HOSTNAME $HOME")
    assert (status.exit_code, status.reason) == (0, "Completed")
    assert output.splitlines() == ["web-0", "1", "lo", "web-0 /root"]
    assert status.created_at <= status.started_at <= status.finished_at


async def test_exit_codes_and_signals(pods):
    await pods.sandbox()
    status, _ = await pods.run("exit 3")
    assert (status.exit_code, status.signal, status.reason) == (3, 0, "Error")
    status, _ = await pods.run("sh -c 'kill -9 $$'; echo $?")
    assert status.exit_code == 0
    running = await pods.start("sleep", "100")
    os.kill(running.pid, signal.SIGKILL)
    status = await pods.ended(running.config.id)
    assert (status.exit_code, status.signal) == (137, 9)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["nonesuch"], 'exec: "nonesuch": executable file not found in $PATH'),
        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/usr"], 'exec: "/usr": is a directory'),
    ],
)
async def test_a_command_that_cannot_run_is_explained(pods, command, words):
    await pods.sandbox()
    failure = await pods.failure(*command, id="bad")
    assert failure.reason == "RunContainerError" and words in failure.message
    status = await pods.runtime.status("bad")
    assert (status.state, status.exit_code, status.reason, status.message) == (
        "exited",
        128,
        "StartError",
        words,
    )


async def test_the_working_directory_is_made(pods):
    await pods.sandbox()
    assert (await pods.run("pwd", cwd="/made/for/you"))[1] == "/made/for/you"
    failure = await pods.failure("true", cwd="/etc/passwd/x")
    assert "mkdir /etc/passwd" in failure.message


async def test_output_is_logged_in_parts_and_lines(pods):
    await pods.sandbox()
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo err >&2; printf rest"
    status, _ = await pods.run(script, id="c")
    lines = [line.split(" ", 3) for line in (pods.directory / "c.log").read_text().splitlines()]
    out = [(tag, len(text)) for _, stream, tag, text in lines if stream == "stdout"]
    assert out == [("P", 16384), ("P", 16384), ("F", 40000 - 2 * 16384), ("P", 4)]
    assert [(tag, text) for _, stream, tag, text in lines if stream == "stderr"] == [("F", "err")]
    assert os.stat(pods.directory / "c.log").st_mode & 0o777 == 0o640


async def test_a_running_container_has_a_log_to_follow(pods):
    await pods.sandbox()
    running = await pods.start("sleep", "100")
    assert os.path.exists(running.config.log_path)


async def test_log_rotation(pods):
    await pods.sandbox()
    await pods.start("sh", "-c", "echo one; read x; echo two; exec sleep 100", id="c", stdin=True)
    log = pods.directory / "c.log"
    await pods.says("c", "one")
    log.rename(pods.directory / "c.log.1")
    await pods.runtime.reopen_log("c")
    attached = await pods.runtime.attach("c")
    assert await attached.read_stdout() == b"one\n"
    await attached.write(b"go\n")
    assert await attached.read_stdout() == b"two\n"
    attached.close()
    assert pods.log("c") == "two"


async def test_writes_stay_in_the_container(pods):
    await pods.sandbox()
    await pods.run("rm -rf /usr/share/doc/bash /usr/bin/id; echo x > /usr/new; echo y > /etc/passwd")
    assert os.path.exists("/usr/bin/id") and not os.path.exists("/usr/new")
    assert (await pods.run("ls /usr/bin/id; head -1 /etc/passwd"))[1].splitlines()[0] == "/usr/bin/id"


async def test_what_dead_containers_wrote_is_reclaimed(pods):
    await pods.sandbox()
    dead, _ = await pods.run("echo x > /tmp/file")
    alive = await pods.start("sleep", "100")
    await pods.execute(alive.config.id, "sh", "-c", "echo y > /tmp/file")
    await pods.runtime.reclaim()
    assert not os.path.exists(pods.runtime.writable_layer(dead.config.id))
    assert await pods.execute(alive.config.id, "cat", "/tmp/file") == (0, "y\n", "")


async def test_an_image_may_have_127_layers(pods, host_image):
    layers = [pods.directory / f"{number:064x}" for number in range(127 - len(host_image.layers))]
    for number, layer in enumerate(layers):
        (layer / "etc").mkdir(parents=True)
        (layer / "etc/top").write_text(str(number))
        (layer / f"etc/layer-{number}").touch()
    image = dataclasses.replace(host_image, layers=[*map(str, layers), *host_image.layers])
    await pods.sandbox()
    _, output = await pods.run("ls /etc | grep -c layer-; cat /etc/top", image=image)
    assert output.split() == [str(len(layers)), "0"]


async def test_the_machines_secrets_are_not_in_the_image(pods):
    await pods.sandbox()
    _, output = await pods.run("cat /etc/shadow /etc/gshadow; ls -A /root /home /var/lib /work 2>&1; true")
    assert "root:x" not in output and "root:*" not in output and ".ssh" not in output


async def test_python_runs(pods):
    await pods.sandbox()
    _, output = await pods.run("python3 -c 'import http.server, ssl, json; print(6 * 7)'")
    assert output == "42"


async def test_security_of_an_ordinary_container(pods):
    await pods.sandbox()
    script = """
    exec 2>/dev/null
    grep -E '^(CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'
    mount -t tmpfs none /mnt 2>/dev/null && echo mounted
    unshare -U true 2>/dev/null && echo unshared
    mknod /dev/sda b 8 0 && dd if=/dev/sda count=1 of=/dev/null 2>/dev/null && echo read
    mknod /tmp/kmsg c 1 11 && dd if=/tmp/kmsg count=1 of=/dev/null 2>/dev/null && echo read
    echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo wrote
    echo x > /sys/kernel/uevent_helper 2>/dev/null && echo wrote
    [ -s /proc/kcore ] && echo kcore
    hostname other 2>/dev/null && echo renamed
    true
    """
    _, output = await pods.run(script)
    assert output.splitlines() == [
        "CapInh:0000000000000000",
        "CapEff:00000000a80425fb",
        "CapBnd:00000000a80425fb",
        "NoNewPrivs:0",
        "Seccomp:2",
    ]


async def test_another_user_without_privileges(pods):
    await pods.sandbox()
    _, output = await pods.run(
        "id -u; id -g; id -G; grep -E '^(CapEff|NoNewPrivs):' /proc/self/status; touch /x 2>&1 | grep -c denied",
        uid=1000,
        gid=2000,
        groups=[3000],
        no_new_privileges=True,
    )
    assert output.splitlines() == [
        "1000",
        "2000",
        "2000 3000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "1",
    ]


async def test_another_user_opens_its_output_by_name(pods):
    await pods.sandbox()
    status, output = await pods.run("echo out > /dev/stdout; echo err > /dev/stderr", uid=1000, gid=1000)
    assert (status.exit_code, sorted(output.split())) == (0, ["err", "out"])
    await pods.start("sleep", "100", id="c", uid=1000, gid=1000)
    said = await pods.execute("c", "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr")
    assert said == (0, "out\n", "err\n")
    assert os.stat("/dev/null").st_uid == 0


async def test_capabilities_and_privileged(pods):
    await pods.sandbox()
    script = "grep CapEff /proc/self/status; mount -t tmpfs none /mnt && echo mounted; hostname other && echo renamed"
    _, output = await pods.run(script, capabilities=["SYS_ADMIN"])
    assert output.splitlines() == ["CapEff:\t0000000000200000", "mounted", "renamed"]
    _, output = await pods.run(
        "ls /dev | wc -l; grep Seccomp: /proc/self/status; touch /proc/sys/kernel/hostname && echo rw",
        privileged=True,
    )
    assert int(output.split()[0]) > 15 and output.split()[2:] == ["0", "rw"]
    failure = await pods.failure("true", capabilities=["NONE_SUCH"])
    assert 'unknown capability "NONE_SUCH"' in failure.message


async def test_a_read_only_root_and_volumes(pods, tmp_path):
    await pods.sandbox()
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro/file").write_text("content")
    mounts = [
        Mount(str(tmp_path / "rw"), "/data"),
        Mount(str(tmp_path / "ro"), "/conf/d", readonly=True),
        Mount(str(tmp_path / "ro/file"), "/etc/single", readonly=True),
    ]
    script = "touch /x; touch /conf/d/x; cat /conf/d/file /etc/single; echo new > /data/out; mknod /data/d c 1 3 && cat /data/d"
    _, output = await pods.run(script, mounts=mounts, readonly_root=True)
    assert output.count("Read-only file system") == 2 and "contentcontent" in output.replace("\n", "")
    assert (tmp_path / "rw/out").read_text() == "new\n"
    assert "Permission denied" in output  # volumes carry no devices


async def test_mount_targets_do_not_follow_links_out_of_the_root(pods, tmp_path, host_image):
    from dataclasses import replace

    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "way").symlink_to(str(tmp_path / "outside"))
    (layer / "up").symlink_to("../../../../../../../../" + str(tmp_path / "outside"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mark").write_text("")
    image = replace(host_image, layers=[str(layer), *host_image.layers])
    await pods.sandbox()
    for target in ("/way/in", "/up/in"):
        await pods.run("true", image=image, mounts=[Mount(str(tmp_path / "volume"), target)])
    assert os.listdir(tmp_path / "outside") == []


async def test_memory_limit_and_oom(pods):
    await pods.sandbox()
    script = "exec python3 -c 'x = bytearray(200 << 20)'"
    status, _ = await pods.run(script, limits=Limits(memory=64 << 20))
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


async def test_process_limit_and_statistics(pods):
    await pods.sandbox()
    await pods.start(
        "sh", "-c", "while :; do :; done", id="busy", limits=Limits(cpu_quota=20_000, cpu_shares=100, pids=5)
    )
    code, out, error = await pods.execute(
        "busy", "sh", "-c", "for i in 1 2 3 4 5 6 7; do sleep 1 & done; wait"
    )
    assert "fork" in error.lower() or code != 0
    figures = (await pods.runtime.stats())["busy"]
    assert figures["cpu_seconds"] > 0 and figures["memory_working_set"] > 0
    await pods.runtime.update_limits("busy", Limits(memory=64 << 20, cpu_quota=50_000))


async def test_exec_runs_with_the_containers_user_and_environment(pods):
    await pods.sandbox()
    await pods.start("sleep", "100", id="c", env={"A": "1"}, uid=7, gid=8)
    code, out, error = await pods.execute("c", "sh", "-c", "echo $A $(id -u); echo err >&2; exit 5")
    assert (code, out, error) == (5, "1 7\n", "err\n")
    process = await pods.runtime.exec("c", ["cat"], stdin=True)
    output = asyncio.create_task(drain(process.read_stdout))
    await process.write(b"x" * 300_000)
    await process.close_stdin()
    assert len(await output) == 300_000 and await process.wait() == 0
    process = await pods.runtime.exec("c", ["sleep", "100"])
    process.kill()
    assert await process.wait() == 137
    with pytest.raises(RuntimeFailure, match="executable file not found"):
        await pods.runtime.exec("c", ["nonesuch"])
    with pytest.raises(RuntimeFailure, match="not running"):
        await pods.runtime.exec("absent", ["true"])


async def test_exec_with_a_terminal(pods):
    await pods.sandbox()
    await pods.start("sleep", "100", id="c")
    process = await pods.runtime.exec("c", ["sh"], tty=True, stdin=True)
    process.resize(120, 40)
    await process.write(b"stty size; tty; exit 4\n")
    output = await drain(process.read_stdout)
    assert "40 120" in output and "/dev/pts/" in output
    assert await process.wait() == 4


async def test_all_who_attach_see_the_output(pods):
    await pods.sandbox()
    await pods.start("cat", id="c", stdin=True, stdin_once=True)
    one, two = await pods.runtime.attach("c"), await pods.runtime.attach("c")
    await one.write(b"hello\n")
    assert await one.read_stdout() == b"hello\n" == await two.read_stdout()
    await one.close_stdin()
    assert await one.wait() == 0 and await drain(two.read_stdout) == ""
    await pods.start("sh", id="t", stdin=True, tty=True)
    three = await pods.runtime.attach("t")
    three.resize(90, 30)
    await three.write(b"stty size; exit 6\n")
    assert "30 90" in await drain(three.read_stdout) and await three.wait() == 6


async def test_the_first_to_attach_sees_the_prompt(pods):
    await pods.sandbox()
    await pods.start("sh", "-c", "echo ready; cat", id="c", stdin=True)
    await pods.says("c", "ready")
    one = await pods.runtime.attach("c")
    assert await one.read_stdout() == b"ready\n"
    two = await pods.runtime.attach("c")
    await two.write(b"hello\n")
    assert await one.read_stdout() == b"hello\n" == await two.read_stdout()


async def test_stopping_first_asks(pods):
    await pods.sandbox()
    await pods.start("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done", id="kind")
    await pods.start("sleep", "100", id="deaf")  # process 1 without a handler: the signal does nothing
    await pods.says("kind", "up")
    await pods.runtime.stop_container("kind", pods.patience)
    assert (await pods.runtime.status("kind")).exit_code == 9
    before = time.monotonic()
    await pods.runtime.stop_container("deaf", 0.1)
    assert time.monotonic() - before >= 0.1
    assert (await pods.runtime.status("deaf")).exit_code == 137
    await pods.runtime.stop_container("deaf", 5)
    await pods.runtime.stop_container("never-was", 5)


async def test_containers_of_a_pod_share_what_they_should(pods):
    await pods.sandbox(share_processes=True)
    await pods.start("sh", "-c", "echo shared > /dev/shm/x; echo up; exec sleep 123", id="a")
    await pods.says("a", "up")
    _, output = await pods.run("cat /dev/shm/x; ps ax -o args")
    assert output.splitlines()[0] == "shared" and "sleep 123" in output
    await pods.start("sh", "-c", "sleep 321 & exec sleep 322", id="b")
    await pods.runtime.stop_container("b", 0)
    _, output = await pods.run("ps ax -o args")
    assert "sleep 123" in output and "sleep 32" not in output


async def test_host_namespaces(pods):
    await pods.sandbox(host_network=True, host_pid=True, host_ipc=True)
    _, output = await pods.run("hostname; ls /proc | grep -c '^[0-9]'; ls /sys/class/net | wc -l")
    assert output.splitlines()[0] == socket.gethostname() and int(output.splitlines()[1]) > 5


async def test_sysctls_are_set_for_the_pod_or_refused_by_name(pods):
    await pods.sandbox(
        "good", sysctls={"net.ipv4.ip_unprivileged_port_start": "0", "kernel/shm_rmid_forced": "1"}
    )
    _, output = await pods.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", sandbox="good")
    assert output == "0"
    with pytest.raises(RuntimeFailure, match='cannot set sysctl "net.none"'):
        await pods.sandbox("bad", sysctls={"net.none": "1"})
    assert [one.config.id for one in await pods.runtime.sandboxes()] == ["good"]


async def test_connecting_to_a_port_inside(pods):
    await pods.sandbox()
    await pods.start("python3", "-m", "http.server", "8080", "--bind", "127.0.0.1")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(pods.patience):
        while True:
            try:
                sock = await pods.runtime.connect("s", 8080)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
    await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
    assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.0 200")
    sock.close()


async def test_a_new_agent_takes_over_what_the_old_one_started(pods):
    await pods.sandbox()
    await pods.start("sh", "-c", "echo before; read x; echo after; exit 7", id="a", stdin=True)
    await pods.start("sleep", "100", id="b")
    await pods.run("exit 2", id="done")
    await pods.runtime.close()
    pods.zygote.kill()
    pods.zygote.start()
    exited = asyncio.Queue()
    pods.runtime = NativeRuntime(
        str(pods.directory / "node"), pods.zygote.path, RealClock(), cgroup=pods.group
    )
    await pods.runtime.start(exited.put_nowait)
    assert [(one.config.id, one.ready) for one in await pods.runtime.sandboxes()] == [("s", True)]
    states = {one.config.id: (one.state, one.exit_code) for one in await pods.runtime.containers()}
    assert states == {"a": ("running", 0), "b": ("running", 0), "done": ("exited", 2)}
    assert (await pods.execute("b", "echo", "hi"))[1] == "hi\n"
    attached = await pods.runtime.attach("a")
    await attached.write(b"\n")
    assert await asyncio.wait_for(exited.get(), pods.patience) == "a"
    assert (await pods.runtime.status("a")).exit_code == 7 and pods.log("a") == "before\nafter"
    assert await attached.wait() == 7


async def test_what_ended_while_nobody_watched_is_noticed(pods):
    await pods.sandbox()
    first = await pods.start("sleep", "100", id="a")
    second = await pods.start("sleep", "100", id="b")
    shims = [pods.runtime._containers[id_].state["shim"] for id_ in ("a", "b")]
    await pods.runtime.close()
    os.kill(first.pid, signal.SIGKILL)
    os.kill(shims[1], signal.SIGKILL)
    async with asyncio.timeout(pods.patience):
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in (*shims, second.pid)):
            await asyncio.sleep(0.01)
    pods.runtime = NativeRuntime(
        str(pods.directory / "node"), pods.zygote.path, RealClock(), cgroup=pods.group
    )
    await pods.runtime.start(pods.exited.put_nowait)
    states = {
        one.config.id: (one.state, one.exit_code, one.reason) for one in await pods.runtime.containers()
    }
    assert states == {"a": ("exited", 137, "Error"), "b": ("exited", 255, "Unknown")}


async def test_a_killed_shim_takes_its_container_with_it(pods):
    await pods.sandbox()
    status = await pods.start("sleep", "100", id="c")
    os.kill(pods.runtime._containers["c"].state["shim"], signal.SIGKILL)
    status = await pods.ended("c")
    assert (status.exit_code, status.reason) == (255, "Unknown")


async def test_many_at_once(pods):
    before = time.monotonic()
    await asyncio.gather(*(pods.sandbox(f"s{i}") for i in range(20)))
    await asyncio.gather(*(pods.start("sleep", "100", sandbox=f"s{i}", id=f"m{i}") for i in range(20)))
    assert time.monotonic() - before < pods.patience / 2
    assert {one.state for one in await pods.runtime.containers()} == {"running"}


async def test_the_environment_may_be_large(pods):
    await pods.sandbox()
    env = {f"SERVICE_{i}_PORT": "tcp://10.96.0.1:443" for i in range(8000)}
    _, output = await pods.run("env | grep -c SERVICE", env=env)
    assert output == "8000"


async def test_resource_limits_do_not_come_from_the_shell(pods):
    await pods.sandbox()
    _, out = await pods.run("ulimit -n; ulimit -Hn")
    soft, hard = map(int, out.split())
    assert soft == hard >= 4096


async def test_without_groups_a_memory_limit_bounds_a_process(tmp_path, pods):
    config = pods.config("python3", "-c", "bytearray(200 << 20)", limits=Limits(memory=100 << 20))
    pods.runtime._cgroup = None
    await pods.sandbox()
    await pods.runtime.start_container(config)
    status = await pods.ended(config.id)
    assert status.exit_code == 1 and "MemoryError" in pods.log(config.id)
