"""Paths that name no resource: what the server tells of itself ("nonResourceURLs" of RBAC).

what is served     discovery (/api, /apis, /version), openapi (/openapi/v2, /openapi/v3)
how it does        health (/healthz, /livez, /readyz), metrics (the counters behind /metrics)
all of it at once  backup (/debug/sampan/backup and restore)
"""
