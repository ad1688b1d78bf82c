"""/openapi: an index with eternal addresses, documents with ETags, two languages, gzip."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.sea.example.com"},
    "spec": {
        "group": "sea.example.com",
        "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


async def test_the_index_leads_to_documents_that_never_change(api: Any) -> None:
    index = await api.ok("GET", "/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    response = await api.response("GET", url)
    assert "immutable" in response.headers["cache-control"]
    document = orjson.loads(response.body)
    assert document["openapi"] == "3.0.0"
    assert "io.k8s.api.apps.v1.Deployment" in document["components"]["schemas"]
    stale = await api.response("GET", "/openapi/v3/apis/apps/v1?hash=OLD")
    assert (stale.status, stale.headers["location"]) == (301, url)
    assert (await api.response("GET", "/openapi/v3/apis/nothing/v1")).status == 404


async def test_what_the_client_has_is_not_sent_again(api: Any) -> None:
    for path in ("/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"):
        first = await api.response("GET", path)
        again = await api.response("GET", path, headers={"if-none-match": first.headers["etag"]})
        assert (first.status, again.status, again.body) == (200, 304, b"")


async def test_forms_of_the_older_document(api: Any) -> None:
    assert (await api.ok("GET", "/openapi/v2"))["swagger"] == "2.0"
    accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    binary = await api.response("GET", "/openapi/v2", headers={"accept": accept})
    assert binary.headers["content-type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    assert binary.body.startswith(b"\x0a\x032.0")
    packed = await api.response("GET", "/openapi/v2", headers={"accept": accept, "accept-encoding": "gzip"})
    assert zlib.decompress(packed.body, wbits=31) == binary.body
    assert (await api.response("GET", "/openapi/v3/api/v1", headers={"accept": "text/html"})).status == 406


async def test_a_definition_appears_and_only_its_document_changes(api: Any) -> None:
    before = (await api.ok("GET", "/openapi/v3"))["paths"]
    await api.ok("POST", PATH, CRD)
    after = (await api.ok("GET", "/openapi/v3"))["paths"]
    assert after.keys() - before.keys() == {"apis/sea.example.com/v1"}
    assert all(after[path] == before[path] for path in before)
    document = await api.ok("GET", after["apis/sea.example.com/v1"]["serverRelativeURL"])
    assert "com.example.sea.v1.Boat" in document["components"]["schemas"]
    assert "com.example.sea.v1.Boat" in (await api.ok("GET", "/openapi/v2"))["definitions"]
