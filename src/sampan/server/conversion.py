"""Custom resources whose versions a webhook converts: stored in one, spoken in any.

Items are converted before they are used, so that everything behind reads them as if they had been stored so; what was
converted is kept by its bytes for a while. Without a conversion webhook nothing here is awaited.
Source: "Versions in CustomResourceDefinitions", "Webhook conversion"; apiextensions.k8s.io/v1 ConversionReview.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from sampan.api import custom, fields, wire
from sampan.api.copying import copied
from sampan.api.registry import Registry, Resource
from sampan.api.status import ApiError
from sampan.base.ids import Ids
from sampan.base.objects import Object
from sampan.server import objects, selectable
from sampan.server.egress.callout import CalloutError
from sampan.store.protocol import Draft, Item

Post = Callable[..., Awaitable[Object]]  # see `egress.callout`

_SECONDS = 30.0
_BATCH = 500  # objects of one review
_KEPT_BYTES = 32 << 20
_VERSIONS = ("v1", "v1beta1")  # of ConversionReview that we speak


def by_webhook(row: Resource) -> bool:
    """Whether a webhook converts between the versions of this resource."""
    if not row.custom or row.definition is None:
        return False
    conversion = row.definition["spec"].get("conversion") or {}
    return conversion.get("strategy") == "Webhook"


class Conversions:
    """What the server has had converted. `post` calls a webhook; without it conversions fail."""

    def __init__(self, registry: Registry, ids: Ids) -> None:
        self._registry = registry
        self._ids = ids
        self.post: Post | None = None
        self._kept: OrderedDict[tuple[str, str, bytes], bytes] = OrderedDict()
        self._size = 0

    async def item(self, row: Resource, item: Item) -> Item:
        """A stored item as if it had been stored in `row`'s version."""
        return (await self.items(row, [item]))[0]

    async def items(self, row: Resource, items: Sequence[Item]) -> Sequence[Item]:
        """Stored items as if they had been stored in `row`'s version. Raises ApiError."""
        values = await self.values(row, [i.value for i in items])
        return [
            i if value is i.value else Item(i.key, i.revision, value, i.labels, i.fields, i.created)
            for i, value in zip(items, values, strict=True)
        ]

    async def values(self, row: Resource, values: Sequence[bytes]) -> list[bytes]:
        """Stored bytes in `row`'s version, in the same order. Raises ApiError."""
        state = (row.definition or {})["metadata"].get("resourceVersion", "")
        missing = [
            v for v in values if not objects.spoken(v, row) and (state, row.version, v) not in self._kept
        ]
        made: dict[bytes, bytes] = {}
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            found = await convert(self.post, row, [orjson.loads(v) for v in batch], self._ids.uid())
            for value, obj in zip(batch, found, strict=True):
                made[value] = orjson.dumps(self._completed(row, obj))
        for value, converted in made.items():
            self._keep((state, row.version, value), converted)
        return [
            v if objects.spoken(v, row) else made.get(v) or self._kept[state, row.version, v] for v in values
        ]

    def _completed(self, row: Resource, obj: Object) -> Object:
        """Pruned and defaulted by the schema of the version it is now in."""
        node = custom.schema_node(row)
        obj, _ = fields.normalize(obj, node, strict=False)
        custom.apply_schema_defaults(obj, node)
        return obj

    def _keep(self, key: tuple[str, str, bytes], value: bytes) -> None:
        self._kept[key] = value
        self._size += len(value) + len(key[2])
        while self._size > _KEPT_BYTES and len(self._kept) > 1:
            (_, _, old), gone = self._kept.popitem(last=False)
            self._size -= len(gone) + len(old)

    async def draft(self, row: Resource, obj: Object) -> Draft:
        """An object of `row`'s version made ready to be stored. Raises ApiError."""
        stored = objects.storage_row(self._registry, row)
        if stored.api_version != row.api_version:
            [converted] = await convert(self.post, stored, [obj], self._ids.uid())
            obj = self._completed(stored, converted)
        value, slot = wire.encode(obj)
        objects.check_size(value)
        return Draft(
            value, slot, (obj.get("metadata") or {}).get("labels") or {}, selectable.values(stored, obj)
        )

    def written(self, row: Resource, obj: Object, item: Item) -> Item:
        """What was just stored, in the version it was written in: nobody need convert it back."""
        if objects.spoken(item.value, row):
            return item
        obj["metadata"]["resourceVersion"] = str(item.revision)
        value = wire.encode(obj)
        whole = b"%b%d%b" % (value[0][: value[1]], item.revision, value[0][value[1] :])
        return Item(item.key, item.revision, whole, item.labels, item.fields, item.created)


async def convert(post: Post | None, row: Resource, given: list[Object], uid: str) -> list[Object]:
    """The objects in `row`'s version, by its definition's webhook. Raises ApiError."""
    conversion = (row.definition or {})["spec"].get("conversion") or {}
    webhook = conversion.get("webhook") or {}
    spoken = webhook.get("conversionReviewVersions") or ()
    version = next((v for v in spoken if v in _VERSIONS), "v1")
    subject = f"{given[0].get('apiVersion')}, Kind={row.kind}"
    review = {
        "kind": "ConversionReview",
        "apiVersion": f"apiextensions.k8s.io/{version}",
        "request": {"uid": uid, "desiredAPIVersion": row.api_version, "objects": given},
    }
    try:
        if post is None:
            raise CalloutError("this server cannot call webhooks")
        answer = await post(webhook.get("clientConfig") or {}, review, _SECONDS)
    except CalloutError as error:
        raise _failed(f"conversion webhook for {subject} failed: {error}") from None
    response = answer.get("response")
    if not isinstance(response, dict) or response.get("uid") != uid:
        got = response.get("uid", "") if isinstance(response, dict) else ""
        raise _failed(
            f'invalid response for conversion webhook for {subject}: expected response.uid="{uid}", got "{got}"'
        )
    result = response.get("result") or {}
    if result.get("status") != "Success":
        raise _failed(
            f"conversion webhook for {subject} failed: {result.get('message') or 'no reason given'}"
        )
    made = response.get("convertedObjects") or []
    if len(made) != len(given):
        raise _failed(f"conversion webhook for {subject} returned {len(made)} objects, expected {len(given)}")
    return [_checked(old, new, row, subject, i) for i, (old, new) in enumerate(zip(given, made, strict=True))]


def _checked(old: Object, new: Any, row: Resource, subject: str, index: int) -> Object:
    """What a webhook returned must be the same object; of its metadata only labels and annotations may differ."""
    head = f"conversion webhook for {subject} returned invalid"
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise _failed(f"{head} metadata at index {index}: missing metadata in converted object")
    if (new.get("apiVersion"), new.get("kind")) != (row.api_version, row.kind):
        got = f"{new.get('apiVersion')}, Kind={new.get('kind')}"
        raise _failed(
            f"{head} converted object at index {index}: invalid groupVersion, "
            f"expected={row.api_version}, Kind={row.kind}, got={got}"
        )
    before, after = old.get("metadata") or {}, new["metadata"]
    for key in ("name", "namespace", "uid"):
        if before.get(key, "") != after.get(key, ""):
            raise _failed(
                f"{head} metadata at index {index}: must have the same {key}: {before.get(key, '')}"
            )
    meta = copied(before)
    for key in ("labels", "annotations"):
        meta.pop(key, None)
        if after.get(key):
            meta[key] = after[key]
    return {**new, "metadata": meta}


def _failed(text: str) -> ApiError:
    return ApiError(500, "", text)
