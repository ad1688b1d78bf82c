from sampan.testing import Cluster


async def addresses(cluster):
    endpoints = await cluster.client.get("endpoints", "kube-dns", "kube-system")
    return [a["nodeName"] for s in endpoints.get("subsets") or () for a in s["addresses"]]


async def test_ready_nodes_stand_behind_kube_dns():
    async with Cluster(nodes=2, dns_on_nodes=True) as cluster:
        assert await addresses(cluster) == ["node-1", "node-2"]
        slices = await cluster.client.list(
            "endpointslices.discovery.k8s.io", "kube-system", labels="kubernetes.io/service-name=kube-dns"
        )
        [found] = slices["items"]
        assert {p["port"] for p in found["ports"]} == {53} and len(found["endpoints"]) == 2
        await cluster.nodes["node-2"].stop()
        await cluster.advance(60)
        assert await addresses(cluster) == ["node-1"]
