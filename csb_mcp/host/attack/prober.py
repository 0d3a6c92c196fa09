"""Attacks on a sandbox from its inside, with their controls outside."""

from csb_mcp.model import Folders, Sandbox, Verification
from csb_mcp.ports import Helper


class InsideProber:
    """See :class:`~csb_mcp.ports.Prober`."""

    async def probe(self, sandbox: Sandbox, folders: Folders, helper: Helper) -> Verification:
        """See :class:`~csb_mcp.ports.Prober`."""
        return Verification(sandbox=sandbox.id, probes=(), seconds=0.0)
