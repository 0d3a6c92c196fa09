"""``csb-mcp doctor``: what keeps this host from making sandboxes, and what repairs it."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from csb_mcp import __version__, bridge
from csb_mcp.config import Settings, load_settings
from csb_mcp.errors import CsbError
from csb_mcp.host.checks import Check, Outcome, examine
from csb_mcp.host.distribution import here
from csb_mcp.host.gates import NAMESPACES
from csb_mcp.model import Problem
from csb_mcp.places import holder, prepare, try_lock

_WELL, _NOT_YET = "Sandboxes can be made.", "Sandboxes cannot be made yet."


@dataclass(frozen=True, slots=True)
class _Report:
    """What was found. ``daemon``: whether one runs, in words; ``pid`` 0: none does."""

    settings: Settings
    daemon: str
    pid: int
    checks: Sequence[Check]
    problems: Sequence[Problem]

    @property
    def well(self) -> bool:
        """Whether sandboxes can be made."""
        return not any(problem.fatal for problem in self.problems)


def doctor(flags: Mapping[str, str], *, as_json: bool = False) -> tuple[str, bool]:
    """A report to read, and whether sandboxes can be made. Raises InvalidInput (settings)."""
    report = _examine(load_settings(flags))
    return (_as_json(report) if as_json else _as_text(report)), report.well


def _examine(settings: Settings) -> _Report:
    try:
        daemon, pid, asked = _pieces(settings)
    except CsbError as error:
        daemon, pid, asked = "not known", 0, [_as_problem(error)]
    checks = [_tried(check, asked) for check in examine(settings)]
    known = {problem.what for problem in asked}
    around = [problem for check in checks if (problem := check.problem())]
    problems = [*asked, *(problem for problem in around if problem.what not in known)]
    problems.sort(key=lambda problem: not problem.fatal)
    return _Report(settings, daemon, pid, checks, problems)


def _tried(check: Check, asked: Sequence[Problem]) -> Check:
    """A closed gate is none where bwrap came through it."""
    if check.what != NAMESPACES or check.outcome is not Outcome.WEAK or any(p.fatal for p in asked):
        return check
    return Check(check.what, Outcome.OK, f"{check.detail}; bwrap passes all the same")


def _pieces(settings: Settings) -> tuple[str, int, Sequence[Problem]]:
    """Ask the daemon that runs, for it is what makes sandboxes; else look ourselves."""
    prepare(settings)
    lock = try_lock(settings.lock_file)
    if lock is None:
        pid = holder(settings.lock_file)
        return f"runs, pid {pid}", int(pid) if pid.isdigit() else 0, _ask(settings)
    try:
        return "does not run; csb-mcp starts it when needed", 0, asyncio.run(_look(settings))
    finally:
        os.close(lock)


def _ask(settings: Settings) -> Sequence[Problem]:
    connection = bridge.call(str(settings.mcp_socket), {"version": __version__, "doctor": True})
    if connection is None:
        return [
            Problem(
                "daemon",
                f"it runs, but nobody listens at {settings.mcp_socket}",
                "it may be just starting or ending; if it lasts: "
                f"kill {holder(settings.lock_file)}",
            )
        ]
    connection.stream.close()
    problems = cast("list[dict[str, Any]]", connection.answer["problems"])
    return [Problem(**values) for values in problems]


async def _look(settings: Settings) -> Sequence[Problem]:
    from csb_mcp.app import build  # noqa: PLC0415 the one import that knows every piece

    app = await build(settings)
    try:
        return app.service.problems()
    finally:
        await app.close()


def _as_problem(error: CsbError) -> Problem:
    return Problem(error.field or error.code, error.message, error.hint or "see above")


def _as_json(report: _Report) -> str:
    settings = report.settings
    return json.dumps(
        {
            "version": __version__,
            "uid": os.geteuid(),
            "distribution": here().name,
            "settings": {
                "config_file": str(settings.config_file),
                "state_dir": str(settings.state_dir),
                "runtime_dir": str(settings.runtime_dir),
                "project_roots": [str(root) for root in settings.project_roots],
            },
            "daemon": {"running": bool(report.pid), "pid": report.pid or None},
            "checks": [asdict(check) for check in report.checks],
            "problems": [asdict(problem) for problem in report.problems],
            "sandboxes_can_be_made": report.well,
        },
        indent=2,
    )


def _as_text(report: _Report) -> str:
    settings = report.settings
    lines = [
        f"csb-mcp {__version__}, uid {os.geteuid()}, {here().name}",
        f"settings  {settings.config_file}" + ("" if settings.config_file.exists() else " (none)"),
        f"state     {settings.state_dir}",
        f"runtime   {settings.runtime_dir}",
        f"projects  below {', '.join(map(str, settings.project_roots))}",
        f"daemon    {report.daemon}",
        "",
        *_rows(report.checks),
        *_told(report.problems),
        "",
        _WELL if report.well else _NOT_YET,
    ]
    return "\n".join(lines)


def _rows(checks: Sequence[Check]) -> Iterator[str]:
    """A line for what is well, and for what is not needed yet."""
    shown = [check for check in checks if check.outcome in (Outcome.OK, Outcome.LATER)]
    width = max((len(check.what) for check in shown), default=0)
    for check in sorted(shown, key=lambda check: check.outcome is Outcome.LATER):
        more = f"; {check.repair}" if check.repair else ""
        yield f"{check.outcome:<6}{check.what:<{width}}  {check.detail}{more}"


def _told(problems: Sequence[Problem]) -> Iterator[str]:
    for problem in problems:
        agent = problem.what.startswith("agent ")  # one that is not here weakens nothing
        mark = "*" if problem.fatal else "-" if agent else "- weaker than it could be:"
        yield from ("", f"{mark} {problem.what}: {problem.why}", f"  repair: {problem.repair}")
