"""The node does: runs pods, probes them, reports on them, and carries their traffic.

the agent          agent, config, settings (a KubeletConfiguration), hooks, shutdown; pods/, volumes/, network/, dns/, api/
its Node object    registration, machine, heartbeat, certificates, events, statuses
probes             probes, checks, histogram
housekeeping       housekeeping, meter, pressure, disk, qos, imagegc, logrotate, static
runtimes           runtime (what one must do), native/ with images/; simulated, simulated_node
the event loop     descriptors
"""
