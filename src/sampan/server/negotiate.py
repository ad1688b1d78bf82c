"""In which form an answer is sent: JSON or YAML; the object itself, its metadata only, or a Table.

Source: API concepts, "Receiving resources as Tables" and "Alternate representations of resources".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sampan.api.status import ApiError, not_acceptable, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
ACCEPTED = (JSON, YAML, PROTOBUF)
TEXT = (JSON, YAML)  # custom resources have no fields' numbers

_WILDCARDS = {"*/*": JSON, "application/*": JSON}
_PARTIAL = "PartialObjectMetadata"
_VERSIONS = ("v1", "v1beta1")  # of meta.k8s.io


@dataclass(frozen=True, slots=True)
class Form:
    """`shape` is "object", "partial" or "table"; `media` the content type; `version` that of meta.k8s.io."""

    shape: str = "object"
    media: str = JSON
    version: str = "v1"
    pretty: bool = False

    @property
    def stored(self) -> bool:
        """The bytes in the store are the answer."""
        return self.shape == "object" and self.media == JSON and not self.pretty


PLAIN = Form()


def form_of(
    headers: Mapping[str, str],
    *,
    listing: bool = False,
    watching: bool = False,
    tables: bool = True,
    custom: bool = False,
) -> Form:
    """The form that `Accept` asks for first and we have. Raises 406 in the two texts Kubernetes has for it.

    `tables` False: what is answered has no columns, as reviews have none. `custom`: an object without fields' numbers,
    which nobody can be promised in protobuf.
    """
    accept = headers.get("accept", "")
    if not accept or accept == JSON or accept == "*/*":
        return PLAIN
    return _choose(accept, listing, watching, tables, custom)


@lru_cache(maxsize=256)
def _choose(accept: str, listing: bool, watching: bool, tables: bool, custom: bool) -> Form:
    clauses = _clauses(accept)
    known = [(media, params) for media, params in clauses if media in ACCEPTED or media in _WILDCARDS]
    if not known:
        raise ApiError(406, "NotAcceptable", "406: Not Acceptable", {})
    for media, params in known:
        if custom and media == PROTOBUF and "as" not in params:
            continue
        form = _form(_WILDCARDS.get(media, media), params, listing, watching)
        if form is not None and (tables or form.shape != "table"):
            return form
    raise not_acceptable(TEXT if custom else ACCEPTED)


def _clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """(media type, parameters) in order of preference."""
    found = []
    for position, clause in enumerate(accept.split(",")):
        media, *rest = (part.strip() for part in clause.split(";"))
        params = {k.strip(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in rest)}
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if quality > 0:
            found.append((-quality, position, media.lower(), params))
    return [(media, params) for _, _, media, params in sorted(found, key=lambda c: c[:2])]


def _form(media: str, params: dict[str, str], listing: bool, watching: bool) -> Form | None:
    media = JSON if media == PROTOBUF else media  # clients that prefer protobuf decode what they get
    kind = params.get("as", "")
    if not kind:
        return Form(media=media, pretty=params.get("pretty") == "1")
    version = params.get("v", "")
    if params.get("g") != "meta.k8s.io":
        return None
    if version not in _VERSIONS:
        return None
    if kind == "Table":
        return Form("table", media, version)
    if (kind == _PARTIAL and not listing) or (kind == f"{_PARTIAL}List" and (listing or watching)):
        return Form("partial", media, version)
    return None


def body_type(headers: Mapping[str, str], accepted: tuple[str, ...] = ACCEPTED) -> str:
    """The media type of a request body without its parameters; JSON when none is said. Raises 415."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media:
        return JSON
    if media not in accepted:
        raise unsupported_media_type(accepted)
    return media
