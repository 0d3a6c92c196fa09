"""What one call may ask for at most, and what a sandbox gets unless it asks."""

MAX_WAIT = 45.0
"""Seconds of one wait: desktop clients cut calls at 60."""
MAX_COMMAND = 600.0
"""Seconds of one run_command that is not in the background."""
MAX_TEXT = 256 * 1024
"""Bytes of UTF-8 in one argument."""
MAX_ROWS = 10_000
"""Rows of a terminal's history."""
DEFAULT_MEMORY = 4 * 1024**3
"""Bytes that a sandbox may use."""
DEFAULT_PIDS = 1024
"""Processes and threads that a sandbox may have."""
