"""Compares training speed with other programs that train the same networks.

Each contestant has a process of its own, which reads from a pipe how many steps to train. Only
one computes at a time, and they take turns for several rounds.
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
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import report, roofline
from benchmarks.peers.job import Job, first_steps, recipe_of
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
# Two losses are called equal if they differ from the median by less than a fraction plus a margin.
_LOSS_FRACTION, _LOSS_MARGIN = 0.3, 0.1


class Racer:
    """A contestant in a process of its own; a context manager that ends it.

    Attributes:
      contestant: `Contestant`.
      first: Its answer after the first steps, see `_contend`.
      start: Seconds from the start of the process to that answer.
      microseconds: Time per step in each round.
      peak: Most bytes of memory that the process has used, 0 if unknown.
    """

    def __init__(self, contestant, recipe, batch):
        """Starts the process, trains the first steps and chooses the length of a turn.

        Raises:
          UserError: If the contestant failed.
        """
        self.contestant, self.microseconds = contestant, []
        began = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        steps = first_steps(recipe_of(recipe, batch))
        arguments = theirs, contestant, recipe, batch, steps
        self._process = context.Process(target=_contend, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.first = self._train(steps)
        self.start, self.peak = time.perf_counter() - began, self.first["peak"]
        block = self.first["block"]
        blocks = max(3, round(_TURN_SECONDS / self._train(block)["seconds"]))
        self._short, self._long = block * max(1, blocks // 4), block * blocks

    def take_turn(self):
        """Times a short and a long run; what each run costs only once cancels out."""
        short, long = self._train(self._short), self._train(self._long)
        seconds = (long["seconds"] - short["seconds"]) / (self._long - self._short)
        self.microseconds.append(1e6 * seconds)
        self.peak = long["peak"]

    def _train(self, steps):
        with contextlib.suppress(OSError):  # it has exited, maybe after it sent the reason
            self._pipe.send(steps)
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise UserError(f"exit code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise UserError(answer)
        return answer

    def close(self):
        """Ends the process."""
        self._process.kill()
        self._process.join()


def _contend(pipe, contestant, *job):
    """Serves one contestant: trains as many steps as each message says, and answers.

    An answer has `parameters` and `block` of the Peer; `losses`, means of D's and G's over the
    steps; `seconds` that they took; and `peak`. It is a string, the reason, after a failure.
    """
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    status = Path("/proc/self/status")
    try:
        module = importlib.import_module(f"benchmarks.peers.{contestant.module}")
        peer = module.Peer(Job(*job), **contestant.options)
        while True:
            steps = pipe.recv()
            began = time.perf_counter()
            losses = np.reshape(list(peer.train(steps)), [-1, 2]).mean(axis=0)
            seconds = time.perf_counter() - began
            peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.exists() else "")
            answer = {
                "parameters": tuple(peer.parameters),
                "block": peer.block,
                "losses": losses.tolist(),
                "seconds": seconds,
                "peak": 1024 * int(peak[1]) if peak else 0,
            }
            pipe.send(answer)
    except EOFError:
        pass  # the parent has ended
    except Exception as error:
        pipe.send(reason(error))


class Race(NamedTuple):
    """The times of a recipe's contestants.

    Attributes:
      recipe: Its name.
      batch: Number of images per batch.
      racers: The `Racer` of each contestant that took part, this project's first.
      unavailable: {label: reason} of the others.
    """

    recipe: str
    batch: int
    racers: list
    unavailable: dict

    def ratios(self, racer) -> list[float]:
        """Returns a racer's time divided by this project's in each round."""
        pairs = zip(racer.microseconds, self.racers[0].microseconds, strict=True)
        return [theirs / ours for theirs, ours in pairs]

    def has_equal_losses(self, racer) -> bool:
        """Returns whether a racer's first losses are near the medians of all racers."""
        medians = np.median([each.first["losses"] for each in self.racers], axis=0)
        limits = _LOSS_FRACTION * np.abs(medians) + _LOSS_MARGIN
        return bool((np.abs(racer.first["losses"] - medians) <= limits).all())


