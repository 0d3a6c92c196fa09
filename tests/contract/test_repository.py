"""What must hold for the repository as a whole."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import csb_mcp

REPOSITORY = Path(__file__).parents[2]
MAX_LINES = 500

# Hosts of package registries and folders of one machine; written so that this file does not match.
FORBIDDEN = re.compile(
    r"(?<![\w.])/wor[k]/|/tm[p]/w/|//de[b]\.debian\.org|//pyp[i]\.org|"
    r"pythonhoste[d]\.org|registr[y]\.npmjs"
)


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, those not committed yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert "version" not in project
    assert metadata.version("csb-mcp") == csb_mcp.__version__
    again = [
        path
        for path in tracked("*.py", "*.sh", "*.nix", "*.toml", "README.md", "docs")
        if f'"{csb_mcp.__version__}"' in path.read_text()
    ]
    assert again == [Path(csb_mcp.__file__)]


def test_the_changelog_begins_with_what_is_new() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", csb_mcp.__version__)


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    found: list[str] = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path}: {match.group()}" for match in FORBIDDEN.finditer(text)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "see /wor" + "k/main/README.md",
        "--index-url https://pyp" + "i.org/simple",
        '"resolved": "https://registr' + 'y.npmjs.org/x.tgz"',
    ],
)
def test_the_search_finds_what_it_should(line: str) -> None:
    assert FORBIDDEN.search(line)


def test_no_module_has_grown_too_long() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in tracked("*.py", "*.sh", "*.nix", ":!tests")
        if (lines := len(path.read_bytes().splitlines())) > MAX_LINES
    }
    assert not long


def test_lock_files_hold_a_hash_for_everything() -> None:
    for path in tracked("requirements/*.txt"):
        if path.name == "apt.txt":
            continue
        entries = re.split(r"\n(?=\S)", path.read_text())
        unlocked = [e for e in entries if "==" in e and "--hash=sha256:" not in e]
        assert not unlocked, path


def test_the_licence_is_whole() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_wheel_holds_the_launchers_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    scripts = sorted((REPOSITORY / "nix/backends").glob("*.sh"))
    assert scripts
    with zipfile.ZipFile(wheel) as archive:
        for script in scripts:
            assert archive.read(f"csb_mcp/_backends/{script.name}") == script.read_bytes()
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {"csb_mcp", f"csb_mcp-{csb_mcp.__version__}.dist-info"}
