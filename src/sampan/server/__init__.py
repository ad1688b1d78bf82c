"""The server keeps the truth: HTTP, identity, admission, storage, watches.

a connection       http, incoming (limits), raw (after 101)
a request's way    app, config, route, call, deadline; auth/ (who may what), flowcontrol/ (whose turn it is)
reading            at_once, read, watch, frames, options, selectable, negotiate, objects, convert, conversion, respond
writing            decode, write, pod_templates, patch, delete, recent, validate; admit, admission/, strategies/
below an object    subresources/ (scale, binding, eviction, exec, logs)
beside objects     nonresource/ (discovery, OpenAPI, health, metrics), aggregation/ (of other servers), components
whom it asks       egress/ (webhooks, nodes), lookup (the objects themselves)
what is in it      bootstrap, definitions (custom kinds)
"""
