"""The command, but in the place of the composition root stands tests/contract/fake_service.py."""

import sys
from types import ModuleType


class _Instead(ModuleType):
    """Read only when something of it is used: the bridge and most verbs do without."""

    def __getattr__(self, name: str) -> object:
        from tests.contract import fake_service

        return getattr(fake_service, name)


def main() -> None:
    """Run it; does not return."""
    from csb_mcp import __main__ as command

    sys.modules["csb_mcp.app"] = _Instead("csb_mcp.app")
    command.main()
