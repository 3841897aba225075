"""Speed beside peers: `python -m benchmarks [--quick] [--recipes=A,B] [--rounds=N] [--out=DIR]`.

The results go to a folder of yours; --publish copies them to those that the repository shows.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import measuring, plot, report, roofline
from benchmarks.jobs import Job
from models import recipes
from support import terminal
from support.errors import UserError
from support.files import write_text
from training.run import processor_cores

_LARGE_COPY = 2**29


def main(arguments):
    """Measures, prints the tables, and writes them and the picture."""
    options = _options(arguments)
    names = list(recipes.RECIPES) if options.recipes is None else options.recipes.split(",")
    settings = measuring.QUICK if options.quick else measuring.FULL
    if options.rounds is not None:
        if options.rounds < 1:
            raise UserError(f"--rounds={options.rounds}: wanted at least 1")
        settings = settings._replace(rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    races = measuring.races(names)
    batch_races = measuring.batch_races(names, settings.batches)
    measured = _measure(races, batch_races, settings)
    _write(options.out, measured)
    if options.publish:
        report.publish(options.out / name for name in ("speed.md", "speed.png"))


def _options(arguments):
    parser = _Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few and short rounds, two batch sizes"
    )
    parser.add_argument("--recipes", help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, help="of each race; default: 5, with --quick 2")
    parser.add_argument(
        "--out", type=Path, default=Path("speed"), help="folder for the results; default: speed"
    )
    parser.add_argument("--publish", action="store_true", help=f"copy them to {report.PUBLISHED}")
    return parser.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; see --help")


def _measure(races, batch_races, settings):
    names = {case.recipe for case in races}
    # Also sees to it that the data are there before many processes ask for them.
    jobs = {case.recipe: Job.of(case.recipe, case.batch) for case in races}
    cores = processor_cores()
    turns = sum(len(case.names) * (1 + settings.rounds) for case in [*races, *batch_races])
    bar = terminal.Bar(turns, unit="turn")
    terminal.import_tensorflow()
    flops = roofline.measure_flops()
    copies = {
        name: roofline.measure_copy(roofline.state_bytes(jobs[name].recipe), cores)
        for name in names
    }
    large_copy = roofline.measure_copy(_LARGE_COPY, cores)
    imports = measuring.import_seconds(races[0].names)
    main_job = measuring.main_job()

    def advance(note):
        bar.advance(1, note)

    outcomes = [measuring.race(case, settings, advance) for case in races]
    by_batch = [measuring.race(case, settings, advance) for case in batch_races]
    bar.close()
    flops = max(flops, roofline.measure_flops())
    chosen = {name: job.recipe for name, job in jobs.items()}
    return report.Measured(
        outcomes, by_batch, imports, main_job, flops, copies, large_copy, settings.rounds,
        chosen,
    )  # fmt: skip


def _write(folder, measured):
    text = report.markdown(measured)
    write_text(folder / "speed.md", text)
    plot.save(folder / "speed.png", measured.races, measured.batch_races)
    print(text)
    print(f"Written: {folder / 'speed.md'} and {folder / 'speed.png'}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"python -m benchmarks: {error}")
