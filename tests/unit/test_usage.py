"""What is read of the answers of agents' APIs: every form of them, and none that is not one."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.host.network.proxy import tally as tallies
from csb_mcp.host.network.proxy.control import Control
from csb_mcp.host.network.proxy.journal import Journal
from csb_mcp.host.network.proxy.loop import Loop
from csb_mcp.host.network.proxy.proxy import Proxy
from csb_mcp.host.network.proxy.rules import Rules
from csb_mcp.host.network.proxy.shared import Shared
from csb_mcp.host.network.proxy.tally import KINDS, Tally
from csb_mcp.host.network.proxy.usage import MOST_BYTES, Reading
from csb_mcp.model import AgentUsage, Counted, KeptCount, ModelUsage, ProxyCount, kept_with
from csb_mcp.service.agents.comparison import LONGEST_SECONDS, SETTLED_SECONDS, Comparison
from tests.support.proxies import Control as Daemon

MESSAGES, RESPONSES = b"/v1/messages?beta=true", b"/v1/responses"
USED = {"input_tokens": 11, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5}
JSON, EVENTS = b"application/json; charset=utf-8", b"text/event-stream"


@pytest.fixture
def tally() -> Iterator[Tally]:
    loop = Loop()
    yield Tally(loop)
    loop.close()


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(f"event: x\r\ndata: {json.dumps(one)}\r\n\r\n".encode() for one in values)


def message(name: str = "msg_1", output: int = 1) -> dict[str, Any]:
    usage = USED | {"output_tokens": output, "service_tier": "standard"}
    return {"id": name, "model": "claude-x", "usage": usage}


def text(said: str) -> dict[str, Any]:
    delta = {"type": "text_delta", "text": said}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


STREAM = events(
    {"type": "message_start", "message": message()},
    text("a long text " * 100),
    text('he says "usage": {"output_tokens": 999} \n data: {"usage":{"output_tokens":9}}'),
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 40, "input_tokens": None}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 70}},
    {"type": "message_stop"},
)


def read(
    tally: Tally,
    body: bytes,
    *,
    kind: bytes = EVENTS,
    status: int = 200,
    method: bytes = b"POST",
    target: bytes = MESSAGES,
    host: str = "api.anthropic.com",
    step: int = 1 << 16,
    whole: bool = True,
) -> dict[str, Any]:
    """What stands to be told after that answer."""
    reading = Reading(tally, method, target, host)
    reading.sent = 400
    reading.begin(status, kind)
    for at in range(0, len(body), step):
        reading.feed(body[at : at + step])
    reading.end(whole=whole)
    told: Any = tally.message()["used"]
    assert told["open"] == 0
    return told


def tokens(told: dict[str, Any], model: str = "claude-x") -> tuple[int, ...]:
    return tuple(told["models"][model].values())


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_a_stream_of_messages(tally: Tally, step: int) -> None:
    told = read(tally, STREAM, step=step)
    assert tokens(told) == (11, 70, 3, 5)
    assert (told["answers"], told["uncounted"], told["cut"]) == (1, 0, 0)


def test_its_input_is_counted_as_soon_as_it_is_told(tally: Tally) -> None:
    reading = Reading(tally, b"POST", MESSAGES, "api.anthropic.com")
    reading.begin(200, EVENTS)
    reading.feed(events({"type": "message_start", "message": message()}))
    told: Any = tally.message()["used"]
    assert (tokens(told), told["open"], told["answers"]) == ((11, 1, 3, 5), 1, 0)


@pytest.mark.parametrize("step", [3, 1 << 16])
def test_a_message_in_one_piece(tally: Tally, step: int) -> None:
    said = message(output=9) | {"content": [{"type": "text", "text": '"usage": {}'}]}
    told = read(tally, json.dumps(said, indent=1).encode(), kind=JSON, step=step)
    assert tokens(told) == (11, 9, 3, 5)


def test_responses(tally: Tally) -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 120,
    }
    response = {"id": "resp_1", "object": "response", "model": "gpt-x"}
    stream = events(
        {"type": "response.created", "response": response | {"usage": None}},
        {"type": "response.output_text.delta", "delta": "hello"},
        {"type": "response.completed", "response": response | {"usage": usage}},
    )
    assert tokens(read(tally, stream, target=RESPONSES), "gpt-x") == (36, 20, 0, 64)
    whole = json.dumps(response | {"id": "resp_2", "usage": usage}).encode()
    told = read(tally, whole, kind=JSON, target=RESPONSES)
    assert (tokens(told, "gpt-x"), told["uncounted"]) == ((72, 40, 0, 128), 0)


def test_what_costs_nothing_is_nothing(tally: Tally) -> None:
    failed = b'{"type":"error","error":{"type":"overloaded_error"}}'
    read(tally, failed, kind=JSON, status=529)
    read(tally, b"event: error\ndata: " + failed + b"\n\n")
    read(tally, b'{"input_tokens":9}', kind=JSON, target=b"/v1/messages/count_tokens?beta=true")
    read(tally, b"{}", kind=JSON, target=b"/api/event_logging/batch")
    told = read(tally, b'{"data":[]}', kind=JSON, method=b"GET", target=b"/v1/models")
    assert told["models"] == {}
    assert (told["answers"], told["uncounted"], told["estimated"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", b"text/html"),
        (b"", JSON),
        (b'{"usage":', JSON),
        (b'{"usage":{"input_tokens":-1,"output_tokens":true}}', JSON),
        (b'{"usage":[7]}', JSON),
        (b'{"a":' + b"[" * 100_000, JSON),
        (b'{"a":' * 100_000, EVENTS),
        (b"\xff\xfe{\0", EVENTS),
        (b'data: {"usage":\xff}\n', EVENTS),
        (b'{"completion":"x","stop":null}', JSON),  # an older API, which tells none
    ],
)
def test_what_is_not_understood_is_said_and_estimated(
    tally: Tally, body: bytes, kind: bytes
) -> None:
    told = read(tally, body, kind=kind)
    assert (told["answers"], told["uncounted"]) == (0, 1)
    assert told["estimated"] == (400 + len(body)) // 4
    assert told["models"] == {}


def test_memory_is_bounded(tally: Tally) -> None:
    reading = Reading(tally, b"POST", MESSAGES, "api.anthropic.com")
    reading.begin(200, EVENTS)
    for _ in range(40):
        reading.feed(b"x" * 65536)
        assert len(reading._rest) <= MOST_BYTES  # pyright: ignore[reportPrivateUsage]
    reading.feed(b"\n" + STREAM)
    reading.end(whole=True)
    told: Any = tally.message()["used"]
    assert (tokens(told), told["uncounted"]) == ((11, 70, 3, 5), 1)
    large = b'{"a":"' + b"x" * MOST_BYTES + b'","usage":{"output_tokens":3}}'
    assert read(tally, large, kind=JSON)["uncounted"] == 2


def test_an_answer_that_is_broken_off_before_it_tells_counts_by_what_was_said(
    tally: Tally,
) -> None:
    start = events({"type": "message_start", "message": message()})
    told = read(tally, start + events(text("ab" * 1000), text("é" * 100)), whole=False)
    assert tokens(told) == (11, (2000 + 200) // 4, 3, 5)
    assert (told["answers"], told["cut"]) == (1, 1)


def test_once_all_is_told_it_may_be_left(tally: Tally) -> None:
    told = read(tally, STREAM, whole=False)
    assert (tokens(told), told["answers"], told["cut"]) == ((11, 70, 3, 5), 1, 0)


def test_a_request_that_is_left_before_the_answer_is_not_nothing(tally: Tally) -> None:
    reading = Reading(tally, b"POST", MESSAGES, "api.anthropic.com")
    reading.sent = 4000
    reading.end(whole=False)
    told: Any = tally.message()["used"]
    assert (told["uncounted"], told["estimated"], told["open"]) == (1, 1000, 0)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/messages/batches",
        b"/v1/messages/count_tokens/../",
        b"/v1/messages/%63ount_tokens",
        b"/api/../v1/messages",
        b"/api//v1/messages",
    ],
)
def test_only_what_is_surely_free_is_free(tally: Tally, target: bytes) -> None:
    assert read(tally, b'{"id":"b"}', kind=JSON, target=target)["uncounted"] == 1


def test_what_is_looked_up_is_counted_once(tally: Tally) -> None:
    lines = b"".join(
        json.dumps({"custom_id": name, "result": {"message": message(name, 7)}}).encode() + b"\n"
        for name in ("msg_a", "msg_b")
    )
    for _ in range(3):
        told = read(tally, lines, kind=b"application/x-jsonl", method=b"GET", target=b"/v1/b/1")
        assert tokens(told) == (22, 14, 6, 10)


def test_names_of_models_are_bounded(tally: Tally) -> None:
    told: dict[str, Any] = {}
    for number in range(40):
        said = message(f"m{number}") | {"model": f"{number:02}" * 200}
        told = read(tally, json.dumps(said).encode(), kind=JSON)
    assert len(told["models"]) == 17
    assert max(map(len, told["models"])) == 80
    assert told["models"]["other"]["input"] == 24 * 11


def test_it_is_told_at_once_and_then_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.setattr(tallies, "EVERY", 0.05)
    loop, told = tally._loop, list[dict[str, Any]]()  # pyright: ignore[reportPrivateUsage]
    tally.send = told.append

    def add() -> None:
        for _ in range(100):
            tally.add("m", (1, 0, 0, 0))

    add()
    loop.later(0.02, add)
    loop.later(0.2, loop.end)
    loop.run()
    assert [one["used"]["models"]["m"]["input"] for one in told] == [100, 200]


@pytest.fixture
def controlled(short_dir: Path) -> Iterator[Shared]:
    """A proxy's shared state, with its control socket, in a loop of its own."""
    loop = Loop()
    journal = Journal(str(short_dir), loop.later)
    shared = Shared(loop, Rules(), journal)
    control = Control(str(short_dir / "c.sock"), shared, Proxy(shared))
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield shared
    loop.tell(loop.end)
    thread.join(10)
    control._drop()  # pyright: ignore[reportPrivateUsage]
    control._listener.close()  # pyright: ignore[reportPrivateUsage]
    os.close(journal._fd)  # pyright: ignore[reportPrivateUsage]
    loop.close()


