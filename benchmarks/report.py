"""What was measured, as Markdown tables."""

import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import NamedTuple

from benchmarks import roofline
from benchmarks.contestants import CONTESTANTS
from benchmarks.jobs import first_steps
from models import recipes
from support.files import atomic_write
from training.run import processor_cores

PUBLISHED = Path(__file__).resolve().parent / "results"
_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("numpy", "tensorflow", "keras", "torch", "jax")


class Measured(NamedTuple):
    """All of a run: Outcomes of the races and of those over batch sizes, and the machine's rates.

    imports: {module: seconds}; main_job: (seconds, peak bytes); flops: a second; copies: {recipe:
    bytes a second, copying as much as its networks, gradients and moments}; large_copy: bytes a
    second; recipes: {name: Recipe}.
    """

    races: list
    batch_races: list
    imports: dict
    main_job: tuple
    flops: float
    copies: dict
    large_copy: float
    rounds: int
    recipes: dict


def markdown(measured):
    """Measured -> the whole report."""
    sections = [_heading(measured), *map(_race_section, measured.races)]
    main = [outcome for outcome in measured.races if outcome.case.recipe == "minimal"]
    for outcome in main:
        sections += [_batch_section([outcome, *measured.batch_races])]
        sections += [_start_section(outcome, measured.imports), _main_job(*measured.main_job)]
    return "\n\n".join([*sections, _roofline_section(measured)]) + "\n"


def publish(paths):
    """Copies files to the results that the repository shows."""
    for path in paths:
        with atomic_write(PUBLISHED / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())


def table(header, rows):
    """Words, and as many for each row -> a Markdown table, numbers to the right."""
    return _lines([header, [":--", *("--:" for _ in header[1:])], *rows])


def plain_table(header, rows):
    """As `table`, with nothing said of where its columns stand."""
    return _lines([header, ["---"] * len(header), *rows])


def _lines(rows):
    return "\n".join(f"| {' | '.join(str(word) for word in row)} |" for row in rows)


def number(value):
    """A positive number -> three digits or all of its integer part: 0.123, 12.3, 1,234."""
    digits = 0
    while abs(value) * 10**digits < 100 and digits < 3:
        digits += 1
    return f"{value:,.{digits}f}"


def spread(values, unit=1.0):
    """Spread -> `median (low to high)`, in multiples of the unit."""
    median, low, high = (number(value / unit) for value in values)
    return f"{median} ({low} to {high})"


def _heading(measured):
    idle = max(outcome.idle for outcome in [*measured.races, *measured.batch_races])
    return (
        "# Speed\n\n"
        f"Written by `python -m benchmarks`: {measured.rounds} rounds; medians, and in brackets "
        "the least and the most of all rounds.\n\n"
        f"{machine()} A large float32 product reaches {number(measured.flops / 1e9)} "
        f"GFLOP/s, a large copy {number(measured.large_copy / 1e9)} GB/s. Contestants took turns; "
        f"one that waited used {1000 * idle:.1f} ms of CPU time in a wait at most."
    )


def machine():
    """-> a sentence: processor, cores, versions."""
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in _PACKAGES
        if importlib.util.find_spec(name)
    ]
    return (
        f"Machine: {_cpu()}, {processor_cores()} cores; Python {platform.python_version()}, "
        f"{', '.join(versions)}."
    )


def _cpu():
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _race_section(outcome):
    case = outcome.case
    names = [name for name in case.names if name in outcome.seconds]
    rows = [
        [
            CONTESTANTS[name].label,
            spread(outcome.step(name), 1e-6),
            spread(outcome.ratio(name)) if outcome.ours in names else "",
            _losses(outcome, name),
        ]
        for name in names
    ]
    absent = [f"{CONTESTANTS[name].label}: {why}." for name, why in outcome.absent.items()]
    return "\n\n".join(
        [
            f"## {case.recipe}, batch {case.batch}",
            table(["", "µs a step", "times ours", "losses of D, G"], rows),
            " ".join([_agreement(outcome), *absent]),
        ]
    )


def _losses(outcome, name):
    answer = outcome.first[name]
    mark = "" if outcome.losses_alike(name) else " (not alike)"
    return f"{answer['d_loss']:.2f}, {answer['g_loss']:.2f}{mark}"


def _agreement(outcome):
    case = outcome.case
    g, d = roofline.parameters(recipes.get(case.recipe))
    others = [name for name in outcome.first if not outcome.same_networks(name)]
    but = f", but not {', '.join(others)}" if others else ""
    return (
        f"All train {g:,} parameters in G and {d:,} in D{but}. Losses: means over the first "
        f"{first_steps(case.recipe, case.batch)} steps."
    )


def _batch_section(outcomes):
    outcomes = sorted(outcomes, key=lambda outcome: outcome.case.batch)
    shared = [name for name in outcomes[-1].case.names if all(name in o.seconds for o in outcomes)]
    rows = [
        [o.case.batch, *(number(o.step(name).median * 1e6) for name in shared)] for o in outcomes
    ]
    header = ["images a batch", *(CONTESTANTS[name].label for name in shared)]
    return f"## By batch size\n\n`minimal`, µs a step.\n\n{table(header, rows)}"


def _start_section(outcome, imports):
    rows = [
        [
            CONTESTANTS[name].label,
            number(answer["start"]),
            number(imports[CONTESTANTS[name].needs]),
            f"{answer['peak'] / 2**20:,.0f}",
        ]
        for name, answer in outcome.first.items()
    ]
    case = outcome.case
    steps = first_steps(case.recipe, case.batch)
    header = ["", f"s from its start to {steps} steps", "of which import", "peak MiB"]
    return f"## Start and memory\n\n`minimal`, batch {case.batch}.\n\n{table(header, rows)}"


def _main_job(seconds, peak):
    return (
        f"`python main.py --nlatent=10 --num_steps=200` as a whole: {seconds:.1f} s, pictures and "
        f"checkpoint included, and {peak / 1e6:,.0f} MB of memory at most."
    )


def _roofline_section(measured):
    rows = [
        _roofline_row(measured, outcome)
        for outcome in measured.races
        if outcome.ours in outcome.seconds
    ]
    header = [
        "", "batch", "MFLOP a step", "MB a step", "µs a step", "GFLOP/s", "of the product's rate",
        "least µs", "of the least time's speed",
    ]  # fmt: skip
    return (
        "## Against the machine\n\n"
        "Arithmetic and traffic of the step's own graph (`roofline.py`); the least time is the "
        "larger of the two at the measured rates, copies being as large as the networks with "
        f"their gradients and moments.\n\n{table(header, rows)}"
    )


def _roofline_row(measured, outcome):
    name, batch = outcome.case.recipe, outcome.case.batch
    cost = roofline.step_cost(measured.recipes[name])
    least = cost.seconds(roofline.Rates(measured.flops, measured.copies[name]))
    seconds = outcome.step(outcome.ours).median
    rate = cost.flops / seconds
    return [
        f"`{name}`", batch, number(cost.flops / 1e6), number(cost.bytes / 1e6),
        number(seconds * 1e6), number(rate / 1e9), f"{rate / measured.flops:.0%}",
        number(least * 1e6), f"{least / seconds:.0%}",
    ]  # fmt: skip
