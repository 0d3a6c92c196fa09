"""Whose uid a payload gets. Never 0, whoever runs the daemon.

A user's daemon gives that user's. A daemon that root runs gives, in this order: a uid of the
sandbox's own, with the project's owner mapped to it, where kernel and filesystem can; the user who
called sudo; the project's owner; the account ``run_as`` of the settings.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable

STAGE = Path(__file__).with_name("stage.py")
_PROBE_SECONDS = 10


class Identities:
    """Chooses uids. ``uid`` and ``environ`` are the daemon's own."""

    def __init__(
        self, settings: Settings, *, uid: int | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._settings = settings
        self._uid = os.getuid() if uid is None else uid
        self._environ = environ
        self._mappable: dict[int, bool] = {}  # by device number

    @property
    def root(self) -> bool:
        """Trees are started through the stager."""
        return self._uid == 0

    def choose(self, project: Path, taken: Collection[int], offered: int | None = None) -> int:
        """The host uid for a payload that works in ``project``.

        ``offered``: one that was taken for it, if it is as good. The first look at a filesystem
        starts a short process (30 ms). Raises HostUnable.
        """
        if not self.root:
            return self._uid
        if self.can_map(project):
            return offered if offered and self.owns(offered) else self._free(taken)
        for uid in (self._sudo_uid(), self._owner(project), self._run_as()):
            if uid:
                return uid
        raise HostUnable(
            f"{project} belongs to root, and its filesystem cannot be mapped to another user",
            hint="set run_as to an account that owns the project, or give it to a user: "
            f"chown -R USER {project}",
        )

    def owns(self, uid: int) -> bool:
        """``uid`` is one of those made for sandboxes: no account, no files elsewhere."""
        return self.root and uid >= self._settings.uid_base

    def group(self, uid: int) -> int:
        """The one group of a payload with ``uid``; never 0."""
        if not self.root:
            return os.getgid() or uid
        if self.owns(uid):
            return uid
        try:
            return pwd.getpwuid(uid).pw_gid or uid
        except KeyError:
            return uid

    def can_map(self, project: Path) -> bool:
        """Whether an id-mapped mount of ``project`` can be made (Linux 5.12, most filesystems)."""
        try:
            found = project.stat()
        except OSError:
            return False
        if found.st_dev not in self._mappable:
            self._mappable[found.st_dev] = _probe(project, found.st_uid, found.st_gid)
        return self._mappable[found.st_dev]

    def _free(self, taken: Collection[int]) -> int:
        uid = self._settings.uid_base
        while uid in taken or _is_account(uid):
            uid += 1
        return uid

    def _sudo_uid(self) -> int:
        text = self._environ.get("SUDO_UID", "")
        return int(text) if text.isascii() and text.isdigit() else 0

    def _owner(self, project: Path) -> int:
        try:
            return project.stat().st_uid
        except OSError:
            return 0

    def _run_as(self) -> int:
        if self._settings.run_as is None:
            return 0
        try:
            return pwd.getpwnam(self._settings.run_as).pw_uid
        except KeyError as error:
            raise HostUnable(
                f"there is no account {self._settings.run_as}", field="run_as"
            ) from error


def _is_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _probe(project: Path, uid: int, gid: int) -> bool:
    command = [sys.executable, "-I", "-S", str(STAGE), f"probe={project}", f"map={uid}:{gid}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
