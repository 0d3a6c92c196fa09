"""The egress proxy: its start, its memory, its speed beside a relay that only copies.

The traffic comes from a network namespace over a virtual cable, as from an internet without limits.
Source, proxy and client share this machine's processors, so the sums are theirs together.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.internet import Internet, internet, until
from tests.support.proxies import RunningProxy, a_proxy, install

PYTHON = "/usr/bin/python3"
SERVER, PORT = "198.51.100.7", 7777
SECONDS = 2.0
CONNECTIONS = (1, 50, 500)
STARTS, SETUPS = 15, 200
LISTENING_MS, MIB, GROWTH_MIB, SPEED = 20.0, 14.0, 8.0, 200.0  # bounds of the design

# Sends from a file as fast as it is taken: on its own side that costs almost nothing.
SOURCE = """
import os, selectors, socket, sys
data = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
os.truncate(data, 1 << 20)
ready = selectors.DefaultSelector()
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
ready.register(listener, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            connection = listener.accept()[0]
            connection.setblocking(False)
            ready.register(connection, selectors.EVENT_WRITE)
            continue
        try:
            os.sendfile(key.fd, data, 0, 1 << 20)
        except BlockingIOError:
            pass
        except OSError:
            ready.unregister(key.fileobj)
            key.fileobj.close()
"""
# Opens so many connections, drops what comes unseen, and tells megabytes a second.
CLIENT = """
import selectors, socket, sys, time
host, port, count, seconds, first = sys.argv[1], *map(float, sys.argv[2:5]), sys.argv[5].encode()
ready = selectors.DefaultSelector()
for _ in range(int(count)):
    one = socket.create_connection((host, int(port)), 30)
    if first:
        one.sendall(first + b"\\r\\n\\r\\n")
        assert one.recv(39) == b"HTTP/1.1 200 Connection established\\r\\n\\r\\n"
    ready.register(one, selectors.EVENT_READ)
room, got, began = bytearray(1 << 20), 0, time.monotonic()
while (now := time.monotonic()) < began + seconds:
    for key, _ in ready.select(1):
        got += key.fileobj.recv_into(room, 0, socket.MSG_TRUNC)
print(got / 1e6 / (now - began))
"""
# The floor: bytes go from one socket to the other without ever being looked at (splice(2)).
RELAY = """
import os, socket, sys, threading
listener = socket.socket(fileno=int(sys.argv[1]))
def relay(client):
    server = socket.create_connection((sys.argv[2], int(sys.argv[3])))
    out, into = os.pipe()
    try:
        while size := os.splice(server.fileno(), into, 1 << 16):
            while size:
                size -= os.splice(out, client.fileno(), size)
    except OSError:
        for fd in (out, into, server.detach(), client.detach()):
            os.close(fd)
print("up", flush=True)
while True:
    threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()
"""


@contextmanager
def running(*words: str, fds: tuple[int, ...] = ()) -> Generator["subprocess.Popen[bytes]"]:
    """A program that says when it is up; then ended."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=fds)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def speed(prefix: list[str], host: str, port: int, count: int, first: str = "") -> float:
    """MB/s over so many connections."""
    words = [PYTHON, "-c", CLIENT, host, str(port), str(count), str(SECONDS), first]
    done = subprocess.run([*prefix, *words], capture_output=True, check=True, timeout=60)
    return float(done.stdout)


def mib(pid: int, name: str) -> float:
    """MiB by that name."""
    for file in ("smaps_rollup", "status"):
        try:
            found = re.search(
                rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE
            )
        except PermissionError:  # of a process that is not dumpable only root sees the shares
            continue
        if found:
            return int(found[1]) / 1024
    return float("nan")


def starts(installed: Path, base: Path) -> tuple[float, float, float]:
    """Best ms to a bare interpreter, to a listening proxy, to the first word of its control."""
    bare, listening, talking = list[float](), list[float](), list[float]()
    folders = [word for name in ("door", "control", "log") for word in (f"--{name}", str(base))]
    argv = [PYTHON, "-I", "-S", str(installed / "__main__.py"), *folders]
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([PYTHON, "-I", "-S", "-c", ""], check=True)
        bare.append(time.perf_counter() - began)
        began = time.perf_counter()
        process = subprocess.Popen(argv)
        while not (base / "door.sock").exists():
            assert time.perf_counter() - began < 10
            time.sleep(0.0002)  # finer than what is measured; nothing tells of a socket's birth
        listening.append(time.perf_counter() - began)
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(base / "control.sock"))
            control.recv(100)
        talking.append(time.perf_counter() - began)
        process.kill()
        process.wait()
        (base / "door.sock").unlink()
    return min(bare) * 1000, min(listening) * 1000, min(talking) * 1000


