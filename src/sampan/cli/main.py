"""`sampan`: the command line. Parsing is here, each command's work in a module that is imported when it is called."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

from sampan import __version__
from sampan.base.errors import SampanError

_Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, "module:function", help

_ELSEWHERE = "It may belong to another user, or lie where nothing can be written."
_ROOM = "Make room on the disk and try again."
_HINTS = {
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
}


def parser() -> argparse.ArgumentParser:
    """The whole grammar; `command` is "module:function" under sampan.cli."""
    top = argparse.ArgumentParser(
        prog="sampan",
        description="A complete Kubernetes in Python: one command, and a cluster stands on this machine.",
    )
    top.add_argument("--version", action="version", version=f"sampan {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", type=_name, default="default", help="which cluster (default: %(default)s)")
    common.add_argument("--data-dir", metavar="DIR", help="where the cluster keeps its data")
    common.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    commands = top.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    def command(name: str, function: str, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=help, description=help)
        sub.set_defaults(command=function)
        return sub

    _cluster(command)
    _join(
        commands, common, command("join", "join:join", "make this machine a node of a cluster on another one")
    )
    _node(commands, common)
    _image(commands, common)
    _objects(command)
    completion = commands.add_parser("completion", help="print a completion script for bash or zsh")
    completion.add_argument("shell", choices=("bash", "zsh"))
    completion.set_defaults(command="completion:completion")
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command="lifecycle:version")
    return top


def _cluster(command: _Command) -> None:
    """The cluster as a whole."""
    _up(command("up", "lifecycle:up", "make the cluster, or bring it back after a stop or a reboot"))
    command("down", "lifecycle:down", "remove the cluster and everything it made")
    command("stop", "lifecycle:stop", "stop all processes, keep the data")
    command("status", "lifecycle:status", "what runs, and where")
    logs = command("logs", "lifecycle:logs", "what the cluster's own processes wrote")
    logs.add_argument(
        "process", nargs="?", default="control-plane", help="control-plane, supervisor or a node's name"
    )
    logs.add_argument(
        "-n", "--lines", type=int, default=100, metavar="N", help="the last N lines (default: 100)"
    )
    command("doctor", "doctor:doctor", "what this machine lacks for a full cluster, and what that costs")
    demo = command("demo", "demo:demo", "a first Kubernetes course in one go, on real pods, under load")
    demo.add_argument("--keep", action="store_true", help="leave the demo's cluster running at the end")


def _objects(command: _Command) -> None:
    """What is in the cluster."""
    service = command("service", "service:service", "print where a Service is reached from here, and open it")
    service.add_argument("service", metavar="NAME")
    service.add_argument("-n", "--namespace", default="default")
    service.add_argument("--url", action="store_true", help="only print it")
    story = command("story", "story:story", "why the controllers did what they did to an object")
    story.add_argument("object", metavar="KIND/NAME")
    story.add_argument("-n", "--namespace", default="default")
    backup = command("backup", "backup:backup", "write everything the cluster holds to a file, while it runs")
    backup.add_argument("file", metavar="FILE", help="where to; compressed if it ends in .gz")
    restore = command(
        "restore", "backup:restore", "make a running cluster hold what a backup holds, and no more"
    )
    restore.add_argument("file", metavar="FILE")
    restore.add_argument("--yes", action="store_true", help="do not ask")


def _name(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: up to 32 of a-z, 0-9 and - inside")
    return text


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of nodes")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    """30m, 24h, 0 (for ever)."""
    match = re.fullmatch(r"(\d+)(s|m|h|d)?", text)
    if match is None or (match[2] is None and int(match[1])):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 30m, 24h, 7d, or 0 for ever")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(match[2], 1)


def _join(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    sub: argparse.ArgumentParser,
) -> None:
    sub.add_argument("server", metavar="https://HOST:PORT", help="where the first machine's API is")
    sub.add_argument("--token", required=True, metavar="ID.SECRET")
    sub.add_argument("--ca-hash", required=True, metavar="sha256:HEX", help="of the cluster's authority")
    sub.add_argument("--node-name", metavar="NAME", help="default: this machine's host name")
    sub.add_argument(
        "--advertise",
        metavar="ADDRESS",
        default="",
        help="this machine's address for the others (default: that of the way to the first machine)",
    )
    token = commands.add_parser("token", help="create, list or delete the tokens with which machines join")
    verbs = token.add_subparsers(dest="token_verb", metavar="create|list|delete", required=True)
    create = verbs.add_parser("create", parents=[common], help="make a token and print the command to join")
    create.add_argument("--ttl", type=_seconds, default=86400.0, help="30m, 24h (default), 0 for ever")
    create.add_argument("--description", default="", help="for those who list them")
    create.set_defaults(command="join:create")
    verbs.add_parser("list", parents=[common], help="list tokens").set_defaults(command="join:list_")
    delete = verbs.add_parser("delete", parents=[common], help="make tokens worthless")
    delete.add_argument("tokens", nargs="+", metavar="ID")
    delete.set_defaults(command="join:delete")


def _up(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--nodes", type=_count, metavar="N", help="how many nodes (default: 1; 0 is the control plane alone)"
    )
    sub.add_argument(
        "--port",
        type=_port,
        default=0,
        help="port of the API (default: 6443, or a free one; kept from then on)",
    )
    sub.add_argument(
        "--token-auth-file", metavar="FILE", help='static tokens: lines of token,user,uid,"group,group"'
    )
    sub.add_argument(
        "--audit-policy-file", metavar="FILE", help="an audit.k8s.io/v1 Policy: what is recorded"
    )
    sub.add_argument(
        "--audit-log-path", metavar="FILE", help="where (default: audit.log among the cluster's logs)"
    )
    sub.add_argument(
        "--kubelet-config",
        metavar="FILE",
        help="a KubeletConfiguration: reservations, eviction thresholds, limits of nodes",
    )
    sub.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="S",
        help="seconds that API and nodes may take, each (60)",
    )
    sub.add_argument(
        "--advertise",
        metavar="ADDRESS",
        help="serve the API at this address of the machine too, so that others can join (auto: the default route's; off: no longer)",
    )
    _network(sub.add_argument_group("the network, of a new cluster"))
    _periods(sub.add_argument_group("periods of node failure, in seconds"))


def _network(network: argparse._ArgumentGroup) -> None:
    network.add_argument(
        "--ip-family",
        choices=("ipv4", "ipv6", "dual"),
        help="IP versions of pods and Services (default: ipv4; dual: both, IPv4 first)",
    )
    network.add_argument(
        "--pod-network",
        choices=("auto", "host-gw", "vxlan"),
        help="how pods of other nodes are reached (default: auto, by plain routes where nodes are neighbours)",
    )


def _periods(periods: argparse._ArgumentGroup) -> None:
    periods.add_argument(
        "--node-monitor-grace-period",
        type=float,
        metavar="S",
        help="silence after which a node is not ready (50)",
    )
    periods.add_argument(
        "--node-status-update-frequency", type=float, metavar="S", help="how often a node reports (10)"
    )
    periods.add_argument(
        "--pod-eviction-timeout", type=float, metavar="S", help="how long pods tolerate a lost node (300)"
    )


def _node(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    node = commands.add_parser("node", help="add, stop, start or delete a node, or cut it off")
    metavar = "add|stop|start|delete|partition|heal"
    verbs = node.add_subparsers(dest="node_verb", metavar=metavar, required=True)
    for verb, text in (
        ("add", "add a node to the cluster"),
        ("stop", "stop a node at once, as if it had lost its power"),
        ("start", "start a stopped node"),
        ("delete", "remove a node for good"),
        ("partition", "cut two nodes from each other, or a node from the control-plane"),
        ("heal", "undo a partition"),
    ):
        sub = verbs.add_parser(verb, parents=[common], help=text, description=text)
        sub.add_argument("node", metavar="NAME")
        if verb in ("partition", "heal"):
            sub.add_argument("other", metavar="OTHER", help="another node, or control-plane")
        if verb == "stop":
            text = "shut it down instead: its pods end within S seconds, critical ones last"
            sub.add_argument("--grace", type=float, metavar="S", default=0.0, help=text)
        sub.set_defaults(command=f"node:{verb}")


def _image(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    image = commands.add_parser("image", help="pull, load, list, remove or import images")
    verbs = image.add_subparsers(dest="image_verb", metavar="pull|load|ls|rm|import", required=True)
    load = verbs.add_parser("load", parents=[common], help="load a docker or OCI archive")
    load.add_argument("archive", metavar="FILE", help="an archive or OCI layout; - is standard input")
    load.add_argument("--ref", metavar="NAME", help="the name it gets, if the archive has none")
    load.set_defaults(command="image:load")
    pull = verbs.add_parser("pull", parents=[common], help="fetch images from their registries")
    pull.add_argument("refs", nargs="+", metavar="IMAGE")
    pull.add_argument(
        "--credentials", metavar="FILE", help="logins as `docker login` keeps them (~/.docker/config.json)"
    )
    pull.set_defaults(command="image:pull")
    verbs.add_parser("ls", parents=[common], help="list images").set_defaults(command="image:ls")
    remove = verbs.add_parser("rm", parents=[common], help="remove images")
    remove.add_argument("refs", nargs="+", metavar="NAME")
    remove.set_defaults(command="image:rm")
    imp = verbs.add_parser("import", parents=[common], help="make an image of a directory")
    imp.add_argument("directory", metavar="DIR")
    imp.add_argument("ref", metavar="NAME")
    imp.add_argument("--cmd", nargs=argparse.REMAINDER, help="the command it runs (last option)")
    imp.set_defaults(command="image:import_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. A failure is a sentence and a hint, never a traceback."""
    grammar, words = parser(), sys.argv[1:] if argv is None else argv
    if not words or list(words) == ["help"]:
        grammar.print_help()
        return 0
    arguments, unknown = grammar.parse_known_args(words)
    if unknown:
        grammar.error(f"unrecognized arguments: {' '.join(unknown)}; see sampan {arguments.verb} -h")
    module, function = arguments.command.split(":")
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # the launcher's, while nothing is begun
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code: int = getattr(importlib.import_module(f"sampan.cli.{module}"), function)(arguments) or 0
        sys.stdout.flush()  # here a reader that has gone is no failure
        return code
    except SampanError as error:
        return _failed(error.message, error.hint)
    except BrokenPipeError:  # `sampan logs | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}", _HINTS.get(error.errno or 0, ""))
    except KeyboardInterrupt:
        _failed("interrupted", _after_half_an_up(arguments) if arguments.verb == "up" else "")
        return 130


def _after_half_an_up(arguments: argparse.Namespace) -> str:
    from sampan.cluster.paths import Paths

    cluster = Paths.of(arguments.name, arguments.data_dir)
    return f"Go on with `{cluster.command('up')}`, or undo it with `{cluster.command('down')}`."


def _failed(message: str, hint: str) -> int:
    print(f"sampan: {message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
