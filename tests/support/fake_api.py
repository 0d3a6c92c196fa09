"""A Messages API of our own: what a model says is scripted, turn by turn, by a test.

It needs the standard library alone, so it runs in a sandbox too, as a script: ``fake_api.py FOLDER
PORT``. The script is a file that a test appends to, for there is no way in but a folder:
``turns.jsonl``, one turn a line. What was asked stands in ``requests.jsonl``.

A turn is an object with any of::

    text      what the model says
    think     seconds for which it thinks before that
    tools     [[name, arguments], ...]: what it calls then
    find      {name: pattern}: where `tools` has <name>, what group 1 of the pattern is where it
              matched last in what tools gave so far; if nowhere, an error 400 ends the story
    usage     numbers that differ from USAGE
    status    an error instead: 529, 429, 401, ...; `times` how often (once), `words` of its own
    delay     seconds before the first byte
    side      true: for a subagent
"""

import itertools
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 5,
}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
WORDS = {401: "invalid x-api-key", 429: "You are asking too much", 529: "Overloaded"}
MAIN_ONLY = "AskUserQuestion"  # a tool that subagents have not
TOOLS_OF_A_LOOP = 3  # a request with fewer is about a title, or the like
Turn = Mapping[str, Any]


class Script:
    """The two files in ``folder``; written by the test, read by the server, and the reverse.

    ``bodies``: all that was asked, whole, where server and test are one process.
    """

    def __init__(self, folder: Path) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._turns = folder / "turns.jsonl"
        self._requests = folder / "requests.jsonl"
        self._given: Counter[int] = Counter()
        self._lock = threading.Lock()

    def say(self, *turns: Turn) -> None:
        """Append turns."""
        with self._turns.open("a") as file:
            file.writelines(json.dumps(turn) + "\n" for turn in turns)

    def asked(self) -> list[dict[str, Any]]:
        """What was asked so far, side requests left out."""
        if not self._requests.exists():
            return []
        return [json.loads(line) for line in self._requests.read_text().splitlines()]

    def record(self, request: Mapping[str, Any], body: dict[str, Any]) -> None:
        """Keep what was asked."""
        with self._lock, self._requests.open("a") as file:
            file.write(json.dumps(request) + "\n")
            self.bodies.append(body)

    def turn(self, *, side: bool) -> Turn:
        """The next one for the main loop, or for a subagent."""
        with self._lock:
            lines = self._turns.read_text().splitlines() if self._turns.exists() else []
            for number, line in enumerate(lines):
                turn = cast("Turn", json.loads(line))
                left = turn.get("times", 1) - self._given[number]
                if left > 0 and turn.get("side", False) == side:
                    self._given[number] += 1
                    return turn
            return {"text": "Nothing is scripted."}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    script: Script
    numbers: Iterator[int]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._json({})

    def do_GET(self) -> None:
        self._json({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if "count_tokens" in self.path:
            self._json({"input_tokens": 10})
        elif "/v1/messages" in self.path:
            self._messages(json.loads(body))
        else:
            self._json({})

    def _messages(self, request: dict[str, Any]) -> None:
        if len(request.get("tools", ())) < TOOLS_OF_A_LOOP:
            self._answer(request, {"text": "A title"})
            return
        self.script.record(
            {
                "model": request["model"],
                "last": _news(request["messages"]),
                "tools": [tool.get("name") for tool in request["tools"]],
                "key": self.headers.get("x-api-key") or self.headers.get("authorization"),
            },
            request,
        )
        turn = self.script.turn(side=MAIN_ONLY not in (t.get("name") for t in request["tools"]))
        turn = filled(turn, request["messages"])
        time.sleep(turn.get("delay", 0))  # a slow API is what is played here
        if status := turn.get("status"):
            words = turn.get("words", WORDS.get(status, "No"))
            error = {"type": KINDS.get(status, "api_error"), "message": words}
            self._json({"type": "error", "error": error}, status)
        else:
            self._answer(request, turn)

    def _answer(self, request: dict[str, Any], turn: Turn) -> None:
        content = list(self._content(turn))
        message: dict[str, Any] = {
            "id": f"msg_{next(self.numbers)}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": "tool_use" if turn.get("tools") else "end_turn",
            "stop_sequence": None,
            "usage": USAGE | turn.get("usage", {}),
        }
        if not request.get("stream"):
            self._json(message)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self._stream(message, float(turn.get("think", 0)))
        except ConnectionError:
            return  # it was interrupted

    def _content(self, turn: Turn) -> Iterator[dict[str, Any]]:
        if turn.get("think"):
            yield {"type": "thinking", "thinking": "Hm.", "signature": "made up"}
        if turn.get("text"):
            yield {"type": "text", "text": turn["text"]}
        for name, arguments in cast("Sequence[tuple[str, Any]]", turn.get("tools", ())):
            number = f"toolu_{next(self.numbers)}"
            yield {"type": "tool_use", "id": number, "name": name, "input": arguments}

    def _stream(self, message: dict[str, Any], think: float) -> None:
        begun: dict[str, Any] = message | {"content": [], "stop_reason": None}
        self._event("message_start", message=begun)
        for index, block in enumerate(message["content"]):
            start, deltas = _streamed(block, think)
            self._event("content_block_start", index=index, content_block=start)
            for delta in deltas:
                self._event("content_block_delta", index=index, delta=delta)
            self._event("content_block_stop", index=index)
        ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        self._event("message_delta", delta=ended, usage=message["usage"])
        self._event("message_stop")

    def _event(self, kind: str, **values: object) -> None:
        data = json.dumps({"type": kind, **values})
        self.wfile.write(f"event: {kind}\ndata: {data}\n\n".encode())
        self.wfile.flush()

    def _json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _streamed(
    block: dict[str, Any], think: float
) -> tuple[dict[str, Any], Iterator[dict[str, str]]]:
    """How a block begins in a stream, and the pieces that follow."""
    if block["type"] == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}, _thoughts(think)
    if block["type"] == "text":
        delta = {"type": "text_delta", "text": block["text"]}
        return {"type": "text", "text": ""}, iter([delta])
    delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return block | {"input": {}}, iter([delta])


def _thoughts(seconds: float) -> Iterator[dict[str, str]]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield {"type": "thinking_delta", "thinking": "Hm. "}
        time.sleep(min(0.25, seconds))  # thinking, likewise
    yield {"type": "signature_delta", "signature": "made up"}


def filled(turn: Turn, messages: Sequence[Mapping[str, Any]]) -> Turn:
    """The turn with what it looks for put in; an error if that is nowhere."""
    if "find" not in turn:
        return turn
    words = json.dumps(turn.get("tools", ()))
    given = "\n".join(results(messages))
    for name, pattern in turn["find"].items():
        found = re.findall(pattern, given)
        if not found:
            return {"status": 400, "words": f"no tool gave {pattern!r}"}
        words = words.replace(f"<{name}>", json.dumps(found[-1])[1:-1])
    return {**turn, "tools": json.loads(words)}


def results(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of what tools gave, oldest first."""
    said = [block for message in messages for block in blocks(message)]
    return [_texts(block) for block in said if block["type"] == "tool_result"]


def blocks(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What a message, or a tool's result, is made of."""
    content = message.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _news(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said since the model spoke."""
    fresh = itertools.takewhile(lambda message: message["role"] != "assistant", reversed(messages))
    return "\n".join(map(_texts, reversed(list(fresh))))


def _texts(message: Mapping[str, Any]) -> str:
    words = (block.get("text") or block.get("content") or "" for block in blocks(message))
    return "\n".join(map(str, words))


def handler(script: Script) -> type[Handler]:
    """What answers by ``script``."""
    return type("Bound", (Handler,), {"script": script, "numbers": itertools.count(1)})


class Server(ThreadingHTTPServer):
    """Answers by ``script``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.script = Script(folder)
        super().__init__(("127.0.0.1", port), handler(self.script))


def server(folder: Path, port: int = 0) -> Server:
    """A server for the script in ``folder``; the caller serves and closes it."""
    return Server(folder, port)


if __name__ == "__main__":
    server(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
