"""What the proxy does with connections to a secret's host: real TLS on both sides."""

import base64
import html
import http.client
import json
import socket
import ssl
import threading
import xml.sax.saxutils
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.host.network.proxy import tls
from csb_mcp.host.network.proxy.loop import Loop
from csb_mcp.host.network.proxy.mask import Mask, spellings
from csb_mcp.host.network.proxy.messages import (
    BadMessageError,
    Chunked,
    Head,
    body_of,
    chunk,
    take_head,
)
from csb_mcp.host.network.proxy.tally import Tally
from tests.support.secret_host import HOST, PLACEHOLDER, VALUE, World, world

USED = {"input_tokens": 11, "output_tokens": 1, "cache_read_input_tokens": 5}
USED_KINDS = {"input": 11, "output": 1, "cache_creation": 0, "cache_read": 5}
GET = f"Host: {HOST}\r\nx-api-key: {PLACEHOLDER}\r\n"


@pytest.fixture
def here(short_dir: Path) -> Iterator[World]:
    with world(short_dir) as made:
        yield made


class Connection(http.client.HTTPConnection):
    """HTTP over a connection that is there already."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(HOST)
        self.sock = sock


def answer(here: World, text: str) -> tuple[int, bytes]:
    """Status and body of the first answer to ``text``, as it is sent."""
    with closing(here.client()) as sock:
        sock.sendall(text.encode("latin-1"))
        found = http.client.HTTPResponse(sock)
        found.begin()
        with closing(found):
            return found.status, found.read()


def test_a_secret_is_put_in_and_taken_out_again(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        headers = {"x-api-key": PLACEHOLDER, "Authorization": f"Bearer {PLACEHOLDER}"}
        for path in ("/echo", "/echo?again"):  # one connection, two requests
            connection.request("POST", path, body=b"hello " + PLACEHOLDER.encode(), headers=headers)
            found = connection.getresponse()
            text = found.read().decode()
            assert json.loads(text)["Authorization"] == f"Bearer {PLACEHOLDER}"
            assert found.headers["X-Echo"] == PLACEHOLDER
            assert found.reason == f"got {PLACEHOLDER}"
            assert VALUE not in text + str(found.headers) + found.reason
    assert [path for _, path, _, _ in here.server.seen] == ["/echo", "/echo?again"]
    _, _, sent, body = here.server.seen[0]
    assert sent["x-api-key"] == VALUE
    assert sent["Authorization"] == f"Bearer {VALUE}"
    assert sent["Accept-Encoding"] == "identity"
    assert body == b"hello " + PLACEHOLDER.encode(), "only header values are changed"
    up, down, why = here.ended()
    assert up > 200
    assert down > 200
    assert why == ""


def test_a_password_in_basic_is_put_in_and_its_word_taken_out(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        word = "YWdlbnQ6" + base64.b64encode(PLACEHOLDER.encode()).decode()
        connection.request("GET", "/echo", headers={"Authorization": f"Basic {word}"})
        assert json.loads(connection.getresponse().read())["Authorization"] == f"Basic {word}"
    real = "YWdlbnQ6" + base64.b64encode(VALUE.encode()).decode()
    assert here.server.seen[0][2]["Authorization"] == f"Basic {real}"


@pytest.mark.parametrize("path", ["/pieces", "/unsized"])
def test_a_secret_is_found_across_borders_and_without_a_size(here: World, path: str) -> None:
    status, body = answer(here, f"GET {path} HTTP/1.1\r\n{GET}\r\n")
    assert status == 200, here.ended()
    assert VALUE.encode() not in body
    times = body.count(PLACEHOLDER.encode())
    assert times == (len(VALUE) - 1 if path == "/pieces" else 1)


def test_events_pass_at_once(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        connection.request("GET", "/events", headers={"x-api-key": PLACEHOLDER})
        found = connection.getresponse()
        for number in range(3):  # each comes before the host goes on
            assert found.fp.readline()
            assert found.fp.readline() == f"data: {number} {PLACEHOLDER}\n".encode()
            assert [found.fp.readline() for _ in range(2)] == [b"\n", b"\r\n"]
            here.server.next.set()


def said(value: dict[str, Any]) -> bytes:
    return f"event: x\ndata: {json.dumps(value)}\n\n".encode()


EVENTS = (
    said({"type": "message_start", "message": {"id": "m", "model": "claude-x", "usage": USED}}),
    said({"type": "content_block_delta", "delta": {"type": "text_delta", "text": VALUE * 40}}),
    said({"type": "message_delta", "usage": {"output_tokens": 50}}),
)


@pytest.fixture
def tally() -> Iterator[Tally]:
    loop = Loop()
    yield Tally(loop)
    loop.close()


def told(tally: Tally) -> dict[str, Any]:
    found: Any = tally.message()["used"]
    return found


def test_what_a_model_says_passes_at_once_and_unaltered_and_is_counted(
    here: World, tally: Tally
) -> None:
    here.door.tally = tally
    here.server.events = EVENTS
    with closing(Connection(here.client())) as connection:
        connection.request("POST", "/v1/messages", b"x", headers={"x-api-key": PLACEHOLDER})
        found = connection.getresponse()
        for number, event in enumerate(EVENTS):  # each comes before the host goes on
            masked = event.replace(VALUE.encode(), PLACEHOLDER.encode())
            assert found.read(len(masked)) == masked
            used = told(tally)
            assert used["models"]["claude-x"] == USED_KINDS | {"output": 50 if number == 2 else 1}
            assert (used["open"], used["answers"]) == (1, 0)
            here.server.next.set()
        assert found.read() == b""
    assert here.ended()[2] == ""
    assert (told(tally)["open"], told(tally)["answers"], told(tally)["cut"]) == (0, 1, 0)


def test_who_goes_before_the_count_comes_has_not_got_it_for_nothing(
    here: World, tally: Tally
) -> None:
    here.door.tally = tally
    here.server.events = EVENTS
    with closing(Connection(here.client())) as connection:
        connection.request("POST", "/v1/messages", b"x", headers={"x-api-key": PLACEHOLDER})
        found = connection.getresponse()
        with closing(found):
            found.read(len(EVENTS[0]))
            here.server.next.set()
            found.read(len(EVENTS[1]) - 40 * (len(VALUE) - len(PLACEHOLDER)))
    assert "sandbox" in here.ended()[2]
    here.server.hurry = True
    here.server.next.set()
    used = told(tally)
    assert used["models"]["claude-x"] == USED_KINDS | {"output": 40 * len(VALUE) // 4}
    assert (used["open"], used["answers"], used["cut"]) == (0, 1, 1)


def test_only_where_an_api_is_anything_is_counted(here: World, tally: Tally) -> None:
    here.door.tally = tally
    here.door.entry = replace(here.door.entry, counted=False)
    here.server.events = EVENTS
    with closing(Connection(here.client())) as connection:
        connection.request("POST", "/v1/messages", b"x", headers={"x-api-key": PLACEHOLDER})
        found = connection.getresponse()
        with closing(found):
            assert found.read(len(EVENTS[0])) == EVENTS[0]
            here.server.hurry = True
            here.server.next.set()
            assert found.read()
    assert told(tally)["models"] == {}
    assert told(tally)["uncounted"] == 0


def test_a_chunked_body_goes_up_as_it_comes(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        pieces = [b"one", b"two" * 5000, b"three"]
        connection.request(
            "PUT",
            "/echo",
            body=iter(pieces),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        assert connection.getresponse().read()
    assert here.server.seen[0][3] == b"".join(pieces)


def test_whoever_waits_for_100_gets_it(here: World) -> None:
    with closing(here.client()) as sock:
        head = f"POST /echo HTTP/1.1\r\n{GET}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        sock.sendall(b"hello")
        found = http.client.HTTPResponse(sock)
        found.begin()
        assert found.status == 200
        found.close()
    assert here.server.seen[0][3] == b"hello"


def test_a_large_answer_passes_a_slow_reader_within_bounds(here: World) -> None:
    here.server.large = 32 << 20
    with closing(Connection(here.client())) as connection:
        connection.request("GET", "/large")
        found = connection.getresponse()
        before, size = resident(), 0
        while data := found.read(1 << 20):
            size += len(data)
        assert size == here.server.large
        assert resident() - before < 24 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_head_has_a_size_and_no_body(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        for _ in range(2):
            connection.request("HEAD", "/echo", headers={"x-api-key": PLACEHOLDER})
            found = connection.getresponse()
            assert int(found.headers["Content-Length"]) > 0
            assert found.read() == b""


def test_a_part_of_an_answer_is_not_asked_for_with_a_secret(here: World) -> None:
    with closing(Connection(here.client())) as connection:
        for headers in ({}, {"x-api-key": PLACEHOLDER}):
            connection.request("GET", "/echo", headers={"Range": "bytes=0-9"} | headers)
            connection.getresponse().read()
    assert ["Range" in sent for _, _, sent, _ in here.server.seen] == [True, False]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (f"GET /packed HTTP/1.1\r\n{GET}\r\n", 502, "packed its answer"),
        (f"GET / HTTP/1.0\r\n{GET}\r\n", 505, "HTTP/1.1"),
        (f"TRACE / HTTP/1.1\r\n{GET}\r\n", 501, "method"),
        (f"GET https://{HOST}/ HTTP/1.1\r\n{GET}\r\n", 400, "target"),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 421, f"{HOST} alone"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "one Host"),
        (f"GET / HTTP/1.1\r\n{GET}Host: {HOST}\r\n\r\n", 400, "one Host"),
        (f"GET / HTTP/1.1\r\n{GET}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", 501, "WebS"),
        (f"GET / HTTP/1.1\r\n{GET}X : 1\r\n\r\n", 400, "NAME: VALUE"),
        (f"GET / HTTP/1.1\r\n{GET}X: 1\r\n 2\r\n\r\n", 400, "NAME: VALUE"),
        (f"GET / HTTP/1.1\r\n{GET}X: 1\n2: 3\r\n\r\n", 400, "control"),
        (f"GET / HTTP/1.1\r\n{GET}X: \0\r\n\r\n", 400, "control"),
        (f"GET / HTTP/1.1\r\n{GET}Content-Length: +1\r\n\r\n", 400, "Content-Length"),
        (f"GET / HTTP/1.1\r\n{GET}Content-Length: 1, 1\r\n\r\n", 400, "Content-Length"),
        (
            f"GET / HTTP/1.1\r\n{GET}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            *(400, "chunked alone"),
        ),
        (f"GET / HTTP/1.1\r\n{GET}Transfer-Encoding: gzip\r\n\r\n", 400, "chunked alone"),
        (f"GET / HTTP/1.1\r\n{GET}X: {'x' * 66000}\r\n\r\n", 400, "64 KiB"),
    ],
)
def test_what_is_not_passed_on_says_why(here: World, text: str, status: int, words: str) -> None:
    found, body = answer(here, text)
    assert found == status
    assert words in body.decode()
    assert words in here.ended()[2]
    if status != 502:
        assert here.server.seen == [], "nothing of it went to the host"


def test_another_name_in_the_handshake_is_refused(here: World) -> None:
    context = ssl.create_default_context(cadata=here.authority)
    context.check_hostname = False
    with here.door.connected() as sock, pytest.raises(ssl.SSLError, match="unrecognized name"):
        context.wrap_socket(sock, server_hostname="other.example")
    assert here.server.seen == []


def test_who_does_not_trust_the_authority_is_told_of(here: World) -> None:
    with here.door.connected() as sock, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(sock, server_hostname=HOST)
    assert "unknown ca" in here.ended()[2].lower().replace("_", " ")


@pytest.mark.parametrize("wrong", [{"certified": "other.example"}, {"trusted": False}])
def test_a_wrong_certificate_of_the_host_is_refused(short_dir: Path, wrong: dict[str, str]) -> None:
    with world(short_dir, **wrong) as here:  # type: ignore[arg-type]
        status, body = answer(here, f"GET /echo HTTP/1.1\r\n{GET}\r\n")
        assert status == 502
        assert f"the certificate of {HOST} is not valid" in body.decode()
        assert here.server.seen == []
        up, down, why = here.ended()
        assert "is not valid" in why
        assert (up, down) == (0, 0), "nothing was said to it"


@pytest.mark.parametrize("known", [True, False])
def test_without_authorities_the_systems_are_asked(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if known:  # where OpenSSL looks for the system's
        monkeypatch.setenv("SSL_CERT_FILE", str(short_dir / "theirs.pem"))
    tls.outside.cache_clear()
    with world(short_dir, system=True) as here:
        assert answer(here, f"GET /echo HTTP/1.1\r\n{GET}\r\n")[0] == (200 if known else 502)
    tls.outside.cache_clear()


def test_who_stops_in_its_header_is_cut_off(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HEAD_SECONDS", 0.3)
    with closing(here.client()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert sock.recv(10) == b""
    assert "too long" in here.ended()[2]


def test_a_connection_that_rests_ends_without_a_fault(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "REST_SECONDS", 0.3)
    with closing(Connection(here.client())) as connection:
        connection.request("GET", "/echo")
        connection.getresponse().read()
        assert connection.sock.recv(10) == b""
    assert here.ended()[2] == ""


def test_a_host_that_stops_in_an_answer_is_cut_off(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "IDLE_SECONDS", 0.3)
    with closing(Connection(here.client())) as connection:
        connection.request("GET", "/events", headers={"x-api-key": PLACEHOLDER})
        found = connection.getresponse()
        with closing(found), pytest.raises(http.client.IncompleteRead):
            found.read()
    here.server.next.set()
    assert "too long" in here.ended()[2]


def test_who_goes_away_in_an_answer_ends_it(here: World) -> None:
    sock = here.client()
    sock.sendall(f"GET /events HTTP/1.1\r\n{GET}\r\n".encode())
    assert sock.recv(100)
    sock.close()
    assert "sandbox" in here.ended()[2]
    here.server.next.set()


def test_an_answer_before_the_request_is_whole_ends_the_connection(short_dir: Path) -> None:
    with world(short_dir) as here, socket.create_server(("127.0.0.1", 0)) as listener:
        here.door.upstream = listener.getsockname()[:2]
        said = b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nno\n"
        speaker = threading.Thread(target=_says, args=(listener, here, said))
        speaker.start()
        status, body = answer(
            here, f"POST /echo HTTP/1.1\r\n{GET}Content-Length: 1000000\r\n\r\nsome"
        )
        speaker.join(10)
        assert (status, body) == (413, b"no\n")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "101"),
        (b"SSH-2.0-x\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n", "control"),
        (b"", "in the middle of an answer"),
    ],
)
def test_a_host_that_speaks_no_http_is_told_of(short_dir: Path, said: bytes, words: str) -> None:
    with world(short_dir) as here, socket.create_server(("127.0.0.1", 0)) as listener:
        here.door.upstream = listener.getsockname()[:2]
        speaker = threading.Thread(target=_says, args=(listener, here, said))
        speaker.start()
        status, body = answer(here, f"GET /echo HTTP/1.1\r\n{GET}\r\n")
        speaker.join(10)
        assert status == 502
        assert words in body.decode()


def _says(listener: socket.socket, here: World, said: bytes) -> None:
    listener.settimeout(10)
    raw = listener.accept()[0]
    raw.settimeout(10)
    with here.server.context.wrap_socket(raw, server_side=True) as sock:
        sock.recv(65536)
        sock.sendall(said) if said else None
        try:
            sock.unwrap()
        except OSError:
            pass


@given(
    value=st.text('ab/"\\ ', min_size=3, max_size=8).map(str.strip).filter(lambda v: len(v) > 2),
    around=st.lists(st.text('ab/"\\ xy%0123456789F', max_size=12), min_size=1, max_size=8),
    step=st.integers(1, 9),
)
def test_a_mask_finds_what_it_is_for_wherever_the_borders_are(
    value: str, around: list[str], step: int
) -> None:
    mask, wire = Mask(spellings(value.encode(), b"<HOLDER>")), value.join([*around, ""]).encode()
    pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
    found = b"".join(map(mask.feed, pieces)) + mask.feed(b"", last=True)
    assert value.encode() not in found
    assert b"<HOLDER>" in found


def test_a_mask_keeps_back_no_more_than_a_beginning() -> None:
    mask = Mask(spellings(b"secret-value", b"<HOLDER>"))
    assert mask.feed(b"data: all of it\n\n") == b"data: all of it\n\n"
    assert mask.feed(b"a sec") == b"a "
    assert mask.feed(b"ond") == b"second"
    assert mask.feed(b"secret-val") == b""
    assert mask.feed(b"ue") == b"<HOLDER>"
    assert mask.feed(b"secret-val", last=True) == b"secret-val"


@pytest.mark.parametrize("spelling", [b"a/b%20c+d", b"a%2Fb%20c%2Bd", b"a%2fb+c%2bd", b"a\\/b c+d"])
def test_other_spellings_of_a_secret_are_found(spelling: bytes) -> None:
    known = spelling == b"a/b%20c+d"  # a URL that is half of each is nobody's
    assert (b"HOLDER" in Mask(spellings(b"a/b c+d", b"HOLDER")).whole(spelling)) != known


def quote_all(text: str) -> str:
    return quote(text, safe="")


@pytest.mark.parametrize("spelling", [quote, quote_plus, quote_all, json.dumps])
def test_a_secret_like_base64_is_found_as_libraries_write_it(
    spelling: Callable[[str], str],
) -> None:
    mask = Mask(spellings(b"Ab3/xy+z9==k&<q", b"HOLDER"))
    text = spelling("Ab3/xy+z9==k&<q")
    assert mask.whole(text.encode()).strip(b'"') == b"HOLDER"
    go = text.replace("&", r"\u0026").replace("<", r"\u003c")
    assert mask.whole(go.encode()).strip(b'"') == b"HOLDER"


MARKS = "a&b<c>d\"e'f"


@pytest.mark.parametrize(
    ("secret", "spelling"),
    [
        (MARKS, html.escape(MARKS, quote=False)),
        (MARKS, html.escape(MARKS)),
        (MARKS, xml.sax.saxutils.escape(MARKS)),
        ("a>b&c", "a>b&amp;c"),
        (MARKS, xml.sax.saxutils.escape(MARKS, {'"': "&#34;", "'": "&#39;"})),
        (MARKS, xml.sax.saxutils.escape(MARKS, {'"': "&quot;", "'": "&#039;"})),
        ("Ab/c+d==", "Ab&#x2F;c+d&#x3D;&#x3D;"),
        ("Ab/c+d==", "Ab/c&#43;d=="),
    ],
)
def test_a_secret_in_html_is_found(secret: str, spelling: str) -> None:
    mask = Mask(spellings(secret.encode(), b"HOLDER"))
    assert mask.whole(f"<p>{spelling}</p>".encode()) == b"<p>HOLDER</p>"


@given(st.lists(st.binary(max_size=30)), st.integers(1, 7))
def test_chunks_are_read_back_in_any_pieces(parts: list[bytes], step: int) -> None:
    wire = b"".join(map(chunk, parts)) + chunk(b"", last=True) + b"next"
    body, buffer, found = Chunked(), bytearray(), b""
    for at in range(0, len(wire), step):
        buffer += wire[at : at + step]
        found += body.feed(buffer)
    assert body.done
    assert found == b"".join(parts)
    assert b"next".startswith(buffer), "nothing after its end was taken"


_BROKEN = [
    *(b"g\r\n", b"\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"1\na\r\n", b"1\r\nab\r\n"),
    *(b"1;" + b"x" * 5000, b"1 2\r\n", b"1\r\r\n", b"f" * 13 + b"\r\n"),
    b"0\r\n" + b"a: b\r\n" * 200,
]


@pytest.mark.parametrize("wire", _BROKEN)
def test_broken_chunks_are_refused(wire: bytes) -> None:
    with pytest.raises(BadMessageError):
        Chunked().feed(bytearray(wire))


@given(st.binary(max_size=200))
def test_any_head_is_read_or_refused(data: bytes) -> None:
    try:
        head = take_head(bytearray(b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"))
        assert isinstance(head, Head)
        body_of(head)
    except BadMessageError:
        pass


def test_a_wrong_message_is_refused_without_its_value() -> None:
    authority, key = make_authority("x", [HOST])
    certificate, leaf_key = make_leaf(authority, key, HOST)
    good = {"host": HOST, "placeholder": PLACEHOLDER, "value": VALUE}
    good |= {"certificate": certificate, "key": leaf_key}
    assert tls.entries({"secrets": [good]})[HOST].secrets == (
        (PLACEHOLDER.encode(), VALUE.encode()),
    )
    for wrong in ({"host": 1}, {"value": "\u00e9" + VALUE}, {"key": VALUE}, {"certificate": None}):
        with pytest.raises(ValueError) as caught:
            tls.entries({"secrets": [good | wrong]})
        assert VALUE not in str(caught.value)
        assert caught.value.__cause__ is None
    assert VALUE not in repr(tls.entries({"secrets": [good]}))
