"""The command: serve, stdio, doctor."""


def main() -> None:
    """Run the command."""
