"""The files of pods: volumes, and what kubelet puts into every container (hosts, hostname, resolv.conf)."""
