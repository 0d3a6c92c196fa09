"""A daemon of its own in a folder of its own, for what leaves nothing behind."""

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from csb_mcp.transports.cli.client import Client, reach

_END_SECONDS = 10


@contextmanager
def a_stage(name: str, settings: Mapping[str, str]) -> Generator[tuple[Client, Path]]:
    """A client of such a daemon, and an empty project folder; both are gone afterwards.

    SIGTERM becomes KeyboardInterrupt meanwhile, as ^C is.
    """
    # Sockets need a short path; sandboxes of a root daemon pass through the folder.
    base = Path(tempfile.mkdtemp(prefix=f"csb-{name}-", dir="/dev/shm"))
    base.chmod(0o711)
    project = base / "projects/hello"
    project.mkdir(parents=True)
    own = {
        "state_dir": str(base / "state"),
        "runtime_dir": str(base / "run"),
        "project_roots": str(base / "projects"),
        "spares": "0",  # nobody comes after this one
    }
    # As for ^C, which must not leave a daemon and its folder behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield reach({**settings, **own}), project
    finally:
        _end_daemon(base / "state/daemon.lock")
        shutil.rmtree(base, ignore_errors=True)


def _end_daemon(lock: Path) -> None:
    """It would end by itself after a while; nobody needs to wait for that."""
    try:
        daemon = os.pidfd_open(int(lock.read_text()))
    except (OSError, ValueError):
        return
    try:
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        select.select([daemon], [], [], _END_SECONDS)
    except OSError:
        pass  # it ended before
    finally:
        os.close(daemon)
