"""The vocabulary of Kubernetes as pure functions on plain JSON values.

kinds              resources (the table), registry, schema, zeros, metrics_schema; defaults/, validate/, table/, cel/
bytes and objects  wire, jsontext, protobuf, fields, complaints (why not), copying, shared_specs
custom resources   custom (defaults and validation by the schema of a definition)
values             meta, names, quantity, duration, re2 (patterns), selectors, status, jsonpath
changes            mergepatch, jsonpatch, strategic, apply, lastapplied, managed and fieldset (who set what)
meanings           placement, pod_resources, qos, quota, warnings
documents          openapi, openapi_paths, openapi_custom, openapi_proto
"""
