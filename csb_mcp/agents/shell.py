"""The shell: a bash with a home of its own. Also the home of a plain command."""

import os
from pathlib import Path

COMMAND = ("bash",)
"""What is started inside."""

_FILES = {
    ".bashrc": r"""# Seeded once by csb-mcp; yours to change.
PS1='\[\e[32m\]agent@\h\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]\$ '
HISTCONTROL=ignoreboth
shopt -s checkwinsize histappend
alias ls='ls --color=auto' grep='grep --color=auto' ll='ls -l'
""",
    ".profile": '[ -z "$BASH_VERSION" ] || . ~/.bashrc\n',
}


def seed_home(home: Path, uid: int, gid: int) -> None:
    """Put what is missing into ``home``, a folder of ours, and give it to ``uid``.

    What exists is left alone, and no link followed: an earlier payload may have made it.
    """
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, gid)
    for name, text in _FILES.items():
        try:
            fd = os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        with open(fd, "w") as file:
            file.write(text)
            os.fchown(fd, uid, gid)
