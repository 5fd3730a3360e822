"""The layers: that they hold, and that no part of Tandem stands outside of them."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from tests.world import ROOT

PACKAGE = ROOT / "src" / "tandem"

# Bound to nothing: the library's surface, the program's start, and what joins layers together.
OUTSIDE = {"__init__", "__main__", "adapters", "instance", "statusz"}


def test_every_layer_imports_only_those_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_has_its_layer() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    layers = contracts["importlinter:contract:layers"]["layers"].replace("|", " ").split()
    known = {layer.strip("()").removeprefix("tandem.") for layer in layers}
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - known - OUTSIDE - {"__pycache__"} == set()
