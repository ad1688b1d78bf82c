"""Who did what, when: one JSON line a request and stage, as an audit policy asks for.

Lines are written by a thread, in order, many at a time; a request never waits for the disk.
Source: Kubernetes documentation, "Auditing"; audit.k8s.io/v1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from sampan.api.status import ApiError
from sampan.base.clock import Clock, rfc3339_micro
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import RawStream, Request, Response, User
from sampan.server.auth.rbac import Asked
from sampan.server.auth.reviews import user_info

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy; an empty field matches everything."""

    level: str
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    resources: tuple[Object, ...]
    urls: tuple[str, ...]
    omitted: frozenset[str]
    managed: bool  # whether managedFields are kept in recorded objects

    def matches(self, user: User, asked: Asked) -> bool:
        """Whether the rule is about this request; the first one that is decides. Source: "Auditing", audit policy."""
        if self.users and user.name not in self.users:
            return False
        if self.groups and not self.groups.intersection(user.groups):
            return False
        if self.verbs and asked.verb not in self.verbs:
            return False
        if not (self.resources or self.namespaces or self.urls):
            return True
        if asked.is_resource:
            return self._matches_resource(asked)
        return any(
            u in ("*", asked.path) or (u.endswith("*") and asked.path.startswith(u[:-1])) for u in self.urls
        )

    def _matches_resource(self, asked: Asked) -> bool:
        if self.namespaces and asked.namespace not in self.namespaces:
            return False
        if not self.resources:
            return bool(self.namespaces)
        return any(_names(group, asked) for group in self.resources)


def _names(group: Object, asked: Asked) -> bool:
    """A GroupResources entry: `pods`, `pods/log`, `pods/*`, `*/scale`, `*`."""
    if (group.get("group") or "") not in (asked.group, "*"):
        return False
    listed = group.get("resources") or ()
    if not listed:
        return True
    full = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    wanted = {full, "*"}
    if asked.subresource:
        wanted |= {f"{asked.resource}/*", f"*/{asked.subresource}"}
    names = group.get("resourceNames") or ()
    return not wanted.isdisjoint(listed) and (not names or asked.name in names)


class Policy:
    """The first rule that matches a request says how much is recorded of it."""

    def __init__(self, obj: Object) -> None:
        """`obj` is an audit.k8s.io/v1 Policy. Raises ValueError for an unknown level or stage."""
        omitted = frozenset(obj.get("omitStages") or ())
        dropped = bool(obj.get("omitManagedFields"))
        self.rules = [_rule(r, omitted, dropped) for r in obj.get("rules") or ()]

    @classmethod
    def load(cls, path: Path) -> Policy:
        """From a YAML or JSON file; blocking. Raises ValueError."""
        obj = yaml.safe_load(path.read_text())
        if not isinstance(obj, dict) or obj.get("kind") != "Policy":
            raise ValueError(f"{path} holds no audit policy")
        return cls(obj)

    def rule(self, user: User, asked: Asked) -> Rule | None:
        """None when nothing is to be recorded."""
        for rule in self.rules:
            if rule.matches(user, asked):
                return None if rule.level == "None" else rule
        return None


def _rule(raw: Object, omitted: frozenset[str], dropped: bool) -> Rule:
    level, stages = raw.get("level", ""), omitted | frozenset(raw.get("omitStages") or ())
    if level not in LEVELS:
        raise ValueError(f'unknown audit level "{level}"')
    if not stages <= set(STAGES):
        raise ValueError(f"unknown audit stages {sorted(stages - set(STAGES))}")
    return Rule(
        level,
        frozenset(raw.get("users") or ()),
        frozenset(raw.get("userGroups") or ()),
        frozenset(raw.get("verbs") or ()),
        frozenset(raw.get("namespaces") or ()),
        tuple(raw.get("resources") or ()),
        tuple(raw.get("nonResourceURLs") or ()),
        stages,
        not raw.get("omitManagedFields", dropped),
    )


