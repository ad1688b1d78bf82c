"""Long lists as Tables arrive whole, though they are made and sent piece by piece."""

from __future__ import annotations

from typing import Any

TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PATH = "/api/v1/namespaces/default/configmaps"


async def test_a_table_longer_than_one_piece(api: Any) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    for number in range(230):
        await api.ok("POST", PATH, {"metadata": {"name": f"c{number:03}"}, "data": {"n": str(number)}})
    table = await api.ok("GET", PATH, headers=TABLE)
    assert [row["cells"][0] for row in table["rows"]] == [f"c{n:03}" for n in range(230)]
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["metadata"]["resourceVersion"]
    page = await api.ok("GET", PATH + "?limit=150", headers=TABLE)
    assert (len(page["rows"]), page["metadata"]["remainingItemCount"]) == (150, 80)
    status, refused = await api.call("GET", PATH + "?includeObject=Some", headers=TABLE)
    assert (status, refused["reason"]) == (400, "BadRequest")


async def test_a_review_has_no_table(ready):
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    body = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    assert (await ready.call("POST", path, body, headers={"accept": accept}))[0] == 406
    answer = await ready.ok("POST", path, body, headers={"accept": f"{accept},application/json"})
    assert answer["kind"] == "SelfSubjectAccessReview"
