"""The command line itself: what is refused, in which words, and what a shell completes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli.completion import script
from sampan.cli.main import main
from sampan.cluster.paths import Paths


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["up", "--nodes=-1"], "'-1' is not a number of nodes"),
        (["up", "--nodes", "many"], "'many' is not a number of nodes"),
        (["up", "--name", "Bad Name"], "'Bad Name' is not a name"),
        (["down", "--name", "../x"], "'../x' is not a name"),
        (["up", "--port", "65536"], "'65536' is not a port"),
        (["fly"], "invalid choice: 'fly'"),
        (["up", "--fly"], "unrecognized arguments: --fly; see sampan up -h"),
    ],
)
def test_what_makes_no_sense_is_refused(words, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and says in capsys.readouterr().err


def test_without_words_it_says_what_there_is(capsys):
    assert main([]) == 0
    assert "make the cluster, or bring it back" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["status"], ["logs"], ["logs", "node-1"], ["node", "stop", "node-1"]])
def test_a_cluster_that_is_not_there_is_told_with_those_that_are(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("sampan.cluster.paths.default_data_root", lambda: tmp_path)
    assert main([*words, "--name=away"]) == 1
    assert capsys.readouterr().err == (
        f"sampan: there is no cluster away: {tmp_path}/clusters/away holds none\n  Make it: ./sampan up --name away\n"
    )
    (tmp_path / "clusters/here").mkdir(parents=True)
    (tmp_path / "clusters/here/cluster.json").write_text("{}")
    assert main([*words, "--name=away"]) == 1
    assert "There are others: --name here" in capsys.readouterr().err


_HOLD = """
import fcntl, pathlib, sys
lock = pathlib.Path(sys.argv[1]); lock.parent.mkdir(parents=True); file = open(lock, "w")
file.write("/elsewhere"); file.flush(); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()
"""


@pytest.mark.parametrize(
    "words", [["status"], ["stop"], ["down"], ["logs", "node-1"], ["node", "stop", "node-1"]]
)
def test_a_running_cluster_with_its_data_elsewhere_is_told(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("sampan.cluster.paths.default_data_root", lambda: tmp_path / "data")
    monkeypatch.setattr("sampan.cluster.paths.run_root", lambda: tmp_path / "run")
    lock = Paths.of("away").supervisor_lock
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        held.stdout.readline()
        assert main([*words, "--name=away"]) == 1
        held.stdin.close()
    assert (
        "a cluster away with its data in /elsewhere is running\n  That one is meant? Give its"
        in capsys.readouterr().err
    )


def test_a_backup_that_is_not_there_is_named(capsys, tmp_path):
    assert main(["restore", f"{tmp_path}/none"]) == 1
    assert capsys.readouterr().err == f"sampan: cannot read {tmp_path}/none: No such file or directory\n"


def test_a_failure_of_the_system_is_a_sentence(capsys, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    assert main(["up", "--nodes=0", "--data-dir", f"{taken}/x", "--kubeconfig", f"{tmp_path}/kc"]) == 1
    assert main(["up", "--nodes=0", "--data-dir", f"{tmp_path}/d", "--kubeconfig", f"{taken}/kc"]) == 1
    said = capsys.readouterr().err
    assert said.count("sampan: ") == 2 and "Traceback" not in said
    assert "Choose a file with --kubeconfig or $KUBECONFIG." in said


@pytest.mark.parametrize(
    ("line", "among"),
    [
        (["sampan", ""], "up"),
        (["sampan", "sta"], "status"),
        (["sampan", "up", "--no"], "--nodes"),
        (["sampan", "node", "par"], "partition"),
        (["sampan", "node", "stop", "--gr"], "--grace"),
        (["sampan", "completion", "z"], "zsh"),
    ],
)
def test_a_shell_completes(line, among):
    words = " ".join(f"'{word}'" for word in line)
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; _sampan; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    shell = subprocess.run(
        ["bash", "-c", f"{script('bash')}\n{ask}"], capture_output=True, text=True, check=True
    )
    found = shell.stdout.split()
    assert among in found and all(word.startswith(line[-1]) for word in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_cannot_be_written_is_named_with_a_way_out(capsys, tmp_path, monkeypatch):
    tmp_path.chmod(0o555)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["up", "--nodes=0"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sampan: cannot make {tmp_path}") and "--data-dir or $XDG_DATA_HOME" in said


def test_a_reader_that_has_gone_is_no_failure():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sampan.cli.main", "version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_at_any_moment_of_the_start_shows_no_traceback():
    """From the launcher's shell through the imports to the command."""
    launcher = Path(__file__).parents[2] / "sampan"
    started = [
        subprocess.Popen([launcher, "logs", "--name=none"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(12)
    ]
    for process in started:  # at their dozen different places by now, or after the next one's end
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.communicate()[1]


def test_launchers_that_start_together_install_once(tmp_path):
    """`.venv` with a Python that only writes down what it was asked for."""
    (tmp_path / "pyproject.toml").touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("pip", "python"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
        (programs / name).chmod(0o755)
    command = [sys.executable, Path(__file__).parents[2] / "scripts" / "install.py", tmp_path]
    started = [subprocess.Popen(command, env={"PATH": "/none"}, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