class Log:
    """Appends lines to a file from a thread. `write` never waits; `close` does, until all is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        while self._lines:
            lines, self._lines = self._lines, []
            await asyncio.to_thread(self._append, b"\n".join(lines) + b"\n")

    def _append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)

    async def close(self) -> None:
        if self._task is not None:
            await self._task


@dataclass(slots=True)
class Record:
    """What is being recorded of one request."""

    rule: Rule
    event: Object
    annotations: dict[str, str] = field(default_factory=dict)


class Audit:
    """`begin` a request, `started` for one that streams, `finish` it. `write` takes each line."""

    def __init__(self, policy: Policy, write: Callable[[bytes], None], clock: Clock, ids: Ids) -> None:
        self._policy = policy
        self._write = write
        self._clock = clock
        self._ids = ids

    def begin(self, request: Request, user: User, asked: Asked, acting: User | None = None) -> Record | None:
        """A request was understood and its user is known; `acting` is the impersonated user."""
        rule = self._policy.rule(user, asked)
        if rule is None:
            return None
        now = rfc3339_micro(self._clock.now())
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": rule.level,
            "auditID": request.headers.get("audit-id") or self._ids.uid(),
            "stage": "RequestReceived",
            "requestURI": f"{request.path}?{request.query}" if request.query else request.path,
            "verb": asked.verb,
            "user": user_info(user),
            "sourceIPs": [request.remote] if request.remote else [],
            "userAgent": request.headers.get("user-agent", ""),
            "requestReceivedTimestamp": now,
            "stageTimestamp": now,
        }
        if acting is not None:
            event["impersonatedUser"] = user_info(acting)
        if asked.is_resource:
            event["objectRef"] = _object_ref(asked)
        record = Record(rule, event)
        self._emit(record, "RequestReceived")
        if rule.level in ("Request", "RequestResponse") and request.body:
            event["requestObject"] = self._object(record, request.body)
        return record

    async def around(
        self,
        request: Request,
        user: User,
        asked: Asked,
        acting: User | None,
        respond: Callable[[], Awaitable[Response]],
    ) -> Response:
        """The answer that `respond` makes, recorded; a stream is recorded again when it ends."""
        record = self.begin(request, user, asked, acting)
        if record is None:
            return await respond()
        try:
            response = await respond()
        except ApiError as error:
            if error.code == 403:
                record.annotations["authorization.k8s.io/decision"] = "forbid"
            self.finish(record, error.code, status=error.status())
            raise
        except Exception:
            record.event["responseStatus"] = {"metadata": {}, "code": 500}
            self._emit(record, "Panic")
            raise
        if response.status != 429:  # that comes before anyone asks who may do what
            record.annotations["authorization.k8s.io/decision"] = "allow"
        if response.upgrade is not None:
            self.started(record, response.status)
            response.upgrade = self._recorded_upgrade(record, response.upgrade, response.status)
        elif isinstance(response.body, bytes):
            self.finish(record, response.status, response.body)
        else:
            self.started(record, response.status)
            response.body = self._recorded_stream(record, response.status, response.body)
        return response

    async def _recorded_stream(
        self, record: Record, code: int, body: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in body:
                yield chunk
        finally:
            aclose = getattr(body, "aclose", None)
            if aclose is not None:
                await aclose()
            self.finish(record, code)

    def _recorded_upgrade(
        self, record: Record, upgrade: Callable[[RawStream], Awaitable[None]], code: int
    ) -> Callable[[RawStream], Awaitable[None]]:
        async def carry(raw: RawStream) -> None:
            try:
                await upgrade(raw)
            finally:
                self.finish(record, code)

        return carry

    def started(self, record: Record, code: int) -> None:
        """The head of a long answer (watch, exec) was sent."""
        record.event["responseStatus"] = {"metadata": {}, "code": code}
        self._emit(record, "ResponseStarted")

    def finish(
        self, record: Record, code: int, body: bytes = b"", status: Mapping[str, Any] | None = None
    ) -> None:
        """The answer is complete. `body` is recorded at level RequestResponse; `status` is that of a refusal."""
        event = record.event
        event["responseStatus"] = {
            k: v for k, v in (status or {"metadata": {}}).items() if k not in ("kind", "apiVersion")
        }
        event["responseStatus"]["code"] = code
        if record.rule.level == "RequestResponse" and body:
            event["responseObject"] = self._object(record, body)
        if record.annotations:
            event["annotations"] = record.annotations
        self._emit(record, "ResponseComplete")

    def _object(self, record: Record, body: bytes) -> Any:
        """A body as JSON; what is none (protobuf, YAML) is left out."""
        try:
            obj = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not record.rule.managed and isinstance(obj, dict):
            for each in (obj, *(obj.get("items") or ())):
                if isinstance(each, dict) and isinstance(each.get("metadata"), dict):
                    each["metadata"].pop("managedFields", None)
        return obj

    def _emit(self, record: Record, stage: str) -> None:
        if stage in record.rule.omitted:
            return
        record.event["stage"] = stage
        record.event["stageTimestamp"] = rfc3339_micro(self._clock.now())
        self._write(orjson.dumps(record.event))


def _object_ref(asked: Asked) -> Object:
    ref = {
        "resource": asked.resource,
        "namespace": asked.namespace,
        "name": asked.name,
        "apiGroup": asked.group,
        "apiVersion": getattr(asked, "version", ""),
        "subresource": asked.subresource,
    }
    return {k: v for k, v in ref.items() if v}
