"""However a program is ended from outside, at whatever moment: one line, nothing half-written, the right exit code.

Python runs a signal's handler in the main thread, between two of its instructions: during a compilation that is seconds
later, and a KeyboardInterrupt raised there ends in a crash of XLA's threads. So a thread of its own waits for signals,
takes away what is not whole, and ends the process at once. Only the standard library is imported here: what a program
imports takes seconds, and is interrupted like the rest of it.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}
_PATIENCE_S = 1.0
"""For the main thread to leave what it does to files."""


class SignalWatch:
    """The thread that waits for signals; one for the process, since the handlers of signals are."""

    def __init__(self) -> None:
        self._heard, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._parked = threading.Event()
        self.exit_code: int | None = None
        """What the process ends with if nothing ends it before."""
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def begin(self, is_first: bool) -> None:
        """From now on signals end the process, but for those that it was started to ignore (nohup)."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in EXIT_CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._park)
        if is_first:
            # Registered before all others it runs after them: then no moment is left in which a signal is not heard.
            atexit.register(self._leave)

    def _park(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: it does no more from here on."""
        del frame
        self._parked.set()
        with contextlib.suppress(OSError):  # full, or heard already
            os.write(self._wake, bytes([number]))
        while self._thread.is_alive() and not sys.is_finalizing():
            self._thread.join()
        os._exit(EXIT_CODES[signal.Signals(number)])

    def _wait(self) -> None:
        number = 0
        while number not in EXIT_CODES:
            number = os.read(self._heard, 1)[0]
        self._parked.wait(_PATIENCE_S)
        # It is there if anything was written. No import here: the main thread may hold the lock of imports.
        unfinished = sys.modules.get("marsjax.core.unfinished")
        if unfinished is not None and hasattr(unfinished, "undo_all"):
            unfinished.undo_all()
        line = "\n" * os.isatty(2) + f"error: {_SAID[signal.Signals(number)]}\n"  # beside a bar of progress
        with contextlib.suppress(OSError):
            os.write(2, line.encode())
        os._exit(EXIT_CODES[signal.Signals(number)])

    def leave_first(self) -> None:
        """At the exit the process ends before other libraries wait for threads that still compute."""
        atexit.register(self._leave)

    def _leave(self) -> None:
        if self.exit_code is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self.exit_code)


_WATCHES: list[SignalWatch] = []


def install(is_first: bool = False) -> None:
    """Makes signals end this process as they should; for programs alone, in the main thread, once or more often.

    `is_first` says that the process has done nothing before: its exit is then watched to the very end.
    """
    if not _WATCHES and threading.current_thread() is threading.main_thread():
        _WATCHES.append(SignalWatch())
        _WATCHES[0].begin(is_first)


@contextlib.contextmanager
def gracefully(stop: Callable[[], None]) -> Iterator[None]:
    """Within it the first signal calls `stop`, in the main thread; a second one ends the process as ever.

    At the end of the block the program ends as by that signal, with its line and exit code, if there was one. For
    servers, which have more to end than files; in another thread than the main one it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    waker = signal.set_wakeup_fd(-1)

    def restore() -> None:
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        heard.append(number)
        restore()
        stop()

    for number in EXIT_CODES:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield
    finally:
        restore()
    if heard:
        for watch in _WATCHES:
            watch.leave_first()
        print(f"error: {_SAID[signal.Signals(heard[0])]}", file=sys.stderr, flush=True)
        sys.exit(EXIT_CODES[signal.Signals(heard[0])])


def leave_with(exit_code: int) -> None:
    """The code that a program ends with whose exit is watched; it then ends without tearing down XLA's threads."""
    for watch in _WATCHES:
        watch.exit_code = exit_code


def is_program() -> bool:
    """Whether this process is `python -m marsjax.experiments.NAME`, which is just finding its module."""
    return sys.argv[:1] == ["-m"] and any(word.startswith("marsjax.experiments") for word in sys.orig_argv)
