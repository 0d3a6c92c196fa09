"""egress, allow-host, deny-host, verify."""

from collections.abc import Callable
from typing import Any

from csb_mcp.transports.cli.client import reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import paint, pairs, put, say, show_json, size, table

Json = dict[str, Any]

VERIFY_SECONDS = 180.0  # the daemon has a deadline of its own
_ASKED = ("ASKS FOR", "COUNT", "LAST", "PROGRAM")
_TRIED = ("TRIED", "LET THROUGH", "REFUSED", "OUT", "IN", "LAST")
_CONNECTIONS = ("TIME", "VERDICT", "HOST", "WHY")
_PROBES = ("OUTCOME", "ATTACK", "PROTECTS", "DETAIL")
_SHOWN = 20  # connections


def egress(line: Line) -> int:
    """Its rules, what waits for an answer, what it tried."""
    path = sandbox_path(line.values["sandbox"], "egress")
    return _told(line, reach(line.settings).get(path).json(), whole=True)


def allow_host(line: Line) -> int:
    """Let it reach a host."""
    body = {"host": line.values["host"], "once": line.values["once"]}
    return _told(line, _post(line, "allow", body))


def deny_host(line: Line) -> int:
    """Refuse a host."""
    return _told(line, _post(line, "deny", {"host": line.values["host"]}))


def verify(line: Line) -> int:
    """Attack it; status 1 if it does not hold."""
    path = sandbox_path(line.values["sandbox"], "verify")
    options: Json = {"timeout": VERIFY_SECONDS, "doing": "attacking"}
    found: Json = reach(line.settings).post(path, **options).json()
    if line.values["json"]:
        show_json(found)
    else:
        show_verification(found)
    return 0 if found["held"] else 1


def show_verification(found: Json) -> None:
    """The table of one sandbox, and its last line."""
    rows = [
        (row["outcome"], row["name"], row["protects"], row["detail"]) for row in found["probes"]
    ]
    if rows:
        table(_PROBES, rows, prose=True)
    counts = {kind: sum(row[0] == kind for row in rows) for kind in ("held", "broken", "untested")}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    verdict = paint("it holds", "green") if found["held"] else paint("IT DOES NOT HOLD", "red")
    put(f"{verdict}: {told} in {found['seconds']:.1f} s\n")


def _post(line: Line, verb: str, body: Json) -> Json:
    path = sandbox_path(line.values["sandbox"], "egress", verb)
    return reach(line.settings).post(path, body).json()


def _told(line: Line, found: Json, *, whole: bool = False) -> int:
    if line.values["json"]:
        show_json(found)
        return 0
    closed = found["network"] == "allowlist" and not found["open"]
    pairs(
        [
            ("network", found["network"] + (", closed: its proxy is away" if closed else "")),
            ("allowed", ", ".join(found["allowed"]) or "none"),
            ("denied", ", ".join(found["denied"]) or "none"),
        ]
    )
    if found["pending"]:
        say()
        table(_ASKED, [_asked(asked) for asked in found["pending"]])
    if whole and found["hosts"]:
        say()
        table(_TRIED, [_tried(host) for host in found["hosts"]])
    if whole and found["connections"]:
        say()
        table(
            _CONNECTIONS, [_connection(one) for one in found["connections"][-_SHOWN:]], prose=True
        )
    return 0


def _asked(asked: Json) -> tuple[str, ...]:
    return _name(asked), str(asked["count"]), _time(asked["last"]), asked["program"] or ""


def _tried(host: Json) -> tuple[str, ...]:
    moved = size(host["sent"]), size(host["received"])
    return (_name(host), str(host["allowed"]), str(host["refused"]), *moved, _time(host["last"]))


def _connection(one: Json) -> tuple[str, ...]:
    return _time(one["time"]), one["verdict"], _name(one), one["why"]


def _name(of: Json) -> str:
    return f"{of['host']}:{of['port']}"


def _time(text: str) -> str:
    """RFC 3339, to the second."""
    return text.replace("T", " ").partition(".")[0]


ACTIONS: dict[str, Callable[[Line], int]] = {
    "egress": egress,
    "allow-host": allow_host,
    "deny-host": deny_host,
    "verify": verify,
}
