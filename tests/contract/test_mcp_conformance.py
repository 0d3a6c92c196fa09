"""The protocol's own conformance suite, both released lines, on our server over loopback HTTP.

Of its scenarios those count that any server can meet. The others drive tools, resources and prompts
of an "everything server" by name, or extensions that we do not have; which those are is kept here,
too, so that a new release's new scenarios are noticed.
"""

import asyncio
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from csb_mcp import decode
from csb_mcp.transports.mcp.server import build_server
from tests.contract.fake_service import FakeService

REPOSITORY = Path(__file__).parents[2]
NODE = REPOSITORY / ".venv/bin/node"
MODULES = REPOSITORY / ".venv/npm/node_modules"
OLD = MODULES / "@modelcontextprotocol/conformance/dist/index.js"  # 0.1
NEW = MODULES / "conformance-next/dist/index.js"  # 0.2
Checks = Callable[[Path, str, str], list[dict[str, Any]]]
LEGACY, MODERN = "2025-11-25", "2026-07-28"

BOTH_ERAS = {
    *("completion-complete", "tools-list", "resources-list", "prompts-list"),
    *("server-sse-multiple-streams", "dns-rebinding-protection"),
}
LEGACY_ONLY = {
    *("server-initialize", "logging-set-level", "ping"),
    *("resources-subscribe", "resources-unsubscribe"),
}
NEW_LEGACY = {"server-session-lifecycle"}
MODERN_ONLY = {
    *("server-stateless", "caching", "http-header-validation", "sep-2164-resource-not-found"),
    *(
        f"input-required-result-{what}"
        for what in (
            *("unsupported-methods", "ignore-extra-params"),
            *("validate-input", "missing-input-response"),
        )
    ),
}
RUNS = [
    *((OLD, LEGACY, name) for name in sorted(BOTH_ERAS | LEGACY_ONLY)),
    *((NEW, LEGACY, name) for name in sorted(BOTH_ERAS | LEGACY_ONLY | NEW_LEGACY)),
    *((NEW, MODERN, name) for name in sorted(BOTH_ERAS | MODERN_ONLY)),
]
BASELINE = {  # each of these checks asks for a tool of the "everything server"
    "server-stateless": (
        *("sep-2575-server-rejects-undeclared-capability", "sep-2575-missing-capability-http-400"),
        "sep-2575-server-sends-tools-list-changed-on-subscription",
        "sep-2575-server-sends-prompts-list-changed-on-subscription",
    ),
    # Only warnings: the suite counts these two scenarios as passed.
    "input-required-result-validate-input": ("sep-2322-error-on-protocol-error",),
    "input-required-result-missing-input-response": ("sep-2322-missing-response-rerequests",),
}
OF_THE_EVERYTHING_SERVER = re.compile(
    r"(tools-call|prompts-get|resources-read|elicitation|tasks|sep-2640-skills)-.+"
    r"|resources-templates-read|json-schema-2020-12|server-sse-polling"
    r"|http-custom-header-server-validation"
    r"|input-required-result-(basic-.+|request-state|multi.+|non-tool-request|result-type"
    r"|tampered-state|capability-check)"
)


def run(suite: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if not suite.exists():
        pytest.skip("the conformance suite is not installed: run scripts/setup test")
    return subprocess.run(
        [NODE, suite, *arguments],
        env={"PATH": f"{NODE.parent}:{os.environ['PATH']}", "HOME": str(cwd)},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Our server, with one sandbox, in a thread of its own."""
    service = FakeService()
    asyncio.run(service.create(decode.sandbox_spec({"project_dir": "/p", "name": "web"})))
    app = build_server(service).streamable_http_app()
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def checks(url: str, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """What each scenario of a suite found in an era; each suite runs once."""

    @cache
    def found(suite: Path, era: str) -> dict[str, list[dict[str, Any]]]:
        folder = tmp_path_factory.mktemp("conformance")
        version = ("--spec-version", era) if suite == NEW else ()
        done = run(
            suite, "server", "--url", url, "--suite", "all", *version, "-o", "results", cwd=folder
        )
        assert "=== SUMMARY ===" in done.stdout, done.stdout + done.stderr
        return {
            path.parent.name: json.loads(path.read_text())
            for path in folder.glob("results/*/checks.json")
        }

    def of_scenario(suite: Path, era: str, scenario: str) -> list[dict[str, Any]]:
        named = re.compile(rf"server-{scenario}-\d{{4}}-.*")
        (its,) = [checks for name, checks in found(suite, era).items() if named.fullmatch(name)]
        return its

    return of_scenario


@pytest.mark.parametrize(
    ("suite", "era", "scenario"),
    RUNS,
    ids=[f"{'0.1' if suite == OLD else '0.2'}-{era}-{name}" for suite, era, name in RUNS],
)
def test_scenario(checks: Checks, suite: Path, era: str, scenario: str) -> None:
    its = checks(suite, era, scenario)
    assert any(check["status"] == "SUCCESS" for check in its)
    unmet = [check for check in its if check["status"] in ("FAILURE", "WARNING")]
    allowed = BASELINE.get(scenario, ())
    assert not [check for check in unmet if check["id"] not in allowed]
    assert {check["id"] for check in unmet} == set(allowed), "the baseline is stale"


@pytest.mark.parametrize("suite", [OLD, NEW], ids=["0.1", "0.2"])
def test_no_scenario_is_forgotten(tmp_path: Path, suite: Path) -> None:
    done = run(suite, "list", "--server", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  - (\S+)", done.stdout, flags=re.MULTILINE))
    counted = {name for used, _, name in RUNS if used == suite}
    assert counted <= listed
    for name in listed - counted:
        assert OF_THE_EVERYTHING_SERVER.fullmatch(name), f"{name} is new: does it hold for us?"
