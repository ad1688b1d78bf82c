"""Whom the server itself asks: other API servers, webhooks, the agents of nodes.

other servers      aggregator (group versions that an APIService gives to a Service)
webhooks           callout (one HTTPS POST), backends (which address stands behind a Service)
nodes              nodes (how their agents are reached), usage (metrics.k8s.io, asked of them)
"""