def run_race(recipe, batch, contestants, rounds, advance=lambda note: None) -> Race:
    """Times contestants in turns.

    Args:
      recipe: Name of the recipe.
      batch: Number of images per batch.
      contestants: List of `Contestant`, this project first.
      rounds: Number of turns of each.
      advance: Function of a note, called after each start and each turn.
    """
    racers, unavailable = [], {}
    with contextlib.ExitStack() as stack:
        for contestant in contestants:
            try:
                racers.append(Racer(contestant, recipe, batch))
                stack.callback(racers[-1].close)
            except UserError as error:
                if contestant is contestants[0]:
                    raise UserError(f"{recipe}, {contestant.label}: {error}") from error
                unavailable[contestant.label] = str(error)
            advance(f"{recipe} {batch}: {contestant.label}")
        for turn in range(rounds):
            first = turn % len(racers)  # another one in each round
            for racer in [*racers[first:], *racers[:first]]:
                racer.take_turn()
                advance(f"{recipe} {batch}: {racer.contestant.label}")
    return Race(recipe, batch, racers, unavailable)


def section(race: Race, flop_rate: float) -> str:
    """Returns the Markdown of a race.

    Args:
      race: `Race`.
      flop_rate: FLOPs per second of a large product.
    """
    recipe = recipe_of(race.recipe, race.batch)
    parameters = roofline.parameters(recipe)
    flops, traffic = roofline.step_cost(recipe)
    least = 1e6 * roofline.least_seconds(recipe, flop_rate)
    text = (
        f"G has {parameters[0]:,} parameters, D {parameters[1]:,}. The start ends after "
        f"{first_steps(recipe)} steps, of which the losses are means. A step has "
        f"{report.number(flops / 1e6)} MFLOP and {report.number(traffic / 1e6)} MB of memory "
        f"traffic: at least {report.number(least)} µs."
    )
    header = ["", "µs per step", "times ours", "of the roofline", "losses of D, G"]
    rows, notes = [[*header, "s to start", "peak MiB"]], [text]
    for racer in race.racers:
        label, first = racer.contestant.label, racer.first
        time_cell = report.spread(racer.microseconds, statistics.median)
        ratio = report.spread(race.ratios(racer), statistics.median)
        fraction = f"{least / statistics.median(racer.microseconds):.0%}"
        losses = "{:.2f}, {:.2f}".format(*first["losses"])
        if not race.has_equal_losses(racer):
            losses += " (different)"
        if first["parameters"] != parameters:
            notes.append(f"{label} trains other networks.")
        start, peak = report.number(racer.start), f"{racer.peak / 2**20:,.0f}"
        rows.append([label, time_cell, ratio, fraction, losses, start, peak])
    notes += [f"Unavailable: {label} ({why})." for label, why in race.unavailable.items()]
    title = f"## {race.recipe}, batch {race.batch}"
    return "\n\n".join([title, report.table(rows, "--:"), " ".join(notes)])


def _parse(words):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipes", help="comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each race (default: 5)")
    parser.add_argument(
        "--out", type=Path, default=Path("speed"), help="folder for the results (default: speed)"
    )
    options = parser.parse_args(words)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    options.recipes = options.recipes.split(",") if options.recipes else list(CONTESTANTS)
    for name in options.recipes:
        if name not in CONTESTANTS:
            parser.error(f"--recipes must be some of {', '.join(CONTESTANTS)}, got {name}")
    return options


def main(words: list[str] | None = None) -> None:
    """Measures, prints the tables, and writes them."""
    options = _parse(words)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        _measure(options)
    except (UserError, OSError) as error:
        sys.exit(f"python -m benchmarks: {reason(error)}")


def _measure(options):
    plan = [
        (name, _BATCHES.get(name, recipes.get(name).batch_size), CONTESTANTS[name])
        for name in options.recipes
    ]
    if "minimal" in options.recipes:
        plan += [("minimal", batch, _BY_BATCH) for batch in _LARGER_BATCHES]
    terminal.import_tensorflow()
    flop_rate = roofline.measure_flops()
    turns = sum(len(contestants) for *_, contestants in plan) * (1 + options.rounds)
    with contextlib.closing(terminal.Bar(turns, unit="turn")) as bar:
        races = [
            run_race(*each, options.rounds, lambda note: bar.advance(1, note)) for each in plan
        ]
    flop_rate = max(flop_rate, roofline.measure_flops())
    heading = (
        f"Written by `python -m benchmarks`: {options.rounds} rounds; medians, and in brackets the "
        f"range of the rounds.\n\n{report.machine()} A large float32 product reaches "
        f"{report.number(flop_rate / 1e9)} GFLOP/s. The float32 roofline of a step is the larger "
        "of the times for its arithmetic at that rate and for its memory traffic at the rate of a "
        "copy."
    )
    sections = [section(race, flop_rate) for race in races]
    text = "\n\n".join(["# Speed", heading, *sections]) + "\n"
    write_text(options.out / "speed.md", text)
    print(f"{text}\nSaved {options.out / 'speed.md'}.")


if __name__ == "__main__":
    main()
