"""The server: one request from its path to its answer, each step in a file of its own.

`route -> authenticate -> authorize -> decode -> default -> admit -> validate -> store -> encode`. Callers inside the
process bring their user with them and enter at authorization. What other files provide (identity, admission,
allocators, connections to nodes) is plugged in by the composition root through `Config` and attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from sampan.api import names
from sampan.api.registry import Registry, Resource
from sampan.api.status import (
    ApiError,
    FieldError,
    bad_request,
    internal,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.messages import Request, Response, User
from sampan.server import (
    at_once,
    components,
    conversion,
    deadline,
    definitions,
    delete,
    objects,
    patch,
    pod_templates,
    read,
    recent,
    respond,
    route,
    subresources,
    validate,
    watch,
    write,
)
from sampan.server.admission.attrs import Attrs
from sampan.server.aggregation import aggregator, usage
from sampan.server.auth import impersonate
from sampan.server.auth.authorize import Authorizer
from sampan.server.call import Call, warning_headers
from sampan.server.config import Config
from sampan.server.flowcontrol import dump, fairness, width
from sampan.server.frames import Frames
from sampan.server.lookup import Lookup
from sampan.server.negotiate import form_of
from sampan.server.nonresource import backup, discovery, health
from sampan.server.nonresource.metrics import Metrics
from sampan.store.protocol import Item, Store, Watch

if TYPE_CHECKING:
    from sampan.server.auth.audit import Audit

log = logging.getLogger("sampan.server")

_BY_WHAT_IS_THERE = (404, 409)  # refusals of a write that another one, maybe not durable yet, has caused
_OF_ONE = ("get", "update", "patch", "delete")
_TOO_DEEP = "json: exceeded max depth"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Authenticates(Protocol):
    """`authenticate.Authenticator`: None means nobody tried to log in; raises 401 for wrong credentials."""

    def authenticate(self, request: Request) -> User | None: ...


class Admits(Protocol):
    """`admission.Admission`."""

    async def mutate(self, attrs: Attrs) -> None: ...

    async def judge(self, attrs: Attrs) -> None: ...

    def reads(self, resource: str) -> tuple[str, ...] | None: ...

    def steady(self, resource: str, namespace: str) -> bool: ...


class Server:
    """`handle` answers a request; everything it knows is in `store`.

    Plugged in after construction: `authenticator`, `admission`, `allocators`, `tokens`, `audit`; `documents` are answers
    of the composition root at paths of its own (path -> function of the query -> JSON value); `troubles` tells what will
    end badly though all is well now, for /readyz?verbose.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        clock: Clock,
        ids: Ids,
        config: Config | None = None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.clock = clock
        self.ids = ids
        self.config = config or Config()
        self.lookup = Lookup(store)
        self.recent = recent.Recent()
        self.pod_templates = pod_templates.PodTemplates(self)
        self.authorizer = Authorizer(self.lookup)
        self.authenticator: Authenticates | None = None
        self.admission: Admits | None = None
        self.allocators: Any = None
        self.tokens: Any = None
        self.audit: Audit | None = None
        self.troubles: Callable[[], str] = str
        self.documents: dict[str, Callable[[route.Query], Any]] = {}
        self.places = at_once.Places(registry)
        self.aggregator = aggregator.Aggregator(self.lookup, registry, clock, ids)
        self.nodes = self.config.nodes
        self.usage = usage.Usage(self)
        self.frames = Frames()
        self.watchers: dict[Watch, Resource] = {}
        self.metrics = Metrics()
        self.conversions = conversion.Conversions(registry, ids)
        self.fairness = fairness.Fairness(self.lookup, clock, partial(width.seats, store, registry))
        self.deadlines = deadline.Deadlines(clock)
        self.metrics.sources.append(self.fairness.render)
        self.definitions = definitions.Definitions(self)
        self.definitions.load()
        self.backups = backup.Backups(store, clock, self.definitions, self.config.git_version)

    # The request path

    async def handle(self, request: Request) -> Response:
        """The answer to a request; refusals and failures are Statuses, never exceptions."""
        began = self.clock.monotonic()
        info = route.parse(request.method, request.path, request.query)
        response = await self._answer(request, info)
        seconds = self.clock.monotonic() - began if request.user is None else None
        known = info.is_resource and self.registry.find(info.group, info.version, info.resource) is not None
        self.metrics.answered(info, known, response.status, seconds)
        return respond.indented(response) if respond.for_eyes(request) else response

    def at_once(self, request: Request) -> Response | None:
        """What `handle` would answer, where that waits for nothing; None for most requests."""
        return at_once.answer(self, request)

    async def _answer(self, request: Request, info: route.RequestInfo) -> Response:
        try:
            return await self._serve(request, info)
        except ApiError as error:
            if error.code in _BY_WHAT_IS_THERE and request.method not in ("GET", "HEAD"):
                await self.store.settled()  # who reads again now sees why
            return respond.refusal(error)
        except RecursionError:
            return respond.refusal(bad_request(_TOO_DEEP))
        except Exception as error:
            if (
                isinstance(error, TypeError) and str(error) == "Recursion limit reached"
            ):  # orjson's way to say it
                return respond.refusal(bad_request(_TOO_DEEP))
            log.exception("%s %s", request.method, request.path)
            return respond.refusal(internal(f"{type(error).__name__}: {error}"))

    async def _serve(self, request: Request, info: route.RequestInfo) -> Response:
        user = asking = request.user or self.authenticate(request)
        if request.user is None and impersonate.asked(request.headers):
            user = self._impersonate(user, request)
        if self.audit is not None:
            acting = user if user is not asking else None
            return await self.audit.around(
                request, asking, info, acting, lambda: self._limited(request, info, user)
            )
        return await self._limited(request, info, user)

    async def _limited(self, request: Request, info: route.RequestInfo, user: User) -> Response:
        """In its turn and in its time; callers inside the process are not held up."""
        if request.user is not None:
            return await self._respond(request, info, user)
        limit = deadline.seconds(info)

        def proceed() -> Awaitable[Response]:
            return self.deadlines.within(limit, self._respond(request, info, user))

        return await self.fairness.around(user, info, proceed)

    async def _respond(self, request: Request, info: route.RequestInfo, user: User) -> Response:
        if self.config.authorize:
            self.authorizer.check(user, info)
        if not info.is_resource:
            return await self._document(request, info, user)
        row = self.registry.find(info.group, info.version, info.resource)
        if row is None or row.group == usage.GROUP:
            other = self.aggregator.of_path(info)
            if other is not None:
                return await self.aggregator.serve(other, request, user)
        if row is None:
            return self._unknown(info)
        if request.method == "HEAD" and info.subresource != "proxy":  # of documents only, as in the original
            raise method_not_allowed()
        call = Call(self, request, info, row, user)
        if row.custom and info.verb == "get" and conversion.by_webhook(row):
            found = self.store.get(row.store_key, objects.key_of(row, info.namespace, info.name))
            call.held = await self.conversions.item(row, found) if found is not None else None
        if row.deprecated:
            call.warn(row.deprecated)
        response = await (subresources.dispatch(call) if info.subresource else self._dispatch(call))
        if call.warnings and "warning" not in response.headers:
            response = replace(response, headers=response.headers | warning_headers(call.warnings))
        return response

    async def _dispatch(self, call: Call) -> Response:
        """A verb on an object or collection."""
        info, row = call.info, call.row
        verb = info.verb
        if (
            verb not in row.verbs
            or (verb == "create" and not _creatable(info, row))
            or not _addressed(info, row)
        ):
            raise method_not_allowed()
        if info.namespace and not row.namespaced and row.plural != "namespaces":
            raise no_such_path()
        if verb in _OF_ONE and (wrong := names.path_segment(info.name)):
            raise bad_request(f'Name parameter invalid: "{info.name}": {";".join(wrong)}')
        if row.group == usage.GROUP:
            call.form = form_of(call.request.headers, listing=verb == "list")
            return await self.usage.serve(call)
        if row.plural == components.PLURAL and not row.group:
            call.form = form_of(call.request.headers, listing=verb == "list")
            return components.serve(call)
        if verb == "get":
            call.form = form_of(call.request.headers, custom=row.custom)
            return read.get(call)
        if verb == "list":
            call.form = form_of(call.request.headers, listing=True, custom=row.custom)
            return await read.list_(call)
        if verb == "watch":
            call.form = form_of(call.request.headers, watching=True, custom=row.custom)
            return watch.watch(call)
        review = row.verbs == ("create",)
        call.form = form_of(call.request.headers, tables=not review, custom=row.custom)
        if verb == "create":
            if review:
                return await subresources.create_only(call)
            return await write.create(call)
        if verb == "update":
            return await write.update(call)
        if verb == "patch":
            return await patch.patch(call)
        if verb == "delete":
            return await delete.delete(call)
        return await delete.delete_collection(call)

    def _unknown(self, info: route.RequestInfo) -> Response:
        known = (*self.registry.groups(), *self.aggregator.groups())
        if info.group and info.group not in known:
            return respond.text("404 page not found\n", 404)
        raise no_such_path()

    def authenticate(self, request: Request) -> User:
        """Who asks. Raises 401."""
        user = self.authenticator.authenticate(request) if self.authenticator is not None else None
        if user is not None:
            return user
        if not self.config.anonymous:
            raise unauthorized()
        return ANONYMOUS

    def _impersonate(self, user: User, request: Request) -> User:
        return impersonate.impersonate(user, request.headers, self.authorizer)

    async def _document(self, request: Request, info: route.RequestInfo, user: User) -> Response:
        """A path that names no resource: discovery, health, metrics, OpenAPI."""
        other = self.aggregator.of_path(info)
        if other is not None:
            return await self.aggregator.serve(other, request, user)
        if info.path in self.documents and request.method == "GET":
            return respond.document(self.documents[info.path](info.query))
        answer = health.answer(self, request, info) or dump.answer(self.fairness, request, info)
        if answer is None:
            answer = await self.backups.answer(request, info)
        if answer is None:
            answer = await discovery.answer(self, request, info)
        return answer if answer is not None else respond.text("404 page not found\n", 404)

    # What writes need of the rest of the server

    def validate_create(self, row: Resource, obj: Object) -> list[FieldError]:
        return validate.create(row, obj)

    def validate_update(self, row: Resource, new: Object, old: Object, subresource: str) -> list[FieldError]:
        return validate.update(row, new, old, subresource)

    def allocate(self, call: Call, obj: Object, old: Object | None, dry_run: bool) -> None:
        """Addresses and ports of a Service, in place. What is taken is read from the stored Services."""
        if self.allocators is not None and call.row.store_key == "services" and not call.info.subresource:
            self.allocators.prepare_service(obj, old, dry_run=dry_run)

    def written(self, row: Resource, item: Item) -> None:
        """Called after each durable write: definitions are served from here on."""
        if row.store_key == definitions.BUCKET:
            self.definitions.changed(orjson.loads(item.value))

    def removed(self, row: Resource, obj: Object) -> None:
        """Called after an object is gone."""
        if row.store_key == definitions.BUCKET:
            self.definitions.removed(obj)

    async def close(self) -> None:
        """End all watches; the store is the composition root's."""
        for watcher in list(self.watchers):
            watcher.close()


def _creatable(info: route.RequestInfo, row: Resource) -> bool:
    return not info.name and (bool(info.namespace) or not row.namespaced)


def _addressed(info: route.RequestInfo, row: Resource) -> bool:
    """An update, patch or delete names an object; a namespaced object needs its namespace."""
    if info.verb in _OF_ONE:
        return bool(info.name) and (bool(info.namespace) or not row.namespaced)
    return info.verb != "deletecollection" or bool(info.namespace) or not row.namespaced
