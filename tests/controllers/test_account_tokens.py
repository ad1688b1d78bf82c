"""A Secret that asks for the lasting token of a ServiceAccount gets it, and is worth nothing without the account."""

from __future__ import annotations

import base64

import pytest

from sampan.api.status import ApiError
from sampan.testing import Cluster

NOTE = {"kubernetes.io/service-account.name": "robot"}
SECRET = {
    "metadata": {"name": "robot-token", "annotations": NOTE},
    "type": "kubernetes.io/service-account-token",
}


async def decoded(cluster: Cluster) -> dict[str, str]:
    found = await cluster.client.get("secrets", "robot-token", "default")
    return {k: base64.b64decode(v).decode() for k, v in found["data"].items()}


async def who(cluster: Cluster, token: str) -> str:
    """The user of a token; "" for one that is not accepted."""
    review = {"spec": {"token": token}}
    status = (await cluster.client.create("tokenreviews.authentication.k8s.io", review))["status"]
    return status["user"]["username"] if status.get("authenticated") else ""


async def test_it_is_filled_and_goes_with_its_account():
    async with Cluster(nodes=0) as cluster:
        await cluster.client.create("serviceaccounts", {"metadata": {"name": "robot"}}, "default")
        made = await cluster.client.create("secrets", SECRET | {"data": {"extra": "eA=="}}, "default")
        await cluster.settle()
        data = await decoded(cluster)
        assert data["namespace"] == "default" and data["extra"] == "x"
        assert await who(cluster, data["token"]) == "system:serviceaccount:default:robot"
        uid = (await cluster.client.get("serviceaccounts", "robot", "default"))["metadata"]["uid"]
        notes = (await cluster.client.get("secrets", "robot-token", "default"))["metadata"]["annotations"]
        assert notes == NOTE | {"kubernetes.io/service-account.uid": uid}

        removed = [{"op": "remove", "path": "/data/token"}]
        await cluster.client.patch("secrets", "robot-token", removed, "default", kind="json")
        await cluster.settle()
        assert await who(cluster, (await decoded(cluster))["token"]) == "system:serviceaccount:default:robot"
        assert await who(cluster, data["token"]) == ""  # it was taken out

        await cluster.client.delete("serviceaccounts", "robot", "default")
        await cluster.settle()
        with pytest.raises(ApiError, match="not found"):
            await cluster.client.get("secrets", made["metadata"]["name"], "default")


async def test_without_an_account_it_goes_at_once():
    async with Cluster(nodes=0) as cluster:
        await cluster.client.create("secrets", SECRET, "default")
        await cluster.settle()
        assert not (await cluster.client.list("secrets", "default"))["items"]


async def test_an_account_of_the_same_name_is_another():
    async with Cluster(nodes=0) as cluster:
        await cluster.client.create("serviceaccounts", {"metadata": {"name": "robot"}}, "default")
        notes = NOTE | {"kubernetes.io/service-account.uid": "of-an-earlier-one"}
        metadata = {"name": "robot-token", "annotations": notes}
        await cluster.client.create("secrets", SECRET | {"metadata": metadata}, "default")
        await cluster.settle()
        assert not (await cluster.client.list("secrets", "default"))["items"]
