"""Names to addresses, once for each connection, in a few threads: getaddrinfo(3) blocks."""

import _socket
import _thread
from _collections_abc import Callable
from _queue import Empty, SimpleQueue

from csb_mcp.host.network.proxy.addresses import is_own, refused

_MOST_THREADS = 16
_MOST_ADDRESSES = 16  # of one name; an answer may hold thousands
_REST_SECONDS = 10.0  # a thread without work ends then
_NO_THREAD = "the sandbox has too many processes to look its name up"
Address = tuple[int, str]
"""Family and address."""


class Answer:
    """``addresses`` may be connected to, best first; none: ``refused`` or ``failed`` says why."""

    def __init__(self, addresses: list[Address], refused: str = "", failed: str = "") -> None:
        self.addresses, self.refused, self.failed = addresses, refused, failed


class Resolver:
    """``tell`` has a function called in the loop's thread."""

    def __init__(self, tell: Callable[[Callable[[], None]], None]) -> None:
        self._tell = tell
        self._jobs: SimpleQueue[tuple[str, Callable[[], bool], Callable[[Answer], None]]]
        self._jobs = SimpleQueue()
        self._lock = _thread.allocate_lock()
        self._threads = self._idle = 0

    def ask(self, host: str, wanted: Callable[[], bool], then: Callable[[Answer], None]) -> None:
        """``then`` gets the answer, in the loop; never if it is not ``wanted`` any more."""
        with self._lock:
            if self._jobs.qsize() >= self._idle and self._threads < _MOST_THREADS:
                self._begin()
            if self._threads:  # with the lock: none of them ends before it sees this
                self._jobs.put((host, wanted, then))
                return
        self._tell(lambda: then(Answer([], failed=_NO_THREAD)))

    def _begin(self) -> None:
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:
            return  # those inside use up all that the sandbox may have; others may be free soon
        self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                host, wanted, then = self._jobs.get(timeout=_REST_SECONDS)
            except Empty:
                with self._lock:
                    self._idle -= 1
                    if self._jobs.empty():  # else somebody counted on us just now
                        self._threads -= 1
                        return
                    continue
            with self._lock:
                self._idle -= 1
            if wanted():
                answer = look_up(host)
                self._tell(lambda then=then, answer=answer: then(answer))


def look_up(host: str) -> Answer:
    """The final dot keeps the host's search domains out of it. Blocks.

    As bytes, for a str would go through IDNA, whose import takes memory and means nothing here.
    """
    try:
        found = _socket.getaddrinfo(
            f"{host}.".encode(), 0, 0, _socket.SOCK_STREAM, _socket.IPPROTO_TCP, 0
        )
    except (OSError, UnicodeError) as error:
        return Answer([], failed=f"its name cannot be resolved: {error.args[-1]}")
    good: list[Address] = []
    why = ""
    for family, _, _, _, sockaddr in found:
        address = str(sockaddr[0])
        bad = refused(address) or (is_own(family, address) and "this host's own")
        if not bad:
            good.append((int(family), address))
        why = why or (f"its address {address} is not allowed: {bad}" if bad else "")
        if len(good) == _MOST_ADDRESSES:
            break
    return Answer(good, "" if good else why)
