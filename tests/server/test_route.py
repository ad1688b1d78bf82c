"""What a path means."""

import pytest

from sampan.server.route import parse


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces/d/pods/p", "", ("get", "", "pods", "", "d", "p")),
        ("GET", "/api/v1/namespaces/d/pods/p/log", "", ("get", "", "pods", "log", "d", "p")),
        ("GET", "/apis/apps/v1/deployments", "", ("list", "apps", "deployments", "", "", "")),
        ("GET", "/apis/apps/v1/deployments", "watch=true", ("watch", "apps", "deployments", "", "", "")),
        ("GET", "/apis/apps/v1/deployments", "watch=0", ("list", "apps", "deployments", "", "", "")),
        ("GET", "/api/v1/namespaces/d/pods/p", "watch=1", ("get", "", "pods", "", "d", "p")),
        ("GET", "/api/v1/watch/namespaces/d/pods", "", ("watch", "", "pods", "", "d", "")),
        ("DELETE", "/api/v1/namespaces/d/pods", "", ("deletecollection", "", "pods", "", "d", "")),
        ("GET", "/api/v1/namespaces/d", "", ("get", "", "namespaces", "", "d", "d")),
        ("PUT", "/api/v1/namespaces/d/finalize", "", ("update", "", "namespaces", "finalize", "d", "d")),
        ("GET", "/api/v1/nodes/n/proxy/a/b", "", ("get", "", "nodes", "proxy", "", "n")),
        ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3Da", ("list", "", "pods", "", "", "a")),
        ("GET", "/api/v1/pods", "fieldSelector=metadata.name!%3Da", ("list", "", "pods", "", "", "")),
    ],
)
def test_a_path_names_a_resource(method, path, query, expected):
    info = parse(method, path, query)
    assert info.is_resource
    assert (info.verb, info.group, info.resource, info.subresource, info.namespace, info.name) == expected


@pytest.mark.parametrize("path", ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz"])
def test_other_paths_are_known_by_method_and_path_alone(path):
    info = parse("GET", path, "")
    assert (info.is_resource, info.verb, info.path) == (False, "get", path)


def test_what_follows_proxy_is_passed_on_with_its_slashes():
    assert parse("GET", "/api/v1/nodes/n/proxy/a/b/", "").tail == "/a/b/"
    assert parse("GET", "/api/v1/nodes/n/proxy", "").tail == ""
