"""Compares training speed with other programs that train the same networks.

Each contestant has a process of its own. Only one computes at a time, and they take turns for
several rounds.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.peers.job import Job, first_steps
from models import recipes
from support import terminal
from support.errors import UserError, reason
from support.files import write_text


class Contestant(NamedTuple):
    """A program that trains the recipes.

    Attributes:
      label: Its label in tables.
      module: Its module in `peers`.
      options: Options of its Peer.
    """

    label: str
    module: str
    options: dict


_FUSED = Contestant("this project, fused engine", "ours", {"engine": "fused"})
_STEP = Contestant("this project, step engine", "ours", {"engine": "step"})
_AUTO = Contestant("this project", "ours", {})
_BFLOAT16 = Contestant("this project, bfloat16", "ours", {"precision": "bfloat16"})
_LITERAL = Contestant("TensorFlow 1 feed loop (article 003's)", "literal_tf1", {})
_KERAS = Contestant("Keras 3, train_on_batch", "keras_peer", {})
_TORCH = Contestant("PyTorch eager", "torch_peer", {})
_TUNED = Contestant("PyTorch eager, tuned", "torch_peer", {"tuned": True})
_COMPILED = Contestant("torch.compile, tuned", "torch_peer", {"tuned": True, "compiled": True})
_JAX = Contestant("JAX, lax.scan", "jax_peer", {})

# This project first: the others' times are divided by its time.
_DENSE = [_FUSED, _STEP, _LITERAL, _KERAS, _TORCH, _TUNED, _COMPILED, _JAX]
CONTESTANTS = {
    "minimal": _DENSE,
    "leaky_mlp": _DENSE,
    "dcgan": [_AUTO, _BFLOAT16, _KERAS, _TORCH, _TUNED],
    "upsampling_cnn": [_AUTO, _BFLOAT16],
    "pretrained_cnn": [_AUTO, _BFLOAT16],
    "stable_cnn": [_AUTO],
}
# Recipes whose peers would take days with the recipe's own batch size.
_BATCHES = {"dcgan": 64}
# `minimal` is also timed with other batch sizes.
_BY_BATCH, _LARGER_BATCHES = [_FUSED, _LITERAL, _TUNED, _JAX], (64, 256, 1024)

_TURN_SECONDS = 0.8  # of a turn's longer run


class Racer:
    """A contestant in a process of its own, after its first steps.

    Attributes:
      contestant: `Contestant`.
      parameters: Its numbers of trainable parameters, of G and of D.
      losses: Means of D's and G's loss over the first steps.
      start: Seconds from the start of the process to the end of the first steps.
      microseconds: Time per step in each round.
      peak: Most bytes of memory that the process has used, 0 if unknown.
    """

    def __init__(self, contestant, recipe, batch, pool):
        """Trains the first steps and chooses the length of a turn.

        Args:
          contestant: `Contestant`.
          recipe: Name of the recipe.
          batch: Number of images per batch.
          pool: An executor with one new process.
        """
        self.contestant, self._pool, self.microseconds = contestant, pool, []
        began = time.perf_counter()
        steps = first_steps(recipe, batch)
        self.parameters, block = pool.submit(_build, contestant, recipe, batch, steps).result()
        self.losses, _, self.peak = self._train(steps)
        self.start = time.perf_counter() - began
        _, seconds, _ = self._train(block)
        blocks = max(3, round(_TURN_SECONDS / seconds))
        self._short, self._long = block * max(1, blocks // 4), block * blocks

    def take_turn(self):
        """Times a short and a long run; what each run costs only once cancels out."""
        _, short, _ = self._train(self._short)
        _, long, self.peak = self._train(self._long)
        self.microseconds.append(1e6 * (long - short) / (self._long - self._short))

    def _train(self, steps):
        return self._pool.submit(_train, steps).result()


_peers: list = []  # of a contestant's process: its Peer


def _build(contestant, *job):
    """Builds this process's Peer; returns its parameters and block."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    module = importlib.import_module(f"benchmarks.peers.{contestant.module}")
    _peers.append(module.Peer(Job(*job), **contestant.options))
    return tuple(_peers[0].parameters), _peers[0].block


def _train(steps):
    """Trains; returns mean losses of D and G, seconds and peak memory."""
    began = time.perf_counter()
    losses = np.reshape(list(_peers[0].train(steps)), [-1, 2]).mean(axis=0)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.exists() else "")
    return losses.tolist(), seconds, 1024 * int(peak[1]) if peak else 0


