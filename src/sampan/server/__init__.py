"""The server keeps the truth: HTTP, identity, admission, storage, watches.

a connection       http, incoming (limits), raw (after 101); callout, backends (connections of the server's own)
a request's way    app, route, call, deadline; flowcontrol/ (priority and fairness)
who may what       auth/
reading            at_once, read, watch, options, selectable, negotiate, objects, convert, conversion, respond
writing            decode, write, pod_templates, patch, delete, recent, validate, custom, allocators; admission/, strategies/
below an object    subresources/ (scale, binding, eviction, exec, logs); proxy
what it tells      discovery, openapi, health, metrics, usage, components
what is in it      bootstrap, default_roles, definitions (custom kinds), aggregator (other servers), backup, lookup
"""
