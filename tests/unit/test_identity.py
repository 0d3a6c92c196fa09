"""Whose uid a payload gets: the rules in their order. The mounts are in tests/security."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.host.identity import Identities

UNMAPPABLE = Path("/proc")  # procfs refuses id-mapped mounts, and belongs to root
NOBODY = pwd.getpwnam("nobody")


def rules(uid: int, environ: Mapping[str, str] = {}, **changes: Any) -> Identities:
    here = Path("/nowhere")
    base = Settings(state_dir=here, runtime_dir=here, config_file=here, project_roots=())
    values = {name: getattr(base, name) for name in Settings.__slots__} | changes
    return Identities(Settings(**values), uid=uid, environ=environ)


def test_a_users_daemon_gives_that_user(tmp_path: Path) -> None:
    identities = rules(1234)
    assert identities.choose(tmp_path, ()) == 1234
    assert not identities.root
    assert not identities.owns(1_900_000_000)
    assert identities.group(1234) != 0


@pytest.mark.root
def test_root_gives_each_sandbox_a_uid_of_its_own(tmp_path: Path) -> None:
    identities = rules(0)
    first = identities.choose(tmp_path, ())
    second = identities.choose(tmp_path, {first})
    assert (first, second) == (1_900_000_000, 1_900_000_001)
    assert identities.group(second) == second
    assert identities.owns(second)


@pytest.mark.root
def test_a_uid_that_is_offered_is_taken_if_it_is_as_good(tmp_path: Path) -> None:
    identities = rules(0, run_as="nobody")
    offered = 1_900_000_007
    assert identities.choose(tmp_path, {offered}, offered) == offered
    assert identities.choose(tmp_path, (), NOBODY.pw_uid) == 1_900_000_000
    assert identities.choose(UNMAPPABLE, {offered}, offered) == NOBODY.pw_uid
    assert rules(1234).choose(tmp_path, (), offered) == 1234


@pytest.mark.root
def test_a_uid_with_an_account_is_not_taken(tmp_path: Path) -> None:
    assert rules(0, uid_base=NOBODY.pw_uid).choose(tmp_path, ()) == NOBODY.pw_uid + 1


def test_fallbacks_in_their_order(tmp_path: Path) -> None:
    assert rules(0, {"SUDO_UID": "1234"}, run_as="nobody").choose(UNMAPPABLE, ()) == 1234
    assert rules(0, run_as="nobody").choose(UNMAPPABLE, ()) == NOBODY.pw_uid
    own = Path(f"/proc/{os.getpid()}") if os.getuid() else None
    if own:  # owned by us, who are not root
        assert rules(0, run_as="nobody").choose(own, ()) == os.getuid()


@pytest.mark.parametrize("environ", [{}, {"SUDO_UID": "0"}, {"SUDO_UID": "-1"}, {"SUDO_UID": "x"}])
def test_nobody_left_is_refused_with_the_repair(environ: Mapping[str, str]) -> None:
    with pytest.raises(HostUnable, match="run_as"):
        rules(0, environ).choose(UNMAPPABLE, ())
    with pytest.raises(HostUnable, match="no account"):
        rules(0, environ, run_as="csb-no-such-account").choose(UNMAPPABLE, ())


def test_groups_are_never_roots() -> None:
    identities = rules(0)
    assert identities.group(NOBODY.pw_uid) == NOBODY.pw_gid
    assert identities.group(4_000_000) == 4_000_000
    assert all(identities.group(account.pw_uid) for account in pwd.getpwall() if account.pw_uid)
