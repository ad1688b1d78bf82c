"""/healthz, /livez, /readyz with their single checks, and /metrics. Source: "Kubernetes API health endpoints"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.status import method_not_allowed
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.route import RequestInfo

if TYPE_CHECKING:
    from sampan.server.app import Server

_ENDPOINTS = ("healthz", "livez", "readyz")


def answer(server: Server, request: Request, info: RequestInfo) -> Response | None:
    """The answer when the path is one of these, else None."""
    head, _, check = info.path.strip("/").partition("/")
    if head == "metrics" and not check:
        counts = {name: server.store.count(name) for name in server.store.buckets()}
        return respond.text(server.metrics.render(counts, len(server.watchers), server.store.revision))
    if head not in _ENDPOINTS:
        return None
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    checks = {"ping": "", "log": "", "etcd": ""}
    if head != "livez":
        checks |= {name: look() for name, look in server.ready_checks.items()}
    excluded = set(info.query.get("exclude", ()))
    if check:
        if check not in checks:
            return respond.text("404 page not found\n", 404)
        checks = {check: checks[check]}
        if not checks[check]:
            return respond.text("ok")
    lines, failed = [], False
    for name, wrong in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif wrong:
            failed = True
            lines.append(f"[-]{name} failed: reason withheld")
        else:
            lines.append(f"[+]{name} ok")
    if failed:
        return respond.text("\n".join([*lines, f"{head} check failed"]) + "\n", 500)
    if "verbose" in info.query:
        return respond.text("\n".join([*lines, f"{head} check passed"]) + "\n")
    return respond.text("ok")
