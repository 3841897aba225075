"""A class's leaderboard: everyone who passes is trained for as long as the others, and ranked.

Training, scoring and sampling are `main.py`'s, each in a process of its own with the kit's limits.
"""

import base64
import contextlib
import html
import io
import itertools
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import input_data
from grading import crowd
from grading.messages import printable
from grading.process import ROOT, environment, isolation
from support import pictures, terminal
from support.files import write_json, write_text

SCORES = ("frechet_distance", "classes_covered", "memorised_share")
HEADINGS = ("", "student", "Fréchet", "digits", "memorised", "parameters", "steps", "remark")
# Above it a class copies; real images that were not trained on have about 0.05.
MOST_MEMORISED = 0.5
NUM_SAMPLES = 16  # in the picture
MEMORY_GB = 16  # XLA compiles while it trains
START_SECONDS, SAVE_SECONDS, SCORE_SECONDS = 120, 120, 600
MANY_STEPS = 10**9
LARGEST_ARRAY = 2**24  # bytes


class Failed(Exception):
    """Why a class has no place, in one line."""


@dataclass(frozen=True)
class Row:
    """One class on the leaderboard; `reason` says why it has no place, else there are scores."""

    name: str
    parameters: dict | None = None
    step: int | None = None
    scores: dict | None = None
    reference: dict | None = None
    samples: np.ndarray | None = None
    reason: str = ""

    @property
    def order(self):
        """Those with a place by their Fréchet distance, then the others by name."""
        return bool(self.reason), self.scores["frechet_distance"] if self.scores else math.inf


def make(students, marks, options):
    """Trains, scores and ranks those whose `Mark` has all passes; writes; -> the table as text.

    options: of the command; `train` seconds, `out`, `data_dir`, `seed`.
    """
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    # What is missing is downloaded now: the classes have no network.
    input_data.read_data_sets(options.data_dir)
    passed = {mark.name: mark for mark in marks if mark.all_passed}
    chosen = [student for student in students if student.name in passed]
    bar, rows = terminal.Bar(len(chosen), unit="training"), []
    bar.advance(0)
    for student in chosen:
        rows.append(_row(student, passed[student.name], options, seed))
        bar.advance(1, student.name)
    bar.close()
    rows.sort(key=lambda row: row.order)
    write(options.out / "leaderboard", rows, seed, options.train)
    return f"{table(rows)}\n\nSeed {seed}. Written: {options.out / 'leaderboard'}."


def _row(student, mark, options, seed):
    """Trains and scores one class -> its `Row`, whatever it does."""
    run_dir = (options.out / "leaderboard" / "runs" / student.name).resolve()
    try:
        with student.opened() as path:
            gan = f"--gan={path}:{student.class_name}"
            return _trained(gan, run_dir, mark, options, seed)
    except Failed as error:
        return Row(mark.name, mark.parameters, reason=str(error))


def _trained(gan, run_dir, mark, options, seed):
    data, run = f"--data_dir={options.data_dir.resolve()}", f"--run_dir={run_dir}"
    train = ["--engine=fused", f"--num_steps={MANY_STEPS}", f"--seed={seed}", "--new", "--noevents"]
    _run([gan, data, run, *train], options.train, stop=signal.SIGTERM)
    if not any(run_dir.glob("checkpoints/*.npz")):
        raise Failed(f"made no step in {options.train:g} s")
    # Latents of another seed than those of training.
    other = f"--seed={seed ^ 1}"
    _run(["--mode=evaluate", gan, data, run, other], SCORE_SECONDS)
    out = run_dir / "leaderboard.npz"
    sample = ["--mode=sample", f"--num_samples={NUM_SAMPLES}", f"--out={out}"]
    _run([*sample, gan, run, other], START_SECONDS)
    metrics = _metrics(run_dir / "metrics.json")
    scores = {name: metrics[name] for name in SCORES}
    copies = f"{scores['memorised_share']:.0%} of the samples are copies of training images"
    reason = copies if scores["memorised_share"] > MOST_MEMORISED else ""
    reference = metrics.get("reference_scores", {}).get("real test images", {})
    samples = _samples(out)
    return Row(mark.name, mark.parameters, metrics["step"], scores, reference, samples, reason)


def _run(arguments, seconds, stop=None):
    """Runs main.py, at most that long; `stop`: the signal that then ends it well. Or Failed."""
    limits = [sys.executable, "-m", "grading.limits", str(MEMORY_GB)]
    command = [*isolation(), *limits, sys.executable, str(ROOT / "main.py"), *arguments]
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told,
        )  # fmt: skip
        watch = crowd.Watch(process)
        try:
            code = _ended(process, seconds, stop)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if watch.found:
            raise Failed(f"more than {crowd.MOST} processes at a time")
        if code != 0 and not (stop and code == 128 + stop):
            raise Failed(_last_line(told) or f"main.py ended with exit code {code}")


def _ended(process, seconds, stop):
    """-> the exit code; Failed if the time is over and nothing ends it."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        if not stop:
            raise Failed(f"still running after {seconds:g} s") from None
    os.kill(_inner(process.pid), stop)
    try:
        return process.wait(SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"does not end {SAVE_SECONDS} s after its time was over") from None


def _inner(pid):
    """The process that `unshare` started, else the process itself."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if isolation() and children else pid
    return pid


