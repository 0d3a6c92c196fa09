"""JSON schemas of what comes back, by name: the other half of :mod:`csb_mcp.decode.schemas`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from csb_mcp.config import NETWORKS
from csb_mcp.model import (
    AgentState,
    Connection,
    HostUsage,
    ModelUsage,
    Outcome,
    Sample,
    SandboxState,
    SandboxUsage,
    Source,
    TriedHost,
    Verdict,
)

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}
TIME: Json = {"type": "string", "format": "date-time"}
STRINGS: Json = {"type": "array", "items": STRING}
_WORDS: Json = {"type": "object", "additionalProperties": STRING}
_HISTORY: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Sample"}}


def _object(properties: Mapping[str, Json], optional: tuple[str, ...] = ()) -> Json:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _numbers(kind: type, **special: Json) -> Json:
    """An object of the fields of a dataclass of numbers; ``float`` and ``int`` tell which."""
    found: dict[str, Json] = {}
    for one in fields(kind):
        found[one.name] = special.get(one.name) or (NUMBER if one.type is float else INTEGER)
    return _object(found)


def _list(name: str, description: str) -> Json:
    items = {"$ref": f"#/components/schemas/{name}"}
    return {"type": "array", "items": items, "description": description}


def _or_none(name: str) -> Json:
    return {"anyOf": [{"$ref": f"#/components/schemas/{name}"}, {"type": "null"}]}


_TOKENS: Json = {"$ref": "#/components/schemas/ModelUsage"}
_OR_NONE: Json = {"type": ["integer", "null"]}

SCHEMAS: Mapping[str, Json] = {
    "Sandbox": _object(
        {
            "id": STRING,
            "name": {"type": ["string", "null"]},
            "backend": STRING,
            "agent": STRING,
            "state": {"enum": [state.value for state in SandboxState]},
            "agent_state": {"enum": [state.value for state in AgentState]},
            "project_dir": STRING,
            "network": {"enum": list(NETWORKS)},
            "workspace": STRING,
            "geometry": STRING,
            "limits": {"$ref": "#/components/schemas/Limits"},
            "created_at": TIME,
            "attach": {**STRING, "description": "A command for a person: the real terminal"},
            "allowed_hosts": {**STRINGS, "description": "Egress rules; presets by their names"},
            "denied_hosts": STRINGS,
            "pending_hosts": {**STRINGS, "description": "host:port (xN): asked for, not answered"},
            "secrets": {**STRINGS, "description": "Names"},
            "forward": {**STRINGS, "description": "What of the host is let in"},
            "warnings": STRINGS,
            "cursor": {**STRING, "description": "From before its task: wait with it"},
            "ended_at": TIME,
            "reason": {**STRING, "description": "Why it ended"},
            "exit_status": {**INTEGER, "description": "Of what ran inside"},
        },
        optional=(
            *("allowed_hosts", "denied_hosts", "pending_hosts", "secrets", "forward"),
            *("warnings", "cursor", "ended_at", "reason", "exit_status"),
        ),
    ),
    "Limits": _object(
        {
            "asked": {**_WORDS, "description": "By limit: what was asked for"},
            "enforced_by": {**_WORDS, "description": "By limit: what enforces it on this host"},
        }
    ),
    "TerminalView": _object(
        {
            "rows": {
                "type": "array",
                "description": "Each is [number, text]; numbers count from the terminal's start",
                "items": {
                    "type": "array",
                    "items": {"type": ["integer", "string"]},
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
            "cursor": STRING,
            "changed_only": {**BOOLEAN, "description": "Only rows changed since the cursor"},
            "gap": {**BOOLEAN, "description": "Rows since the cursor were lost"},
            "cut": {**INTEGER, "description": "Rows left out at the top"},
        }
    ),
    "Observation": _object(
        {
            "sandbox": {"$ref": "#/components/schemas/Sandbox"},
            "agent": {"$ref": "#/components/schemas/AgentView"},
            "usage": {"$ref": "#/components/schemas/AgentUsage"},
            "queued": {**INTEGER, "description": "Prompts that wait until it is ready"},
            "terminal": {"$ref": "#/components/schemas/TerminalView"},
        }
    ),
    "AgentView": _object(
        {
            "state": {"enum": [state.value for state in AgentState]},
            "since": TIME,
            "evidence": _list("Evidence", "The best source first"),
            "disputed": {**STRINGS, "description": "Sources that say something else"},
            "question": _or_none("Question"),
            "error": _or_none("AgentError"),
            "finished": {**INTEGER, "description": "Turns, since the daemon took it up"},
        }
    ),
    "Evidence": _object(
        {
            "source": {"enum": [source.value for source in Source]},
            "says": {"enum": [state.value for state in AgentState]},
            "since": TIME,
            "detail": STRING,
        }
    ),
    "Question": _object(
        {
            "id": STRING,
            "kind": STRING,
            "tool": STRING,
            "detail": STRING,
            "options": _list("Option", "What may be chosen"),
            "free": {**BOOLEAN, "description": "Text may be given, too"},
        }
    ),
    "Option": _object({"key": STRING, "label": STRING}),
    "AgentError": _object({"kind": STRING, "words": STRING, "hint": STRING}),
    "AgentUsage": _object(
        {
            "models": {"type": "object", "additionalProperties": _TOKENS},
            "total": _TOKENS,
            "cost": {**NUMBER, "description": "US dollars, by the price table"},
            "unpriced": {**STRINGS, "description": "Models that are not in cost"},
            "unpriced_cost": {**NUMBER, "description": "Theirs, by the dearest price known"},
            "turns": INTEGER,
            "tool_calls": INTEGER,
            "turn": _TOKENS,
            "turn_cost": NUMBER,
            "counted": {
                **_or_none("Counted"),
                "description": "By the egress proxy; null: it counts nothing here",
            },
        }
    ),
    "Counted": _object(
        {
            "models": {"type": "object", "additionalProperties": _TOKENS},
            "total": _TOKENS,
            "tokens": {**INTEGER, "description": "Of all kinds, with what is estimated"},
            "cost": {**NUMBER, "description": "US dollars, by the price table"},
            "answers": {**INTEGER, "description": "Of the API's, that were counted"},
            "cut": {**INTEGER, "description": "Of those, broken off: output is what came"},
            "uncounted": {**INTEGER, "description": "Answers that were not understood"},
            "estimated": {**INTEGER, "description": "Their tokens, by their size"},
        }
    ),
    "ModelUsage": _numbers(ModelUsage),
    "PromptSent": _object(
        {
            "proof": {"enum": ["", "hook", "transcript"]},
            "retried": {**BOOLEAN, "description": "Enter was pressed once more"},
            "queued": BOOLEAN,
            "cursor": {**STRING, "description": "From before it"},
            "waited": NUMBER,
        }
    ),
    "Answered": _object(
        {
            "question": STRING,
            "option": STRING,
            "state": {"enum": [state.value for state in AgentState]},
            "next": _or_none("Question"),
            "cursor": {**STRING, "description": "From before it"},
        }
    ),
    "KeysSent": _object({"sent": STRINGS, "cursor": STRING}),
    "Frame": _object({"frame": STRING}),
    "CommandResult": _object(
        {
            "exit_code": {**INTEGER, "description": "128 + n for a signal n"},
            "stdout": STRING,
            "stderr": STRING,
            "truncated": {**BOOLEAN, "description": "More was printed, and is lost"},
            "timed_out": BOOLEAN,
        }
    ),
    "BackgroundCommand": _object({"pid": INTEGER, "stdout_path": STRING, "stderr_path": STRING}),
    "WaitResult": _object(
        {
            "satisfied": BOOLEAN,
            "matches": {"type": "array", "items": {"$ref": "#/components/schemas/Match"}},
            "cursors": {**_WORDS, "description": "The next, by sandbox"},
            "waited": {**NUMBER, "description": "Seconds"},
        }
    ),
    "Match": _object(
        {
            "sandbox": STRING,
            "index": {**INTEGER, "description": "Of the condition in until, from 0"},
            "condition": {**STRING, "description": "Its kind"},
            "evidence": STRING,
        }
    ),
    "Egress": _object(
        {
            "network": {"enum": list(NETWORKS)},
            "open": {**BOOLEAN, "description": "Its proxy answers; only allowlist has one"},
            "allowed": {**STRINGS, "description": "Rules in force; presets by their names"},
            "denied": {**STRINGS, "description": "A denial wins"},
            "pending": _list("EgressRequest", "Hosts that wait for an answer"),
            "hosts": _list("TriedHost", "The one that was tried last first"),
            "connections": _list("Connection", "The last ones, oldest first"),
        }
    ),
    "EgressRequest": _object(
        {
            "host": STRING,
            "port": INTEGER,
            "count": {**INTEGER, "description": "How often it was asked for"},
            "first": TIME,
            "last": TIME,
            "program": {
                "type": ["string", "null"],
                "description": "What asked last, by its own word",
            },
        }
    ),
    "TriedHost": _numbers(TriedHost, host=STRING, last=TIME),
    "Connection": _numbers(
        Connection,
        time=TIME,
        host=STRING,
        verdict={"enum": [verdict.value for verdict in Verdict]},
        why=STRING,
        address={**STRING, "description": "That was connected to"},
    ),
    "Verification": _object(
        {
            "sandbox": STRING,
            "held": {**BOOLEAN, "description": "No attack succeeded, and most could be tried"},
            "probes": _list("Probe", "One attack each"),
            "seconds": NUMBER,
        }
    ),
    "Probe": _object(
        {
            "name": STRING,
            "protects": {**STRING, "description": "What is to be out of reach"},
            "outcome": {"enum": [outcome.value for outcome in Outcome]},
            "detail": STRING,
        }
    ),
    "HostUsage": _numbers(
        HostUsage, load={"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3}
    ),
    "SandboxUsage": _numbers(SandboxUsage, io_read=_OR_NONE, io_written=_OR_NONE, source=STRING),
    "Sample": _numbers(Sample, time=TIME),
    "HostMetrics": _object(
        {"host": {"$ref": "#/components/schemas/HostUsage"}, "history": _HISTORY}
    ),
    "SandboxMetrics": _object(
        {
            "host": {"$ref": "#/components/schemas/HostUsage"},
            "sandbox": {"$ref": "#/components/schemas/SandboxUsage"},
            "history": _HISTORY,
        }
    ),
    "Health": _object({"status": {"const": "ok"}, "version": STRING, "pid": INTEGER}),
    "Problems": _object(
        {
            "problems": {"type": "array", "items": {"$ref": "#/components/schemas/HostProblem"}},
        }
    ),
    "HostProblem": _object(
        {
            "what": STRING,
            "why": STRING,
            "repair": {**STRING, "description": "A command line, or a sentence"},
            "fatal": {**BOOLEAN, "description": "No sandbox can be made without it"},
        }
    ),
    "Event": _object(
        {"sequence": INTEGER, "time": TIME, "sandbox": STRING, "kind": STRING, "data": _WORDS}
    ),
    "ServerSentEvent": {
        **_object(
            {
                "id": {**STRING, "description": "The sequence"},
                "event": {**STRING, "description": "Not there; or problem, with the last"},
                "data": {
                    **STRING,
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/Event"},
                    "description": "An Event, in JSON; or a Problem",
                },
            },
            optional=("id", "event"),
        ),
        "description": "One of a stream",
    },
    "Problem": {
        **_object(
            {
                "type": STRING,
                "title": STRING,
                "status": INTEGER,
                "detail": STRING,
                "code": {**STRING, "description": "For a program: which error"},
                "field": {**STRING, "description": "Which argument is wrong"},
                "sandbox": STRING,
                "choices": {**STRINGS, "description": "What would have been valid"},
                "hint": {**STRING, "description": "What to do next"},
                "stage": {**STRING, "description": "Of a create that failed"},
            },
            optional=("field", "sandbox", "choices", "hint", "stage"),
        ),
        "description": "Any error (RFC 9457)",
    },
}
