"""What the server needs of a store: few methods, one suite of tests that every implementation passes.

Reads see only what is durable, in revision order. Conflict checks see writes that are still on their way (`latest`),
so that two writers never both succeed. A store gives the revision after the bytes were made; therefore a value comes
with a slot: the offset at which the revision's decimal text is spliced in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Item:
    """A stored object at one revision: its JSON bytes, and beside them what selectors ask for without decoding."""

    __slots__ = ("created", "fields", "key", "labels", "revision", "slot", "value")

    def __init__(
        self,
        key: str,
        revision: int,
        value: bytes,
        labels: Mapping[str, str],
        fields: Mapping[str, str],
        created: int = 0,
        slot: int = 0,
    ) -> None:
        self.key = key  # "namespace/name", or "name" for cluster-scoped resources
        self.revision = revision
        self.value = value  # with metadata.resourceVersion in it
        self.labels = labels
        self.fields = (
            fields  # selectable fields other than metadata.name/namespace, e.g. {"spec.nodeName": "n1"}
        )
        self.created = created  # revision of the first write of this incarnation
        self.slot = slot  # offset of the revision's text in `value`


KEY = "metadata.name"  # as a route's field: the key itself
Route = tuple[str, str]  # (field of Item.fields or KEY, value)


@dataclass(slots=True)
class Draft:
    """An object about to be stored; `value[:slot] + revision + value[slot:]` becomes its bytes.

    `decoded` is the writer's own form of it, which nobody changes any more, for whoever follows the bucket in this
    process (`Store.fresh`); what a revision is called in it is theirs to set.
    """

    value: bytes
    slot: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    decoded: Any = None


class Change(NamedTuple):
    """What a watcher sees: `item` is None for a deletion, `previous` None for a creation.

    For a deletion `final` holds the last state's bytes with the deletion's revision in them.
    """

    revision: int
    key: str
    item: Item | None
    previous: Item | None
    final: bytes = b""


class Page(NamedTuple):
    """A consistent picture: items in key order, the revision it was taken at, and how many more there are."""

    items: Sequence[Item]
    revision: int
    remaining: int


class Conflict(Exception):
    """The expected revision is not the latest; `latest` is what is there (None: nothing)."""

    def __init__(self, latest: Item | None) -> None:
        super().__init__("revision conflict")
        self.latest = latest


class Compacted(Exception):
    """The revision is below what history holds; `oldest` is the first that can still be served."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"history begins at {oldest}")
        self.oldest = oldest


class Watch(Protocol):
    """A cursor over the changes of one bucket. Iterate it for batches (never empty); close it when done.

    A cursor that falls behind the bucket's history raises Compacted: memory does not grow for slow readers.
    `feed` may be set: while the reader waits, a batch is offered to it first, and the reader woken if it says no.
    """

    feed: Callable[[Sequence[Change]], bool] | None

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]: ...

    @property
    def revision(self) -> int:
        """Up to here everything was handed out: what a bookmark may say."""
        ...

    def poke(self) -> None:
        """Wake the reader; it gets a batch, empty if nothing has changed (bookmarks, timeouts)."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """Buckets of keys. A bucket is a GroupResource (`pods`, `deployments.apps`)."""

    @property
    def revision(self) -> int:
        """The newest revision that readers may see."""
        ...

    def get(self, bucket: str, key: str) -> Item | None:
        """The visible object."""
        ...

    def latest(self, bucket: str, key: str) -> Item | None:
        """The object including writes that are not yet durable. Only for deciding a write; never send it out."""
        ...

    async def put(self, bucket: str, key: str, draft: Draft, expected: int | None) -> Item:
        """Durably write; returns when readers can see it. `expected`: revision it replaces, 0 for "must not exist",
        None for whatever is there. The check and the append happen with no await between. Raises Conflict."""
        ...

    async def delete(self, bucket: str, key: str, expected: int | None) -> Change:
        """Durably remove. Raises Conflict, or KeyError when nothing is there."""
        ...

    def list(
        self, bucket: str, prefix: str = "", *, after: str = "", limit: int = 0, revision: int | None = None
    ) -> Page:
        """Items whose key starts with `prefix` ("ns/"), after the key `after`; at an older `revision` from a pinned
        snapshot (continue tokens). Raises Compacted when that one is gone."""
        ...

    def watch(self, bucket: str, prefix: str = "", *, since: int, route: Route | None = None) -> Watch:
        """Changes with a revision above `since`; with a `route` only those of objects that have or had its value, found
        without looking at the others. Raises Compacted at once when history is too short."""
        ...

    def fresh(self, revision: int) -> Any:
        """`Draft.decoded` of the put that has this revision, to the first who asks and comes soon; None to others."""
        ...

    def buckets(self) -> Sequence[str]: ...

    def count(self, bucket: str) -> int: ...

    def estimate(self, bucket: str, prefix: str = "", limit: int = 0) -> int:
        """About how many bytes the items of a `list` have together; costs next to nothing."""
        ...

    def pending(self, bucket: str) -> Sequence[Change]:
        """Changes on their way to disk, not visible yet; only for deciding a write (quota, allocation)."""
        ...

    async def settled(self) -> None:
        """Return when all that was written up to now can be seen: a refusal may rest on a write still on its way."""
        ...

    def bucket_revision(self, bucket: str) -> int:
        """A number that grows with every visible change of the bucket: caches of what it holds compare it."""
        ...

    async def close(self) -> None: ...
