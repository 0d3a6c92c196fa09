"""What stands at the other end of pipe-pane: a shell and ``dd``, for they cost little memory.

They belong to the tmux server, so the log has no gap while the daemon restarts. They end when the
server closes the pipe, and cannot keep anything else alive. That the log was written is also how
the daemon hears of output (``wake.py``).
"""

import shlex
from pathlib import Path

CHUNK = 16 * 1024
CHUNKS = 256  # for so many reads dd runs before the shell looks at the size
ROTATE_AT = 4 * 1024 * 1024
MAX_FILE = ROTATE_AT + CHUNK * CHUNKS
"""Bytes that the log, and likewise ``log.1``, can grow to at most."""

# dd with bs= writes each read at once and reads no more than it writes, so nothing is lost between
# two of them; head -c would hold bytes back in stdio. ``log.start`` says at which byte of all that
# was printed the log begins (``host/log.py`` reads it). While the log cannot be written (a full
# disk, a folder that is gone) what comes is thrown away: unread, it would pile up in the tmux
# server. To open the log and close it again (true, for a shell exits if : cannot) is news for who
# waits.
_SCRIPT = """\
exec 2>/dev/null
size=0 start=0
while
  told=$({dd} bs={chunk} count={chunks} 2>&1 >>{log}) ||
    {{ told=$({dd} bs={chunk} count=1 2>&1 >/dev/null); true >>{log}; }}
  case "
$told" in *'
0+0 records in'*) false ;; esac
do
  set -- ${{told##*out}}
  size=$((size + ${{1:-0}}))
  [ "$size" -lt {rotate} ] || {{
    echo "$((start + size))" >{log}.new && mv -f {log} {log}.1 && mv -f {log}.new {log}.start &&
      start=$((start + size)) size=0
  }}
done"""


def writer_command(dd: Path, log: Path) -> str:
    """What to give to pipe-pane to keep what the pane prints in ``log`` and ``log.1``."""
    script = _SCRIPT.format(
        dd=shlex.quote(str(dd)),
        log=shlex.quote(str(log)),
        chunk=CHUNK,
        chunks=CHUNKS,
        rotate=ROTATE_AT,
    )
    return script.replace("#", "##").replace("%", "%%")  # tmux expands formats and strftime(3)
