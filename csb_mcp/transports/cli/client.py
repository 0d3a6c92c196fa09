"""REST on the daemon's own socket, by the standard library; every request with a deadline."""

import json
import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

from csb_mcp import __version__, bridge
from csb_mcp.errors import CsbError, DeadlineExceeded, HostUnable
from csb_mcp.transports.cli.progress import progress

PATIENCE = 30.0
"""Seconds for what has no reason to take long."""


class Unreachable(CsbError):
    """No daemon that could do it: none starts, none answers, or it is of another version."""

    code = "unreachable"


class Refused(CsbError):
    """The daemon's own error; ``kind`` is its code there."""

    def __init__(self, kind: str, problem: Mapping[str, Any]) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or kind),
            field=problem.get("field"),
            sandbox=problem.get("sandbox"),
            hint=problem.get("hint"),
            choices=problem.get("choices") or (),
        )
        self.kind = kind


class Answer(NamedTuple):
    """Of a request that went well; names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Its body, read."""
        return json.loads(self.body)


class Client:
    """To one daemon.

    Each request has a connection of its own: one costs a tenth of a millisecond, and none is found
    closed by a server that has grown tired of it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, path: str, query: Mapping[str, object] | None = None, **options: Any) -> Answer:
        """Ask for something. ``query``: what is None is left out."""
        given = {key: value for key, value in (query or {}).items() if value is not None}
        full = f"{path}?{urlencode(given)}" if given else path
        return self.request("GET", full, **options)

    def post(self, path: str, body: Mapping[str, object] | None = None, **options: Any) -> Answer:
        """Do something. ``body``: what is None is left out."""
        given = {key: value for key, value in (body or {}).items() if value is not None}
        return self.request("POST", path, body=given, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """Remove something."""
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        timeout: float = PATIENCE,
        doing: str = "",
    ) -> Answer:
        """Ask and wait; ``doing`` is told to a person whom it takes too long.

        Raises Refused; Unreachable if the daemon ends meanwhile or does not answer in time.
        """
        connection = _UnixConnection(self.path, timeout)
        try:
            with progress(doing):
                answer = _ask(connection, method, path, body)
        except TimeoutError:
            raise Unreachable(f"the daemon does not answer within {timeout:g} s") from None
        except (OSError, HTTPException):
            raise Unreachable(
                "the daemon ended meanwhile", hint="Sandboxes go on: try once more"
            ) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise refused(answer)
        return answer


def sandbox_path(sandbox: str, *parts: str) -> str:
    """The path of a sandbox, or of something of it."""
    return "/".join(["/api/sandboxes", quote(sandbox, safe=""), *parts])


def reach(settings: Mapping[str, str], *, start: bool = True) -> Client:
    """A client of the daemon that runs, of this version; starts one if there is none.

    Raises Unreachable, InvalidInput (settings).
    """
    path = os.path.join(os.path.dirname(bridge.socket_path(settings)), "http.sock")
    client = _greet(path)
    if client is None and start:
        client = _start(settings)
    if client is None:
        raise Unreachable("no daemon runs")
    return client


def _start(settings: Mapping[str, str]) -> Client:
    from csb_mcp.autostart import start  # noqa: PLC0415 heavier than all else here

    try:
        # One that is too old to serve HTTP serves MCP, and tells its version there.
        preface = {"version": __version__}
        if connection := bridge.call(bridge.socket_path(settings), preface):
            connection.stream.close()
        with progress("starting the daemon"):
            return start(settings, lambda found: _greet(str(found.http_socket)))
    except (HostUnable, DeadlineExceeded) as error:
        raise Unreachable(error.message, hint=error.hint) from error


def _greet(path: str) -> Client | None:
    """A client if a daemon of this version answers at ``path``; None if there is none."""
    try:
        connection = _UnixConnection(path, bridge.ANSWER_SECONDS)
        answer = _ask(connection, "GET", "/healthz", None)
        connection.close()
        found = answer.json()
        version, pid = found["version"], found["pid"]
    except HostUnable as error:
        raise Unreachable(error.message, hint=error.hint) from error
    except TimeoutError:
        raise Unreachable(f"the daemon at {path} does not answer; end it by kill") from None
    except (OSError, HTTPException):
        return None
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"what answers at {path} is no daemon of ours") from None
    if version != __version__:
        raise Unreachable(
            f"the daemon (pid {pid}) is version {version!s:.40}, this csb-mcp is {__version__}",
            hint=f"Restart the daemon: kill {pid} ends it, sandboxes go on, and the next csb-mcp "
            "starts a new one that takes them up",
        )
    return Client(path)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        found = bridge.connect(self._path, self._seconds)
        if found is None:
            raise ConnectionRefusedError
        self.sock = found


def _ask(
    connection: HTTPConnection, method: str, path: str, body: Mapping[str, object] | None
) -> Answer:
    sent = {"Connection": "close"}
    if body is not None:
        sent["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, sent)
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def refused(answer: Answer) -> Refused:
    """The error that an answer is."""
    try:
        problem = json.loads(answer.body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return Refused("error", {"detail": f"the daemon answers with status {answer.status}"})
    values = cast("dict[str, Any]", problem)
    return Refused(str(values.get("code", "error")), values)
