"""IPAddress objects follow the cluster IPs of Services."""

import pytest
from world import World

from sampan.api import meta
from sampan.controllers import serviceaddress
from sampan.testing import Cluster

ADDRESSES = "ipaddresses.networking.k8s.io"


@pytest.mark.parametrize(
    ("ips", "expected"),
    [
        (["10.96.0.9"], {"10.96.0.9": "IPv4"}),
        (["10.96.0.9", "fd00:0::0009"], {"10.96.0.9": "IPv4", "fd00::9": "IPv6"}),
        (["None"], {}),
        ([], {}),
    ],
)
def test_each_address_has_an_object_under_its_canonical_name(ips, expected):
    w = World(*serviceaddress.rules())
    w.put("services", {"metadata": {"name": "a"}, "spec": {"clusterIPs": ips}})
    w.settle()
    family = "ipaddress.kubernetes.io/ip-family"
    assert {meta.name(a): meta.labels(a)[family] for a in w.list(ADDRESSES)} == expected


async def named(cluster, service):
    found = (await cluster.client.list(ADDRESSES))["items"]
    return [a for a in found if a["spec"]["parentRef"]["name"] == service]


async def create(cluster, name, **spec):
    made = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
    return await cluster.client.create("services", made, "default")


async def test_an_address_has_an_object_as_long_as_a_service_has_it():
    async with Cluster(nodes=0) as cluster:
        ip = (await create(cluster, "web"))["spec"]["clusterIP"]
        await create(cluster, "headless", clusterIP="None")
        await cluster.settle()
        (address,) = await named(cluster, "web")
        assert address["metadata"]["name"] == ip
        assert address["metadata"]["labels"] == {
            "ipaddress.kubernetes.io/managed-by": "ipallocator",
            "ipaddress.kubernetes.io/ip-family": "IPv4",
        }
        parent = {"resource": "services", "namespace": "default", "name": "web"}
        assert {k: v for k, v in address["spec"]["parentRef"].items() if v} == parent
        assert not await named(cluster, "headless")
        await cluster.client.delete("services", "web", "default")
        await cluster.settle()
        assert not await named(cluster, "web") and await named(cluster, "kube-dns")


async def test_one_that_somebody_deletes_comes_back_and_one_of_others_is_left_alone():
    async with Cluster(nodes=0) as cluster:
        ip = (await create(cluster, "web"))["spec"]["clusterIP"]
        await cluster.settle()
        await cluster.client.delete(ADDRESSES, ip)
        await cluster.settle()
        assert await named(cluster, "web")
        parent = {"group": "", "resource": "services", "namespace": "default", "name": "else"}
        theirs = {"metadata": {"name": "192.0.2.1"}, "spec": {"parentRef": parent}}
        await cluster.client.create(ADDRESSES, theirs)
        await cluster.settle()
        assert await named(cluster, "else")


async def test_an_address_that_goes_from_one_service_to_the_next_names_the_next():
    async with Cluster(nodes=0) as cluster:
        await create(cluster, "a", clusterIP="10.96.7.7")
        await cluster.settle()
        await cluster.client.delete("services", "a", "default")
        await create(cluster, "b", clusterIP="10.96.7.7")
        await cluster.settle()
        assert [len(await named(cluster, name)) for name in ("a", "b")] == [0, 1]
        await cluster.client.patch(
            "services",
            "b",
            {"spec": {"type": "ExternalName", "externalName": "x", "clusterIP": None, "clusterIPs": None}},
            "default",
        )
        await cluster.settle()
        assert not await named(cluster, "b")
