"""`sampan completion bash|zsh`: a script made from the grammar, so that it never falls behind.

source <(sampan completion bash)
"""

from __future__ import annotations

import argparse

_SCRIPT = """\
_sampan() {{
    local words key="${{COMP_WORDS[1]}}"
    case "$key" in {groups}) [ "$COMP_CWORD" -gt 2 ] && key="$key ${{COMP_WORDS[2]}}" ;; esac
    [ "$COMP_CWORD" -eq 1 ] && key=""
    case "$key" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _sampan sampan
"""


def completion(arguments: argparse.Namespace) -> int:
    print(script(arguments.shell), end="")
    return 0


def script(shell: str) -> str:
    """zsh runs bash's through bashcompinit."""
    from sampan.cli.main import parser

    words = _words(parser())
    groups = "|".join(sorted({key.split()[0] for key in words if " " in key}))
    cases = "\n".join(f'        "{key}") words="{" ".join(found)}" ;;' for key, found in words.items())
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + _SCRIPT.format(groups=groups, cases=cases)


def _words(parser: argparse.ArgumentParser, key: str = "") -> dict[str, list[str]]:
    """What may follow each command: its subcommands, choices and options."""
    found: dict[str, list[str]] = {key: []}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found[key] += action.choices
            for name, sub in action.choices.items():
                found |= _words(sub, f"{key} {name}".strip())
        elif action.option_strings:
            found[key].append(action.option_strings[-1])
        elif action.choices:
            found[key] += action.choices
    return found
