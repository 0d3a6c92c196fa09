"""wait: in slices, for the daemon answers every call within a minute."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from csb_mcp.errors import InvalidInput
from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import parse_duration
from csb_mcp.transports.cli.client import Client, reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import note, say, show_json
from csb_mcp.transports.cli.terminal import TIMED_OUT
from csb_mcp.transports.cli.verbs import CONDITIONS

_SLICE = 45.0
_MARGIN = 15.0
_SECONDS = 30.0
_EVIDENCE = 200  # characters

Json = dict[str, Any]
Left = dict[str, tuple[int, ...]]


def wait(line: Line) -> int:
    """Wait; status 0 if the conditions came true."""
    values = line.values
    until = _conditions(values)
    seconds = _duration(values["timeout"])
    client = reach(line.settings)
    ids = [client.get(sandbox_path(name)).json()["id"] for name in values["sandbox"]]
    ids = list(dict.fromkeys(ids))
    cursors: dict[str, str] = {}
    if values["cursor"]:
        if len(ids) > 1:
            raise InvalidInput("belongs to one sandbox", field="cursor", hint="Wait for that alone")
        cursors[ids[0]] = values["cursor"]
    result = _Wait(client, until, values["mode"] or "any", cursors).run(ids, seconds)
    if values["json"]:
        show_json(result)
    else:
        _show(result)
    return 0 if result["satisfied"] else TIMED_OUT


class _Wait:
    """One wait, over as many slices as it takes."""

    def __init__(
        self, client: Client, until: Sequence[Json], mode: str, cursors: dict[str, str]
    ) -> None:
        self._client = client
        self._until = until
        self._mode = mode
        self._cursors = cursors
        self._matches: list[Json] = []

    def run(self, ids: Sequence[str], seconds: float) -> Json:
        """Wait for sandboxes; gives what one call of the daemon would, were it allowed so long."""
        began = time.monotonic()
        left: Left = dict.fromkeys(ids, tuple(range(len(self._until))))
        while left and (rest := began + seconds - time.monotonic()) > 0:
            left = self._slice(left, min(rest, _SLICE))
        return {
            "satisfied": not left,
            "matches": self._matches,
            "cursors": self._cursors,
            "waited": round(time.monotonic() - began, 3),
        }

    def _slice(self, left: Left, seconds: float) -> Left:
        """One call for the sandboxes that lack the same conditions; gives what lacks after it."""
        first = next(iter(left.values()))
        together = [sandbox for sandbox, lacks in left.items() if lacks == first]
        body = {
            "sandboxes": together,
            "until": [self._until[index] for index in first],
            "mode": self._mode,
            "timeout": seconds,
            "cursor": {s: self._cursors[s] for s in together if s in self._cursors} or None,
        }
        options = {"timeout": seconds + _MARGIN, "doing": "waiting"}
        result = self._client.post("/api/wait", body, **options).json()
        self._cursors |= result["cursors"]
        found = [match | {"index": first[match["index"]]} for match in result["matches"]]
        self._matches += found
        if self._mode == "any" and found:
            return {}
        done = {(match["sandbox"], match["index"]) for match in found}
        after = {s: tuple(i for i in lacks if (s, i) not in done) for s, lacks in left.items()}
        return {sandbox: lacks for sandbox, lacks in after.items() if lacks}


def _conditions(values: Json) -> list[Json]:
    found: list[Json] = []
    for argument in CONDITIONS:
        given = values[argument.key]
        found += [{argument.key: item} for item in ([True] if given is True else given or [])]
    if not found:
        raise InvalidInput(
            "no condition was given",
            field="until",
            choices=[argument.name for argument in CONDITIONS],
        )
    return found


def _duration(text: str | None) -> float:
    try:
        return _SECONDS if text is None else parse_duration(text)
    except ValueError as error:
        raise InvalidInput(one_line(str(error), 200), field="timeout") from error


def _show(result: Json) -> None:
    for match in result["matches"]:
        say(f"{match['sandbox']} {match['condition']}: {one_line(match['evidence'], _EVIDENCE)}")
    state = "came true" if result["satisfied"] else "did not come true"
    note(f"{state} within {result['waited']:.1f} s")
    for sandbox, cursor in result["cursors"].items():
        note(f"cursor: {cursor}" if len(result["cursors"]) == 1 else f"{sandbox} cursor: {cursor}")


ACTIONS: dict[str, Callable[[Line], int]] = {"wait": wait}