def run_race(
    recipe: str, batch: int, contestants: list, rounds: int, advance: Callable = lambda note: None
) -> tuple[list, dict]:
    """Times contestants in turns.

    Args:
      recipe: Name of the recipe.
      batch: Number of images per batch.
      contestants: List of `Contestant`, this project first.
      rounds: Number of turns of each.
      advance: Function of a note, called after each start and each turn.

    Returns:
      The `Racer` of each contestant that took part, this project's first; and {label: reason} of
      the others.
    """
    racers, unavailable = [], {}
    with contextlib.ExitStack() as stack:
        for contestant in contestants:
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            stack.callback(pool.shutdown)
            try:
                racers.append(Racer(contestant, recipe, batch, pool))
            except Exception as error:
                if contestant is contestants[0]:
                    raise UserError(f"{recipe}, {contestant.label}: {reason(error)}") from error
                unavailable[contestant.label] = reason(error)
            advance(f"{recipe} {batch}: {contestant.label}")
        for turn in range(rounds):
            first = turn % len(racers)  # another one in each round
            for racer in [*racers[first:], *racers[:first]]:
                racer.take_turn()
                advance(f"{recipe} {batch}: {racer.contestant.label}")
    return racers, unavailable


def section(name: str, batch: int, racers: list, unavailable: dict) -> str:
    """Returns the Markdown of a race.

    Args:
      name: Name of the recipe.
      batch: Number of images per batch.
      racers, unavailable: What `run_race` returned.
    """
    parameters = racers[0].parameters
    text = (
        f"G has {parameters[0]:,} parameters, D {parameters[1]:,}. The start ends after "
        f"{first_steps(name, batch)} steps, of which the losses are means."
    )
    header = ["", "µs per step", "times ours", "losses of D, G"]
    rows, notes = [[*header, "s to start", "peak MiB"]], [text]
    for racer in racers:
        label = racer.contestant.label
        pairs = zip(racer.microseconds, racers[0].microseconds, strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        time_cell = report.spread(racer.microseconds, statistics.median)
        ratio = report.spread(ratios, statistics.median)
        losses = "{:.2f}, {:.2f}".format(*racer.losses)
        if racer.parameters != parameters:
            notes.append(f"{label} trains other networks.")
        start, peak = report.number(racer.start), f"{racer.peak / 2**20:,.0f}"
        rows.append([label, time_cell, ratio, losses, start, peak])
    notes += [f"Unavailable: {label} ({why})." for label, why in unavailable.items()]
    return "\n\n".join([f"## {name}, batch {batch}", report.table(rows), " ".join(notes)])


def main(words: list[str] | None = None) -> None:
    """Measures, prints the tables, and writes them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--recipes", help="comma-separated (default: all)")
    add("--rounds", type=int, default=5, help="rounds of each race (default: 5)")
    add("--out", type=Path, default=Path("speed"), help="folder for the results (default: speed)")
    options = parser.parse_args(words)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    names = options.recipes.split(",") if options.recipes else list(CONTESTANTS)
    for name in names:
        if name not in CONTESTANTS:
            parser.error(f"--recipes must be some of {', '.join(CONTESTANTS)}, got {name}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        text = measure(names, options.rounds)
        write_text(options.out / "speed.md", text)
    except (UserError, OSError) as error:
        sys.exit(f"python -m benchmarks: {reason(error)}")
    print(f"{text}\nSaved {options.out / 'speed.md'}.")


def measure(names: list[str], rounds: int) -> str:
    """Runs the races of some recipes and returns the page of their tables."""
    plan = [
        (name, _BATCHES.get(name, recipes.get(name).batch_size), CONTESTANTS[name])
        for name in names
    ]
    if "minimal" in names:
        plan += [("minimal", batch, _BY_BATCH) for batch in _LARGER_BATCHES]
    terminal.import_tensorflow()
    turns = sum(len(contestants) for *_, contestants in plan) * (1 + rounds)
    with contextlib.closing(terminal.Bar(turns, unit="turn")) as bar:
        races = []
        for name, batch, contestants in plan:
            found = run_race(name, batch, contestants, rounds, lambda note: bar.advance(1, note))
            races.append((name, batch, found))
    heading = (
        f"Written by `python -m benchmarks`: {rounds} rounds; medians, and in brackets the "
        f"range of the rounds.\n\n{report.machine()}"
    )
    sections = [section(name, batch, *found) for name, batch, found in races]
    return "\n\n".join(["# Speed", heading, *sections]) + "\n"


if __name__ == "__main__":
    main()
