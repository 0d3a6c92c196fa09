"""Presets: hosts by a name, those of package indexes as this host is set up for them."""

import importlib.util
from pathlib import Path

import pytest

from csb_mcp.lib import indexes
from csb_mcp.lib.hosts import normal_pattern
from csb_mcp.model import PRESETS, resolved


def test_each_preset_has_hosts_in_their_one_spelling() -> None:
    for name in PRESETS:
        assert "." not in name
        assert [normal_pattern(host) for host in PRESETS[name]] == list(PRESETS[name])
    assert PRESETS["pip"]  # the checks run in an environment that has pip


def test_presets_are_resolved_once_each_and_in_order() -> None:
    found = resolved(("a.example", "gitlab", "a.example", "gitlab.com"))
    assert found == ("a.example", "gitlab.com")
    assert "nothing" not in PRESETS


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose files are all below one folder."""

    def text(path: str | Path) -> str:
        return read(tmp_path, str(path))

    monkeypatch.setattr(indexes, "_text", text)
    return tmp_path


def read(root: Path, path: str) -> str:
    name = root / path.removeprefix("~").strip("/")
    return name.read_text() if name.is_file() else ""


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_pip_as_it_is_configured_and_as_it_comes(host: Path) -> None:
    put(host, "etc/pip.conf", "[global]\nextra-index-url = https://more.example/simple file:///x\n")
    found = importlib.util.find_spec("pip")
    assert found
    assert found.origin
    own = str(Path(found.origin).parent).strip("/")
    source = 'PyPI = PackageIndex("https://own.example/", file_storage_domain="files.example")\n'
    put(host, f"{own}/_internal/models/index.py", source)
    assert indexes.pip_hosts() == ("own.example", "files.example", "more.example")
    put(host, ".config/pip/pip.conf", "[global]\nindex-url = http://mirror.example:8080/simple\n")
    assert indexes.pip_hosts() == ("more.example", "mirror.example:8080")
    put(host, "etc/pip.conf", "no section\n")
    put(host, ".config/pip/pip.conf", "[global]\nindex-url = http://127.0.0.1/simple\n")
    assert indexes.pip_hosts() == ()


def test_npm_as_it_is_configured_and_as_it_comes(host: Path) -> None:
    assert indexes.npm_hosts() == ()
    define = "registry: new Definition('registry', {\n    default: 'https://own.example/',\n"
    place = "usr/lib/node_modules/npm/node_modules/@npmcli/config/lib/definitions/definitions.js"
    put(host, place, define)
    assert indexes.npm_hosts() == ("own.example",)
    put(
        host,
        ".npmrc",
        "//x/:_authToken=1\nregistry=https://r.example/\n@me:registry = http://m.example\n",
    )
    assert indexes.npm_hosts() == ("r.example", "m.example")


def test_apt_by_both_forms_of_its_sources(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Path("/etc/apt/sources.list.d/a.sources")]

    def listed(_: Path, kind: str) -> list[Path]:
        return names if kind == "*.sources" else []

    monkeypatch.setattr(Path, "glob", listed)
    put(
        host,
        "etc/apt/sources.list",
        "deb [arch=amd64] http://d.example/debian x main # http://no.example\n",
    )
    put(
        host,
        "etc/apt/sources.list.d/a.sources",
        "Types: deb\nURIs: https://e.example/ http://d.example/s\n",
    )
    assert indexes.apt_hosts() == ("d.example", "e.example")