def test_each_daemon_is_told_all_since_the_proxy_started(
    controlled: Shared, short_dir: Path
) -> None:
    authority, key = make_authority("ours", ["api.example"])
    certificate, leaf = make_leaf(authority, key, "api.example")
    secret = {"host": "api.example", "placeholder": "p" * 40, "value": "v" * 40}
    secret |= {"certificate": certificate, "key": leaf}
    first = Daemon(short_dir / "c.sock")
    assert "used" not in first.hello
    first.send(do="secrets", secrets=[secret], counted=["api.example"])
    assert first.read()["used"]["models"] == {}
    assert first.read() == {"done": "secrets"}
    tally = controlled.tally
    assert tally is not None
    tally.add("m", (1, 2, 3, 4))
    tally.count(answers=1)
    assert first.read()["used"]["models"] == {"m": dict(zip(KINDS, (1, 2, 3, 4), strict=True))}
    first.close()
    tally.add("m", (1, 0, 0, 0))
    second = Daemon(short_dir / "c.sock")
    used = second.hello["used"]
    assert (used["run"], used["models"]["m"]["input"], used["answers"]) == (tally.run, 2, 1)
    second.send(do="secrets", secrets=[secret], counted=["api.example"])
    assert second.read() == {"done": "secrets"}
    assert controlled.tally is tally
    tally.add("m", (5, 0, 0, 0))
    assert second.read()["used"]["models"]["m"]["input"] == 7
    second.close()


