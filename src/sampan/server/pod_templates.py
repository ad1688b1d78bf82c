"""New pods mostly differ from one before in their name only: what decoding, defaulting, admission and validation made of
that one holds for them, too.

It holds as long as nothing has changed that admission's plugins look at (`Plugin.reads`), and only where they say all
they look at. Whatever else a pod depends on is its text, which is compared; time and chance are put in anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from sampan.api.names import LABEL_LIMIT
from sampan.base.objects import Object
from sampan.server import negotiate
from sampan.server.call import Call, Kit
from sampan.server.lookup import Derived
from sampan.server.options import WriteOptions
from sampan.store.protocol import Draft, Item

_PODS = "pods"
_HEAD = b'{"apiVersion":"v1","kind":"Pod","metadata":'
_SLOT = len(_HEAD) + len(b'{"resourceVersion":"')
_LABEL = rb"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_is_name = re.compile(_LABEL).fullmatch  # names with dots come with a warning
_NODES = "system:nodes"  # what these may create depends on who they are
_KEPT = 256  # templates whose pods bring a generateName
_KEYS = 64  # of the others
_SUFFIX = 5  # characters that make a generated name
_NAMED = 8  # templates of one key: a request is compared with each
_LONGEST = 16 * 1024  # bytes of a body that is remembered

# Namespace, field manager, what is done with unknown fields: besides its text, all that a request says.
Key = tuple[str, str, str]


@dataclass(slots=True)
class Template:
    """What became of one pod, with its name, uid and times left out.

    `before` and `after` are a request's body around the name. Where the name is generated, `prefix` is how it begins,
    and `before` all of the body.
    """

    before: bytes
    after: bytes
    prefix: str
    metadata: Object
    managed: list[Object]
    rest: Object  # of the decoded object, shared by all pods
    tail: bytes  # the same as stored text
    labels: Mapping[str, str]
    fields: Mapping[str, str]

    def name_in(self, body: bytes) -> str:
        """The name of the pod that `body` describes; "" if it is not one of this template."""
        before, after = self.before, self.after
        if not (body.startswith(before) and body.endswith(after)):
            return ""
        name = body[len(before) : len(body) - len(after)]
        return name.decode() if len(name) <= LABEL_LIMIT and _is_name(name) else ""

    def draft(self, name: str, uid: str, now: str) -> Draft:
        """A pod of this template, ready to be stored. `now` is in RFC 3339."""
        if self.managed and self.managed[0]["time"] != now:
            self.managed = [{**entry, "time": now} for entry in self.managed]
        meta = self.metadata | {"name": name, "uid": uid, "creationTimestamp": now}
        if self.managed:
            meta["managedFields"] = self.managed
        value = b"%b%b%b" % (_HEAD, orjson.dumps(meta), self.tail)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, **self.rest}
        return Draft(value, _SLOT, self.labels, self.fields, pod)


class PodTemplates:
    """The templates of the pods that were last created the long way."""

    def __init__(self, server: Kit) -> None:
        self._server = server
        self._state: Derived | None = None  # made when first asked for: admission is plugged in later
        self._of: object = None  # the state that what is known holds for
        self._named: dict[Key, list[Template]] = {}
        self._generated: dict[tuple[Key, bytes], Template] = {}

    def state(self, call: Call, options: WriteOptions) -> object:
        """All of the cluster that a new pod depends on, as a token; None for a request that no template is for.

        What is found and learned holds for one state, and is forgotten as soon as that has changed.
        """
        server = self._server
        if call.row.store_key != _PODS or options.dry_run or server.audit is not None:
            return None
        if _NODES in call.user.groups or negotiate.body_type(call.request.headers) != negotiate.JSON:
            return None
        namespace, store = call.info.namespace, server.store
        if store.latest("namespaces", namespace) is not store.get("namespaces", namespace):
            return None
        if self._state is None:
            reads = () if server.admission is None else server.admission.reads(_PODS)
            if reads is None:
                return None
            self._state = Derived(server.lookup, reads, _State)
        state = self._state.get()
        if state is not self._of:
            self._of = state
            self._named.clear()
            self._generated.clear()
        return state

    def find(self, call: Call, options: WriteOptions) -> tuple[Template, str] | None:
        """The template of the pod that a request brings, and its name, "" if that is to be generated.

        Must be asked right after `state`.
        """
        body, key = call.request.body, _key(call, options)
        for template in self._named.get(key, ()):
            if name := template.name_in(body):
                return template, name
        generated = self._generated.get((key, body))
        return (generated, "") if generated is not None else None

    def learn(self, call: Call, options: WriteOptions, state: object, pod: Object, item: Item) -> None:
        """`call` has created `pod`, which is stored as `item`; `state` is what there was when it came."""
        server = self._server
        if call.warnings or self.state(call, options) is not state:
            return
        if server.admission is not None and not server.admission.steady(_PODS, call.info.namespace):
            return
        template = _template(call.request.body, pod, item)
        if template is None:
            return
        key = _key(call, options)
        if template.prefix:
            while len(self._generated) >= _KEPT:
                del self._generated[next(iter(self._generated))]
            self._generated[key, template.before] = template
            return
        while len(self._named) >= _KEYS:
            del self._named[next(iter(self._named))]
        known = self._named.setdefault(key, [])
        known.insert(0, template)
        del known[_NAMED:]


class _State:
    """Each is another one."""


def _key(call: Call, options: WriteOptions) -> Key:
    return call.info.namespace, options.manager or call.manager, options.validation


def _template(body: bytes, pod: Object, item: Item) -> Template | None:
    """What `body` has become, if it can be told where in it the name stands."""
    meta = pod["metadata"]
    name, now = meta["name"], meta["creationTimestamp"]
    text, prefix = b'"%b"' % name.encode(), ""
    if len(body) > _LONGEST or b"\\u" in body:  # letters may be written as numbers
        return None
    if name.encode() not in body and meta.get("generateName"):
        before, after, prefix = body, b"", name[:-_SUFFIX]
    elif body.count(text) == 1:  # that is the name, then
        before, _, after = body.partition(text)
        before, after = before + b'"', b'"' + after
    else:
        return None
    managed = meta.get("managedFields") or []
    if any(entry.get("time") != now for entry in managed):
        return None
    fixed = {"resourceVersion": "", **{k: v for k, v in meta.items() if k != "resourceVersion"}}
    value = item.value[: item.slot] + item.value[item.slot + len(str(item.revision)) :]
    head = _HEAD + orjson.dumps(fixed)
    tail = value[len(head) :]
    if not value.startswith(head) or any(t in tail for t in (text, now.encode(), meta["uid"].encode())):
        return None
    rest = {k: v for k, v in pod.items() if k not in ("apiVersion", "kind", "metadata")}
    return Template(before, after, prefix, fixed, managed, rest, tail, item.labels, item.fields)
