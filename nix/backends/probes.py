"""Attacks on the sandbox that this runs in, for the daemon's verify_isolation.

Reads one JSON object from stdin: ``nonce``, and ``attacks``, each ``[kind, argument...]``. It
asks the ``resolver`` something before, if one is named. For each attack it prints one line, in any
order, ``NONCE NUMBER WORD TEXT``:

    refused CODE   it failed, as it should; CODE is the kernel's word
    done TEXT      it went through; TEXT is what it got
    unable TEXT    it could not be tried

Nobody believes this program's word alone: what only a successful attack can know is looked for in
TEXT by the daemon, and each attack that can work outside is run there, too, by this same program.
It changes nothing that is not its own. Standard library only, as little of it as possible.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not searched with -I
from probe_calls import Refused, Unable, calls, foreign, libc, user_namespace  # noqa: E402

SECONDS = 0.7
TEXT_BYTES = 3000
HARMLESS = {  # of /dev: numbers of devices that show and change nothing of the host
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 2),
}
READ_ONLY = (errno.EROFS,)


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


# -- files --


def read(path: str) -> str:
    """What stands in a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return os.read(fd, TEXT_BYTES).decode(errors="replace")
    finally:
        os.close(fd)


def digest(path: str) -> str:
    """The same for what is nobody's business: only its digest leaves the sandbox."""
    import hashlib  # noqa: PLC0415  costs milliseconds, and this is the only user

    with open(path, "rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()


def content(path: str) -> str:
    """That a file of the kernel's is there itself, and not another one in its place."""
    if stat.S_ISREG(os.stat(path).st_mode):
        return path
    raise Refused("hidden")


def inode(path: str) -> str:
    """That a file is there, and which."""
    found = os.lstat(path)
    return f"inode {found.st_ino}"


def writable(path: str) -> str:
    """Give a file the mode that it has: a read-only mount refuses that before all other checks."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        raise Unable(f"{path}: {_code(error)}") from error
    try:
        os.chmod(path, mode)
    except PermissionError:
        return f"{path}: only its owner stands in the way"
    return path


def movable(path: str) -> str:
    """Remove a folder that is not empty: a mount point refuses that in another way."""
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EROFS):
            raise
        if error.errno == errno.ENOTEMPTY:
            return path
        raise Unable(f"{path}: {_code(error)}") from error
    os.mkdir(path)
    return path


def link(path: str) -> str:
    """That there is a link: it can be put aside, whatever it leads to."""
    if stat.S_ISLNK(os.lstat(path).st_mode):
        return path
    raise Refused("no link")


def size(path: str, limit: int) -> str:
    """That a folder in memory has more room than it should."""
    found = os.statvfs(path)
    room = found.f_blocks * found.f_frsize
    if 0 < room <= limit:
        raise Refused(str(room))
    return f"{path}: {room} bytes"


def set_uid() -> str:
    """Make a program that runs as its owner."""
    path = f"/tmp/csb-probe-{os.getpid()}"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o700)
    try:
        os.fchmod(fd, 0o4700)
        if os.fstat(fd).st_mode & stat.S_ISUID:
            return "a set-uid file was made"
        raise Refused("the bit was dropped")
    finally:
        os.close(fd)
        os.unlink(path)


def _descriptors() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                yield f"/proc/{pid}/fd/{fd}"
        except OSError:
            continue


def climb(path: str) -> str:
    """Read ``path`` from each folder that any process has open, or works in, by going up."""
    places = [
        f"/proc/{pid}/{name}"
        for pid in filter(str.isdigit, os.listdir("/proc"))
        for name in ("root", "cwd")
    ]
    for place in (*places, *_descriptors()):
        try:
            if not stat.S_ISDIR(os.stat(place).st_mode):
                continue
            for up in range(12):
                try:
                    return read(f"{place}/{'../' * up}{path.lstrip('/')}")
                except OSError:
                    continue
        except OSError:
            continue
    raise Refused("ENOENT")


def _mounts(pid: str) -> set[str]:
    with open(f"/proc/{pid}/mountinfo", errors="replace") as file:
        return {line.split(" ", 1)[0] for line in file}


def descriptors() -> str:
    """Files, folders and disks that some process has open and that lie on no mount of its own."""
    found: list[str] = []
    for place in _descriptors():
        _, _, pid, _, fd = place.split("/")
        try:
            mode, name = os.stat(place).st_mode, os.readlink(place)
            with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                mount = next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")
            own = _mounts(pid)
        except OSError:
            continue
        kind = stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)
        if kind and mount not in own and not name.startswith("/memfd:"):
            found.append(f"{place} -> {name}")
    if found:
        return " ".join(found)
    raise Refused("none")


def devices() -> str:
    """Devices other than the few that each program needs."""
    found: list[str] = []
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [
            name for name in folders if f"{folder}/{name}" not in ("/dev/pts", "/dev/shm")
        ]
        for name in names:
            path = f"{folder}/{name}"
            try:
                node = os.lstat(path)
            except OSError:
                continue
            number = (os.major(node.st_rdev), os.minor(node.st_rdev))
            if (stat.S_ISBLK(node.st_mode) or stat.S_ISCHR(node.st_mode)) and (
                number not in HARMLESS
            ):
                found.append(path)
    if found:
        return " ".join(found)
    raise Refused("none")


# -- processes --


def processes(marker: str) -> str:
    """Words of all processes' arguments and environments that begin with the marker."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    words = (
                        file.read(1 << 16).decode(errors="replace").replace("=", "\0").split("\0")
                    )
            except OSError:
                continue
            found.update(word for word in words if word.startswith(marker))
    if found:
        return " ".join(sorted(found))
    raise Refused("none")


