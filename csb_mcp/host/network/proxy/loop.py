"""One thread that waits for descriptors, for times, and for what other threads tell."""

import heapq
import os
import select
import time
from _collections_abc import Callable
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # signal takes as long to import as half of this program

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Handler = Callable[[int], None]


class Loop:
    """``now``: monotonic seconds, as of the last waking. ``ended`` is set from outside."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.ended = False
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._masks: dict[int, int] = {}
        self._forgotten: set[int] = set()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell, self._ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._bell, READ, self._hear)

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Call ``handler`` with what is ready. A mask of 0 hears nothing, an error neither."""
        if not mask:
            self.forget(fd)
            return
        before = self._masks.get(fd)
        self._handlers[fd], self._masks[fd] = handler, mask
        if before is None:
            self._epoll.register(fd, mask)
        elif before != mask:
            self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """No more of it; to be called before it is closed. Idempotent."""
        if self._masks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            del self._handlers[fd]
            self._forgotten.add(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, that much later. It cannot be taken back."""
        self._count += 1
        heapq.heappush(self._timers, (self.now + seconds, self._count, call))

    def tell(self, call: Callable[[], None]) -> None:
        """Have the loop call this soon; from any thread."""
        self._calls.put(call)
        try:
            os.write(self._ring, b".")
        except BlockingIOError:
            pass  # it rings already

    def end_on(self, *signals: int) -> None:
        """End when one of these comes."""
        for number in signals:
            signal.signal(number, self.end)
        signal.set_wakeup_fd(self._ring, warn_on_full_buffer=False)

    def end(self, *_: object) -> None:
        """Stop running after this round."""
        self.ended = True

    def run(self) -> None:
        """Until ``ended``."""
        while not self.ended:
            ready = self._epoll.poll(self._wait())
            self.now = time.monotonic()
            self._forgotten.clear()
            for fd, events in ready:
                # A number may have been closed and given to another meanwhile.
                if fd not in self._forgotten and (handler := self._handlers.get(fd)):
                    handler(events)
            self._due()

    def close(self) -> None:
        """Let go of its own descriptors."""
        self._epoll.close()
        os.close(self._bell)
        os.close(self._ring)

    def _wait(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()

    def _hear(self, _: int) -> None:
        try:
            os.read(self._bell, 4096)
        except BlockingIOError:
            pass
        for _ in range(self._calls.qsize()):
            self._calls.get()()
