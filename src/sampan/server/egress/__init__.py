"""Connections that the server itself opens.

webhooks           callout (one HTTPS POST), backends (which address stands behind a Service)
agents of nodes    nodes
"""
