"""SIGTERM, as preemptible machines get it before they go: save at the next update and end with a code of its own."""

import signal
import threading

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start again


class Preempted(SystemExit):
    """The run saved its state and ends; started again it goes on from there. Uncaught, the program exits with EXIT_CODE."""

    def __init__(self, message: str):
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self):
        return self.message

    def __reduce__(self):  # it travels from worker processes
        return (Preempted, (self.message,))


class SigtermWatch:
    """While entered, SIGTERM sets `asked` instead of ending the process.

    Outside of the main thread it watches nothing, nor with `enabled=False`: with several processes jax's own service hears the
    signal and lets them agree on where to stop.
    """

    def __init__(self, enabled: bool = True):
        self.asked = False
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before = None

    def __enter__(self):
        if self._enabled:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, *_):
        self.asked = True

    def __exit__(self, *_):
        if self._enabled:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
