"""What the server serves, told to clients: /api, /apis, group and version documents, /version, OpenAPI.

Both forms are here: the old one (a document a version) and the aggregated one (v2, KEP-3352), which kubectl asks for
first. Documents are kept until the registry changes.
"""

from __future__ import annotations

import hashlib
import platform
from typing import Any, Protocol

import orjson

from sampan.api.registry import Registry, Resource
from sampan.api.resources import subresource
from sampan.api.status import method_not_allowed, no_such_path
from sampan.base.objects import Object
from sampan.client.messages import Request, Response
from sampan.server import respond
from sampan.server.aggregation import usage
from sampan.server.aggregation.aggregator import Aggregator
from sampan.server.config import Config
from sampan.server.negotiate import form_of
from sampan.server.nonresource import openapi
from sampan.server.route import RequestInfo

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
_ROOTS = (
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/version",
)


class Served(Protocol):
    """What is told of `app.Server`."""

    registry: Registry
    aggregator: Aggregator
    config: Config
    tokens: Any


async def answer(server: Served, request: Request, info: RequestInfo) -> Response | None:
    """The answer when the path is a discovery document, else None."""
    parts = [p for p in info.path.split("/") if p]
    head = parts[0] if parts else ""
    if head == "openapi":
        other = await server.aggregator.openapi(request, "/".join(parts[2:])) if len(parts) > 2 else None
        more = server.aggregator.openapi_index()
        return other or await openapi.answer(
            server.registry, request, parts[1:], server.config.git_version, more, server.aggregator.swagger()
        )
    if head in (".well-known", "openid"):
        return _identity(server, parts)
    if head not in ("api", "apis", "version", ""):
        return None
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    if head == "":
        return respond.document({"paths": [*_ROOTS, *_group_paths(server)]})
    if head == "version" and len(parts) == 1:
        return respond.indented(respond.document(_version(server.config.git_version)))
    if len(parts) == 1 and (version := _wants_aggregated(request)):
        return _aggregated(server, head, version, request)
    form = form_of(request.headers)
    return respond.document(_legacy(server, parts), form=form)


def _groups(server: Served) -> list[str]:
    """All groups, those of aggregated servers after the built-in ones unless they are served here as well."""
    return list(dict.fromkeys((*server.registry.groups(), *server.aggregator.groups())))


def _versions(server: Served, group: str) -> list[str]:
    """A group's versions, the preferred one first."""
    return list(dict.fromkeys((*server.registry.versions(group), *server.aggregator.versions(group))))


def _group_paths(server: Served) -> list[str]:
    paths = ["/api/v1"]
    for group in _groups(server):
        if group:
            paths += [f"/apis/{group}", *(f"/apis/{group}/{v}" for v in _versions(server, group))]
    return sorted(paths)


def _version(git: str) -> Object:
    major, minor = git.lstrip("v").split(".")[:2]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "gitVersion": git,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{machine}",
    }


# One document a version


def _legacy(server: Served, parts: list[str]) -> Object:
    if parts == ["api"]:
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }
    if parts == ["apis"]:
        groups = [_group(server, g) for g in _groups(server) if g]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if parts[0] == "api" and len(parts) == 2:
        return _resource_list(server.registry, "", parts[1])
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in _groups(server):
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(server, parts[1])}
    if parts[0] == "apis" and len(parts) == 3:
        return _resource_list(server.registry, parts[1], parts[2])
    raise no_such_path()


def _group(server: Served, group: str) -> Object:
    versions = [{"groupVersion": f"{group}/{v}", "version": v} for v in _versions(server, group)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resource_list(registry: Registry, group: str, version: str) -> Object:
    rows = [r for r in registry if r.group == group and r.version == version]
    if not rows:
        raise no_such_path()
    resources: list[Object] = []
    for row in rows:
        resources.append(_described(row))
        for name in row.subresources:
            resources.append(_described_subresource(row, name))
    resources.sort(key=lambda r: r["name"])
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": rows[0].api_version,
        "resources": resources,
    }


def _described(row: Resource) -> Object:
    entry: Object = {
        "name": row.plural,
        "singularName": row.singular or row.kind.lower(),
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": sorted(row.verbs),
    }
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    if "watch" in row.verbs:
        entry["storageVersionHash"] = _storage_hash(row)
    return entry


def _storage_hash(row: Resource) -> str:
    import base64

    text = f"{row.group}/{row.version}/{row.kind}".encode()
    return base64.b64encode(hashlib.sha256(text).digest()[:8]).decode()


def _described_subresource(row: Resource, name: str) -> Object:
    sub = subresource(row, name)
    entry: Object = {
        "name": f"{row.plural}/{name}",
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": sub.kind,
        "verbs": sorted(sub.verbs),
    }
    if (sub.group, sub.version) != (row.group, row.version):
        entry |= {"group": sub.group, "version": sub.version}
    return entry


# Everything at once


def _wants_aggregated(request: Request) -> str:
    """v2 or v2beta1 when the client asks for it before plain JSON, else ""."""
    for clause in request.headers.get("accept", "").split(","):
        if "as=APIGroupDiscoveryList" in clause:
            return "v2beta1" if "v=v2beta1" in clause else "v2"
    return ""


_documents: dict[tuple[Any, ...], tuple[bytes, str]] = {}


def _aggregated(server: Served, head: str, version: str, request: Request) -> Response:
    registry = server.registry
    key = (id(registry), registry.generation, *server.aggregator.stamp(), head, version)
    kept = _documents.get(key)
    if kept is None:
        _documents.clear()
        groups = [g for g in _groups(server) if bool(g) is (head == "apis")]
        body = orjson.dumps(
            {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"apidiscovery.k8s.io/{version}",
                "metadata": {},
                "items": [_discovered_group(server, g) for g in groups],
            }
        )
        kept = _documents[key] = (body, hashlib.sha512(body).hexdigest().upper())
    body, digest = kept
    headers = {
        "content-type": _AGGREGATED.format(version=version),
        "etag": f'"{digest}"',
        "vary": "Accept",
        "cache-control": "public",
    }
    if request.headers.get("if-none-match", "").strip('"') == digest:
        return Response(304, headers)
    return Response(200, headers, body)


def _discovered_group(server: Served, group: str) -> Object:
    versions = []
    for version in _versions(server, group):
        other = server.aggregator.discovered(group, version)
        if other is not None and (group == usage.GROUP or version not in server.registry.versions(group)):
            versions.append(other)
            continue
        rows = [r for r in server.registry if r.group == group and r.version == version]
        resources = [_discovered(row) for row in sorted(rows, key=lambda r: r.plural)]
        versions.append({"version": version, "freshness": "Current", "resources": resources})
    return {"metadata": {"name": group} if group else {}, "versions": versions}


def _discovered(row: Resource) -> Object:
    entry: Object = {
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular or row.kind.lower(),
        "verbs": sorted(row.verbs),
    }
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    if row.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": sorted(sub.verbs),
            }
            for name in row.subresources
            for sub in [subresource(row, name)]
        ]
    return entry


# Keys


def _identity(server: Served, parts: list[str]) -> Response | None:
    """OpenID discovery of service account tokens."""
    if server.tokens is None:
        return None
    if parts == ["openid", "v1", "jwks"]:
        return respond.document(server.tokens.jwks())
    if parts == [".well-known", "openid-configuration"]:
        return respond.document(server.tokens.openid_configuration(server.tokens.issuer))
    return None
