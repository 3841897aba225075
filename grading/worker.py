"""The process in which a student's class runs: it measures what it is asked and judges nothing.

`python -m grading.worker SOCKET MEMORY_GB`; the parent (process.py) starts and ends it.
"""

import faulthandler
import functools
import os
import socket
import sys
import threading
from pathlib import Path

from grading import candidate, model
from grading.limits import limit
from grading.messages import STACK, Channel


def main(descriptor, memory_gb):
    """Answers requests `[token, operation, arguments, seconds left]` until the parent ends this."""
    os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=descriptor))
    limit(memory_gb)
    _forget_the_project()
    threading.Thread(target=_end_with, args=[channel], daemon=True).start()
    bench = Bench()
    channel.send({"ready": True})
    with open(STACK, "w") as stack:
        while True:
            token, operation, arguments, seconds = channel.receive()
            faulthandler.dump_traceback_later(0.9 * seconds, file=stack)
            channel.send({"token": token, **_answer(bench, operation, arguments)})
            faulthandler.cancel_dump_traceback_later()


def _end_with(channel):
    """A class that runs on must not outlive the parent."""
    channel.hung_up()
    os._exit(0)


def _forget_the_project():
    """A student's `import models` should not find the solution."""
    root = str(Path(__file__).resolve().parents[1])
    sys.path[:] = [folder for folder in sys.path if folder and Path(folder).resolve() != Path(root)]
    os.environ.pop("PYTHONPATH", None)


def _answer(bench, operation, arguments):
    """-> `{"value": ...}`, or `{"error": one line}`."""
    try:
        return {"value": getattr(bench, operation)(**arguments)}
    # A class may raise anything, and may try to end the program: that is a finding.
    except BaseException as error:
        return {"error": candidate.short(error)}


class Bench:
    """Builds models of one class, each in a fresh graph, and passes questions on to the newest.

    Building takes longer than most checks, so a model is lent again, with the values that its
    constructor gave it, unless a check failed on it or another model was built since.
    """

    def __init__(self):
        self._gan_class = None
        self._models = []
        self._sizes = None

    def load(self, path, class_name):
        """Chooses the class; its file is run by the first constructor."""
        self._drop_all()
        self._gan_class = functools.partial(candidate.load, Path(path), class_name)

    def begin(self, sizes):
        """A model for a check, from a constructor called with these sizes."""
        if len(self._models) == 1 and self._sizes == sizes and self._models[0].can_be_restored():
            self._models[0].restore()
            return
        self._drop_all()
        self._build(model.construct, **sizes)
        self._sizes = sizes

    def begin_bare(self):
        """An object of the class whose constructor was not called, and a session for it."""
        self._drop_all()
        self._sizes = None
        self._build(model.without_constructor)

    def end(self, passed):
        """A check is over; a model on which one failed is not lent again."""
        if not passed or len(self._models) != 1:
            self._drop_all()

    def begin_another(self, arguments, sizes):
        """A second model, for a check that has one already; the first is not lent again."""
        self._sizes = None
        self._build(model.construct, *arguments, **sizes)

    def end_another(self):
        self._models.pop().close()

    def measure(self, name, arguments):
        """A public method of the newest `Model`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._models[-1], name)(**arguments)

    def _build(self, make, *arguments, **sizes):
        self._models.append(model.build(make, self._gan_class, *arguments, **sizes))

    def _drop_all(self):
        while self._models:
            self._models.pop().close()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
