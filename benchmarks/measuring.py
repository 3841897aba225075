"""Races between contestants: one computes at a time, turn and turn about, for several rounds."""

import contextlib
import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import roofline
from benchmarks.contestants import CONTESTANTS, Unavailable, Worker
from models import recipes

_ROOT = Path(__file__).parent.parent
_DENSE = ("fused", "step", "literal_tf1", "keras", "torch", "torch_tuned", "torch_compiled", "jax")
_PRECISIONS = ("auto", "bfloat16")
_CONVOLUTIONAL = (*_PRECISIONS, "keras", "torch", "torch_tuned")
_MAIN = "minimal"

# A loss is called alike within this share of the contestants' median, and this much, of it.
_LOSS_SHARE, _LOSS_MARGIN = 0.3, 0.1


class Case(NamedTuple):
    """A race: a recipe, images a batch, and the names of those who run, ours first."""

    recipe: str
    batch: int
    names: tuple


class Settings(NamedTuple):
    """rounds: of each race; seconds: of the longer run in a round; batches: of the main recipe."""

    rounds: int
    seconds: float
    batches: tuple


FULL = Settings(rounds=5, seconds=0.8, batches=(16, 64, 256, 1024))
QUICK = Settings(rounds=2, seconds=0.3, batches=(16, 1024))


# With every peer; what their frameworks would have to be shown is worth it for these alone.
_FULL_RACES = {
    "minimal": Case("minimal", 16, _DENSE),
    "leaky_mlp": Case("leaky_mlp", 64, _DENSE),
    "dcgan": Case("dcgan", 64, _CONVOLUTIONAL),
}


def races(names):
    """Names of recipes -> a Case for each."""
    return [_FULL_RACES.get(name) or _own_race(name, recipes.get(name)) for name in names]


def _own_race(name, recipe):
    return Case(name, recipe.batch_size, _PRECISIONS if recipe.convolutional else ("auto",))


def batch_races(names, batches):
    """-> Cases of the main recipe, if it is among these, at the batch sizes it has no Case for."""
    racing = ("fused", "literal_tf1", "torch_tuned", "jax")
    main = _FULL_RACES[_MAIN].batch
    return [Case(_MAIN, batch, racing) for batch in batches if _MAIN in names and batch != main]


class Spread(NamedTuple):
    """Of several measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        """At least one value -> its Spread."""
        return cls(float(np.median(values)), min(values), max(values))


@dataclasses.dataclass
class Outcome:
    """What a race has shown.

    seconds: {name: [marginal seconds a step in each round]}; first: {name: the worker's answer
    after its first steps}; absent: {name: reason}; idle: most CPU seconds that a worker
    used while others had their turns.
    """

    case: Case
    seconds: dict = dataclasses.field(default_factory=dict)
    first: dict = dataclasses.field(default_factory=dict)
    absent: dict = dataclasses.field(default_factory=dict)
    idle: float = 0.0

    @property
    def ours(self):
        """The name of the first contestant."""
        return self.case.names[0]

    def step(self, name):
        """-> Spread of the seconds a step."""
        return Spread.of(self.seconds[name])

    def ratio(self, name):
        """-> Spread over the rounds of a contestant's time in ours, measured next to each other."""
        pairs = zip(self.seconds[name], self.seconds[self.ours], strict=True)
        return Spread.of([theirs / ours for theirs, ours in pairs])

    def same_networks(self, name):
        """Whether a contestant has as many parameters as the recipe's networks."""
        answer = self.first[name]
        seen = answer["generator"], answer["discriminator"]
        return seen == roofline.parameters(recipes.get(self.case.recipe))

    def losses_alike(self, name):
        """Whether the mean losses of the first steps are near the contestants' medians."""
        return all(
            abs(self.first[name][loss] - middle) <= _LOSS_SHARE * middle + _LOSS_MARGIN
            for loss in ("d_loss", "g_loss")
            for middle in [np.median([answer[loss] for answer in self.first.values()])]
        )


def race(case, settings, advance):
    """Runs a Case -> Outcome; advance(note) is called after every start and every turn."""
    outcome = Outcome(case)
    with contextlib.ExitStack() as stack:
        racers = {}
        for name in case.names:
            with _noting_absence(outcome, name):
                worker = stack.enter_context(Worker(name, case.recipe, case.batch))
                outcome.first[name] = worker.ready()
                racers[name] = worker, *_lengths(worker, outcome.first[name], settings.seconds)
            advance(_note(case, name))
        for name in _turns(case.names, settings.rounds):
            if name not in outcome.absent:
                with _noting_absence(outcome, name):
                    _take_turn(outcome, *racers[name])
            advance(_note(case, name))
    return outcome


@contextlib.contextmanager
def _noting_absence(outcome, name):
    """Whoever is Unavailable in the body is out of the race, with all that it has shown."""
    try:
        yield
    except Unavailable as reason:
        outcome.absent[name] = str(reason)
        outcome.first.pop(name, None)
        outcome.seconds.pop(name, None)


def _turns(names, rounds):
    """Yields every name in each round, from another one on, so that nobody always comes first."""
    for start in range(rounds):
        for place in range(len(names)):
            yield names[(start + place) % len(names)]


def _note(case, name):
    return f"{case.recipe} {case.batch}: {name}"


def _lengths(worker, answer, seconds):
    """-> (short, long): steps of a turn's two runs, whole blocks, the long one of `seconds`."""
    block = answer["block"]
    once = worker.run(block)["seconds"]
    long = max(3, round(seconds / once))
    return block * max(1, long // 4), block * long


def _take_turn(outcome, worker, short, long):
    """The difference of two runs: what a run costs only once, such as its first batch, cancels."""
    answers = [worker.run(short), worker.run(long)]
    difference = answers[1]["seconds"] - answers[0]["seconds"]
    outcome.seconds.setdefault(worker.name, []).append(difference / (long - short))
    outcome.first[worker.name]["peak"] = answers[1]["peak"]
    outcome.idle = max(outcome.idle, answers[0]["idle"])


def import_seconds(names, tries=2):
    """Names of contestants -> {module: seconds of a process that does nothing but import it}."""
    modules = {CONTESTANTS[name].needs for name in names}
    return {
        module: min(_process_seconds(f"import {module}") for _ in range(tries))
        for module in sorted(modules)
        if importlib.util.find_spec(module)
    }


def _process_seconds(program):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main_job(steps=200):
    """The main job with few steps -> (seconds, most bytes of memory that its process has held)."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        words = ["main.py", "--nlatent=10", f"--num_steps={steps}", f"--run_dir={scratch}/run"]
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=_ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return time.perf_counter() - began, usage.ru_maxrss * 1024
