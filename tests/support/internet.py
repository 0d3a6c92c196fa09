"""An internet of the test's own: namespaces that play this host, what lies around it, and its DNS.

``with internet() as net``: a command after ``net.prefix`` runs on the host of that internet, as the
same user; a normal user has no power over that network. Servers are threads here on sockets made
there, so a test sets what they say and reads what they heard.

::

    host ---- 203.0.113.2, 2001:db8:1::2 ---- the internet: every address in OUTSIDE answers
         ---- 10.9.8.2 ---------------------- 10.9.8.9, a neighbour in a private network
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.dns import Names
from tests.support.servers import Handler, Server, echo

HOLDER = Path(__file__).with_name("namespace.py")
HOST, HOST6 = "203.0.113.2", "2001:db8:1::2"  # the host's public addresses
HOST_SECOND = "203.0.113.3"  # in the same network as the first
HOST_PRIVATE = "10.9.8.2"
NEIGHBOUR = "10.9.8.9"  # another host of that private network
NAME_SERVER = "198.51.100.53"
METADATA = "169.254.169.254"
# Any address here is one of the outside's own: it answers where a test puts a server.
OUTSIDE = (
    *("198.51.100.0/24", "192.0.2.0/24"),
    *("10.1.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
    *("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "168.63.129.16/32", "240.0.0.0/8"),
)
OUTSIDE6 = (
    *("2001:db8::/64", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    *("fc00::/7", "fec0::/10", "100::/64"),
)
IPV6_FREEBIND = 78  # <linux/in6.h>: an address of a local route, not of an interface
LINKS = """
link set lo up
link add inet type veth peer name inet netns {outside}
link add lan type veth peer name lan netns {outside}
link set inet up
link set lan up
addr add 203.0.113.2/24 dev inet
addr add 203.0.113.3/24 dev inet
addr add 10.9.8.2/24 dev lan
addr add 2001:db8:1::2/64 dev inet nodad
addr add fe80::2/64 dev inet nodad
route add default via 203.0.113.1 dev inet
"""
LINKS6 = "route add default via 2001:db8:1::1 dev inet\n"
LINKS_OUTSIDE = """
link set lo up
link set inet up
link set lan up
addr add 203.0.113.1/24 dev inet
addr add 10.9.8.9/24 dev lan
addr add 2001:db8:1::1/64 dev inet nodad
addr add fe80::1/64 dev inet nodad
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Namespaces of one host, held by a process."""

    holder: "subprocess.Popen[bytes]"
    asked: socket.socket
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def inside(self) -> list[str]:
        """Words that run a command there: root, or a user with all power over that network."""
        kinds = ("net", "mnt") if os.getuid() == 0 else ("user", "net", "mnt")
        names = {"mnt": "mount"}
        spaces = [f"--{names.get(k, k)}=/proc/{self.holder.pid}/ns/{k}" for k in kinds]
        return ["/usr/bin/nsenter", *(["--preserve-credentials"] * (len(kinds) > 2)), *spaces, "--"]

    @property
    def prefix(self) -> list[str]:
        """Words that run a command there with our uid; a normal user gets no power by it.

        It keeps its folder: entering a mount namespace changes to the root.
        """
        uid, gid = os.getuid(), os.getgid()
        back = ["/usr/bin/unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", "--"]
        words = [*self.inside, *(back if uid else [])]
        script = f'exec {" ".join(words)} /usr/bin/env --chdir="$PWD" "$@"'
        return ["/bin/sh", "-c", script, "sh"]

    def make(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of that network, for us to bind or connect; any port may be bound."""
        with self.lock:
            self.asked.send(f"{int(family)} {int(kind)}".encode())
            answer, fds, _, _ = socket.recv_fds(self.asked, 200, 1)
        if not fds:
            raise OSError(answer.decode())
        return socket.socket(fileno=fds[0])

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening TCP socket; ``address`` of either family, port 0: any."""
        made = self.make(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        made.bind((address, port))
        made.listen(1024)
        return made

    def connect(self, address: str, port: int, seconds: float = 5) -> socket.socket:
        """A TCP connection from there. Raises OSError."""
        made = self.make(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.settimeout(seconds)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def ip(self, script: str) -> None:
        """Run the lines with ip(8)."""
        words = [*self.inside, "ip", "-batch", "-"]
        subprocess.run(words, input=script.encode(), check=True, timeout=20, capture_output=True)


@dataclass(frozen=True, slots=True)
class Internet:
    """See the module. ``host`` is where the tested program lives, ``outside`` everything else."""

    host: Place
    outside: Place
    names: Names
    folder: Path
    stack: ExitStack

    @property
    def prefix(self) -> list[str]:
        """Words that run a command on the host, with our uid, and with ``names`` as its DNS."""
        return self.host.prefix

    def serve(
        self, address: str, port: int, handler: Handler = echo, *, on_host: bool = False
    ) -> Server:
        """A TCP server outside (or on the host itself), until the end or its ``close()``."""
        place = self.host if on_host else self.outside
        return self.stack.enter_context(Server(place.listen(address, port), handler))

    def certificate(self, *names: str) -> Path:
        """A PEM file with a key and a self-signed certificate for these names."""
        path = self.folder / f"{names[0]}.pem"
        subject = ",".join(f"DNS:{name}" for name in names)
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        words += ["-nodes", "-days", "7", "-subj", f"/CN={names[0]}"]
        words += ["-addext", f"subjectAltName={subject}", "-keyout", "-", "-out", "-"]
        made = subprocess.run(words, check=True, timeout=20, capture_output=True)
        path.write_bytes(made.stdout)
        return path


@contextmanager
def _place(*prefix: str) -> Generator[Place]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        words = [*prefix, sys.executable, "-I", "-S", str(HOLDER), str(theirs.fileno())]
        holder = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        try:
            ours.settimeout(20)
            if ours.recv(1) != b".":
                raise RuntimeError("no namespaces for an internet: see above")
            yield Place(holder, ours)
        finally:
            ours.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                holder.wait(5)
            holder.kill()
            holder.wait()


def _route(folder: Path, host: Place, outside: Place) -> None:
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:2\n")
    resolver.chmod(0o644)
    host.ip(LINKS.format(outside=outside.holder.pid))
    local = "".join(f"route add local {net} dev lo\n" for net in (*OUTSIDE, *OUTSIDE6))
    outside.ip(LINKS_OUTSIDE + local)
    host.ip(LINKS6)
    bind = ["mount", "--bind", str(resolver), "/etc/resolv.conf"]
    subprocess.run([*host.inside, *bind], check=True, timeout=20)


@contextmanager
def internet() -> Generator[Internet]:
    """One, and nothing left of it: every process is ended by us, and the namespaces with it."""
    user = ["--user", "--map-root-user"] if os.getuid() else []
    unshare = ["/usr/bin/unshare", *user, "--net", "--mount", "--"]
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        host = stack.enter_context(_place(*unshare))
        inside = [word for word in host.inside if "/ns/net" not in word]
        outside = stack.enter_context(_place(*inside, "/usr/bin/unshare", "--net", "--mount", "--"))
        _route(folder, host, outside)
        servers = stack.enter_context(ExitStack())
        listening = outside.listen(NAME_SERVER, 53)
        datagrams = outside.make(kind=socket.SOCK_DGRAM)
        datagrams.bind((NAME_SERVER, 53))
        names = servers.enter_context(Names(datagrams, listening))
        yield Internet(host, outside, names, folder, servers)


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Poll for it; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def run(net: Internet, words: Sequence[str], seconds: float = 30) -> str:
    """Stdout of a command on the host; it must succeed."""
    done = subprocess.run(
        [*net.prefix, *words], timeout=seconds, check=True, capture_output=True, text=True
    )
    return done.stdout
