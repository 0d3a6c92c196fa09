"""Puts placeholders back where an answer carries a secret, whatever pieces it comes in."""

from collections.abc import Iterable

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
# What stands for a character in HTML, as those who write it have it: what every text needs, and
# what quotes, or more, become in Python, Go, JavaScript, PHP, XML, mustache and Go's templates.
_TEXT = {b"&": b"&amp;", b"<": b"&lt;", b">": b"&gt;"}
_HTML = (
    {b"&": b"&amp;", b"<": b"&lt;"},
    _TEXT,
    _TEXT | {b'"': b"&quot;"},
    _TEXT | {b'"': b"&quot;", b"'": b"&#x27;"},
    _TEXT | {b'"': b"&#34;", b"'": b"&#39;"},
    _TEXT | {b'"': b"&quot;", b"'": b"&#39;"},
    _TEXT | {b'"': b"&quot;", b"'": b"&#039;"},
    _TEXT | {b'"': b"&quot;", b"'": b"&apos;"},
    _TEXT | {b'"': b"&quot;", b"'": b"&#39;", b"/": b"&#x2F;", b"`": b"&#x60;", b"=": b"&#x3D;"},
    _TEXT | {b'"': b"&#34;", b"'": b"&#39;", b"+": b"&#43;"},
)
Pair = tuple[bytes, bytes]


def spellings(secret: bytes, placeholder: bytes) -> tuple[Pair, ...]:
    """``secret`` as it may stand in an answer, each with what takes its place.

    As it is, in a URL, in JSON, and in HTML. What an answer makes of it beyond that (base64, a
    digest, letter by letter) is that host's doing, which knows the secret anyway.
    """
    url = b"".join(b"%c" % c if c in _PLAIN else b"%%%02X" % c for c in secret)
    json = secret.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    urls = {url, url.replace(b"%20", b"+")}
    urls |= {one.replace(b"%2F", b"/") for one in urls}  # as in a path
    cautious = json  # fit to stand in HTML
    for mark in b"&<>":
        cautious = cautious.replace(b"%c" % mark, b"\\u%04x" % mark)
    jsons = {json, json.replace(b"/", b"\\/"), cautious}
    htmls = {b"".join(each.get(b"%c" % c, b"%c" % c) for c in secret) for each in _HTML}
    found = {secret, *jsons, *urls, *map(_lower_escapes, urls), *htmls}
    return tuple((one, placeholder) for one in found)


def _lower_escapes(url: bytes) -> bytes:
    head, *rest = url.split(b"%")
    return b"%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


class Mask:
    """Replaces within a stream. Keeps back only what may be the beginning of a secret."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        # Longest first: one secret may be the beginning of another.
        self._pairs = tuple(sorted(pairs, key=lambda pair: len(pair[0]), reverse=True))
        self._kept = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """What can be passed on now; with ``last`` all that is left."""
        data = self.whole(self._kept + data)
        hold = 0 if last else max((_overlap(data, secret) for secret, _ in self._pairs), default=0)
        self._kept = data[len(data) - hold :]
        return data[: len(data) - hold]

    def whole(self, data: bytes) -> bytes:
        """With every secret in ``data`` replaced, as a text that is whole."""
        for secret, placeholder in self._pairs:
            data = data.replace(secret, placeholder)
        return data


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of ``secret``."""
    for size in range(min(len(data), len(secret) - 1), 0, -1):
        if data.endswith(secret[:size]):
            return size
    return 0
