"""How many processes a class has started, for a fork without end takes a machine down."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

MOST = 200
SECONDS_BETWEEN_COUNTS = 0.2


class Watch:
    """Ends a process that leads a session, and all its others, once they are more than `most`.

    found: whether they were.
    """

    def __init__(self, started, most=MOST):
        self.found = False
        threading.Thread(target=self._watch, args=[started, most], daemon=True).start()

    def _watch(self, started, most):
        while started.poll() is None and not self.found:
            time.sleep(SECONDS_BETWEEN_COUNTS)
            self.found = size(started.pid) > most
        if self.found:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def size(pid):
    """-> the processes in the session that `pid` leads, and those in the namespace it opened.

    0 where there is no /proc to tell.
    """
    with contextlib.suppress(OSError):
        opened = os.readlink(f"/proc/{pid}/ns/pid_for_children")
        if opened == os.readlink("/proc/self/ns/pid"):
            opened = None
        numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return sum(_belongs(number, pid, opened) for number in numbers)
    return 0


def _belongs(number, pid, namespace):
    try:
        return os.getsid(number) == pid or os.readlink(f"/proc/{number}/ns/pid") == namespace
    except OSError:  # it has just ended, or is somebody else's
        return False
