"""One ``tmux -C`` client: commands down a pipe, answers and notices up another.

The protocol is in tmux(1), CONTROL MODE. The server reads and writes the pipes itself (the client
process hands them over), so a command costs one write and one read. What panes print is not sent
here (the client is ``no-output``), it is heard of by ``wake.py``: tmux 3.3 exits with "not enough
data" when a client goes away, be it a daemon that was killed, while output for it is queued.
"""

import asyncio
import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from csb_mcp.errors import TerminalFailed
from csb_mcp.lib.processes import ProcessHandle, end_all

ANSWER_SECONDS = 5.0
DETACH_SECONDS = 1.0
PIPE_SIZE = 64 * 1024  # of Linux: no read gives more
MAX_UNSENT = 4 * 1024 * 1024
MAX_LINE = 1024 * 1024  # a row has at most some thousand bytes

Blocks = list[list[bytes]]
RowCount = Callable[[Blocks], int]


@dataclass(slots=True)
class _Request:
    """A line of commands. Each answers with a block; one that fails drops those after it."""

    wanted: int
    answer: asyncio.Future[Blocks]
    due: float
    row_count: RowCount | None
    blocks: Blocks = field(default_factory=list[list[bytes]])

    def rows_to_come(self) -> int:
        """How many lines of the block that begins now are rows, whatever they look like."""
        if self.row_count is None or len(self.blocks) + 1 < self.wanted:
            return 0
        return self.row_count(self.blocks)


