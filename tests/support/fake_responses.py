"""A Responses API of our own: what a model says is scripted, turn by turn, by a test.

It runs in a sandbox too, as a script: ``fake_responses.py FOLDER PORT``. What a model says comes
from ``turns.jsonl`` in the folder, what was asked goes to ``requests.jsonl`` there.

A turn is an object with any of::

    text      what the model says
    think     seconds for which it is silent before that
    tools     [[name, arguments], ...]: what it calls then; arguments as text: a free-form tool
    usage     numbers that differ from USAGE
    status    an error instead: 500, 429, 401, ...; `times` how often (once), `words` of its own
    failed    a code of an error that comes within a stream that began well
"""

import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

USAGE = {"input_tokens": 16, "output_tokens": 7, "cached_tokens": 5, "reasoning_tokens": 2}
"""``input_tokens`` has those that were cached among them, ``output_tokens`` the reasoning."""
WORDS = {401: "Incorrect API key provided", 429: "Rate limit reached for requests", 500: "Oops"}
Turn = Mapping[str, Any]


class Script:
    """The two files in ``folder``; written by the test, read by the server, and the reverse."""

    def __init__(self, folder: Path) -> None:
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

    def record(self, request: Mapping[str, Any]) -> None:
        """Keep what was asked."""
        with self._lock, self._requests.open("a") as file:
            file.write(json.dumps(request) + "\n")

    def turn(self) -> Turn:
        """The next one."""
        with self._lock:
            lines = self._turns.read_text().splitlines() if self._turns.exists() else []
            for number, line in enumerate(lines):
                turn = cast("Turn", json.loads(line))
                if self._given[number] < turn.get("times", 1):
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

    def do_GET(self) -> None:
        self._json({"object": "list", "data": []} if self.path.endswith("/models") else {}, 200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.endswith("/responses"):
            self._json({}, 404)
            return
        request = json.loads(body)
        if "format" in request.get("text", ()):  # about a title, or the like
            self._answer({"text": "A title"})
            return
        self.script.record(
            {
                "model": request["model"],
                "last": _news(request["input"]),
                "key": self.headers.get("authorization"),
            }
        )
        turn = self.script.turn()
        if status := turn.get("status"):
            words = turn.get("words", WORDS.get(status, "No"))
            self._json({"error": {"message": words, "type": "made_up", "code": None}}, status)
        else:
            self._answer(turn)

    def _answer(self, turn: Turn) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self._stream(turn)
        except ConnectionError:
            return  # it was interrupted

    def _stream(self, turn: Turn) -> None:
        begun = {"id": f"resp_{next(self.numbers)}"}
        self._event("response.created", response=begun)
        ends = time.monotonic() + turn.get("think", 0)
        while time.monotonic() < ends:  # so that a client that is gone is noticed
            self._event("response.in_progress", response=begun)
            time.sleep(0.2)  # how long a model thinks is what is played here
        if code := turn.get("failed"):
            error = {"code": code, "message": turn.get("words", "No")}
            self._event("response.failed", response=begun | {"error": error})
            return
        for item in self._items(turn):
            empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {}

            self._event("response.output_item.added", item=item | empty)
            for part in item.get("content", ()):
                self._event("response.output_text.delta", item_id=item["id"], delta=part["text"])
            self._event("response.output_item.done", item=item)
        usage = USAGE | turn.get("usage", {})
        counted = {
            "input_tokens": usage["input_tokens"],
            "input_tokens_details": {"cached_tokens": usage["cached_tokens"]},
            "output_tokens": usage["output_tokens"],
            "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
            "total_tokens": usage["input_tokens"] + usage["output_tokens"],
        }
        self._event("response.completed", response=begun | {"usage": counted})

    def _items(self, turn: Turn) -> Iterator[dict[str, Any]]:
        if turn.get("text"):
            content = [{"type": "output_text", "text": turn["text"]}]
            number = f"msg_{next(self.numbers)}"
            yield {"type": "message", "role": "assistant", "id": number, "content": content}
        for name, arguments in cast("Sequence[tuple[str, Any]]", turn.get("tools", ())):
            number = f"call_{next(self.numbers)}"
            call: dict[str, Any] = {"call_id": number, "name": name}
            if isinstance(arguments, str):
                yield {"type": "custom_tool_call", "input": arguments, **call}
            else:
                yield {"type": "function_call", "arguments": json.dumps(arguments), **call}

    def _event(self, kind: str, **values: object) -> None:
        data = json.dumps({"type": kind, **values})
        self.wfile.write(f"event: {kind}\ndata: {data}\n\n".encode())
        self.wfile.flush()

    def _json(self, value: object, status: int) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _news(items: Sequence[Mapping[str, Any]]) -> str:
    """What was said since the model spoke."""
    fresh = itertools.takewhile(_is_not_the_models, reversed(items))
    return "\n".join(map(_texts, reversed(list(fresh))))


def _is_not_the_models(item: Mapping[str, Any]) -> bool:
    return item.get("role") != "assistant" and not str(item.get("type")).endswith("_call")


def _texts(item: Mapping[str, Any]) -> str:
    content = item.get("content") or item.get("output") or ""
    if isinstance(content, str):
        return content
    parts = cast("Sequence[Mapping[str, Any]]", content)
    return "\n".join(str(part.get("text") or "") for part in parts)


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for the script in ``folder``; the caller serves and closes it."""
    values = {"script": Script(folder), "numbers": itertools.count(1)}
    return ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), values))


if __name__ == "__main__":
    server(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
