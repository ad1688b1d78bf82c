"""Server and mind wired together, the same for every fidelity: only store, clock, chance and nodes differ.

The control plane's own components are clients like any other, without sockets: each enters at authorization under its
own identity, with the rights of that identity and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan import controllers
from sampan.api.resources import BUILTIN
from sampan.api.status import ApiError
from sampan.base import pki
from sampan.base.clock import Clock
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.client.client import Client
from sampan.client.execute import Effect
from sampan.client.messages import User
from sampan.client.runner import Runner
from sampan.cluster import debug, dns, effects, own_service
from sampan.controllers import Rule, Timing
from sampan.controllers.persistentvolume import LOCAL_PATH
from sampan.scheduler import run as scheduler
from sampan.server import bootstrap
from sampan.server.admission import Admission, Context
from sampan.server.app import Server
from sampan.server.auth.authenticate import Authenticator
from sampan.server.auth.tokens import TokenIssuer, account_user
from sampan.server.config import Config
from sampan.server.egress.callout import Callout
from sampan.server.egress.nodes import NodeConnector
from sampan.server.strategies.allocators import Allocators
from sampan.store.protocol import Store

# Controllers that are a part of the API server in the original, and one that the original has not.
_OF_THE_SERVER = (
    "bootstrap-controller",
    "kube-aggregator",
    "api-priority-and-fairness-config-consumer-v1",
    "ipallocator-repair-controller",
    "sampan-places",
)
# Controllers that act as kube-controller-manager itself in the original, not as a service account of their own.
_OF_THE_MANAGER = ("serviceaccount-token-controller",)
MASTERS = User("system:apiserver", ("system:masters", "system:authenticated"))
MANAGER = User("system:kube-controller-manager", ("system:authenticated",))
SCHEDULER = User("system:kube-scheduler", ("system:authenticated",))


@dataclass(frozen=True, slots=True)
class Options:
    """What a composition root decides. `token_key` is the PEM of the key that signs service-account tokens."""

    token_key: bytes
    cluster_ca: str = ""
    front_proxy_ca: str = ""  # vouches for this server before aggregated ones
    static_tokens: Mapping[str, User] = field(default_factory=dict)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)  # one, or one of each IP version, the default first
    load_balancer_pool: str = ""
    advertise: tuple[str, int] | None = None  # address and port behind the Service `kubernetes`
    dns_ips: tuple[str, ...] = ("10.96.0.10",)
    dns_on_nodes: bool = False  # whether every node answers DNS at its own address
    volumes: str = ""  # where nodes keep volumes of the default storage class; empty: there is no such class
    volume_effects: Mapping[str, Effect] = field(default_factory=effects.no_volumes)
    signer: pki.CA | None = None  # signs approved certificate requests; None: nobody does
    objects: Sequence[Object] = ()  # that must exist, beyond those of every cluster
    rules: Sequence[Rule] = ()  # further controllers
    timing: Timing = field(default_factory=Timing)
    toleration_seconds: int = 300  # how long pods bear a lost node
    nodes: NodeConnector | None = None
    controllers: bool = True
    scheduler: bool = True


class ControlPlane:
    """`await start()` makes it serve and decide; `server.handle` is the way in."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, options: Options) -> None:
        self.store, self.clock, self.ids, self.options = store, clock, ids, options
        self.registry = BUILTIN.copy()
        self.server = Server(store, self.registry, clock=clock, ids=ids, config=Config(nodes=options.nodes))
        lookup = self.server.lookup
        self.server.tokens = issuer = TokenIssuer(options.token_key, lookup, clock, ids)
        self.server.authenticator = Authenticator(
            clock, issuer=issuer, lookup=lookup, static=options.static_tokens
        )
        self.server.allocators = Allocators(lookup, ids, cidrs=options.service_cidrs)
        self.server.backups.after = self.bootstrap
        self.server.conversions.post = callout = Callout(lookup, clock, ids)
        self.server.admission = Admission(
            Context(
                lookup,
                clock,
                ids,
                self.server.authorizer,
                self.registry,
                callout,
                toleration_seconds=options.toleration_seconds,
            )
        )
        self.runner: Runner | None = None
        self.scheduler: scheduler.Scheduler | None = None

    def client(self, user: User = MASTERS, agent: str = "sampan") -> Client:
        """A client inside the process, acting as `user`."""
        return Client(self.server.handle, self.registry, user=user, agent=agent)

    def controller_client(self, name: str) -> Client:
        """A controller acts as a service account of its own in kube-system, as in the original."""
        name = name.partition("/")[0]
        if name in _OF_THE_SERVER:
            return self.client(agent=name)
        if name in _OF_THE_MANAGER:
            return self.client(MANAGER, "kube-controller-manager")
        user = account_user("kube-system", name)
        return self.client(User(user.name, (*user.groups, "system:authenticated")), "kube-controller-manager")

    async def bootstrap(self) -> None:
        """What must exist before anyone is served: namespaces, default roles, the API's own Service."""
        masters = self.client()
        await bootstrap.ensure(masters, bootstrap.objects(self.options.service_cidrs))
        await bootstrap.ensure(masters, [dns.service(*self.options.dns_ips)])
        authorities = bootstrap.authentication(self.options.cluster_ca, self.options.front_proxy_ca)
        await bootstrap.ensure(masters, [authorities, *self.options.objects])
        if self.options.volumes:
            await _create(masters, "storageclasses.storage.k8s.io", storage_class())
        await bootstrap.ensure(masters, self._own_service())

    def _own_service(self) -> list[Object]:
        if not self.options.advertise:
            return []
        return bootstrap.kubernetes_service(*self.options.advertise, self.server.allocators.address(1))

    async def think(self) -> None:
        """Start controllers and scheduler."""
        await bootstrap.ensure(self.client(), bootstrap.api_services(BUILTIN))
        if self.options.controllers:
            config = controllers.Config(
                registry=self.registry,
                cluster_ca=self.options.cluster_ca,
                load_balancer_pool=self.options.load_balancer_pool,
                timing=self.options.timing,
                volumes=self.options.volumes,
                sign=self.options.signer is not None,
            )
            self.runner = Runner(
                self.client(),
                [
                    *controllers.build(config),
                    *([dns.rule()] if self.options.dns_on_nodes else []),
                    *([own_service.rule(self._own_service())] if self.options.advertise else []),
                    *self.options.rules,
                ],
                clock=self.clock,
                ids=self.ids,
                effects=self._effects(),
                client_for=self.controller_client,
                also=scheduler.RESOURCES,
            )
            await self.runner.start()
        if self.options.scheduler:
            self.scheduler = scheduler.Scheduler(
                self.client(SCHEDULER, "kube-scheduler"),
                self.runner.view if self.runner else None,
                clock=self.clock,
                ids=self.ids,
            )
            await self.scheduler.start()
        self.server.documents[debug.STORY] = debug.StoryTeller(self.registry, self.runner, self.scheduler)
        self.server.metrics.sources.append(debug.Figures(self.runner, self.scheduler, self.clock))

    def _effects(self) -> dict[str, Effect]:
        found = {**self.options.volume_effects, "apiservice": self.server.aggregator.check}
        found["aggregated"] = self.server.aggregator.empty
        found["contents"] = effects.contents(self.client())
        lookup = self.server.lookup
        found["token"] = effects.account_tokens(self.server.tokens, lookup)
        if self.options.signer:
            found["sign"] = effects.signer(
                self.options.signer, lambda name: lookup.get(effects.CSRS, name), self.clock
            )
        return found

    async def start(self) -> None:
        await self.bootstrap()
        await self.think()

    async def stop(self) -> None:
        """Stop deciding, end watches; the store stays open for whoever made it."""
        for part in (self.scheduler, self.runner):
            if part is not None:
                await part.stop()
        await self.server.close()


async def _create(client: Client, resource: str, obj: dict[str, object]) -> None:
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if error.code != 409:
            raise


def storage_class() -> dict[str, object]:
    """The default class: directories of the node on which a claim's first pod runs."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "local-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": LOCAL_PATH,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