def process(pid: int) -> str:
    """Reach one process by its number; if there is one, what it says of itself."""
    os.kill(pid, 0)
    return read(f"/proc/{pid}/cmdline").replace("\0", " ")


def shared_memory(key: int) -> str:
    """A System V segment by its key."""
    segment = libc.shmget(key, 0, 0)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0o10000)  # SHM_RDONLY
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shmat")
    try:
        return ctypes.string_at(address, 64).decode(errors="replace").rstrip("\0")
    finally:
        libc.shmdt(ctypes.c_void_p(address))


def terminal() -> str:
    """Programs on a terminal of the host's, other than those that stand between it and ours."""
    ours = os.stat("/dev/pts").st_dev
    console = os.stat("/dev/console")
    if console.st_rdev != os.makedev(1, 3):
        return "/dev/console"
    for place in _descriptors():
        pid = place.split("/")[2]
        try:
            found = os.stat(place)
            name = read(f"/proc/{pid}/comm").strip()
            parent = read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1]
        except OSError:
            continue
        outer = stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in range(136, 144)
        between = (
            pid == "1" or name == "script" or (parent == "1" and name in ("bash", "helper.sh"))
        )
        if outer and found.st_dev != ours and not between:
            return f"{name} has {place}"
    raise Refused("none")


def limit(name: str, most: int) -> str:
    """A limit on what one process, or one user's processes, may take."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        return f"{name} {hard}"
    raise Refused(str(hard))


def protected_from_oom() -> str:
    """Be one of those who are ended last when memory is short."""
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    if score >= 500:
        raise Refused(str(score))
    return f"oom_score_adj {score}"


# -- sockets --


def _greeting(connection: socket.socket) -> str:
    connection.settimeout(SECONDS)
    return connection.recv(200).decode(errors="replace") or "a connection, without a word"


def tcp(host: str, port: int) -> str:
    """Connect, and hear who is there."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        return _greeting(connection)


def udp(host: str, port: int) -> str:
    """Ask, and hear who answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((host, port))
        asking.send(b"?")
        return _greeting(asking)


def route(host: str) -> str:
    """That packets would be sent there; none is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((host, 9))
        return f"{host} from {asking.getsockname()[0]}"


