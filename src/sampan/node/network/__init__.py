"""Pod network, Services, policy and the fabric between nodes: programmed by raw netlink, no binary needed.

the kernel         netlink, rtnetlink (links, routes), nftables, expressions, namespace; damage, watch (who changed it?), gathering
pods               ipam, pod (cables), hostports, traffic; routes (to pods of other nodes), node
Services           slices, services (pure), ruleset, programming, proxy, controller, conntrack, fulltable, health
NetworkPolicy      policy (pure), verdicts, enforcement
between nodes      fabric, tunnel_table; passage, passage_keeper, obstacles (the host's own firewall)
ordinary users     rootless, gateway and forward (its two sides), splice
"""
