"""What is known about one pod on its node: the facts that `worker.step` decides on.

The shell (`driver`) writes facts, the state machine only reads them; nothing here performs anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.node.runtime import ContainerStatus, SandboxStatus

RESTART_DELAY = 10.0  # first crash back-off; doubles up to the limit (pod lifecycle, "Container restarts")
RESTART_LIMIT = 300.0
RESTART_RESET = 600.0  # a container that ran this long starts over
PULL_DELAY = 10.0  # images and broken configurations back off the same way
VOLUME_DELAY = 0.5
VOLUME_LIMIT = 122.0


@dataclass(slots=True)
class Problem:
    """Why a container (or the pod's surroundings) could not be started, and when it is tried again.

    image: the reference of the image volume it is about; "" when it is about something else.
    """

    reason: str
    message: str
    at: float
    retry_at: float
    image: str = ""


@dataclass(slots=True)
class Facts:
    """One container of the spec, over all its attempts.

    probes: kind -> result, for the running attempt; a probe without a result is absent.
    replaced: id of the attempt that was stopped only because the container's definition changed.
    """

    problem: Problem | None = None
    delay: float = 0.0  # of the problem's back-off
    restart_delay: float = 0.0  # crash back-off in force; 0: none yet
    hooked: bool = True  # postStart of the running attempt is done
    probes: dict[str, bool] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)  # container id -> termination message
    replaced: str = ""


@dataclass(slots=True)
class World:
    """One pod. `containers` holds every attempt that the runtime remembers, by container id.

    ending_since: when the pod's end began (deletion, deadline, eviction).
    verdict: (reason, message) of an end that is not a deletion: Evicted, ...; the phase becomes Failed.
    verdict_grace: seconds it leaves the pod; None: what its spec says.
    disruption: the verdict is the node's doing (pressure, shutdown), so that workloads need not count it as a failure.
    rejected: the verdict was given before anything of the pod began.
    restarting: all containers are being killed to start anew; before: the attempts of earlier lives (see restart_all).
    resize_pending: (reason, message) why resources the API has were not granted; resize_error: not applied.
    busy: keys of the actions that are under way.
    """

    first_seen: float
    sandbox: SandboxStatus | None = None
    sandbox_attempt: int = 0
    ips: list[str] = field(default_factory=list)
    volumes: bool = False
    trouble: Problem | None = None  # volumes or sandbox could not be made
    containers: dict[str, ContainerStatus] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    ending_since: float | None = None
    verdict: tuple[str, str] | None = None
    verdict_grace: float | None = None
    disruption: bool = False
    rejected: bool = False
    was_ready: bool = False
    withdrawn: bool = False
    cleaned: bool = False
    resize_pending: tuple[str, str] | None = None
    resize_error: str = ""
    restarting: bool = False
    before: set[str] = field(default_factory=set)
    terminal: bool = False  # the API already has its last phase: only a deletion is left to do
    host_ip: str = ""
    host_ips: list[str] = field(default_factory=list)
    runtime: str = "sampan"  # scheme of containerID

    def of(self, name: str) -> Facts:
        return self.facts.setdefault(name, Facts())

    def attempts(self, name: str) -> list[ContainerStatus]:
        """All remembered attempts of a container, oldest first."""
        found = [c for c in self.containers.values() if c.config.name == name]
        found.sort(key=lambda c: (c.config.attempt, c.created_at))
        return found

    def latest(self, name: str) -> ContainerStatus | None:
        attempts = self.attempts(name)
        return attempts[-1] if attempts else None

    def running(self) -> list[ContainerStatus]:
        return [c for c in self.containers.values() if c.state != "exited"]

    def starts_anew(self, status: ContainerStatus) -> bool:
        """Whether an exited attempt is followed by another one whatever its exit code and the restart policy."""
        return status.config.id in self.before or self.of(status.config.name).replaced == status.config.id

    def next_attempt(self, name: str) -> int:
        latest = self.latest(name)
        return latest.config.attempt + 1 if latest else 0


def fail(facts: Facts, reason: str, message: str, now: float, image: str = "") -> None:
    """Record that a start failed; the next try comes after a doubling delay."""
    facts.delay = min(max(facts.delay * 2, PULL_DELAY), RESTART_LIMIT)
    facts.problem = Problem(reason, message, now, now + facts.delay, image)


def fail_pod(world: World, reason: str, message: str, now: float) -> Problem:
    """Record that volumes or the sandbox could not be made."""
    old = world.trouble
    delay = min((old.retry_at - old.at) * 2, VOLUME_LIMIT) if old else VOLUME_DELAY
    world.trouble = Problem(reason, message, now, now + delay)
    return world.trouble


def restarted(facts: Facts, ran: float) -> None:
    """A container that had run for `ran` seconds is started again: its next back-off is longer."""
    if not facts.restart_delay or ran > RESTART_RESET:
        facts.restart_delay = RESTART_DELAY
    else:
        facts.restart_delay = min(facts.restart_delay * 2, RESTART_LIMIT)


def started(facts: Facts, ran: float | None = None) -> None:
    """A new attempt runs, the one before for `ran` seconds: what was learned of that one no longer holds."""
    if ran is not None:
        restarted(facts, ran)
    facts.problem = None
    facts.delay = 0.0
    facts.probes = {}
