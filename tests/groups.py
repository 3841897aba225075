"""Groups of processes that train one GAN: `main.py` itself, with TF_CONFIG as schedulers set it."""

import contextlib
import json
import os
import re
import signal
import time

import pytest
from test_resume import Process, be_main

from training.launch import free_addresses

GONE = 75


def be_worker(config, *arguments):
    os.environ["TF_CONFIG"] = config
    be_main(*arguments)


class Worker(Process):
    """A process of a group, in a folder of its own."""

    def __init__(self, server, place, config, be, *flags):
        self._streams = [place / f".{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        self._process = server.Process(target=be, args=(config, place, self._streams, flags))
        self._process.start()
        self.pid = self._process.pid


class Group:
    """`size` processes with addresses of their own on this machine; be: what each of them does."""

    def __init__(self, server, data_dir, place, size, *flags, be=be_worker):
        self._server, self._place, self._be = server, place, be
        self._flags = [f"--data_dir={data_dir}", "--run_dir=run", *flags]
        self.addresses = free_addresses(size)
        self.workers = {}

    def start(self, index, *flags, config=None):
        place = self._place / f"worker{index}"
        place.mkdir(parents=True, exist_ok=True)
        config = config or self.config(index)
        self.workers[index] = Worker(self._server, place, config, self._be, *self._flags, *flags)
        return self.workers[index]

    def config(self, index):
        task = {"type": "worker", "index": index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})

    def start_all(self):
        for index in range(len(self.addresses)):
            self.start(index)
        return self

    def ends(self):
        return [self.workers[index].end() for index in sorted(self.workers)]

    @property
    def run(self):
        return self._place / "worker0" / "run"

    def close(self):
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.send(signal.SIGKILL)
            worker.end()


@pytest.fixture
def group(server, data_dir, tmp_path):
    """A function that makes a Group, which ends with the test."""
    made = []

    def group(size, *flags, name="group", be=be_worker):
        made.append(Group(server, data_dir, tmp_path / name, size, *flags, be=be))
        return made[-1]

    yield group
    for each in made:
        each.close()


def assert_one_line(ended, code, pattern):
    assert ended.code == code, ended
    assert re.fullmatch(rf"main\.py: .*({pattern}).*\n", ended.stderr), ended.stderr
