from sampan.api import schema
from sampan.api.resources import BUILTIN


def test_every_built_in_kind_has_a_schema():
    assert [r.name for r in BUILTIN if schema.root(r.group, r.version, r.kind) is None] == []


def test_what_merging_needs_is_there():
    pod = schema.root("", "v1", "Pod")
    containers = pod.properties["spec"].properties["containers"]
    assert containers.type == "array"
    assert (containers.list_type, containers.map_keys, containers.merge_key) == ("map", ("name",), "name")
    assert containers.patch_strategy == ("merge",)
    volumes = pod.properties["spec"].properties["volumes"]
    assert volumes.patch_strategy == ("merge", "retainKeys")
    assert pod.properties["spec"].properties["nodeSelector"].map_type == "atomic"


def test_special_types():
    limits = (
        schema.root("", "v1", "Pod").properties["spec"].properties["containers"].items.properties["resources"]
    )
    assert limits.properties["limits"].additional.type == "quantity"
    port = (
        schema.root("", "v1", "Service").properties["spec"].properties["ports"].items.properties["targetPort"]
    )
    assert port.type == "int-or-string"


def test_a_recursive_definition_ends():
    crd = schema.root("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    text = (
        crd.properties["spec"].properties["versions"].items.properties["schema"].properties["openAPIV3Schema"]
    )
    assert text.properties["not"].properties["properties"].additional.properties["type"].type == "string"


def test_bodies_that_are_no_resources():
    assert (
        schema.root("", "v1", "DeleteOptions").properties["preconditions"].properties["uid"].type == "string"
    )
    assert schema.root("autoscaling", "v1", "Scale") is not None


def test_custom_schema_has_the_apis_own_metadata():
    node = schema.from_openapi(
        {
            "type": "object",
            "properties": {
                "metadata": {"type": "object"},
                "spec": {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}},
            },
        }
    )
    assert "labels" in node.properties["metadata"].properties
    assert node.properties["spec"].properties["n"].default == 3
