"""The daemon's end of the two FIFOs to a helper: lines out, hostile lines in."""

import asyncio
import os
import re
from typing import Any

from csb_mcp.errors import CsbError, HelperFailed
from csb_mcp.model import Folders

_ANSWER = re.compile(rb"(started|exit|failed|pong) ([a-z0-9]{1,32})(?: ([a-z0-9]{1,10}))?")
_LINE_BYTES = 256
_READ_BYTES = 16384  # at one go; more waits for the next turn of the loop
_GARBAGE_LINES = 10_000  # so many, and the sandbox is not listened to any more


class Request:
    """What the helper said of one request so far. The pid is one inside, and its word."""

    __slots__ = ("done", "id", "started", "unwanted")

    def __init__(self, request_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.id = request_id
        self.started: asyncio.Future[int] = loop.create_future()
        self.done: asyncio.Future[int] = loop.create_future()
        self.unwanted = False  # nobody waits; to be killed as soon as it has started


class Channel:
    """Both FIFOs, opened read-write, so that neither end sees the other one go.

    Belongs to the running event loop. Raises HelperFailed if the FIFOs are not there.
    """

    def __init__(self, folders: Folders) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests: dict[str, Request] = {}
        self._pongs: dict[str, asyncio.Future[None]] = {}
        self._buffer = b""
        self._garbage = 0
        self._control = self._status = -1
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._control = os.open(folders.control, flags)
            self._status = os.open(folders.status, flags)
        except OSError as error:
            self.close()
            raise HelperFailed(f"the helper's channel is gone: {error.strerror}") from error
        self._loop.add_reader(self._status, self._readable)

    def send(self, line: str) -> None:
        """Write one line. Raises HelperFailed if the helper does not take any."""
        try:
            os.write(self._control, line.encode() + b"\n")
        except OSError as error:
            raise HelperFailed(
                f"the helper takes no requests: {error.strerror}", hint=_START_ANEW
            ) from error

    def request(self, word: str, request_id: str) -> Request:
        """Send a request and expect its answers."""
        request = Request(request_id)
        self._requests[request_id] = request
        try:
            self.send(f"{word} {request_id}")
        except HelperFailed:
            self.forget(request)
            raise
        return request

    def kill(self, request: Request) -> None:
        """SIGKILL to its process group; if it has not started yet, then as soon as it has."""
        request.unwanted = True
        if request.started.done() and not request.done.done():
            self._kill_group(request)

    def forget(self, request: Request) -> None:
        """Expect no more answers; one that is to be killed is kept in mind until it has started."""
        if not request.unwanted or request.started.done():
            self._requests.pop(request.id, None)

    async def ping(self, token: str) -> None:
        """Wait until the helper has answered."""
        answered = self._pongs[token] = self._loop.create_future()
        try:
            self.send(f"ping {token}")
            await answered
        finally:
            self._pongs.pop(token, None)

    def fail(self, error: CsbError) -> None:
        """Fail all that wait."""
        for request in self._requests.values():
            _fail(request.started, error)
            _fail(request.done, error)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._status >= 0:
            self._loop.remove_reader(self._status)
        for fd in (self._control, self._status):
            if fd >= 0:
                os.close(fd)
        self._control = self._status = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._status, _READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (self._buffer + data).split(b"\n")
        self._garbage += len(rest) > _LINE_BYTES
        self._buffer = rest[: _LINE_BYTES + 1]  # a longer one is garbage, whatever follows
        for line in lines:
            self._line(line)
        if self._garbage > _GARBAGE_LINES:
            self._loop.remove_reader(self._status)
            why = "the sandbox floods the helper's channel"
            self.fail(HelperFailed(why, hint=_START_ANEW))

    def _line(self, line: bytes) -> None:
        found = _ANSWER.fullmatch(line) if len(line) <= _LINE_BYTES else None
        if found is None:
            self._garbage += 1
            return
        word, name, value = found[1].decode(), found[2].decode(), (found[3] or b"").decode()
        if word == "pong" and name in self._pongs:
            _settle(self._pongs.pop(name), None)
        elif name in self._requests:
            self._answer(self._requests[name], word, value)
        else:
            self._garbage += 1  # of a request that was given up, or made up

    def _answer(self, request: Request, word: str, value: str) -> None:
        if (request.started if word == "started" else request.done).done():
            self._garbage += 1  # that was said before
        elif word == "failed":
            error = _failure(value)
            _fail(request.started, error)
            _fail(request.done, error)
        elif word == "started" and value.isdigit():
            _settle(request.started, int(value))
            if request.unwanted:
                self._kill_group(request)
        elif word == "exit" and value.isdigit():
            _settle(request.done, int(value) & 0xFF)
        else:
            self._garbage += 1
        if request.unwanted:
            self.forget(request)

    def _kill_group(self, request: Request) -> None:
        try:
            self.send(f"kill {request.started.result()}")
        except CsbError:
            pass  # it never started, or nobody listens: there is nobody to kill, or no way


_START_ANEW = "stop this sandbox and create another"


def _failure(reason: str) -> HelperFailed:
    if reason == "fork":
        return HelperFailed(
            "the sandbox has no process left to give",
            hint="end some of its processes through its terminal, or stop it",
        )
    if reason == "folder":
        return HelperFailed("no such folder inside the sandbox", field="cwd")
    return HelperFailed("the helper could not run the command")


def _settle(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[int], error: CsbError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at: nobody may be waiting for this one
