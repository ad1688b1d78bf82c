"""Composition root: wires planks, keys and processes into one cluster.

its life           up, down, config, paths, ports, room, credentials, kubeconfig, doctor
processes          supervisor, supervision (asking it), processes, control_plane, agent, joined_machine, garbage
wired together     planks (server and mind, for every fidelity), effects, connector, debug, dns, own_service
networks           wiring, host_network, node_network, underlay
several machines   join, tokens, cluster_info, places, membership
ordinary users     rootless, delegation, losses
"""
