"""The HTTPS API of a node: logs, exec, attach, port-forward, stats; the API server connects here."""