def _last_line(file):
    """The last line of what a command told, short and safe to show."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
    lines = file.read().decode(errors="replace").split("\n")
    told = [printable(line.strip())[:200] for line in lines if line.strip()]
    return told[-1] if told else ""


def _metrics(path):
    """metrics.json -> its content; Failed unless its scores are numbers."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        numbers = [metrics[name] for name in (*SCORES, "step")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise Failed("no scores were written") from None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise Failed("its scores are no numbers")
    return metrics


def _samples(path):
    """-> `[NUM_SAMPLES, 784]` in [0, 1]; Failed if there are no such images in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("images.npy").file_size > LARGEST_ARRAY:
                raise Failed("its samples are too large")
        with np.load(path, allow_pickle=False) as arrays:
            images = np.asarray(arrays["images"], np.float32).reshape(-1, input_data.NUM_PIXELS)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise Failed("no samples were written") from None
    if len(images) != NUM_SAMPLES:
        raise Failed("no samples were written")
    return np.nan_to_num(images).clip(0, 1)


def table(rows):
    """-> the ranking as text: a line for each class, and one of real images."""
    lines = _lines(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(cells, widths):
    """Names and reasons to the left, numbers to the right."""
    left = (HEADINGS.index("student"), HEADINGS.index("remark"))
    padded = [
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _lines(rows):
    """The texts of headings, classes and, where there are scores, of real images."""
    lines = [HEADINGS, *(_cells(place, row) for place, row in enumerate(rows, 1))]
    reference = [row.reference for row in rows if row.reference][:1]
    return lines + [("", "real test images", *_shown(each), "", "", "") for each in reference]


def _cells(place, row):
    """A row's texts under `HEADINGS`."""
    shown = _shown(row.scores)
    parameters = f"{sum(row.parameters.values()):,}" if row.parameters else "-"
    steps = "-" if row.step is None else f"{row.step:,}"
    return ("-" if row.reason else str(place), row.name, *shown, parameters, steps, row.reason)


def _shown(scores):
    formats = ("{:.2f}", "{}", "{:.1%}")
    if not scores:
        return ("-",) * len(SCORES)
    return tuple(
        text.format(scores[name]) if isinstance(scores.get(name), int | float) else "-"
        for text, name in zip(formats, SCORES, strict=True)
    )


def write(folder, rows, seed, seconds):
    """Writes leaderboard.json, .html and, if there are samples, samples.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with_samples = [(row.name, row.samples) for row in rows if row.samples is not None]
    if with_samples:
        pictures.compare(folder / "samples.png", with_samples)
    content = {"seed": seed, "seconds": seconds, "rows": [_as_json(row) for row in rows]}
    write_json(folder / "leaderboard.json", content)
    write_text(folder / "leaderboard.html", page(rows, seed, seconds))


def _as_json(row):
    about = {"student": row.name, "parameters": row.parameters, "step": row.step}
    return {**about, **(row.scores or {}), "reason": row.reason}


def page(rows, seed, seconds):
    """-> the HTML page, with the pictures inside; it asks nothing of any server."""
    head, *lines = _lines(rows)
    parts = [_html_row("th", head)]
    for line, row in itertools.zip_longest(lines, rows):  # the last line is that of real images
        parts.append(_html_row("td", line))
        if row and row.samples is not None:
            parts.append(_html_samples(row.samples))
    return PAGE.format(rows="\n".join(parts), seed=seed, seconds=f"{seconds:g}")


def _html_row(tag, cells):
    return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in cells) + "</tr>"


def _html_samples(samples):
    strip = io.BytesIO()
    pictures.grey(pictures.tiles(samples, NUM_SAMPLES)).save(strip, format="PNG")
    data = base64.b64encode(strip.getvalue()).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="Its samples">'
    return f'<tr class="samples"><td></td><td colspan="{len(HEADINGS) - 1}">{image}</td></tr>'


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Leaderboard</title>
<style>
:root {{ --paper: #faf9f6; --ink: #22232a; --quiet: #686a73; --line: #d8d6cf; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #15161a; --ink: #e9e7e1; --quiet: #9a9ca6; --line: #31343c; }}
}}
body {{
  margin: 2em auto; max-width: 60em; padding: 0 1em; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}}
h1 {{ font: 400 2em/1.2 Georgia, serif; }}
p, th {{ color: var(--quiet); }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ padding: .5em .8em 0 0; text-align: right; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 400; }}
td:nth-child(2), th:nth-child(2), td:last-child, th:last-child {{ text-align: left; }}
td:nth-child(2) {{ font-weight: 600; overflow-wrap: anywhere; }}
tr:not(.samples) td {{ border-top: 1px solid var(--line); }}
.samples td {{ padding-bottom: .8em; }}
img {{ width: 100%; max-width: 56em; image-rendering: pixelated; border-radius: 4px; }}
</style>
<h1>Leaderboard</h1>
<p>Each was trained for {seconds} seconds, seed {seed}. A smaller Fréchet distance is better; a
class of which most samples are copies of training images has no place.</p>
<div><table>
{rows}
</table></div>
</html>
"""
