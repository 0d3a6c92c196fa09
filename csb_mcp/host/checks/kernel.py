"""What the kernel can, and what it is set to allow."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.host.checks.outcome import Check, Outcome, enough, ok
from csb_mcp.host.distribution import here
from csb_mcp.host.gates import NAMESPACES, closed_gates
from csb_mcp.host.identity import Identities
from csb_mcp.lib import landlock
from csb_mcp.lib.safe_open import open_folder

_MOST_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_FEW_NAMESPACES = 256  # a sandbox has three or four


def checks(settings: Settings) -> Iterator[Check]:
    """One for each feature that something here uses, or will."""
    yield ok("kernel", f"{platform.system()} {platform.release()}")
    yield _openat2()
    yield _pidfd()
    yield from _namespaces()
    if os.geteuid() == 0:
        yield from _mapped(settings)
    yield _landlock()


def _openat2() -> Check:
    try:
        os.close(open_folder("/proc"))
    except OSError as error:
        why = f"files of a sandbox cannot be opened safely: {error.strerror}"
        return Check(
            "openat2",
            Outcome.MISSING,
            why,
            "Linux 5.6 or newer; an older container engine's seccomp profile may forbid it, too",
        )
    return ok("openat2", "works")


def _pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        why = f"processes cannot be held safely: {error.strerror}"
        return Check("pidfd", Outcome.MISSING, why, "Linux 5.3 or newer")
    return ok("pidfd", "works")


def _namespaces() -> Iterator[Check]:
    """A closed gate is weak, not missing: bwrap may have a pass, and is tried beside this."""
    closed = list(closed_gates())
    for problem in closed:
        yield Check(NAMESPACES, Outcome.WEAK, problem.why, problem.repair)
    if closed:
        return
    try:
        most = int(_MOST_NAMESPACES.read_text())
    except (OSError, ValueError):
        why = "this kernel has none"
        yield Check(NAMESPACES, Outcome.MISSING, why, "a kernel with CONFIG_USER_NS")
        return
    repair = here().sysctl("user.max_user_namespaces", 10000)
    detail = f"allowed, {most} for a user"
    yield enough(NAMESPACES, detail, repair, well=most >= _FEW_NAMESPACES)


def _mapped(settings: Settings) -> Iterator[Check]:
    """Only a root daemon maps ids."""
    identities = Identities(settings)
    for root in settings.project_roots:
        if not root.is_dir():
            continue  # told where the places are
        well = identities.can_map(root)
        detail = (
            f"below {root} each sandbox has a uid of its own"
            if well
            else f"below {root} sandboxes cannot have uids of their own, and share an account"
        )
        repair = "Linux 5.12 or newer, and a filesystem that can (ext4, xfs, btrfs)"
        yield enough("id-mapped mounts", detail, repair, well=well)


def _landlock() -> Check:
    found = landlock.version()
    if found < 1:
        detail = "not here: network 'host' and egress proxies lack one of their walls"
    elif not landlock.scopes():
        detail = f"version {found}, which cannot keep abstract sockets apart yet"
    else:
        return ok("landlock", f"version {found}")
    return Check("landlock", Outcome.WEAK, detail, "Linux 6.12 or newer")
