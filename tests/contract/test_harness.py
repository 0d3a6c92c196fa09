"""The harness keeps its word: a skip in CI, a leak and an orphan each turn a run red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

HEAD = "import os, pytest, subprocess\n\ndef test_it():\n    "


def run(folder: Path, body: str, *, ci: bool) -> subprocess.CompletedProcess[str]:
    """pytest, with our conftest and under our reaper, on one test with this body."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "test_it.py").write_text(HEAD + body + "\n")
    environ = {k: v for k, v in os.environ.items() if k not in ("CI", "CSB_TEST_REAPER")}
    environ["CSB_TEST_GRACE"] = "0.5"
    # Only what our settings name: to load all that is installed takes longer than all the rest.
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
    config = (*plugins, "--rootdir", str(folder), "-c", str(TESTS.parent / "pyproject.toml"))
    return subprocess.run(
        [sys.executable, TESTS / "reaper.py", sys.executable, "-m", "pytest", *config, folder],
        env=environ | {"CI": "true"} if ci else environ,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_good_run_is_green(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", ci=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(("ci", "status"), [(True, 1), (False, 0)])
def test_a_skip_is_red_in_ci_only(tmp_path: Path, ci: bool, status: int) -> None:
    done = run(tmp_path, "pytest.skip('no such tool')", ci=ci)
    assert done.returncode == status, done.stdout
    assert "no such tool" in done.stdout


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("subprocess.Popen(['sleep', '61'])", "sleep 61"),
        ("subprocess.run('setsid -f sleep 62 >/dev/null 2>&1', shell=True)", "sleep 62"),
        ("[os.dup(0) for _ in range(9)]", "descriptors left open"),
    ],
)
def test_what_is_left_behind_is_named(tmp_path: Path, body: str, named: str) -> None:
    done = run(tmp_path, body, ci=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in done.stdout


def test_a_process_that_outlives_pytest_is_ended(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    body = f"subprocess.run('setsid -f sh -c \"echo $$ >{started}; exec sleep 63\"', shell=True)"
    done = run(tmp_path, body, ci=False)
    assert "left behind" in done.stderr
    assert not Path(f"/proc/{started.read_text().strip()}").exists()
