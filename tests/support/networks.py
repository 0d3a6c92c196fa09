"""Sandboxes whose whole tree stands in the network of a test's own internet."""

import json
import os
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from csb_mcp.app import App
from csb_mcp.host.backends import bubblewrap, stager
from csb_mcp.model import CommandResult, Launch
from csb_mcp.ports import Enclosure
from csb_mcp.service import ground
from tests.support.internet import Internet

# Tries each of its arguments, KIND:ADDRESS:PORT, and prints how it went.
PROBE = """
import json, socket, sys
def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET
def tcp(address, port):
    with socket.socket(family(address)) as made:
        made.settimeout(4)
        made.connect((address, port))
        made.sendall(b"GET / HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n")
        return made.recv(12).decode("latin-1")
def udp(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as made:
        made.settimeout(1)
        made.connect((address, port))
        made.send(QUERY)
        return str(len(made.recv(512)) > 12)
def abstract(name, _):
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(1)
        made.connect("\\0" + name)
        return "connected"
def raw(address, port):
    socket.socket(family(address), socket.SOCK_RAW, port).close()
    return "made"
def packet(_, port):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, port).close()
    return "made"
def name(host, _):
    return str(sorted({found[4][0] for found in socket.getaddrinfo(host, 80)}))
QUERY = b"\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\x01a\\x04test\\0\\0\\x01\\0\\x01"
told = {}
for word in sys.argv[1:]:
    kind, _, rest = word.partition(":")
    address, _, port = rest.rpartition(":")
    try:
        told[word] = globals()[kind](address, int(port))
    except OSError as error:
        told[word] = f"! {error.strerror or error}"
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Inside:
    """One sandbox of an app, to run commands in."""

    app: App
    id: str

    async def run(self, command: str, **options: Any) -> CommandResult:
        values: dict[str, Any] = {"cwd": None, "stdin": None, "timeout": 30, "background": False}
        values |= options
        result = await self.app.service.run_command(self.id, command, **values)
        return cast("CommandResult", result)  # but for one in the background

    async def out(self, command: str) -> str:
        """Its stdout; it must succeed."""
        result = await self.run(command)
        assert result.exit_code == 0, result
        return result.stdout.strip()

    async def probe(self, *words: str) -> dict[str, str]:
        """How each of them went; what begins with ! was refused."""
        result = await self.run(f"/usr/bin/python3 -I - {' '.join(words)}", stdin=PROBE)
        assert result.exit_code == 0, result
        return json.loads(result.stdout)


def put_into(net: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each sandbox that is created stands there."""
    enclosed = ground._enclosed  # pyright: ignore[reportPrivateUsage]

    def there(launch: Launch, enclosure: Enclosure) -> Launch:
        made = enclosed(launch, enclosure)
        return replace(made, prefix=(*net.prefix, *made.prefix))

    monkeypatch.setattr(ground, "_enclosed", there)
    for module in (bubblewrap, stager):
        monkeypatch.setattr(module, "held", _path)


def _path(fd: int) -> str:
    """A descriptor of ours says nothing in another mount or user namespace."""
    return os.readlink(f"/proc/self/fd/{fd}")
