"""Where a setting's value comes from, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem import config
from tandem.config import InvalidSetting, Settings, describe, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("listen_port: 1000\nowner: file\nlog_level: debug\n")
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default(
    file: Path,
) -> None:
    environ = {"TANDEM_LISTEN_PORT": "2000", "TANDEM_OWNER": "environment"}
    settings = load({"listen_port": "3000"}, environ=environ, file=file)
    assert settings.listen_port == 3000
    assert settings.owner == "environment"
    assert settings.log_level == "debug"
    assert settings.data_dir == Path("/var/lib/tandem")


def test_the_file_may_be_named_by_the_environment(file: Path) -> None:
    assert load(environ={"TANDEM_CONFIG": str(file)}).owner == "file"


def test_the_default_file_need_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.yaml")
    assert load(environ={}) == Settings()


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"none\.yaml: no such file"):
        load(environ={}, file=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("data_dir", "/somewhere", Path("/somewhere")),
        ("listen_port", "0", 0),
        ("server_names", "a.example, b.example", ("a.example", "b.example")),
        ("registry_mirrors", "docker.io=http://m:1,quay.io=https://q", {"docker.io": "http://m:1", "quay.io": "https://q"}),
        ("runtime_timeout", "1.5", 1.5),
        ("emulation", "always", "always"),
        ("container_log_max_size", "2Gi", 2 << 30),
        ("container_log_max_size", "20000", 20000),
        ("container_log_max_files", "2", 2),
        ("sandbox_image", "", ""),
    ],
)  # fmt: skip
def test_a_flag_is_text_and_becomes_the_settings_type(name: str, given: str, value: object) -> None:
    assert getattr(load({name: given}, environ={}), name) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("server_names: [a, b]", ("a", "b")),
        ("registry_mirrors: {docker.io: 'http://m'}", {"docker.io": "http://m"}),
        ("runtime_timeout: 3", 3.0),
        ("container_log_max_size: 1Mi", 1 << 20),
        ("container_log_max_files: 7", 7),
    ],
)
def test_the_file_may_use_yamls_own_types(tmp_path: Path, written: str, value: object) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(written)
    assert getattr(load(environ={}, file=path), written.partition(":")[0]) == value


@pytest.mark.parametrize(
    ("name", "bad", "rule"),
    [
        ("listen_port", "70000", "must be a whole number from 0 to 65535"),
        ("listen_port", "http", "must be a whole number"),
        ("listen_port", True, "must be a whole number"),
        ("data_dir", "relative", "must be an absolute path"),
        ("emulation", "yes", "must be one of auto, always, never"),
        ("owner", "", "must be a non-empty string"),
        ("owner", 5, "must be a non-empty string"),
        ("runtime_timeout", "0", "must be a positive number of seconds"),
        ("runtime_timeout", "nan", "must be a positive number of seconds"),
        ("container_log_max_size", "1Ki", "must be a number of bytes of at least 16Ki"),
        ("container_log_max_size", "10MB", "must be a number of bytes"),
        ("container_log_max_size", "-5", "must be a number of bytes"),
        ("container_log_max_files", "1", "must be a whole number of at least 2"),
        ("container_log_max_files", True, "must be a whole number of at least 2"),
        ("server_names", "a,,b", "must be a list of non-empty strings"),
        ("registry_mirrors", "docker.io", "must map registry hosts"),
        ("registry_mirrors", ["docker.io"], "must map registry hosts"),
    ],
)
def test_a_bad_value_is_refused_naming_key_value_and_rule(name: str, bad: Any, rule: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load({name: bad}, environ={})
    assert f"flag --{name.replace('_', '-')}: {name} is {bad!r}: {rule}" in caught.value.message
    assert caught.value.causes[0].field == name


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("listen_prot: 1\n")
    with pytest.raises(InvalidSetting, match=r"unknown setting 'listen_prot'.*'listen_port'"):
        load(environ={}, file=path)


def test_a_mistyped_variable_is_refused_and_a_foreign_one_is_not() -> None:
    assert load(environ={"TANDEM_SERVICE_HOST": "10.0.0.1", "TANDEM_DEBUG": "1"}) == load(
        environ={}
    )
    with pytest.raises(InvalidSetting, match=r"TANDEM_LISTEN_PROT.*'listen_port'"):
        load(environ={"TANDEM_LISTEN_PROT": "1"})


@pytest.mark.parametrize("content", ["- a\n", "just words", "a: [", "\x00"])
def test_a_file_of_another_shape_is_refused_by_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(InvalidSetting, match=r"c\.yaml"):
        load(environ={}, file=path)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# nothing yet\n")
    assert load(environ={}, file=path) == Settings()


def test_every_setting_is_documented_and_its_default_keeps_its_own_rule() -> None:
    for setting in describe():
        assert setting.doc.endswith("."), setting.name
        assert setting.rule(setting.default) == setting.default, setting.name
