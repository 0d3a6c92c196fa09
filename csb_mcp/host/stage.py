"""The stager: how a root daemon starts a sandbox's tree under a uid of the sandbox's own.

``python -I -S stage.py KEY=VALUE... -- PROGRAM ARGUMENT...`` makes a private mount namespace, shows
in it only what this tree needs of the daemon's folders, puts an id-mapped clone of the project
where the launcher looks for it, drops every privilege and becomes PROGRAM. It runs before any of
the payload does. Keys:

=========== ==================================================================================
uid, gid    what to become; neither may be 0
hide        a folder of the daemon's to cover by an empty tmpfs (may repeat)
keep        a folder that stays visible at its path, whatever lies above it (may repeat)
project     the project: a path, or /proc/PID/fd/N of a folder that was checked
at          where the project's clone goes, below a kept folder
gain        pasta: what the tree runs may gain privileges by exec, as a user's may. pasta's child
            needs that, in a user namespace of its own; a payload's no_new_privs is bwrap's work
map         UID:GID, the project's owner on disk, who becomes uid:gid in the clone; else no mapping
=========== ==================================================================================

``python -I -S stage.py into=FD uid= gid= project= at= map=`` shows a tree that was started so,
without project and at, its project. FD is its mount namespace, while there is no payload in it.

``python -I -S stage.py probe=FOLDER map=UID:GID`` only tries whether FOLDER can be mapped.

Standard library only, and little of it: this is on the way of every create.
"""

import ctypes
import os
import stat
import struct
import sys

# System calls of Linux 5.2 and later have the same numbers on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1, 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_IDMAP = 0x2, 0x4, 0x100000
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x4000, 0x80000
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _clone_tree(path: str) -> int:
    """A detached copy of the mount at ``path``, of its one filesystem (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    return _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def _user_namespace(disk: tuple[int, int], shown: tuple[int, int]) -> int:
    """A user namespace that maps one uid and gid; its descriptor keeps it alive."""
    ready, tell = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        ok = _libc.unshare(_CLONE_NEWUSER) == 0
        os.write(tell, b"+" if ok else b"-")
        os.read(hold, 1)  # until the parent has closed its end, or has died
        os._exit(0)
    try:
        if os.read(ready, 1) != b"+":
            raise OSError(0, "user namespaces are switched off", "unshare")
        for name, inside, outside in zip(("uid", "gid"), disk, shown, strict=True):
            with open(f"/proc/{pid}/{name}_map", "w") as file:
                file.write(f"{inside} {outside} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (ready, tell, hold, release):
            os.close(fd)
        os.waitpid(pid, 0)


def _map_ids(tree: int, disk: tuple[int, int], shown: tuple[int, int]) -> None:
    """Show what ``disk`` owns as owned by ``shown``, and the other way round (Linux 5.12)."""
    namespace = _user_namespace(disk, shown)
    bits = _MOUNT_ATTR_IDMAP | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    attributes = struct.pack("QQQQ", bits, 0, 0, namespace)
    call = (_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, ctypes.c_size_t(32))
    _checked(_libc.syscall(*call), "mount_setattr")
    os.close(namespace)


def _attach(tree: int, path: str) -> None:
    call = (_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)
    _checked(_libc.syscall(*call), path)
    os.close(tree)


def _first_closed(path: str) -> str | None:
    """The topmost of ``path`` and the folders above it that a stranger may not pass."""
    above = ""
    for part in path.strip("/").split("/"):
        above += "/" + part
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return above
    return None


def _cover(path: str) -> None:
    options = b"mode=0755,size=1m"
    flags = _MS_NOSUID | _MS_NODEV
    _checked(_libc.mount(b"csb", os.fsencode(path), b"tmpfs", flags, options), path)


def _private_mounts() -> None:
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    # Slave, not private: what the host unmounts later must go here too, or it would stay busy.
    _checked(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "/")


def _show_only(hide: list[str], keep: list[str]) -> None:
    trees = [(path, _clone_tree(path)) for path in keep]
    above = [_first_closed(os.path.dirname(path)) for path in keep]
    wanted = {_first_closed(path) or path for path in hide} | {path for path in above if path}
    covered: list[str] = []
    for path in sorted(wanted):
        if not any(path.startswith(done + "/") for done in covered):
            covered.append(path)
            _cover(path)
    for path, tree in trees:
        os.makedirs(path, mode=0o755, exist_ok=True)
        _attach(tree, path)


def _drop(uid: int, gid: int, *, gain: bool) -> None:
    if uid == 0 or gid == 0:
        raise OSError(0, "a payload never runs as root", "uid")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if not gain:
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition(":")
    return int(first), int(second)


def _project(spec: dict[str, list[str]]) -> int:
    """Its clone. Made before another namespace is entered.

    For a checked descriptor of the daemon's names a mount of the old one, and only that one may
    clone it.
    """
    project = _clone_tree(spec["project"][0])
    if "map" in spec:
        shown = int(spec["uid"][0]), int(spec["gid"][0])
        _map_ids(project, _pair(spec["map"][0]), shown)
    return project


def _stage(spec: dict[str, list[str]], program: list[str]) -> None:
    uid, gid = int(spec["uid"][0]), int(spec["gid"][0])
    project = _project(spec) if "project" in spec else None
    os.umask(0o022)
    _private_mounts()
    _show_only(spec.get("hide", []), spec["keep"])
    if project is not None:
        _attach(project, spec["at"][0])
    os.chdir("/")
    os.umask(0o077)
    _drop(uid, gid, gain="gain" in spec)
    os.execv(program[0], program)  # noqa: S606  no shell is wanted


def _into(spec: dict[str, list[str]]) -> None:
    into = int(spec["into"][0])
    if os.path.sameopenfile(into, os.open("/proc/self/ns/mnt", os.O_RDONLY)):
        raise OSError(0, "a tree has mounts of its own", "setns")  # these are the host's
    project = _project(spec)
    _checked(_libc.setns(into, _CLONE_NEWNS), "setns")
    _attach(project, spec["at"][0])


def _probe(spec: dict[str, list[str]]) -> None:
    tree = _clone_tree(spec["probe"][0])
    _map_ids(tree, _pair(spec["map"][0]), (65533, 65533))


def main(arguments: list[str]) -> None:
    """Obey; on failure one line on stderr and status 1."""
    spec: dict[str, list[str]] = {}
    program: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            program = arguments[i + 1 :]
            break
        key, _, value = argument.partition("=")
        spec.setdefault(key, []).append(value)
    try:
        if "probe" in spec:
            _probe(spec)
        elif "into" in spec:
            _into(spec)
        else:
            _stage(spec, program)
    except OSError as error:
        sys.exit(f"csb-mcp stage: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
