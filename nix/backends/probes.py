"""Attacks on the sandbox that this runs in, for the daemon's verify_isolation.

Reads one JSON object from stdin: ``nonce``, and ``attacks``, each ``[kind, argument...]``. For each
it prints one line, ``NONCE NUMBER WORD TEXT``, in any order:

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
import mmap
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

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
PASSED = 200  # an error number that no kernel gives
MAGIC = 0x63736221

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The attack failed."""


class Unable(Exception):
    """The attack could not be tried."""


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


# -- system calls --


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _listen() -> int:
    """Ask to be told of this thread's calls that end in MAGIC and that no other filter refuses.

    Those never get to the kernel itself, so nothing is done by trying them.
    """
    code = struct.pack("<HBBI", 0x20, 0, 0, 16 + 5 * 8)  # load the low half of the argument
    code += struct.pack("<HBBI", 0x15, 0, 1, MAGIC)
    code += struct.pack("<HBBI", 0x06, 0, 0, 0x7FC00000)  # SECCOMP_RET_USER_NOTIF
    code += struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    listener = libc.syscall(number, 1, 8, ctypes.byref(program))  # SET_MODE_FILTER, NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _answer(listener: int) -> None:
    while True:
        notice = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(0xC0502100), notice) < 0:  # NOTIF_RECV
            return
        answer = notice.raw[:8] + struct.pack("<qiI", 0, -PASSED, 0)
        libc.ioctl(listener, ctypes.c_ulong(0xC0182101), answer)  # NOTIF_SEND


def _call(number: int, *arguments: int) -> bool:
    padded = (*arguments, *([0] * (5 - len(arguments))), MAGIC)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(value) for value in padded])
    return result < 0 and ctypes.get_errno() == PASSED


def _try_calls(wanted: list[tuple[str, int, list[int]]]) -> str:
    ready = threading.Event()
    listener: list[int] = []

    def answer() -> None:
        ready.wait()
        if listener:
            _answer(listener[0])

    threading.Thread(target=answer, daemon=True).start()
    try:
        listener.append(_listen())
    finally:
        ready.set()
    return ",".join(name for name, number, arguments in wanted if _call(number, *arguments))


def calls(wanted: list[Any]) -> str:
    """Those of ``[name, number, argument...]`` that no filter refuses."""
    named = [(name, number, arguments) for name, number, *arguments in wanted]
    text = _in_child(lambda: _try_calls(named))
    if text.startswith("!"):
        raise Unable(text[1:])
    if text:
        return text
    raise Refused("all")


def foreign() -> str:
    """A system call as another machine (32 bit) makes it, whose numbers the filter cannot know."""
    if platform.machine() != "x86_64":
        raise Unable("only for x86_64")
    getpid = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    area = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(getpid)
    pid = os.fork()
    if pid == 0:
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        return "a 32-bit system call was done"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        raise Refused("SIGSYS")
    raise Unable(f"status {status}")


def user_namespace() -> str:
    """Become root of a user namespace, which opens many doors of the kernel."""
    text = _in_child(lambda: "" if libc.unshare(0x10000000) == 0 else f"!{ctypes.get_errno()}")
    if text.startswith("!"):
        raise Refused(errno.errorcode.get(int(text[1:]), text[1:]) if text[1:].isdigit() else text)
    return "a user namespace was made"


def _in_child(work: Callable[[], str]) -> str:
    """The text that ``work`` gives, in a process that is ended after two seconds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, work().encode()[:60000])
        except BaseException as error:  # noqa: BLE001  it must not go on as its parent
            os.write(writing, f"!{error!r}".encode())
        os._exit(0)
    os.close(writing)
    try:
        text = b""
        deadline = time.monotonic() + 2
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (more := os.read(reading, 65536)):
                return text.decode()
            text += more
        return "!no answer"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


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


def main() -> None:
    """Obey."""
    request = json.loads(sys.stdin.buffer.read())

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
