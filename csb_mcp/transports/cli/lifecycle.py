"""create, list, show, pause, resume, stop, delete."""

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from csb_mcp.errors import InvalidInput
from csb_mcp.transports.cli.client import Client, Refused, reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import note, paint_state, pairs, put, say, show_json, span, table

Record = dict[str, Any]

_CREATE_SECONDS = 900.0  # the daemon has a deadline of its own, which the settings set
_END_SECONDS = 120.0
_HEAD = ("ID", "NAME", "STATE", "AGENT", "NETWORK", "AGE", "PROJECT")
_COLOURED = _HEAD.index("STATE")
_LISTS = ("allowed_hosts", "denied_hosts", "pending_hosts", "secrets", "forward")
_IN_OWN_LINES = ("limits", "warnings", *_LISTS)


def create(line: Line) -> int:
    """Make one, and tell how to go on."""
    values = line.values
    body = {key: value for key, value in values.items() if key not in ("json", "env") and value}
    body["project_dir"] = os.path.abspath(os.path.expanduser(values["project_dir"]))
    body["env"] = _variables(values["env"] or [])
    if line.rest:
        body["command"] = line.rest[0] if len(line.rest) == 1 else list(line.rest)
    client = reach(line.settings)
    answer = client.post("/api/sandboxes", body, timeout=_CREATE_SECONDS, doing="creating")
    record: Record = answer.json()
    if values["json"]:
        show_json(record)
        return 0
    say(_titled(record) + f" {record['state']}")
    for warning in record.get("warnings", ()):
        note(f"warning: {warning}")
    if "cursor" in record:
        say(f"cursor: {record['cursor']}")
    return 0


def list_(line: Line) -> int:
    """A table of all."""
    found: list[Record] = (
        reach(line.settings).get("/api/sandboxes", {"state": line.values["state"]}).json()
    )
    if line.values["json"]:
        show_json(found)
    elif line.values["quiet"]:
        for record in found:
            say(record["id"])
    elif found:
        table(_HEAD, [_row(record) for record in found], colour_of=_COLOURED)
    else:
        note("no sandboxes; csb-mcp create . makes one")
    return 0


def show(line: Line) -> int:
    """The record of one, a line for each thing."""
    record = reach(line.settings).get(sandbox_path(line.values["sandbox"])).json()
    if line.values["json"]:
        show_json(record)
        return 0
    _details(record)
    return 0


def pause(line: Line) -> int:
    """Hold them still."""
    return _each(line, lambda client, record: _changed(client, record, "pause"))


def resume(line: Line) -> int:
    """Let them go on."""
    names = ("max_tokens", "max_cost", "max_turns")
    body = {name: line.values[name] for name in names if line.values[name]}
    return _each(line, lambda client, record: _changed(client, record, "resume", body))


def stop(line: Line) -> int:
    """End them."""
    return _each(line, _stop)


def delete(line: Line) -> int:
    """Remove them."""
    return _each(line, _delete)


def _each(line: Line, act: Callable[[Client, Record], Record]) -> int:
    """``act`` on each sandbox; one that fails keeps no other from its turn."""
    client = reach(line.settings)
    failed = 0
    for sandbox in line.values["sandbox"]:
        try:
            record = act(client, client.get(sandbox_path(sandbox)).json())
        except Refused as error:
            if len(line.values["sandbox"]) == 1:
                raise
            note(f"csb-mcp: {sandbox}: {error}")
            failed = 1
            continue
        if line.values["json"]:
            show_json(record)
        else:
            say(f"{_titled(record)} {record['state']}")
    return failed


def _changed(
    client: Client, record: Record, verb: str, body: dict[str, str] | None = None
) -> Record:
    doing = "pausing" if verb == "pause" else "resuming"
    path = sandbox_path(record["id"], verb)
    return client.post(path, body or None, timeout=_END_SECONDS, doing=doing).json()


def _stop(client: Client, record: Record) -> Record:
    path = sandbox_path(record["id"])
    client.post(f"{path}/stop", timeout=_END_SECONDS, doing="stopping")
    return client.get(path).json()


def _delete(client: Client, record: Record) -> Record:
    client.delete(sandbox_path(record["id"]), timeout=_END_SECONDS, doing="deleting")
    return {"id": record["id"], "name": record["name"], "state": "deleted"}


def _titled(record: Record) -> str:
    return f"{record['id']} ({record['name']})" if record["name"] else str(record["id"])


def _variables(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(f"{word!r} is not NAME=VALUE", field="env")
        found[name] = value
    return found


def _row(record: Record) -> tuple[str, ...]:
    age = span(time.time() - datetime.fromisoformat(record["created_at"]).timestamp())
    names = ("id", "name", "state", "agent", "network")
    return (*(record[name] or "" for name in names), age, record["project_dir"])


def _details(record: Record) -> None:
    state = str(record["state"])
    put(f"{_titled(record)} {paint_state(state, state)}\n")
    limits = record.get("limits", {})
    by = limits.get("enforced_by", {})
    told = [
        f"{name} {value} (by {by.get(name, 'nothing')})" for name, value in limits["asked"].items()
    ]
    plain = [
        (key, str(value))
        for key, value in record.items()
        if key not in ("id", "name", "state", *_IN_OWN_LINES) and value not in (None, "")
    ]
    lists = [(key.replace("_", " "), ", ".join(record.get(key, ()))) for key in _LISTS]
    warnings = [("warning", warning) for warning in record.get("warnings", ())]
    pairs([*plain, *lists, ("limits", ", ".join(told)), *warnings])


ACTIONS: dict[str, Callable[[Line], int]] = {
    "create": create,
    "list": list_,
    "show": show,
    "pause": pause,
    "resume": resume,
    "stop": stop,
    "delete": delete,
}
