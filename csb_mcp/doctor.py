"""``csb-mcp doctor``: what keeps this host from making sandboxes, and what repairs it."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from csb_mcp import __version__, bridge
from csb_mcp.config import Settings, load_settings
from csb_mcp.errors import CsbError
from csb_mcp.model import Problem
from csb_mcp.places import holder, prepare, try_lock


def doctor(flags: Mapping[str, str]) -> tuple[str, bool]:
    """A report to read, and whether sandboxes can be made. Raises InvalidInput (settings)."""
    settings = load_settings(flags)
    lines = [
        f"csb-mcp {__version__}, uid {os.geteuid()}",
        f"settings  {settings.config_file}" + ("" if settings.config_file.exists() else " (none)"),
        f"state     {settings.state_dir}",
        f"runtime   {settings.runtime_dir}",
        f"projects  below {', '.join(map(str, settings.project_roots))}",
    ]
    try:
        daemon, problems = _examine(settings)
    except CsbError as error:
        daemon, problems = "not known", [_as_problem(error)]
    lines.append(f"daemon    {daemon}")
    for problem in problems:
        lines += ["", f"* {problem.what}: {problem.why}", f"  repair: {problem.repair}"]
    lines += ["", "Sandboxes can be made." if not problems else "Sandboxes cannot be made yet."]
    return "\n".join(lines), not problems


def _examine(settings: Settings) -> tuple[str, Sequence[Problem]]:
    """Ask the daemon that runs, for it is what makes sandboxes; else look ourselves."""
    prepare(settings)
    lock = try_lock(settings.lock_file)
    if lock is None:
        return f"runs, pid {holder(settings.lock_file)}", _ask(settings)
    try:
        return "does not run; csb-mcp stdio starts it", asyncio.run(_look(settings))
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
