"""What bounds, freezes and measures sandboxes, as strong as the host allows; see ladder.py."""
