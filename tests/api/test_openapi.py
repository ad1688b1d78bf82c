"""OpenAPI documents are complete: references lead somewhere, types are those of the language, clients find their marks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sampan.api import openapi, openapi_proto
from sampan.api.registry import Resource
from sampan.api.resources import BUILTIN

GROUPS = openapi.group_versions(BUILTIN)
DEFINITION = {
    "metadata": {"uid": "u", "generation": 1},
    "spec": {
        "versions": [
            {
                "name": "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A boat.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "planks": {"type": "integer", "nullable": True},
                                    "crew": {"x-kubernetes-int-or-string": True},
                                    "hold": {"type": "object", "x-kubernetes-embedded-resource": True},
                                    "rig": {"oneOf": [{"required": ["a"]}], "type": "object"},
                                },
                            }
                        },
                    }
                },
            }
        ]
    },
}
BOAT = Resource(
    "sea.example.com",
    "v1",
    "Boat",
    "boats",
    True,
    list_kind="BoatList",
    subresources=("scale", "status"),
    custom=True,
    definition=DEFINITION,
)


@pytest.mark.parametrize("path", GROUPS)
def test_a_document_is_closed_and_speaks_openapi_3(path: str) -> None:
    document = openapi.document(GROUPS[path], "v1")
    schemas = document["components"]["schemas"]
    assert set(openapi.references(document)) <= schemas.keys()
    for text in _values(document):
        if isinstance(text, dict):
            assert not isinstance(text.get("type"), list)
            assert not isinstance(text.get("$ref"), str) or len(text) == 1
    names = [operation["operationId"] for _, operation in _operations(document)]
    assert len(names) == len(set(names))
    for row in GROUPS[path]:
        wanted = {"group": row.group, "version": row.version, "kind": row.kind}
        if "list" in row.verbs:
            assert any(wanted in s.get("x-kubernetes-group-version-kind", ()) for s in schemas.values()), row


@pytest.mark.parametrize(
    ("path", "method", "action", "kind", "name"),
    [
        ("/apis/apps/v1/namespaces/{namespace}/deployments", "get", "list", "Deployment", "listAppsV1NamespacedDeployment"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments", "post", "post", "Deployment", "createAppsV1NamespacedDeployment"),
        ("/apis/apps/v1/deployments", "get", "list", "Deployment", "listAppsV1DeploymentForAllNamespaces"),
        ("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "put", "put", "Scale", "replaceAppsV1NamespacedDeploymentScale"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", "post", "connect", "PodExecOptions", "connectCoreV1PostNamespacedPodExec"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "get", "Pod", "readCoreV1NamespacedPodLog"),
        ("/api/v1/nodes", "delete", "deletecollection", "Node", "deleteCoreV1CollectionNode"),
    ],
)  # fmt: skip
def test_operations_are_named_as_generators_expect(
    path: str, method: str, action: str, kind: str, name: str
) -> None:
    group = "api/v1" if path.startswith("/api/") else "apis/apps/v1"
    operation = openapi.document(GROUPS[group], "v1")["paths"][path][method]
    assert operation["x-kubernetes-action"] == action
    assert operation["x-kubernetes-group-version-kind"]["kind"] == kind
    assert operation["operationId"] == name


def test_patch_tells_kubectl_that_the_server_validates_fields() -> None:
    for group in GROUPS.values():
        for path, operation in _operations(openapi.document(group, "v1")):
            if operation["x-kubernetes-action"] == "patch":
                assert {"dryRun", "fieldValidation", "fieldManager", "force"} <= {
                    p["name"] for p in operation["parameters"]
                }, path


def test_values_with_several_json_forms() -> None:
    schemas = openapi.document(GROUPS["api/v1"], "v1")["components"]["schemas"]
    assert schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"
    assert {"type": "number"} in schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"]
    port = schemas["io.k8s.api.core.v1.ServicePort"]["properties"]["targetPort"]
    assert port["allOf"] == [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"}]
    assert "enum" not in schemas["io.k8s.api.core.v1.Pod"]["properties"]["kind"]


def test_custom_resources_have_identity_and_keep_their_schema() -> None:
    document = openapi.document([BOAT], "v1")
    boat = document["components"]["schemas"]["com.example.sea.v1.Boat"]
    assert boat["description"] == "A boat."
    assert set(boat["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert boat["properties"]["apiVersion"]["description"].startswith("APIVersion defines")
    assert boat["properties"]["metadata"]["description"].startswith("Standard object's metadata")
    spec = boat["properties"]["spec"]["properties"]
    assert spec["planks"]["nullable"] is True
    assert "metadata" in spec["hold"]["properties"]
    patch = document["paths"]["/apis/sea.example.com/v1/namespaces/{namespace}/boats/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    assert patch["tags"] == ["seaExampleCom_v1"]
    assert set(openapi.references(document)) <= document["components"]["schemas"].keys()
    assert "properties" not in DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["hold"]  # fmt: skip


def test_a_custom_kind_that_may_have_any_field_is_any_object_in_swagger() -> None:
    declared = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "description": "Anything."}
    for text in ({"openAPIV3Schema": declared}, {}):
        definition = {"spec": {"versions": [{"name": "v1", "schema": text}]}}
        row = dataclasses.replace(BOAT, definition=definition)
        name = "com.example.sea.v1.Boat"
        shown = openapi.swagger([row], "v1")["definitions"][name]
        assert set(shown) == {"type", "x-kubernetes-group-version-kind"}
        assert "metadata" in openapi.document([row], "v1")["components"]["schemas"][name]["properties"]


def test_swagger_has_no_words_of_openapi_3() -> None:
    document = openapi.swagger([*BUILTIN, BOAT], "v1")
    for text in _values({"paths": document["paths"], "definitions": document["definitions"]}):
        if isinstance(text, dict) and not isinstance(text.get("name"), dict):
            assert not {"oneOf", "anyOf", "nullable"} & {k for k in text if not isinstance(text[k], dict)}
            assert not str(text.get("$ref", "")).startswith("#/components")
    definitions = document["definitions"]
    assert definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {"type": "string"}
    spec = definitions["com.example.sea.v1.Boat"]["properties"]["spec"]["properties"]
    assert "type" not in spec["planks"]
    body = document["paths"]["/api/v1/namespaces"]["post"]["parameters"][0]
    assert body["in"] == "body"
    assert body["schema"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Namespace"}


def test_protobuf_is_made_of_the_published_fields() -> None:
    document = {
        "swagger": "2.0",
        "definitions": {"A": {"type": "object", "required": ["b"], "x-y": 1}},
    }
    schema = b"\xb2\x01\x08\x0a\x06object" + b"\x9a\x01\x01b" + b"\xfa\x01\x0b\x0a\x03x-y\x12\x04\x12\x021\n"
    named = b"\x0a\x01A\x12" + bytes([len(schema)]) + schema
    definitions = b"\x0a" + bytes([len(named)]) + named
    expected = b"\x0a\x032.0" + b"\x4a" + bytes([len(definitions)]) + definitions
    assert openapi_proto.encode(document) == expected
    assert len(openapi_proto.encode(openapi.swagger(BUILTIN, "v1"))) > 1_000_000


def test_the_hash_changes_with_what_is_served() -> None:
    first = openapi.digest([BOAT], "v1")
    assert first == openapi.digest([BOAT], "v1")
    newer = Resource("sea.example.com", "v1", "Boat", "boats", True, custom=True, definition=DEFINITION)
    assert first != openapi.digest([newer], "v1")
    assert first != openapi.digest([BOAT], "v2")


def _values(text: Any) -> Any:
    yield text
    children = text.values() if isinstance(text, dict) else text if isinstance(text, list) else ()
    for child in children:
        yield from _values(child)


def _operations(document: dict[str, Any]) -> Any:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, operation
