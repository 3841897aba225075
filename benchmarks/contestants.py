"""Who takes part, and the parent's end of each one's worker process."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parent.parent
_OURS = "benchmarks.ours"
_PEERS = "benchmarks.peers"


class Contestant(NamedTuple):
    """label: in tables; where: `module:function` from a Job to the contestant; needs: a module."""

    label: str
    where: str
    needs: str

    @property
    def is_ours(self):
        """Whether this project is what it runs."""
        return self.where.startswith(f"{_OURS}:")


CONTESTANTS = {
    "fused": Contestant("this project, fused engine", f"{_OURS}:fused", "tensorflow"),
    "step": Contestant("this project, step engine", f"{_OURS}:step", "tensorflow"),
    "auto": Contestant("this project", f"{_OURS}:auto", "tensorflow"),
    "bfloat16": Contestant("this project, bfloat16", f"{_OURS}:bfloat16", "tensorflow"),
    "literal_tf1": Contestant(
        "TensorFlow 1 feed loop (article 003's)", f"{_PEERS}.literal_tf1:LiteralTf1", "tensorflow"
    ),
    "keras": Contestant("Keras 3, train_on_batch", f"{_PEERS}.keras_peer:KerasPeer", "keras"),
    "torch": Contestant("PyTorch eager", f"{_PEERS}.torch_peer:eager", "torch"),
    "torch_tuned": Contestant("PyTorch eager, tuned", f"{_PEERS}.torch_peer:tuned", "torch"),
    "torch_compiled": Contestant("torch.compile, tuned", f"{_PEERS}.torch_peer:compiled", "torch"),
    "jax": Contestant("JAX, lax.scan", f"{_PEERS}.jax_peer:JaxPeer", "jax"),
}


class Unavailable(Exception):
    """A contestant that cannot take part; the message says why."""


class Worker:
    """A contestant's process, which ends with the `with` block."""

    def __init__(self, name, recipe, batch):
        """Starts the process and does not wait for it; Unavailable where a package is missing."""
        needs = CONTESTANTS[name].needs
        if importlib.util.find_spec(needs) is None:
            raise Unavailable(f"{needs} is not installed")
        self.name = name
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, recipe, str(batch)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1,
        )  # fmt: skip

    def ready(self):
        """Waits for the first steps' end; -> the answer, and `start`: seconds since the start."""
        answer = self._answer()
        return {**answer, "start": time.perf_counter() - self._began}

    def run(self, steps):
        """-> the worker's answer to that many steps; Unavailable if it has died."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{steps}\n")
        return self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends the process and waits for its end."""
        self._process.kill()
        self._process.communicate()

    def _answer(self):
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"absent": f"exit code {self._process.wait()}"}
        if "absent" in answer:
            raise Unavailable(answer["absent"])
        return answer
