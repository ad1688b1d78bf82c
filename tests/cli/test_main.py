"""The command line itself: what is refused, in which words, and what a shell completes."""

from __future__ import annotations

import subprocess

import pytest

from sampan.cli.completion import script
from sampan.cli.main import main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["up", "--nodes=-1"], "'-1' is not a number of nodes"),
        (["up", "--nodes", "many"], "'many' is not a number of nodes"),
        (["up", "--name", "Bad Name"], "'Bad Name' is not a name"),
        (["down", "--name", "../x"], "'../x' is not a name"),
        (["up", "--port", "65536"], "'65536' is not a port"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_what_makes_no_sense_is_refused(words, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and says in capsys.readouterr().err


def test_without_words_it_says_what_there_is(capsys):
    assert main([]) == 0
    assert "make the cluster, or bring it back" in capsys.readouterr().out


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
