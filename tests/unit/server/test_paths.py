"""Which resource a path names."""

from __future__ import annotations

import pytest

from tandem.server.paths import Target, parse, split


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/a", Target("", "v1", "namespaces", "", "a")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "namespaces", "", "a", "status")),
        ("/api/v1/namespaces/a/pods", Target("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/", Target("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/b", Target("", "v1", "pods", "a", "b")),
        ("/api/v1/namespaces/a/pods/b/log", Target("", "v1", "pods", "a", "b", "log")),
        (
            "/apis/kubevirt.io/v1/namespaces/a/virtualmachines/b/status",
            Target("kubevirt.io", "v1", "virtualmachines", "a", "b", "status"),
        ),
        (
            "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachines/b/portforward/80/tcp",
            Target(
                "subresources.kubevirt.io",
                "v1",
                "virtualmachines",
                "a",
                "b",
                "portforward",
                ("80", "tcp"),
            ),
        ),
        ("/api/v1/watch/pods", Target("", "v1", "pods", watch=True)),
        (
            "/api/v1/watch/namespaces/a/pods/b",
            Target("", "v1", "pods", "a", "b", watch=True),
        ),
        ("/api/v1/namespaces/a%2Fb/pods/c%2Fd", Target("", "v1", "pods", "a/b", "c/d")),
    ],
)
def test_a_path_below_a_version_names_a_resource(path: str, target: Target) -> None:
    assert parse(split(path)) == target


@pytest.mark.parametrize(
    "path", ["/", "", "/api", "/apis", "/api/v1", "/apis/g/v1", "/version", "/api/v1//pods"]
)
def test_other_paths_name_none(path: str) -> None:
    assert parse(split(path)) is None
