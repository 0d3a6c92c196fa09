import os
from pathlib import Path

import pytest

from csb_mcp.config import SETTINGS, Settings, load_settings
from csb_mcp.errors import InvalidInput


def settings(tmp_path: Path, text: str = "", **env: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load_settings({"config": str(file)}, {"HOME": str(tmp_path), **env})


def test_defaults_are_below_the_users_own_folders(tmp_path: Path) -> None:
    found = settings(tmp_path, XDG_RUNTIME_DIR="/run/user/7")
    assert found.project_roots == (tmp_path,)
    if os.getuid() == 0:
        assert found.state_dir == Path("/var/lib/csb-mcp")
        assert found.runtime_dir == Path("/run/csb-mcp")
    else:
        assert found.state_dir == tmp_path / ".local/state/csb-mcp"
        assert found.runtime_dir == Path("/run/user/7/csb-mcp")


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    text = 'create_timeout = "7s"\nstop_timeout = 1\nidle_exit = 5'
    file = tmp_path / "c.toml"
    file.write_text(text)
    env = {"CSB_MCP_CONFIG": str(file), "CSB_MCP_CREATE_TIMEOUT": "8", "CSB_MCP_STOP_TIMEOUT": "2s"}
    found = load_settings({"create_timeout": "9"}, env)
    assert (found.create_timeout, found.stop_timeout, found.idle_exit) == (9, 2, 5)


def test_lists_are_lists_in_the_file_and_colons_elsewhere(tmp_path: Path) -> None:
    assert settings(tmp_path, 'project_roots = ["/a", "/b"]').project_roots == (
        Path("/a"),
        Path("/b"),
    )
    found = settings(tmp_path, CSB_MCP_PROJECT_ROOTS="/c:/d")
    assert found.project_roots == (Path("/c"), Path("/d"))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("colour = 1", "colour"),
        ('state_dir = "relative"', "state_dir"),
        ("create_timeout = 0", "create_timeout"),
        ('max_network = "wifi"', "max_network"),
        ("project_roots = []", "project_roots"),
        ("project_roots = [1]", "project_roots"),
        ("uid_base = -4", "uid_base"),
        ("uid_base = 'x'", "uid_base"),
        ("run_as = 3", "run_as"),
        ("= 3", "config"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        settings(tmp_path, text)
    assert field in (caught.value.field or "")
    assert str(tmp_path) in str(caught.value)


def test_a_secret_is_put_in_by_the_proxy_unless_it_is_wanted_inside(tmp_path: Path) -> None:
    table = 'host = "a.example"\nvariable = "V"\nenvironment = "E"\n'
    file = tmp_path / "config.toml"
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for more, inside in (("", False), ("inside = false", False), ("inside = true", True)):
        file.write_text(f"[secrets.s]\n{table}{more}\n")
        assert load_settings({"config": str(file)}, env).secrets["s"].inside is inside
    file.write_text(f'[secrets.s]\n{table}inside = "no"\n')
    with pytest.raises(InvalidInput, match="true or false"):
        load_settings({"config": str(file)}, env)


def test_a_missing_file_is_an_error_only_if_it_was_named(tmp_path: Path) -> None:
    assert load_settings({}, {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    with pytest.raises(InvalidInput, match="is not a file"):
        load_settings({"config": str(tmp_path / "none.toml")}, {})


def test_an_unknown_variable_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        settings(tmp_path, CSB_MCP_STATEDIR="/x")
    assert "state_dir" in caught.value.choices


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    assert set(SETTINGS) == set(Settings.__dataclass_fields__) - {"config_file"}