# --- what is kept of it, and compared


def proxy(run: str, output: int, **more: Any) -> ProxyCount:
    counted = Counted(models={"m": ModelUsage(output=output)}, answers=1, **more)
    return ProxyCount(run=run, counted=counted)


def test_counts_of_several_proxies_add_up() -> None:
    kept: KeptCount | None = None
    for told, whole in (
        (proxy("a", 5), 5),
        (proxy("a", 9), 9),
        (proxy("a", 2), 9),  # no proxy takes back what it told
        (proxy("b", 1), 10),
        (proxy("b", 4, uncounted=1, estimated=100), 113),
    ):
        kept = kept_with(kept, told)
        assert kept.whole.tokens == whole
    assert kept is not None
    assert (kept.whole.uncounted, kept.whole.answers) == (1, 2)


def used(transcript: int, counted: int | None) -> AgentUsage:
    models = {"m": ModelUsage(output=transcript)}
    by_proxy = None if counted is None else proxy("a", counted).counted
    return AgentUsage(models=models, counted=by_proxy)


@pytest.mark.parametrize(
    ("transcript", "counted", "told"),
    [
        (0, 5000, True),
        (4000, 5000, True),
        (5000, 0, True),
        (4800, 5000, False),
        (0, 900, False),
        (5000, None, False),
        (5000, 5000, False),
    ],
)
def test_what_differs_is_told_when_it_has_settled(
    transcript: int, counted: int | None, told: bool
) -> None:
    comparison, usage = Comparison(), used(transcript, counted)
    assert comparison.look(usage, 0, 100.0) is None
    assert comparison.look(usage, 0, 100.0 + SETTLED_SECONDS - 0.1) is None
    found = comparison.look(usage, 0, 100.0 + SETTLED_SECONDS)
    assert (found is not None) == told
    if found is not None:
        assert (found["counted"], found["transcript"]) == (str(counted), str(transcript))


def test_one_may_be_ahead_while_an_answer_is_under_way_but_not_for_ever() -> None:
    comparison = Comparison()
    for second in range(int(LONGEST_SECONDS)):
        assert comparison.look(used(1000, 9000), 1, 50.0 + second) is None
    assert comparison.look(used(9000, 9000), 1, 60.0) is None  # it has come up
    for second in range(int(LONGEST_SECONDS)):
        assert comparison.look(used(9000, 18000 + second), 0, 200.0 + second) is None
    assert comparison.look(used(9000, 20000), 1, 200.0 + LONGEST_SECONDS) is not None


def test_what_a_gateway_has_below_api_is_paid_for(tally: Tally) -> None:
    told = read(tally, b"?", kind=JSON, target=b"/api/v1/messages", host="gate.example")
    assert (told["uncounted"], told["estimated"]) == (1, 100)
