"""The documentation names every setting, command and flag that there is, as it is."""

from __future__ import annotations

import re

import pytest

from tandem.cli.main import VERBS, parser_of
from tandem.config import describe
from tools.gen_docs import DOCS, GENERATED, filled


@pytest.mark.parametrize("page", sorted(GENERATED))
def test_nothing_is_left_to_generate(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert filled(text, page) == text, "run: python tools/gen_docs.py"


def test_every_setting_is_there_with_flag_and_variable() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for setting in describe():
        assert f"### `{setting.name}`" in text
        assert f"`{setting.flag}`" in text
        assert f"`{setting.variable}`" in text


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_command_is_there_with_its_flags(verb: str) -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    [section] = re.findall(rf"^### `tandem {verb}`$(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    settings = {setting.flag for setting in describe()} | {"-h", "--help", "--debug", "--config"}
    for action in parser_of(verb)._actions:
        for flag in set(action.option_strings) - settings:
            assert f"`{flag}" in section, flag


def test_the_commands_of_the_pages_own_examples_exist() -> None:
    for page in GENERATED:
        text = (DOCS / page).read_text(encoding="utf-8")
        for verb in re.findall(r"^    tandem (\w+)", text, re.MULTILINE):
            assert verb in VERBS
