"""What went wrong, in the one shape that every error of this face has (RFC 9457)."""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from csb_mcp import errors
from csb_mcp.errors import CreateFailed, CsbError
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.transports.http.replies import Reply, encoded

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[CsbError], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Ambiguous: HTTPStatus.CONFLICT,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.HostUnable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CreateFailed: HTTPStatus.BAD_GATEWAY,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.SandboxEnded: HTTPStatus.CONFLICT,
    errors.HelperFailed: HTTPStatus.BAD_GATEWAY,
    errors.DisplayFailed: HTTPStatus.BAD_GATEWAY,
    errors.EgressFailed: HTTPStatus.BAD_GATEWAY,
    errors.PromptNotSubmitted: HTTPStatus.BAD_GATEWAY,
    errors.TerminalFailed: HTTPStatus.BAD_GATEWAY,
    errors.StoreUnusable: HTTPStatus.SERVICE_UNAVAILABLE,
}
TITLES: Mapping[str, str] = {
    "invalid_input": "An argument is malformed, out of range or unknown",
    "not_found": "No such sandbox",
    "ambiguous": "The prefix fits several sandboxes",
    "conflict": "The name is taken, or the sandbox's state does not allow it",
    "forbidden": "The settings do not allow it",
    "host_unable": "This host cannot do it",
    "create_failed": "The sandbox did not come up; everything was rolled back",
    "deadline_exceeded": "Something did not answer in time",
    "sandbox_ended": "The sandbox has ended",
    "helper_failed": "The helper inside could not do it",
    "display_failed": "The display did not answer well",
    "egress_failed": "The egress proxy did not answer; nothing gets out until it is back",
    "prompt_not_submitted": "Nothing proves that the agent took the prompt",
    "terminal_failed": "The terminal did not answer well",
    "store_unusable": "The state on disk cannot be read",
    "no_such_route": "Nothing answers at this path",
    "method_not_allowed": "This path does not take this method",
    "request_timeout": "The body did not come in time",
    "upgrade_required": "This path speaks WebSocket only",
    "content_too_large": "The body is too large",
    "unsupported_media_type": "The body is not application/json",
    "busy": "Too many requests are in flight",
    "ending": "The daemon is ending; sandboxes go on",
    "internal": "A defect of this program",
}
"""By code: what can be wrong, those of :mod:`csb_mcp.errors` first."""


class Refused(Exception):
    """A request that HTTP itself is enough to refuse: no :class:`CsbError` says so."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})


def status_of(kind: type[CsbError]) -> HTTPStatus:
    """The status that an error is answered with; a new one without a rule is a defect of ours."""
    return _STATUS.get(kind, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: CsbError) -> dict[str, Any]:
    """All that an error knows, as the members of a problem."""
    given: dict[str, Any] = {
        "field": error.field,
        "sandbox": error.sandbox,
        "choices": list(error.choices),
        "hint": None if error.hint is None else plain_text(error.hint),
        "stage": error.stage if isinstance(error, CreateFailed) else None,
    }
    found = _problem(status_of(type(error)), error.code, plain_text(error.message))
    return found | {key: value for key, value in given.items() if value}


def answer(error: Exception) -> Reply:
    """The response to a request that failed. A defect is logged, and its mark is all that is told.

    Words may come from a sandbox, so escapes and control characters are removed.
    """
    if isinstance(error, CsbError):
        return _reply(problem_of(error))
    if isinstance(error, Refused):
        hint = {"hint": error.hint} if error.hint else {}
        return _reply(_problem(error.status, error.code, error.detail) | hint, error.headers)
    return _reply(_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _marked(error)))


def reason(error: Exception) -> str:
    """An error in the few bytes that a WebSocket's last frame holds (RFC 6455, 5.5)."""
    words = str(error) if isinstance(error, CsbError) else _marked(error)
    return one_line(words, 120).encode()[:120].decode(errors="ignore")


def _marked(error: Exception) -> str:
    """Log a defect; gives what may be told of it."""
    mark = secrets.token_hex(4)
    log.error("a request failed, id %s", mark, exc_info=error)
    return f"Not your mistake. The daemon's log tells more, look for id {mark}"


def _problem(status: HTTPStatus, code: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:csb-mcp:error:{code}",
        "title": TITLES.get(code, status.phrase),
        "status": int(status),
        "detail": detail,
        "code": code,
    }


def _reply(problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(encoded(problem), problem["status"], {**(headers or {})}, MEDIA_TYPE)
