"""Which credentials are tried for an image."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tandem.control.pods.pullsecrets import pull_credentials
from tandem.runtimes.capabilities import RegistryCredentials
from tandem.store import Key

POD = {
    "metadata": {"namespace": "lab"},
    "spec": {"imagePullSecrets": [{"name": "one"}, {"name": "two"}]},
}


def secrets(**auths: Any) -> Any:
    """A lookup of Secrets, each with a map of registries."""
    found = {
        Key("secrets", "lab", name): {
            "data": {
                ".dockerconfigjson": base64.b64encode(
                    json.dumps({"auths": registries}).encode()
                ).decode()
            }
        }
        for name, registries in auths.items()
    }
    return found.get


def user(name: str) -> dict[str, str]:
    return {"username": name, "password": "p"}


@pytest.mark.parametrize(
    ("key", "image", "matches"),
    [
        ("registry.example", "registry.example/app:1", True),
        ("https://registry.example/v2/", "registry.example/app:1", True),
        ("registry.example:5000", "registry.example/app:1", False),
        ("registry.example:5000", "registry.example:5000/app:1", True),
        ("registry.example/team", "registry.example/team/app:1", True),
        ("registry.example/team", "registry.example/other/app:1", False),
        ("*.example", "registry.example/app:1", True),
        ("*.example", "a.registry.example/app:1", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("docker.io", "library/busybox", True),
        ("docker.io", "localhost/busybox", False),
    ],
)
def test_a_registry_is_told_by_host_port_and_path(key: str, image: str, matches: bool) -> None:
    found, missing = pull_credentials(POD, image, secrets(one={key: user("me")}, two={}))
    assert found == ([RegistryCredentials("me", "p")] if matches else [])
    assert missing == []


def test_the_most_specific_come_first_and_what_is_missing_is_named() -> None:
    auths = {"r.example": user("all"), "r.example/team": user("team")}
    found, missing = pull_credentials(POD, "r.example/team/app", secrets(one=auths))
    assert [entry.username for entry in found] == ["team", "all"]
    assert missing == ["two"]


def test_every_form_of_credentials() -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    forms: list[tuple[dict[str, str], RegistryCredentials]] = [
        ({"auth": auth}, RegistryCredentials("me", "pass:word")),
        ({"identitytoken": "t"}, RegistryCredentials(identity_token="t")),
        ({"registrytoken": "t"}, RegistryCredentials(registry_token="t")),
    ]
    for entry, expected in forms:
        found, _ = pull_credentials(POD, "r.example/app", secrets(one={"r.example": entry}))
        assert found == [expected]


def test_a_secret_that_is_damaged_counts_as_missing() -> None:
    broken = {Key("secrets", "lab", "one"): {"data": {".dockerconfigjson": "!"}}}
    assert pull_credentials(POD, "busybox", broken.get) == ([], ["one", "two"])
