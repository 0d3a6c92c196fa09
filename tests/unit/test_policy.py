import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import NETWORKS, Secret, Settings
from csb_mcp.errors import CsbError, Forbidden, InvalidInput
from csb_mcp.model import SandboxSpec
from csb_mcp.service.policy import check_spec, open_project

TOKEN = Secret(host="a.org", variable="TOKEN", environment="TOKEN")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/work/app", "home/.ssh/keys", "state/sandboxes", "run", "etc/csb", "else"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    base = home.parent
    return Settings(
        state_dir=base / "state",
        runtime_dir=base / "run",
        config_file=base / "etc/csb/config.toml",
        project_roots=(home, base / "state", base / "etc"),
    )


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_below_a_root_is_opened(home: Path, settings: Settings) -> None:
    project = open_project(home / "work/app", settings)
    assert project.path == home / "work/app"
    assert os.path.sameopenfile(project.fd, project.fd)
    assert os.fstat(project.fd).st_ino == (home / "work/app").stat().st_ino
    os.close(project.fd)


def test_links_are_resolved_before_the_place_is_judged(home: Path, settings: Settings) -> None:
    (home / "work/link").symlink_to(home / "work/app")
    project = open_project(home / "work/link", settings)
    os.close(project.fd)
    assert project.path == home / "work/app"
    (home / "work/out").symlink_to(home / ".ssh")
    with pytest.raises(Forbidden):
        open_project(home / "work/out", settings)


@pytest.mark.parametrize(
    ("path", "error", "word"),
    [
        ("home", Forbidden, "not below"),
        ("home/.ssh", Forbidden, "dot-folder"),
        ("home/.ssh/keys", Forbidden, "dot-folder"),
        ("else", Forbidden, "not below"),
        ("home/work/../../else", Forbidden, "not below"),
        ("state/sandboxes", Forbidden, "belongs to csb-mcp"),
        ("etc/csb", Forbidden, "belongs to csb-mcp"),
        ("home/missing", InvalidInput, "does not exist"),
        ("home/file", InvalidInput, "not a folder"),
        ("home/loop", InvalidInput, "cannot be opened"),
    ],
)
def test_other_places_are_refused(
    home: Path, settings: Settings, path: str, error: type[CsbError], word: str
) -> None:
    (home / "file").write_text("")
    (home / "loop").symlink_to(home / "loop")
    with pytest.raises(error, match=word) as caught:
        open_project(home.parent / path, settings)
    assert caught.value.field == "project_dir"


def test_a_folder_that_holds_ours_is_refused(home: Path, settings: Settings) -> None:
    settings = Settings(
        state_dir=home / "work/app/deep/state",
        runtime_dir=settings.runtime_dir,
        config_file=settings.config_file,
        project_roots=(home,),
    )
    with pytest.raises(Forbidden, match="holds, or lies in"):
        open_project(home / "work/app", settings)


def test_a_relative_path_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="absolute"):
        open_project(Path("work"), settings)


def test_the_home_itself_is_refused_even_below_a_root(home: Path, settings: Settings) -> None:
    settings = Settings(
        state_dir=settings.state_dir,
        runtime_dir=settings.runtime_dir,
        config_file=settings.config_file,
        project_roots=(home.parent.parent,),
    )
    for path in (home, home.parent):
        with pytest.raises(Forbidden, match="home"):
            open_project(path, settings)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"backend": "docker"}, "backend"),
        ({"agent": "claude"}, "agent"),
        ({"agent": "command"}, "command"),
        ({"command": ("ls",)}, "command"),
        ({"workspace": "overlay"}, "workspace"),
        ({"network": "wifi"}, "network"),
        ({"network": "host"}, "network"),  # max_network is full, as it is unless set
        ({"allow_hosts": ("a.org",)}, "allow_hosts"),
        ({"network": "full", "allow_hosts": ("a.org",)}, "allow_hosts"),
        ({"network": "full", "secrets": ("token",)}, "secrets"),
        ({"network": "allowlist", "secrets": ("other",)}, "secrets"),
        ({"forward": ("git",)}, "forward"),
    ],
)
def test_what_is_not_there_is_refused_by_field(
    settings: Settings, spec: dict[str, object], field: str
) -> None:
    settings = replace(settings, secrets={"token": TOKEN}, forward=("gh",))
    with pytest.raises(CsbError) as caught:
        check_spec(SandboxSpec(project_dir=Path("/p"), **spec), settings, ("bubblewrap",))  # pyright: ignore[reportArgumentType]
    assert caught.value.field == field


@pytest.mark.parametrize(
    "spec",
    [
        {"network": "none"},
        {"network": "allowlist", "allow_hosts": ("a.org", "github"), "secrets": ("token",)},
        {"network": "full", "forward": ("gh",), "secrets": ("open",)},
        {"network": "host"},
    ],
)
def test_what_the_settings_allow_passes_and_a_narrower_bound_holds(
    settings: Settings, spec: dict[str, Any]
) -> None:
    secrets = {"token": TOKEN, "open": replace(TOKEN, inside=True)}
    wide = replace(settings, max_network="host", secrets=secrets, forward=("gh",))
    asked = SandboxSpec(project_dir=Path("/p"), **spec)
    check_spec(asked, wide, ("bubblewrap",))
    if spec["network"] != "none":
        narrow = NETWORKS[NETWORKS.index(spec["network"]) - 1]
        with pytest.raises(Forbidden, match="at most"):
            check_spec(asked, replace(wide, max_network=narrow), ("bubblewrap",))
