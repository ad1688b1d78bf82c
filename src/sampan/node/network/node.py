"""What a node's own namespace needs before pods come: loopback, forwarding, the cluster DNS address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from sampan.node.network import namespace, rtnetlink


def prepare_node(dns_ips: Sequence[str] = (), netns: namespace.Netns | None = None) -> None:
    """Idempotent. `dns_ips` are added to lo with host scope: answered here, never chosen as a source for others."""
    namespace.set_sysctls(
        netns,
        {
            "ipv4/ip_forward": "1",
            "ipv6/conf/all/forwarding": "1",
            "ipv4/conf/all/rp_filter": "0",
            "ipv4/conf/default/rp_filter": "0",
            "ipv4/conf/all/route_localnet": "1",  # connections to 127.0.0.1 lead to pods; see `ruleset`
            "ipv6/conf/default/accept_dad": "0",
        },
    )
    with rtnetlink.connect(netns) as nl:
        nl.run(rtnetlink.set_link(1))
        for address in dns_ips:
            prefix = ipaddress.ip_address(address).max_prefixlen
            nl.run(rtnetlink.add_address(1, f"{address}/{prefix}", rtnetlink.HOST))