class Control(asyncio.Protocol):
    """The connection. Belongs to one event loop; ``close`` it."""

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._process = process
        self._stderr = stderr
        self._pending: deque[_Request] = deque()
        self._tail = b""
        self._inside = False  # a block, that is
        self._block: list[bytes] = []
        self._guard = b""
        self._rows_left = 0
        self._trouble: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None  # one for all requests: timers cost
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None

    @classmethod
    async def open(
        cls, argv: Sequence[str], *, env: Mapping[str, str], inherit: Sequence[int] = ()
    ) -> Self:
        """Start ``argv`` (a tmux client with ``-C``); ``inherit`` are descriptors it gets as well.

        Raises TerminalFailed if it cannot be started.
        """
        stderr = os.memfd_create("stderr")  # a pipe could fill, and would have to be read
        try:
            # Popen, not asyncio's: 3.11 would add a thread for each child to wait for it.
            process = subprocess.Popen(  # noqa: ASYNC220  a millisecond, by vfork(2)
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0,
                env=env, cwd="/", pass_fds=inherit, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(stderr)
            raise TerminalFailed(f"{argv[0]} cannot be started: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        self = cls(process, stderr, loop)
        try:
            self._reader, _ = await loop.connect_read_pipe(lambda: self, process.stdout)
            # 256 KiB as asyncio has it are mapped, and unmapped, by malloc(3) at each answer.
            self._reader.max_size = PIPE_SIZE  # pyright: ignore[reportAttributeAccessIssue]
            self._writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        except BaseException:  # cancelled: it has not begun anything that others would see
            self._discard()
            raise
        return self

    def _discard(self) -> None:
        """Undo a start that did not come to its end."""
        self._process.kill()
        self._process.wait()
        for end in (self._reader or self._process.stdout, self._process.stdin):
            if end is not None:
                end.close()
        os.close(self._stderr)

    def request(
        self, commands: Sequence[str], *, row_count: RowCount | None = None
    ) -> asyncio.Future[Blocks]:
        """Send ``commands`` as one line: tmux runs them in one go, with no output in between.

        The answer is the lines of each; TerminalFailed if one was refused, or if none comes within
        ANSWER_SECONDS. ``row_count`` tells from the blocks before it how many lines the last one
        has: rows of a pane may look like ``%end``.
        """
        answer: asyncio.Future[Blocks] = self._loop.create_future()
        if self._lost.done() or self._writer is None:
            _fail(answer, self._gone())
        elif self._writer.get_write_buffer_size() > MAX_UNSENT:
            _fail(answer, TerminalFailed("tmux does not read its commands"))
        else:
            due = self._loop.time() + ANSWER_SECONDS
            self._pending.append(_Request(len(commands), answer, due, row_count))
            self._writer.write(" ; ".join(commands).encode() + b"\n")
            if self._watch is None:
                self._watch = self._loop.call_at(due, self._overdue)
        return answer

    async def ended(self) -> None:
        """Wait until the connection is gone, for whatever reason."""
        await asyncio.shield(self._lost)

    def trouble(self) -> str:
        """What tmux complained of, other than in answer to a request."""
        return b" ".join(self._trouble).replace(b"%exit", b"").strip().decode(errors="replace")

    def complaints(self) -> str:
        """What the client, or the program before it, wrote to standard error; at most 4 KiB."""
        return os.pread(self._stderr, 4096, 0).decode(errors="replace").strip()

    async def close(self, *, force: bool = False) -> None:
        """End this client; the server goes on. Idempotent.

        ``force``: by SIGKILL, because it may not have come so far as to read its input.
        """
        if self._watch is not None:
            self._watch.cancel()
        if self._writer is None or self._reader is None or self._process.returncode is not None:
            return
        if not self._writer.is_closing():  # it closes itself when tmux ends; abort would fail then
            self._writer.abort() if force else self._writer.close()  # tmux: a detach
        handle = ProcessHandle(self._process.pid)
        await end_all([handle], self._loop.time() + (0.0 if force else DETACH_SECONDS))
        handle.close()
        self._reader.close()
        await self.ended()
        self._process.wait()  # it has ended: this collects it, and does not wait
        os.close(self._stderr)

    # The rest is asyncio's side.

    def data_received(self, data: bytes) -> None:
        """Take what tmux wrote apart, line by line."""
        if self._tail:
            data = self._tail + data
        position = 0
        while True:
            if self._rows_left:
                *rows, rest = data[position:].split(b"\n", self._rows_left)
                self._block += rows
                self._rows_left -= len(rows)
                position = len(data) - len(rest)
            if (end := data.find(b"\n", position)) < 0:
                break
            if self._inside:
                self._in_block(data[position:end])
            else:
                self._notice(data[position:end])
            position = end + 1
        self._tail = data[position:]
        if len(self._tail) > MAX_LINE and self._reader is not None:
            self._reader.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """The client ended, or we let go of it: everybody who waits is told."""
        if not self._lost.done():
            self._lost.set_result(None)
        while self._pending:
            _fail(self._pending.popleft().answer, self._gone())

    def _notice(self, line: bytes) -> None:
        kind, _, rest = line.partition(b" ")
        if kind == b"%begin":
            self._begin(rest)
        elif kind == b"%exit" or not kind.startswith(b"%"):
            self._trouble = [*self._trouble[-4:], line]

    def _begin(self, guard: bytes) -> None:
        self._inside, self._block, self._guard, self._rows_left = True, [], guard, 0
        if self._ours() and self._pending:
            self._rows_left = self._pending[0].rows_to_come()

    def _ours(self) -> bool:
        return self._guard.endswith(b" 1")  # 0: a command that came by argument or configuration

    def _in_block(self, line: bytes) -> None:
        if line.startswith((b"%end ", b"%error ")) and line.endswith(self._guard):
            self._inside = False
            self._answer(self._block, failed=line.startswith(b"%error"))
            return
        self._block.append(line)

    def _answer(self, block: list[bytes], *, failed: bool) -> None:
        if not self._ours() or not self._pending:
            self._trouble += block if failed else []
            return
        request = self._pending[0]
        request.blocks.append(block)
        if not failed and len(request.blocks) < request.wanted:
            return
        self._pending.popleft()
        if failed:
            words = b" ".join(block).decode(errors="replace")
            _fail(request.answer, TerminalFailed(f"tmux refused a command: {words}"))
        elif not request.answer.done():
            request.answer.set_result(request.blocks)

    def _overdue(self) -> None:
        """Fail what tmux owes for too long. Its place is kept: the answer may come yet."""
        now, self._watch = self._loop.time(), None
        for request in self._pending:
            if request.due > now:
                self._watch = self._loop.call_at(request.due, self._overdue)
                break
            error = f"tmux did not answer within {ANSWER_SECONDS:g} s"
            _fail(request.answer, TerminalFailed(error))

    def _gone(self) -> TerminalFailed:
        said = self.trouble()
        return TerminalFailed(
            "the tmux server went away" + (f": {said}" if said else ""),
            hint="The sandbox has ended; its log tells its last words",
        )


def _fail(answer: asyncio.Future[Blocks], error: TerminalFailed) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # a caller that was cancelled is not there to hear of it
