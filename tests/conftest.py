"""What every test may ask for: the real runtimes, the images in them, kubectl, a daemon.

A test that takes one of these is marked for it and must leave the runtimes as it found them, which is
checked, so that no two of them may run at once (see ``scripts/test``).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import world
from tests.daemon import Daemon

# looptime asks for the current event loop in tests that have none. With none set, asyncio makes one,
# which nobody closes once the code under test calls asyncio.run(); told so, it makes none.
asyncio.set_event_loop(None)

# The same code gets the same verdict, on a busy machine too: an example may take as long as it takes.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

_MARK_OF_FIXTURE = {
    "containerd": "containerd",
    "libvirt_uri": "libvirt",
    "kubectl": "kubectl",
    "daemon": "kubectl",
    "make_daemon": "kubectl",
}
_REAL = set(_MARK_OF_FIXTURE.values())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs the real runtimes."""
    for fixture in getattr(item, "fixturenames", ()):
        if mark := _MARK_OF_FIXTURE.get(fixture):
            item.add_marker(mark)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test on the real runtimes leaves no trace in them."""
    if not _REAL & {mark.name for mark in request.node.iter_markers()}:
        yield
        return
    world.require()
    before = world.leftovers()
    yield
    assert not (left := world.settled(before)), f"the test left {sorted(left)}"


@pytest.fixture(scope="session")
def containerd() -> str:
    """The endpoint of a real containerd that can pull the test images."""
    return world.containerd()


@pytest.fixture(scope="session")
def libvirt_uri() -> str:
    """The URI of a real libvirtd."""
    return world.libvirt()


@pytest.fixture(scope="session")
def registry() -> str:
    """The host and port of the registry, as image names have it."""
    return world.registry()


@pytest.fixture(scope="session")
def kubectls() -> dict[str, Path]:
    """The kubectl that is current, and the one that Debian 12 has."""
    return {version: world.kubectl(version) for version in world.KUBECTL_VERSIONS}


@pytest.fixture(params=world.KUBECTL_VERSIONS)
def kubectl(request: pytest.FixtureRequest) -> Path:
    """Each kubectl in turn."""
    return world.kubectl(request.param)


@pytest.fixture
def make_daemon(nothing_left: None) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons on the real runtimes that end with the test. Takes settings by name."""
    endpoint, uri = world.containerd(), world.libvirt()
    made: list[Daemon] = []

    def make(**settings: str) -> Daemon:
        daemon = Daemon(**({"container_endpoint": endpoint, "libvirt_uri": uri} | settings))
        made.append(daemon)
        daemon.start()
        return daemon

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    """The daemon that most tests share, each in a namespace of its own."""
    daemon = Daemon(container_endpoint=world.containerd(), libvirt_uri=world.libvirt())
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture
def daemon(shared_daemon: Daemon, nothing_left: None) -> Daemon:
    """A running daemon on the real runtimes. A test that ends it, or changes it for others, makes
    one of its own by ``make_daemon``."""
    return shared_daemon


@pytest.fixture
def namespace(daemon: Daemon) -> Iterator[str]:
    """A namespace of the test's own; what is left in it afterwards is deleted."""
    name = f"test-{secrets.token_hex(4)}"
    daemon.kubectl("create", "namespace", name)
    yield name
    kinds = "virtualmachines,virtualmachineinstances,pods"
    daemon.kubectl("delete", kinds, "--all", "--namespace", name, "--grace-period=0", "--force")
    daemon.kubectl("delete", "namespace", name)
