"""What a person is told while something takes its time: one line on stderr, rewritten."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_AFTER = 1.0  # seconds; what is quicker needs no words
_EVERY = 0.1


@contextmanager
def progress(doing: str) -> Generator[None]:
    """``creating… 1.2 s`` after a second, as long as the block lasts; only on a terminal."""
    if not doing or not sys.stderr.isatty():
        yield
        return
    import threading  # noqa: PLC0415 a program that is not watched does without

    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(doing, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(doing: str, done: "threading.Event") -> None:
    began = time.monotonic()
    told = False
    wait = _AFTER
    while not done.wait(wait):
        sys.stderr.write(f"\r{doing}… {time.monotonic() - began:.1f} s")
        sys.stderr.flush()
        told, wait = True, _EVERY
    if told:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