def packet(host: str) -> str:
    """Send a packet there, to the port that is for being thrown away (RFC 863)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((host, 9))
        asking.send(b"?")
    return f"a packet went to {host}"


def unix(name: str) -> str:
    """A Unix socket: a path, or, after an @, an abstract name."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect("\0" + name[1:] if name.startswith("@") else name)
        return _greeting(connection)


def raw(family: str, kind: str, protocol: int) -> str:
    """A socket that sees or makes any packet."""
    socket.socket(getattr(socket, family), getattr(socket, kind), protocol).close()
    return f"{family} {kind} {protocol}"


def interfaces() -> str:
    """Network interfaces beside the loopback."""
    found = [name for _, name in socket.if_nameindex() if name != "lo"]
    if found:
        return " ".join(found)
    raise Refused("none")


def proxy(request: str) -> str:
    """What the egress proxy answers to a request, and what comes behind it."""
    with socket.create_connection(("127.0.0.1", 3128), timeout=SECONDS) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.settimeout(SECONDS)
        text = connection.recv(2000).decode(errors="replace")
        words = text.split(" ", 2)
        if len(words) > 1 and words[0].startswith("HTTP/") and words[1][:1] in ("4", "5"):
            raise Refused(words[1])
        with contextlib.suppress(OSError):
            text += connection.recv(2000).decode(errors="replace")
    return text or "a connection, without a word"


def display(cookie: str) -> str:
    """Connect to the display without its key (``cookie`` empty), or with another one."""
    name, data = (b"MIT-MAGIC-COOKIE-1", bytes.fromhex(cookie)) if cookie else (b"", b"")
    head = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(data))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect("/tmp/.X11-unix/X0")
        except OSError as error:
            raise Unable(f"no display: {_code(error)}") from error
        connection.sendall(head + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4))
        if connection.recv(8)[:1] == b"\0":
            raise Refused("EACCES")
    return "the display let it in"


KINDS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        *(read, digest, content, inode, writable, movable, link, size, set_uid, climb, descriptors),
        *(devices, processes, process, shared_memory, terminal, limit, protected_from_oom),
        *(
            tcp,
            udp,
            route,
            packet,
            unix,
            raw,
            interfaces,
            proxy,
            display,
            calls,
            foreign,
            user_namespace,
        ),
    )
}
SLOW = ("tcp", "udp", "unix", "proxy")


def attempt(kind: str, arguments: list[object]) -> str:
    """One attack's line, without what stands before it."""
    try:
        word, text = "done", KINDS[kind](*arguments)
    except Refused as said:
        word, text = "refused", str(said)
    except Unable as said:
        word, text = "unable", str(said)
    except TimeoutError:
        word, text = "refused", "ETIMEDOUT"
    except OSError as error:
        word, text = "refused", _code(error)
    except Exception as error:  # noqa: BLE001  one that fails must not take the others with it
        word, text = "unable", repr(error)
    return f"{word} {ascii(text)[1:-1][:TEXT_BYTES]}"


def ask(resolver: str) -> None:
    """For the servers of the root, which every resolver knows; return when it has answered."""
    query = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + struct.pack(">BHH", 0, 2, 1)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(SECONDS)
        asking.connect((resolver, 53))
        asking.send(query)
        asking.recv(1)


def main() -> None:
    """Obey."""
    request = json.loads(sys.stdin.buffer.read())
    if "resolver" in request:
        ask(request["resolver"])

    def run(number: int, kind: str, arguments: list[object]) -> None:
        line = f"{request['nonce']} {number} {attempt(kind, arguments)}\n"
        os.write(1, line.encode())

    threads: list[threading.Thread] = []
    for number, (kind, *arguments) in enumerate(request["attacks"]):
        if kind in SLOW:
            threads.append(threading.Thread(target=run, args=(number, kind, arguments)))
        else:
            run(number, kind, arguments)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
