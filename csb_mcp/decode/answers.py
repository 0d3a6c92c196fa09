"""Answers of calls as plain JSON values, the same for every face that a program reads.

What a sandbox printed, named or drew comes without escapes and control characters.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from csb_mcp.decode.conditions import condition_kind
from csb_mcp.decode.records import HOST, timestamp
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import (
    BackgroundCommand,
    CommandResult,
    Condition,
    Connection,
    Egress,
    EgressRequest,
    Event,
    KeysSent,
    Metrics,
    Problem,
    Sample,
    TerminalView,
    TriedHost,
    Verification,
    WaitResult,
)

_EVIDENCE = 500  # characters
_WORDS = 200  # characters: why a connection failed, which program asked
_DETAIL = 2000
_PATH = 4096  # characters, as PATH_MAX

Json = dict[str, Any]


def rows(view: TerminalView) -> list[tuple[int, str]]:
    """Numbered rows, each made safe and without line breaks of its own."""
    return [(number, plain_text(text).replace("\n", " ")) for number, text in view.rows]


def terminal_view(view: TerminalView) -> Json:
    """Rows as ``[number, text]``."""
    return {
        "rows": [list(row) for row in rows(view)],
        "cursor": view.cursor,
        "changed_only": view.changed_only,
        "gap": view.gap,
        "cut": view.cut,
    }


def keys_sent(sent: KeysSent) -> Json:
    """What send_keys gives."""
    return {"sent": list(sent.sent), "cursor": sent.cursor}


def command(result: CommandResult | BackgroundCommand) -> Json:
    """What run_command gives: how it ended, or where its output goes."""
    if isinstance(result, BackgroundCommand):
        return {
            "pid": result.pid,
            "stdout_path": one_line(result.stdout_path, _PATH),
            "stderr_path": one_line(result.stderr_path, _PATH),
        }
    return {
        "exit_code": result.exit_code,
        "stdout": plain_text(result.stdout),
        "stderr": plain_text(result.stderr),
        "truncated": result.truncated,
        "timed_out": result.timed_out,
    }


def waited(result: WaitResult, until: Sequence[Condition]) -> Json:
    """What wait gives; ``until`` are the conditions that were asked for."""
    return {
        "satisfied": result.satisfied,
        "matches": [
            {
                "sandbox": match.sandbox,
                "index": match.index,
                "condition": condition_kind(until[match.index]),
                "evidence": one_line(match.evidence, _EVIDENCE),
            }
            for match in result.matches
        ],
        "cursors": dict(result.cursors),
        "waited": round(result.waited, 3),
    }


def metrics(found: Metrics) -> Json:
    """``host``, ``sandbox`` (if one was named) and ``history``, oldest first."""
    host = asdict(found.host)
    host["load"] = list(found.host.load)
    sandbox = {} if found.sandbox is None else {"sandbox": asdict(found.sandbox)}
    return {"host": host, **sandbox, "history": [_sample(sample) for sample in found.history]}


def _sample(sample: Sample) -> Json:
    return {**asdict(sample), "time": timestamp(sample.time)}


def event(happened: Event) -> Json:
    """One event."""
    return {
        "sequence": happened.sequence,
        "time": timestamp(happened.time),
        "sandbox": happened.sandbox,
        "kind": happened.kind,
        "data": {key: plain_text(value) for key, value in happened.data.items()},
    }


def problem(found: Problem) -> Json:
    """One thing that the host lacks."""
    return asdict(found)


def egress(found: Egress) -> Json:
    """The way out of a sandbox. Names of hosts are what it asked for: its word."""
    return {
        "network": found.network,
        "open": found.open,
        "allowed": list(found.allowed),
        "denied": list(found.denied),
        "pending": [_asked(asked) for asked in found.pending],
        "hosts": [_tried(host) for host in found.hosts],
        "connections": [_connection(line) for line in found.connections],
    }


def _asked(asked: EgressRequest) -> Json:
    program = None if asked.program is None else one_line(asked.program, _WORDS)
    times = {"first": timestamp(asked.first), "last": timestamp(asked.last)}
    return {**asdict(asked), **times, "host": one_line(asked.host, HOST), "program": program}


def _tried(host: TriedHost) -> Json:
    return {**asdict(host), "host": one_line(host.host, HOST), "last": timestamp(host.last)}


def _connection(line: Connection) -> Json:
    return {
        **asdict(line),
        "time": timestamp(line.time),
        "host": one_line(line.host, HOST),
        "verdict": line.verdict.value,
        "why": one_line(line.why, _WORDS),
        "address": one_line(line.address, _WORDS),
    }


def verification(found: Verification) -> Json:
    """The table of attacks, and whether all of it holds."""
    return {
        "sandbox": found.sandbox,
        "held": found.held,
        "probes": [
            {
                "name": probe.name,
                "protects": probe.protects,
                "outcome": probe.outcome.value,
                "detail": one_line(probe.detail, _DETAIL),
            }
            for probe in found.probes
        ],
        "seconds": round(found.seconds, 3),
    }
