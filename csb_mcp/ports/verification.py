"""Attacks on a sandbox of our own, to see that it holds."""

from typing import Protocol

from csb_mcp.model import Folders, Sandbox, Verification
from csb_mcp.ports.backend import Helper


class Prober(Protocol):
    """Runs the probes of one backend."""

    async def probe(self, sandbox: Sandbox, folders: Folders, helper: Helper) -> Verification:
        """Attack it from inside, each attack with a control that must succeed outside.

        Leaves nothing behind, inside or out. Takes seconds. Raises HelperFailed, SandboxEnded,
        DeadlineExceeded.
        """
        ...
