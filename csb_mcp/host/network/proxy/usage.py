"""What an answer of an agent's API says it used, read as it passes: nothing waits for this.

A body is one JSON object, or lines with one each (server-sent events, batches). Anthropic's
Messages tell usage in the message itself, or, in a stream, in ``message_start`` and then, as it
grows, in ``message_delta``; OpenAI's Responses in the response, or in the ``response.completed``
event that has it. All of them have an object ``usage``, in one of a few places.
"""

from csb_mcp.host.network.proxy.lines import decoded
from csb_mcp.host.network.proxy.tally import KINDS, Tally

MOST_BYTES = 1 << 20  # of one JSON object; a larger one is not counted
BYTES_OF_A_TOKEN = 4  # what is not told is estimated by its size
_HEAD = 64
_MOST_TOKENS = 10**12
_PLACES = ((), ("message",), ("response",), ("response", "body"), ("result", "message"))
_TEXTS = ("text", "thinking", "partial_json")
_FREE = (b"/v1/messages/count_tokens", b"/v1/responses/input_tokens")
_ANTHROPIC = "api.anthropic.com"
_NOTHING = (0,) * len(KINDS)
Object = dict[str, object]


class Reading:
    """Of one request's answer. :meth:`end` is called once, whatever comes of it.

    ``host``: whom it was asked. ``sent``: bytes of the request's body so far.
    """

    def __init__(self, tally: Tally, method: bytes, target: bytes, host: str) -> None:
        self._tally = tally
        self._asks = method == b"POST" and not _is_free(target, host)
        self.sent = self._received = self._text = 0
        self._begun = self._failed = self._whole_json = self._lost = self._passing = False
        self._found = self._last = self._twice = False
        self._rest = bytearray()
        self._id = self._model = ""
        self._known = list(_NOTHING)
        if self._asks:
            tally.count(open=1)

    def begin(self, status: int, kind: bytes) -> None:
        """Its head has come; ``kind``: its Content-Type."""
        self._begun, self._failed = True, not 200 <= status < 300
        self._whole_json = kind.partition(b";")[0].strip().lower() == b"application/json"

    def feed(self, data: bytes) -> None:
        """The next part of the body. Never raises."""
        self._received += len(data)
        if self._failed or not data:
            return
        try:
            self._hear(data)
        except Exception:  # noqa: BLE001 - a body that is not understood is passed on all the same
            self._lost, self._rest = True, bytearray()

    def end(self, *, whole: bool) -> None:
        """No more comes. Not ``whole``: it was cut off. Never raises."""
        if whole and self._whole_json and not self._failed and not self._lost:
            try:
                self._take(self._rest)
            except Exception:  # noqa: BLE001 - as above
                self._lost = True
        self._rest = bytearray()
        if self._asks:
            self._conclude(whole=whole)

    def _conclude(self, *, whole: bool) -> None:
        if self._failed:
            self._tally.count(open=-1)
        elif not self._found or self._lost:
            size = (self.sent + self._received) // BYTES_OF_A_TOKEN
            self._tally.count(open=-1, uncounted=1, estimated=size)
        elif whole or self._last:
            self._tally.count(open=-1, answers=1)
        else:
            # What was said before the cut was made, and will be paid for.
            self._rise((0, self._text // BYTES_OF_A_TOKEN, 0, 0))
            self._tally.count(open=-1, answers=1, cut=1)

    def _hear(self, data: bytes) -> None:
        if self._whole_json:
            self._keep(data)
            return
        *lines, last = data.split(b"\n")
        for line in lines:
            self._keep(line)
            if not self._passing:
                self._line(self._rest)
            self._rest, self._passing = bytearray(), False
        self._keep(last)

    def _keep(self, data: bytes) -> None:
        if len(self._rest) + len(data) > MOST_BYTES:
            self._lost, self._passing = True, not self._whole_json
            self._rest = bytearray()
        elif not self._passing and not (self._lost and self._whole_json):
            self._rest += data

    def _line(self, line: bytearray) -> None:
        line = line.removeprefix(b"data:").strip()
        if not line.startswith(b"{"):
            return
        if b'"usage"' in line:
            self._take(line)
        elif b"delta" in line or b"error" in line[:_HEAD]:
            value = decoded(line)
            self._text += _said(value.get("delta"))
            # Refused after all, before anything was made.
            self._failed |= value.get("type") == "error" and not self._found

    def _take(self, text: bytearray) -> None:
        value = decoded(text)
        self._text += _said(value.get("delta"))
        for place in _PLACES:
            holder = _at(value, place)
            usage = _object(holder.get("usage"))
            if used := _numbers(usage):
                self._note(holder, used)
                self._last |= value.get("type") != "message_start"
                return

    def _note(self, holder: Object, used: tuple[int, ...]) -> None:
        name, model = holder.get("id"), holder.get("model")
        if isinstance(name, str) and name and name != self._id:
            self._id, self._known, self._model = name, list(_NOTHING), ""
            # What was made before may be looked up again, which costs nothing.
            self._twice = self._tally.knows(name) and not self._asks
        if isinstance(model, str) and not self._model:
            self._model = model
        self._found = True
        self._rise(used)

    def _rise(self, used: tuple[int, ...]) -> None:
        """Counts in a stream tell all so far."""
        more = [max(0, now - before) for now, before in zip(used, self._known, strict=True)]
        if any(more) and not self._twice:
            self._known = [before + one for before, one in zip(self._known, more, strict=True)]
            self._tally.add(self._model, more)


def _is_free(target: bytes, host: str) -> bool:
    """What uses no model. Any other spelling of its path is taken for one that does."""
    path = target.partition(b"?")[0]
    plain = b"%" not in path and b"//" not in path and b"/." not in path
    # Of a gateway, all that it has may lie below that.
    return plain and (path in _FREE or (host == _ANTHROPIC and path.startswith(b"/api/")))


def _said(delta: object) -> int:
    """How much text a part of a stream has."""
    if isinstance(delta, str):
        return len(delta.encode(errors="replace"))
    parts = _object(delta)
    texts = (parts.get(name) for name in _TEXTS)
    return sum(len(text.encode(errors="replace")) for text in texts if isinstance(text, str))


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _at(value: Object, place: tuple[str, ...]) -> Object:
    for name in place:
        value = _object(value.get(name))
    return value


def _numbers(usage: Object) -> tuple[int, ...]:
    """Tokens by kind; empty if it tells none."""
    taken, given = (_first(usage, names) for names in _TOKENS)
    if taken is None and given is None:
        return ()
    details = _object(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    cached = min(_whole(details, "cached_tokens") or 0, taken or 0)  # theirs has these in it
    made = _whole(usage, "cache_creation_input_tokens") or 0
    read = _whole(usage, "cache_read_input_tokens") or 0
    return (taken or 0) - cached, given or 0, made, read + cached


_TOKENS = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))


def _first(usage: Object, names: tuple[str, ...]) -> int | None:
    return next((n for name in names if (n := _whole(usage, name)) is not None), None)


def _whole(fields: Object, name: str) -> int | None:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
