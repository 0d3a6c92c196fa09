"""Whom this process belongs to."""

import os
import pwd
from pathlib import Path


def home_of_this() -> Path:
    """Of whom this process belongs to; an environment may say anything."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # nobody's uid: there is nothing else
        return Path(os.environ.get("HOME") or "/")
