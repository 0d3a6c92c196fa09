"""What is looked at on a host, and the repairs in the words of each distribution."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from csb_mcp import doctor
from csb_mcp.config import Settings
from csb_mcp.host import gates
from csb_mcp.host.checks import Check, Outcome, examine, kernel, later, limits, places, tools
from csb_mcp.host.distribution import parse
from csb_mcp.model import Problem

RELEASES = {
    "debian": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    "ubuntu": "ID=ubuntu\nID_LIKE=debian",
    "mint": 'ID=linuxmint\nID_LIKE="ubuntu debian"',
    "fedora": "ID=fedora",
    "rocky": 'ID="rocky"\nID_LIKE="rhel centos fedora"',
    "arch": "ID=arch",
    "nixos": "ID=nixos",
    "other": "ID=other",
}


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("debian", "apt install xvfb"),
        ("ubuntu", "apt install xvfb"),
        ("mint", "apt install xvfb"),
        ("fedora", "dnf install xorg-x11-server-Xvfb"),
        ("rocky", "dnf install xorg-x11-server-Xvfb"),
        ("arch", "pacman -S xorg-server-xvfb"),
        ("nixos", "environment.systemPackages = [ pkgs.xorg.xorgserver ];"),
        ("other", "install the package that has Xvfb"),
    ],
)
def test_packages_by_distribution(release: str, line: str) -> None:
    assert parse(RELEASES[release], root=True).install("Xvfb") == line


def test_repairs_say_who_may_make_them() -> None:
    debian = parse(RELEASES["debian"], root=False)
    assert debian.name == "Debian GNU/Linux 12 (bookworm)"
    assert debian.install("bwrap") == "sudo apt install bubblewrap"
    assert debian.install("unheard-of") == "install the package that has unheard-of"
    assert "sudo tee -a /etc/sysctl.d" in debian.sysctl("a.b", 1)
    assert parse(RELEASES["nixos"], root=False).sysctl("a.b", 1) == 'boot.kernel.sysctl."a.b" = 1;'
    assert "apparmor_parser -r /etc/apparmor.d/bwrap" in debian.allow_bwrap()
    assert parse(RELEASES["arch"], root=True).allow_bwrap().startswith("load AppArmor's profile")
    assert parse("", root=True).name == "Linux"


def test_every_needed_program_has_a_package_everywhere() -> None:
    for release in ("debian", "fedora", "arch", "nixos"):
        distribution = parse(RELEASES[release], root=True)
        for program in (
            "bwrap",
            "bash",
            "env",
            "setpriv",
            "script",
            "setsid",
            "tmux",
            "dd",
            "Xvfb",
        ):
            assert "the package that has" not in distribution.install(program), program


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "AppArmor lets only listed"),
        ("user.max_user_namespaces", "0", "switched off"),
        ("kernel.unprivileged_userns_clone", "0", "only root"),
    ],
)
def test_closed_gates(tmp_path: Path, key: str, value: str, why: str) -> None:
    path = tmp_path / key.replace(".", "/")
    path.parent.mkdir()
    path.write_text(f"{value}\n")
    (problem,) = gates.closed_gates(tmp_path)
    assert problem.what == gates.NAMESPACES
    assert why in problem.why
    assert problem.repair
    path.write_text("5\n")
    assert not list(gates.closed_gates(tmp_path))


def test_a_gate_through_which_bwrap_passes_is_none() -> None:
    closed = Check(gates.NAMESPACES, Outcome.WEAK, "AppArmor", "load it")
    assert doctor._tried(closed, []).outcome is Outcome.OK  # pyright: ignore[reportPrivateUsage]
    failed = Problem("bwrap", "a tiny sandbox failed", "?")
    assert doctor._tried(closed, [failed]) == closed  # pyright: ignore[reportPrivateUsage]


def settings(base: Path) -> Settings:
    return Settings(
        state_dir=base / "state",
        runtime_dir=base / "run",
        config_file=base / "config.toml",
        project_roots=(base,),
    )


def found(checks: list[Check], what: str) -> Check:
    (check,) = (check for check in checks if check.what == what)
    return check


def test_this_host_can_do_what_is_needed(short_dir: Path) -> None:
    checks = examine(settings(short_dir))
    assert not [check for check in checks if check.outcome is Outcome.MISSING]
    for what in ("bwrap", "tmux", "openat2", "pidfd", "user namespaces", "projects"):
        assert found(checks, what).outcome is Outcome.OK, what
    assert {check.what for check in later.checks()} >= {"kvm", "systemd-nspawn"}
    for what in ("python3", "pasta", "nft"):
        assert found(checks, what).outcome is Outcome.OK, what
    for check in checks:
        problem = check.problem()
        assert (problem is not None) == (check.outcome is Outcome.WEAK), check
        assert problem is None or problem.repair, check
    assert not (short_dir / "run").exists()


def test_missing_programs(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, configured: Path | None = None) -> None:
        return None

    monkeypatch.setattr(tools, "find_tool", nothing)
    weak = {check.what for check in tools.checks(settings(short_dir)) if check.problem()}
    assert weak >= {"git", "xkbcomp", "chromium"}


def test_room_that_limits_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(number: int) -> tuple[int, int]:
        return 256, 256

    def none(key: str) -> int:
        return 64

    monkeypatch.setattr(resource, "getrlimit", few)
    monkeypatch.setattr(limits, "_setting", none)
    weak = {check.what: check for check in limits.checks() if check.outcome is Outcome.WEAK}
    assert set(weak) >= {"open files", "inotify instances", "inotify watches", "process numbers"}
    assert "room for 32 sandboxes" in weak["inotify instances"].detail
    assert "fs.inotify.max_user_instances = 1024" in weak["inotify instances"].repair


def test_room_in_folders(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = os.statvfs(short_dir)
    here = settings(short_dir)

    def left(free: int) -> list[Check]:
        blocks = list(usage)
        blocks[4] = free // usage.f_frsize

        def statvfs(path: object) -> os.statvfs_result:
            return os.statvfs_result(blocks)

        monkeypatch.setattr(os, "statvfs", statvfs)
        return list(places.checks(here))

    assert found(left(8 << 30), "state folder").outcome is Outcome.OK
    assert found(left(100 << 20), "state folder").outcome is Outcome.WEAK
    assert found(left(100 << 20), "runtime folder").outcome is Outcome.WEAK
    assert found(left(1 << 20), "runtime folder").outcome is Outcome.MISSING
    assert found(left(1 << 20), "state folder").problem() == Problem(
        "state folder",
        f"1 MiB free for {here.state_dir}",
        "make room there, or set state_dir to another disk",
    )


def test_a_runtime_folder_on_a_disk(short_dir: Path) -> None:
    elsewhere = replace(settings(short_dir), runtime_dir=Path("/usr/nowhere"))
    check = found(list(places.checks(elsewhere)), "runtime folder")
    assert check.outcome is Outcome.WEAK
    assert "displays would write to a disk" in check.detail


def test_projects_that_are_not_there(short_dir: Path) -> None:
    gone = replace(settings(short_dir), project_roots=(short_dir / "gone",))
    check = found(list(places.checks(gone)), "projects")
    assert (check.outcome, check.repair) == (Outcome.WEAK, f"mkdir -p {short_dir}/gone")
    assert not [check for check in kernel.checks(gone) if check.what == "id-mapped mounts"]
