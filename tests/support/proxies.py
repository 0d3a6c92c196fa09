"""The egress proxy as its launcher runs it, with the system's Python; and its daemon."""

import json
import shutil
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.internet import Internet, until

REPOSITORY = Path(__file__).parents[2]
PARTS = (
    *("csb_mcp/__init__.py", "csb_mcp/lib/__init__.py", "csb_mcp/lib/hosts.py"),
    *("csb_mcp/host/__init__.py", "csb_mcp/host/network/__init__.py"),
)
MAIN = """\
import sys
sys.path.insert(0, __file__.rpartition("/")[0])
from csb_mcp.host.network.proxy.main import main
sys.exit(main())
"""  # run as a file: a folder's costs 3 ms more
SYSTEM_PYTHON = "/usr/bin/python3"


def install(folder: Path) -> Path:
    """Copies of what the proxy needs, compiled, and of nothing else."""
    proxy = (REPOSITORY / "csb_mcp/host/network/proxy").glob("*.py")
    for part in [*PARTS, *(str(path.relative_to(REPOSITORY)) for path in proxy)]:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / part, folder / part)
    (folder / "__main__.py").write_text(MAIN)
    compiling = [SYSTEM_PYTHON, "-I", "-S", "-m", "compileall", "-q", str(folder)]
    subprocess.run(compiling, check=True, timeout=60)
    return folder


class Control:
    """A daemon's end."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")
        self.hello = self.read()

    def send(self, **message: Any) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        """The next line; empty if the proxy has closed it."""
        line = self._file.readline()
        return json.loads(line) if line else {}

    def do(self, **message: Any) -> dict[str, Any]:
        """Send, and the answer; what comes in between is dropped."""
        self.send(**message)
        while "asked" in (answer := self.read()):
            pass
        return answer

    def rules(self, *allow: str, deny: Sequence[str] = ()) -> None:
        assert self.do(do="rules", allow=allow, deny=list(deny)) == {"done": "rules"}

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class RunningProxy:
    """Runs on the host of ``net``; its clients connect to ``port`` of our own loopback."""

    def __init__(self, net: Internet, base: Path, installed: Path, *words: str) -> None:
        self.base, self._net, self._installed, self._words = base, net, installed, words
        for name in ("door", "control", "log"):
            (base / name).mkdir(exist_ok=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        self._known = 0
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        folders = [f"--{name}={self.base / name}" for name in ("door", "control", "log")]
        pairs = [word for folder in folders for word in folder.split("=")]
        program = str(self._installed / "__main__.py")
        argv = [SYSTEM_PYTHON, "-I", "-S", program, *pairs, *self._words]
        for path in self.base.glob("*/*.sock"):
            path.unlink()
        process = subprocess.Popen([*self._net.prefix, *argv], env={"PATH": "/usr/bin:/bin"})
        until(lambda: (self.base / "door/door.sock").exists() or process.poll() is not None)
        return process

    def open(self, *fds: int) -> bytes:
        """Hand over descriptors (the listener's without any); what the door says."""
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(10)
            door.connect(str(self.base / "door/door.sock"))
            socket.send_fds(door, [b"."], list(fds or (self.listener.fileno(),)))
            return door.recv(100)

    def control(self) -> Control:
        return Control(self.base / "control/control.sock")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        self.kill()
        self.process = self._start()

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
        self.listener.close()

    def connect(self, seconds: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), seconds)

    def ask(self, request: bytes) -> bytes:
        """All that comes for these bytes, until the end."""
        with self.connect() as client:
            client.sendall(request)
            return everything(client)

    def tunnel(self, place: str) -> tuple[socket.socket, bytes]:
        """A connection after CONNECT, and the answer to it."""
        client = self.connect()
        client.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        answer = b""  # byte by byte: what comes behind the head is the tunnel's
        while not answer.endswith(b"\r\n\r\n") and (more := client.recv(1)):
            answer += more
        if not answer.startswith(b"HTTP/1.1 200 "):
            answer += everything(client)
        return client, answer

    def log(self) -> list[dict[str, Any]]:
        files = (self.base / "log/log.1", self.base / "log/log")
        lines = [line for path in files if path.exists() for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def forget(self) -> None:
        """What is in the log now is not looked for any more."""
        self._known = len(self.log())

    def logged(self, **wanted: object) -> dict[str, Any]:
        """The last new line with these values, once it is there."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [
                line for line in self.log()[self._known :] if wanted.items() <= line.items()
            ]
            return bool(found)

        try:
            until(look, 5)
        except AssertionError:
            raise AssertionError(f"no line with {wanted} in {self.log()[-5:]}") from None
        return found[-1]

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) << 10


def everything(client: socket.socket) -> bytes:
    """Until the end, or the cut."""
    got = b""
    try:
        while more := client.recv(1 << 16):
            got += more
    except ConnectionResetError:
        pass
    return got


@contextmanager
def a_proxy(net: Internet, base: Path, installed: Path, *words: str) -> Generator[RunningProxy]:
    """One whose door has our listener; it must live until the end, and end when told to."""
    proxy = RunningProxy(net, base, installed, *words)
    try:
        assert proxy.open() == b"ok\n"
        yield proxy
        proxy.end()
    finally:
        proxy.process.kill()
        proxy.process.wait()
        proxy.listener.close()
