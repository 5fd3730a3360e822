"""Images from a registry that asks who is there, over plain http."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

USER, PASSWORD = "robot", "s3cret"


class Guarded(BaseHTTPRequestHandler):
    """The test images' registry, for those who can say the password."""

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", 5000, timeout=30)
        accept = {"Accept": self.headers.get("Accept", "*/*")}
        upstream.request(self.command, self.path, headers=accept)
        answer = upstream.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type", "Docker-Content-Digest", "Content-Length"):
            if value := answer.headers.get(name):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        upstream.close()

    do_HEAD = do_GET  # noqa: N815 (the name that http.server looks for)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def guarded() -> Iterator[str]:
    """The address of the guarded registry."""
    world.registry()
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


def pod(name: str, image: str, *secrets: str) -> str:
    container = {"name": "main", "image": image, "imagePullPolicy": "Always"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "imagePullSecrets": [{"name": secret} for secret in secrets],
                "containers": [{**container, "command": ["sleep", "600"]}],
            },
        }
    )


def test_a_pull_secret_opens_a_private_registry_and_nothing_else_does(
    daemon: Daemon, namespace: str, guarded: str
) -> None:
    def k(*words: str, stdin: str = "") -> str:
        return daemon.kubectl("--namespace", namespace, *words, stdin=stdin).stdout

    image = world.BUSYBOX.replace(world.REGISTRY, guarded)
    docker = ("--docker-server", guarded, "--docker-username", USER, "--docker-password")
    k("create", "secret", "docker-registry", "right", *docker, PASSWORD)
    k("create", "secret", "docker-registry", "wrong", *docker, "guess")

    for name, *secrets in (("nobody",), ("stranger", "wrong"), ("guest", "wrong", "right")):
        k("apply", "-f", "-", stdin=pod(name, image, *secrets))
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/guest")
    daemon.eventually(lambda: k("get", "pods").count("ImagePull") == 2)
    for name in ("nobody", "stranger"):
        assert "401 Unauthorized" in k("describe", "pod", name)
    assert f'Successfully pulled image "{image}"' in k("describe", "pod", "guest")

    # What is missing may come: the Pod is served once its secret says the right word.
    fixed = daemon.kubectl(
        *("--namespace", namespace, "create", "secret", "docker-registry", "wrong", *docker),
        *(PASSWORD, "--dry-run=client", "-o", "yaml"),
    ).stdout
    k("apply", "-f", "-", stdin=fixed)
    k("wait", "--for=condition=Ready", "--timeout=90s", "pod/stranger")
    k("delete", "pods", "--all")
