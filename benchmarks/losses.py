"""Measures what keeps article 003's networks from collapsing.

python -m benchmarks.losses                 each set of [losses] in tables.ini, with three seeds
python -m benchmarks.losses --steps=5000    shorter

The runs are kept in the --out folder: the same command resumes a comparison that was stopped.
"""

import argparse
import shlex
import statistics
import sys
from pathlib import Path

from benchmarks import quality, report
from support.errors import UserError, reason

# Columns of the table: key of a score, heading.
_COLUMNS = [
    ("classes_covered", "classes covered"),
    ("frechet_distance", "Fréchet distance"),
    ("precision", "precision"),
    ("recall", "recall"),
]


def table(outcomes: dict[str, list]) -> str:
    """Returns a Markdown table with a row for each set, the best first.

    Rows are sorted by the mean number of classes covered, then by the mean Fréchet distance.

    Args:
      outcomes: {name: [scores of each seed]}.
    """

    def rank(item):
        means = [statistics.mean(s[key] for s in item[1]) for key, _ in _COLUMNS]
        return -means[0], means[1]

    rows = [["", *(heading for _, heading in _COLUMNS)]]
    for name, runs in sorted(outcomes.items(), key=rank):
        cells = [report.spread([s[key] for s in runs]) for key, _ in _COLUMNS]
        rows.append([name, *cells])
    return report.table(rows)


def main(words: list[str] | None = None) -> None:
    """Runs the command; an error that the user can correct ends it with one line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=quality.count, default=20_000, help="of each run (default: 20000)")
    add("--seeds", type=quality.count, default=3, help="seeds 0, 1, ... (default: 3)")
    add("--jobs", type=quality.count, default=1, help="runs at a time (default: 1)")
    add("--out", type=Path, default=Path("quality", "losses"), help="folder (default: %(default)s)")
    options = vars(parser.parse_args(words))
    sets = quality.parse_runs([f"{k}: {v}" for k, v in quality.TABLES["losses"].items()])
    command = shlex.join(["python", "-m", "benchmarks.losses", *words])
    try:
        quality.compare(sets, name="losses", command=command, describe=table, **options)
    except (UserError, OSError) as error:
        sys.exit(f"python -m benchmarks.losses: {reason(error)}")


if __name__ == "__main__":
    main()
