"""The table of verify_isolation notices each protection missing: here each is taken away once.

The launchers are made from an altered copy of their texts; the product has no switch for it. Where
a launcher, bwrap or the helper looks itself and refuses to start, that is noticed too; then that
look is taken away as well.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from csb_mcp.host.attack import prober
from csb_mcp.host.backends.bubblewrap import BubblewrapBackend
from csb_mcp.host.backends.stager import Stager
from tests.support.attacked import Edit, alter, notices

LAUNCHER, COMMON, HELPER = "bubblewrap.sh", "common.sh", "helper.sh"
NO_LOOK: Edit = (HELPER, "    check_self\n", "")
NO_MOUNT_LOOK: Edit = (HELPER, '    check_mounts "${@:4:3}" "${@:8:$7}"\n', "")


def cut(text: str, new: str = "", file: str = LAUNCHER) -> Edit:
    return file, text, new


# What is taken away: the edits, and the row that says so ("refused": it is not even started).
ALTERED: dict[str, tuple[str, list[Edit]]] = {
    "user namespace": ("refused", [cut("--unshare-user ")]),
    "pid namespace": ("refused", [cut("--unshare-pid "), cut(" --as-pid-1")]),
    "ipc namespace": ("namespaces shared-memory", [cut("--unshare-ipc ")]),
    "uts namespace": ("namespaces", [cut("--unshare-uts "), cut(" --hostname csb")]),
    "cgroup namespace": ("namespaces", [cut(" --unshare-cgroup-try")]),
    "network namespace": (
        "namespaces host-loopback host-addresses abstract-sockets network-devices routes",
        [cut("args+=(--unshare-net)", ":", "network.sh")],
    ),
    "no more user namespaces": ("refused", [cut("--disable-userns ")]),
    "process 1 is the helper": ("process-one", [cut(" --as-pid-1")]),
    "the host's processes": ("processes mounts", [cut("--proc /proc", "--ro-bind /proc /proc")]),
    "/proc/sys": ("kernel-settings", [cut(" --ro-bind /proc/sys /proc/sys")]),
    "/proc/key-users": ("kernel-settings", [cut("in key-users keys", "in keys")]),
    "/proc/keys": ("kernel-settings", [cut("in key-users keys", "in key-users")]),
    "devices": (
        "devices mounts",
        [cut("--dev /dev ", "--dev /dev --dev-bind /dev/kmsg /dev/kmsg ")],
    ),
    "/dev/console": ("terminal", [cut(" --dev-bind /dev/null /dev/console")]),
    "/dev is read-only": ("system-files mounts", [cut("--remount-ro /dev --perms", "--perms")]),
    "/dev/shm is bounded": ("memory-folders", [cut(' --size "$shm_size"')]),
    "/tmp is bounded": ("memory-folders", [cut(' --size "$tmp_size"')]),
    "/run is bounded": ("memory-folders", [cut("--size 67108864 ")]),
    "/tmp is its own": (
        "host-files mounts",
        [cut('--perms 1777 --size "$tmp_size" --tmpfs /tmp', "--bind /tmp /tmp")],
    ),
    "/run is its own": (
        "refused",
        [
            cut(
                "--size 67108864 --tmpfs /run --perms 0700 --dir /run/user",
                "--bind /run /run --tmpfs /run/user",
            )
        ],
    ),
    "/dev/shm is its own": (
        "host-files mounts",
        [cut('--perms 1777 --size "$shm_size" --tmpfs /dev/shm', "--bind /dev/shm /dev/shm")],
    ),
    "/etc/passwd is its own": (
        "host-identity",
        [
            cut(
                "  etc_file passwd",
                "  args+=(--ro-bind /etc/passwd /etc/passwd)\n  false && etc_file passwd",
            )
        ],
    ),
    "/etc is but a few files": (
        "host-identity",
        [cut("ld.so.cache alternatives", "machine-id alternatives ld.so.cache", COMMON)],
    ),
    "/var is not to be seen": (
        "host-files mounts",
        [
            cut("--ro-bind /usr /usr", "--ro-bind /usr /usr --ro-bind /var /var", COMMON),
            cut("    --symlink ../tmp /var/tmp\n"),
        ],
    ),
    "no other folder is to be seen": (
        "mounts",
        [cut("--ro-bind /usr /usr", "--ro-bind /usr /usr --ro-bind / /mnt", COMMON)],
    ),
    "/usr is read-only": (
        "system-files mounts",
        [cut("--ro-bind /usr /usr", "--bind /usr /usr", COMMON)],
    ),
    "/etc's files are read-only": (
        "system-files mounts",
        [cut('_root+=(--ro-bind "/etc/$name"', '_root+=(--bind "/etc/$name"', COMMON)],
    ),
    "the root is read-only": ("system-files mounts", [cut("  args+=(--remount-ro /)\n")]),
    "our programs are read-only": (
        "own-files mounts",
        [cut('--ro-bind "$CSB_SHARE" /opt/csb', '--bind "$CSB_SHARE" /opt/csb')],
    ),
    "/run/csb is read-only": ("own-files mounts", [cut("  args+=(--remount-ro /run/csb)\n")]),
    "/run/csb is bounded": (
        "memory-folders",
        [cut("--size 1048576 --tmpfs /run/csb", "--tmpfs /run/csb")],
    ),
    "/run/csb stays in its place": (
        "own-files",
        [
            cut("--size 1048576 --tmpfs /run/csb", "--dir /run/csb"),
            cut("  args+=(--remount-ro /run/csb)\n"),
        ],
    ),
    "requests are read-only": (
        "own-files mounts",
        [cut('--ro-bind "$exec_dir"', '--bind "$exec_dir"')],
    ),
    "the display's folder is read-only": (
        "own-files mounts",
        [cut('--ro-bind "$x11"', '--bind "$x11"')],
    ),
    "the display's key is read-only": (
        "own-files mounts",
        [cut('--ro-bind "$xauthority"', '--bind "$xauthority"')],
    ),
    "process 1 has no lent variable": (
        "environment",
        [cut("|| check_environment", "|| args+=(--setenv LENT_TO_THE_PAYLOAD c5b-hunter2)")],
    ),
    "no variable of the host": ("environment", [cut("exec -c ", "HOST_SECRET=1 exec ", COMMON)]),
    "arguments by descriptor": (
        "arguments",
        [cut('--args 8 -- "$@"', '"${_args[@]}" -- "$@"', COMMON)],
    ),
    "protected paths": ("protected-paths", [cut('    protect "$path"\n', "    :\n")]),
    "protected paths are read-only": (
        "refused",
        [cut('--ro-bind "$real/$2"', '--bind "$real/$2"')],
    ),
    "protected paths are read-only, and nobody looks": (
        "protected-paths",
        [cut('--ro-bind "$real/$2"', '--bind "$real/$2"'), NO_MOUNT_LOOK],
    ),
    "folders above protected paths": (
        "protected-paths",
        [cut('    bind_once rw "$above"\n', "    :\n")],
    ),
    "paths that git's configuration names": ("protected-paths", [cut("  git_names\n")]),
    "the project is what was asked for": (
        "refused",
        [cut('--bind "$real" "$project"', '--bind "$home" "$project"')],
    ),
    "the project is what was asked for, and nobody looks": (
        "mounts",
        [
            cut('--bind "$real" "$project"', '--bind "${real%/*}" "$project"'),
            cut('    protect "$path"\n', "    :\n"),
            NO_MOUNT_LOOK,
        ],
    ),
    "the home is its own": (
        "mounts",
        [cut('--bind "$home" /home/agent', '--bind "${home%/*}" /home/agent')],
    ),
    "the filter": ("refused", [cut("  args+=(--seccomp 9)\n")]),
    "the filter, and nobody looks": (
        "privileges system-calls foreign-calls set-uid",
        [cut("  args+=(--seccomp 9)\n"), NO_LOOK],
    ),
    "the filter and no more user namespaces": (
        "user-namespaces",
        [
            cut("  args+=(--seccomp 9)\n"),
            cut("--disable-userns --assert-userns-disabled "),
            NO_LOOK,
        ],
    ),
    "no core files": ("limits limits-outside", [cut("    ulimit -c 0\n", "", HELPER)]),
    "a bound of processes": (
        "limits limits-outside",
        [cut('    ulimit -u "$3" || :', "    :", HELPER)],
    ),
    "the payload ends first": (
        "limits",
        [cut("  printf '500\\n' >/proc/self/oom_score_adj\n", "", HELPER)],
    ),
    "a terminal of its own": (
        "terminal",
        [cut("    if [[ -t 0 && -t 1 ]]; then", "    if false; then", HELPER)],
    ),
    "complaints are let go of": ("open-files", [cut("    exec 2>&1\n", "", HELPER)]),
}

# A namespace, a mount's size or its being there at all, the filter, a descriptor: whoever runs the
# launcher, it is there or not. What lies in the way of files, processes and limits of one's own uid
# is taken away as a normal user, too.
FOR_ANY_UID = {
    *("ipc namespace", "uts namespace", "cgroup namespace", "network namespace"),
    *("/proc/key-users", "/proc/keys", "devices", "/dev/console", "/dev is read-only"),
    *("/dev/shm is bounded", "/tmp is bounded", "/run is bounded", "/run/csb is bounded"),
    *("/etc/passwd is its own", "/etc is but a few files", "/var is not to be seen"),
    *("/usr is read-only", "/etc's files are read-only", "the root is read-only"),
    *("the filter", "the filter, and nobody looks", "the filter and no more user namespaces"),
    *("no variable of the host", "a terminal of its own", "complaints are let go of"),
}


def params() -> Iterator[object]:
    assert set(ALTERED) >= FOR_ANY_UID
    for name in ALTERED:
        yield pytest.param(name, marks=[pytest.mark.once] if name in FOR_ANY_UID else [])


@pytest.mark.parametrize("name", list(params()))
async def test_each_protection_is_missed(
    name: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, edits = ALTERED[name]
    alter(monkeypatch, short_dir, edits)
    said = await notices(short_dir)
    assert set(rows.split()) <= set(said), said


async def test_nothing_is_missed_where_nothing_is_missing(short_dir: Path) -> None:
    assert await notices(short_dir) == {}


# -- what has to be put there first, for its protection to matter --

OPEN_FOLDER = ("/bin/bash", "-c", 'exec 5</etc; exec "$@"', "-")
STANDARD_FOLDER = ("/bin/bash", "-c", 'exec "$@" </etc', "-")
NO_CLOSE = cut("  close_others 9\n")
NO_STANDARD_LOOK = cut("    [[ ! -d /proc/self/fd/$fd ]] ||", "    true ||")
NO_LINK_LOOK = cut("    [[ ! -L $above ]] || die", "    true || die")


@pytest.mark.parametrize(
    ("around", "edits", "said"),
    [
        pytest.param(OPEN_FOLDER, [], None, id="an open folder"),
        pytest.param(OPEN_FOLDER, [NO_CLOSE], "open-files", id="an open folder is not closed"),
        pytest.param(STANDARD_FOLDER, [], "refused", id="a folder as stdin"),
        pytest.param(STANDARD_FOLDER, [NO_STANDARD_LOOK], "open-files", id="and nobody looks"),
    ],
)
async def test_what_was_open_outside(
    around: tuple[str, ...],
    edits: list[Edit],
    said: str | None,
    short_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alter(monkeypatch, short_dir, edits)
    found = await notices(short_dir, command=("/bin/sleep", "60"), around_launcher=around)
    assert said in found if said else found == {}, found


FEW = cut("65536", "256", HELPER)  # a host's own bound may be lower than ours
NO_BOUND = cut("    ulimit -Hn 256 2>/dev/null || ulimit -n 256 2>/dev/null || :\n", "", HELPER)


@pytest.mark.parametrize("edits", [[FEW], [FEW, NO_BOUND]], ids=["bound", "no bound"])
async def test_a_bound_of_open_files(
    edits: list[Edit], short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, short_dir, edits)
    monkeypatch.setattr(prober, "FILES", 256)
    assert set(await notices(short_dir)) == (
        {"limits", "limits-outside"} if len(edits) > 1 else set()
    )


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([], "refused"),
        ([NO_LINK_LOOK], "refused"),
        ([NO_LINK_LOOK, NO_MOUNT_LOOK], "protected-paths"),
    ],
    ids=["link", "the launcher does not look", "nobody looks"],
)
async def test_a_link_where_the_host_trusts_what_it_finds(
    edits: list[Edit], said: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(monkeypatch, short_dir, edits)

    def link(project: Path) -> None:
        (project / ".husky").symlink_to("tools")

    assert said in await notices(short_dir, dress=link)


def no_stager(*_: object, **__: object) -> tuple[str, ...]:
    return ("/usr/bin/env",)


def root(*_: object) -> int:
    return 0


@pytest.mark.root
@pytest.mark.parametrize(
    ("edits", "said"),
    [([], "refused"), ([cut('  leave_root "$@"\n')], "privileges")],
    ids=["whole", "altered"],
)
async def test_a_launcher_that_root_starts_by_hand(
    edits: list[Edit], said: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the daemon's stager, which drops root before; in a project of root's."""
    alter(monkeypatch, short_dir, edits)
    monkeypatch.setattr(Stager, "start", no_stager)
    monkeypatch.setattr(BubblewrapBackend, "choose_uid", root)
    assert said in await notices(short_dir)
