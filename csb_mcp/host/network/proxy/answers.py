"""What the proxy itself says to a client."""

import os

from csb_mcp.host.network.proxy.rules import ASKED, DENIED, FAILED

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def text(place: str, verdict: str, why: str, *, fixed: bool) -> str:
    """One sentence or two, in plain words."""
    if verdict == ASKED:
        return f"{place} is not allowed. The supervisor has been asked; try again later."
    if verdict == DENIED:
        return f"{place} is not allowed." if fixed else f"{place} has been denied."
    if verdict == FAILED:
        return f"{place} could not be reached: {why}."
    return f"{place} is refused: {why}."


def answer(status: int, sentence: str, *, head_only: bool) -> bytes:
    """A whole answer."""
    body = f"csb-mcp: {sentence}\n".encode("ascii", "backslashreplace")
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)


def of_errno(number: int) -> str:
    """In words, as the system has them."""
    return os.strerror(number).lower()