def setup_ms(proxy: RunningProxy) -> float:
    """Of one CONNECT, name resolved and all."""
    began = time.perf_counter()
    for _ in range(SETUPS):
        proxy.tunnel(f"good.test:{PORT}")[0].close()
    return (time.perf_counter() - began) / SETUPS * 1000


def cpu_ms(pid: int) -> float:
    """That it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def speeds(net: Internet, proxy: RunningProxy) -> float:
    """Prints the table; gives the last of the proxy's."""
    relayed = socket.create_server(("127.0.0.1", 0), backlog=1024)
    words = [*net.prefix, PYTHON, "-c", RELAY, str(relayed.fileno()), SERVER, str(PORT)]
    print(
        f"{'connections':<12} {'direct':>8} {'relay':>8} {'proxy':>8}   MB/s, and CPU of the proxy"
    )
    through = 0.0
    with running(*words, fds=(relayed.fileno(),)):
        for count in CONNECTIONS:
            direct = speed(net.prefix, SERVER, PORT, count)
            floor = speed([], "127.0.0.1", relayed.getsockname()[1], count)
            first = f"CONNECT good.test:{PORT} HTTP/1.1"
            used = cpu_ms(proxy.process.pid)
            through = speed([], "127.0.0.1", proxy.port, count, first)
            used = (cpu_ms(proxy.process.pid) - used) / through / SECONDS
            print(f"{count:<12} {direct:>8.0f} {floor:>8.0f} {through:>8.0f}   {used:.2f} ms/MB")
    relayed.close()
    return through


def measure(net: Internet, base: Path) -> list[tuple[str, bool]]:
    """All of it; each bound, and whether it held."""
    installed = install(base / "egress")
    for name in ("way", "start"):
        (base / name).mkdir()
    bare, listening, talking = starts(installed, base / "start")
    print(f"start: listening {listening:.1f} ms, answers {talking:.1f} ms (bare Python {bare:.1f})")
    net.names.answer("good.test", SERVER)
    source = [*net.outside.prefix, PYTHON, "-c", SOURCE, SERVER, str(PORT)]
    with a_proxy(net, base / "way", installed, "--allow", f"good.test:{PORT}") as proxy:
        pid = proxy.process.pid
        idle, shared = mib(pid, "VmRSS"), mib(pid, "Pss")
        print(f"memory of an idle proxy: {idle:.1f} MiB resident, {shared:.1f} MiB PSS")
        with running(*source):
            print(f"a connection is set up in {setup_ms(proxy):.2f} ms")
            through = speeds(net, proxy)
            until(lambda: len(proxy.log()) >= SETUPS + sum(CONNECTIONS))
        grown = mib(pid, "VmRSS") - idle
        print(f"memory afterwards: {grown:+.1f} MiB")
    return [
        (f"listening <= {LISTENING_MS:g} ms", listening <= LISTENING_MS),
        (f"an idle proxy <= {MIB:g} MiB resident", idle <= MIB),
        (f"{CONNECTIONS[-1]} connections: >= {SPEED:g} MB/s", through >= SPEED),
        (f"no more than {GROWTH_MIB:g} MiB grown by all that", grown <= GROWTH_MIB),
    ]


def main() -> int:
    """Exits 1 if a bound was missed."""
    base = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    base.chmod(0o755)
    try:
        with internet() as net:
            held = measure(net, base)
    finally:
        shutil.rmtree(base)
    for name, ok in held:
        print(f"{name}: {'ok' if ok else 'MISSED'}")
    return int(not all(ok for _, ok in held))


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    sys.exit(main())
