"""The objects written last, as their writers left them: most are written again soon (a pod that is created is bound, then
started), and whoever does needs not decode what was there.
"""

from __future__ import annotations

from collections import OrderedDict

from sampan.api.registry import Resource
from sampan.base.objects import Object
from sampan.server import objects
from sampan.store.protocol import Draft, Item

_KEPT = 512  # objects; views keep more of them decoded, so these cost little beside


class Recent:
    """`keep` what was written, `load` what an item says. What is kept is what decoding the item's bytes gives."""

    def __init__(self) -> None:
        self._objects: OrderedDict[int, Object] = OrderedDict()  # by revision

    def keep(self, draft: Draft, item: Item) -> None:
        """`item` has been made of `draft`, whose object nobody changes any more (`Draft.decoded`)."""
        obj = draft.decoded
        if obj is None:
            return
        obj["metadata"]["resourceVersion"] = str(item.revision)
        self._objects[item.revision] = obj
        if len(self._objects) > _KEPT:
            self._objects.popitem(last=False)

    def load(self, item: Item, row: Resource) -> Object:
        """The object of an item in `row`'s version, shared: not to be changed, nor anything in it."""
        known = self._objects.get(item.revision)
        if known is None or row.custom or known["apiVersion"] != row.api_version:
            return objects.load(item, row)
        return known
