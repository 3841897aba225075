"""Starts the processes of a group and keeps them going: all on this machine, or this one's own.

    python -m training.launch --workers=2 -- --recipe=dcgan
    python -m training.launch --workers=a:2222,b:2222 --index=0 -- --recipe=dcgan

What follows `--` are main.py's flags. A process that was killed, or leaves with the exit code of a
failure that passes, is started again, a limited number of times.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from support.errors import TemporaryError
from training.cluster import environment_of
from training.configuration import cores

_MAIN = Path(__file__).resolve().parents[1] / "main.py"
_SECONDS_BETWEEN_STARTS = 1
_SECONDS_TO_END = 30
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROGRESS = "step "  # what a line of progress begins with


class Worker(threading.Thread):
    """One worker's process and, where that has to be, its successors."""

    def __init__(self, cluster, index, flags, *, environment, restarts, told):
        """environment: what to add; told: whether its lines are to say whose they are."""
        super().__init__(daemon=True)
        self._command = [sys.executable, str(_MAIN), *flags]
        self._environment = {**os.environ, **environment, **environment_of(cluster, index)}
        self._index = index
        self._restarts = restarts
        self._told = told
        self._process = None
        self._stopping = threading.Event()
        self.code = None

    def run(self):
        code = self._run_once()
        while self._may_start_again(code):
            self._restarts -= 1
            print(f"launch: worker {self._index} ended with {code}, starts again", flush=True)
            code = self._run_once()
        self.code = code if code >= 0 else 128 - code

    def stop(self, number):
        """Sends a signal to the process, if one is given; it is not started again."""
        self._stopping.set()
        if number:
            with contextlib.suppress(AttributeError, ProcessLookupError):
                self._process.send_signal(number)

    def _may_start_again(self, code):
        """Whether it may, after a moment in which it may still be told to stop."""
        passing = code == TemporaryError.exit_code or code < 0
        return passing and self._restarts and not self._stopping.wait(_SECONDS_BETWEEN_STARTS)

    def _run_once(self):
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if self._told else {}
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C comes from here alone
            text=True,
            errors="replace",
            **streams,
        )
        if self._stopping.is_set():  # before there was a process to send a signal to
            self._process.terminate()
        for line in self._process.stdout or ():
            if not line.startswith(_PROGRESS):
                print(f"worker {self._index}: {line}", end="", flush=True)
        return self._process.wait()


def main(argv):
    """The command's words -> its exit code: the chief's 0, or the first worker's that is not 0."""
    options, flags = _parsed(argv)
    here = range(len(options.workers)) if options.index is None else [options.index]
    threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, cores() // len(here)))}
    workers = [
        Worker(
            options.workers, index, flags,
            environment=threads if len(here) > 1 else {},
            restarts=options.restarts,
            told=index != here[0],
        )
        for index in here
    ]  # fmt: skip
    for number in _STOPS:
        signal.signal(number, lambda number, _: [worker.stop(number) for worker in workers])
    for worker in workers:
        worker.start()
    return _ended(workers)


def _ended(workers):
    """Waits for all to end; -> 0 once the first, the chief, is done, or what one failed with.

    From then on none is started again, and who goes on for long is ended.
    """
    code, deadline = None, None
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.1)
        if deadline and time.monotonic() > deadline:
            _stop_all(workers, signal.SIGKILL)
        elif not deadline and (code := _outcome(workers)) is not None:
            deadline = time.monotonic() + _SECONDS_TO_END
            _stop_all(workers, signal.SIGTERM if code else None)
    return _outcome(workers) if code is None else code


def _outcome(workers):
    """-> the exit code of what the workers do together, None while they go on."""
    if workers[0].code == 0:
        return 0
    return next((worker.code for worker in workers if worker.code), None)


def _stop_all(workers, number):
    for worker in workers:
        if worker.code is None:
            worker.stop(number)


def _parsed(argv):
    """The command's words -> its options and main.py's flags, which follow `--`."""
    own = argv.index("--") if "--" in argv else len(argv)
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser("python -m training.launch", description=about)
    parser.add_argument(
        "--workers", type=_addresses, required=True,
        help="how many on this machine, or the host:port of each, the chief's first",
    )  # fmt: skip
    parser.add_argument("--index", type=int, help="start this one alone (default: all of them)")
    parser.add_argument(
        "--restarts", type=_count, default=10, help="of a worker, at most (default: 10)"
    )
    options = parser.parse_args(argv[:own])
    if options.index is not None and not 0 <= options.index < len(options.workers):
        parser.error(f"--index={options.index}: wanted 0 to {len(options.workers) - 1}")
    return options, argv[own + 1 :]


def _addresses(text):
    """`2` -> so many free addresses of this machine; `a:2222,b:2222` -> those."""
    if not text.isdecimal():
        return text.split(",")
    if not int(text):
        raise argparse.ArgumentTypeError("0: wanted at least 1")
    return free_addresses(int(text))


def _count(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: wanted a whole number, 0 or more")
    return int(text)


def free_addresses(count):
    """-> so many addresses of this machine alone, at ports that nobody has."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
