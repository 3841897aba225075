"""Runs side by side: a table of what they are and how they did, and a row of samples of each."""

import json

import images
import trained
from evaluation import metrics
from training.run_folder import RunFolder

_SAMPLES = 16
_SCORES = ("frechet_distance", "digits_covered", "precision", "recall")


def compare(run_dirs, out, seed=0):
    """Run folders -> a text table; writes one picture with a row of samples each to `out`."""
    rows, facts = [], []
    for run_dir in run_dirs:
        generator = trained.load(run_dir)
        samples, _ = generator.sample(_SAMPLES, seed)
        rows.append((str(run_dir), samples.reshape(_SAMPLES, -1)))
        facts.append(_facts(RunFolder(run_dir), generator.step))
        generator.close()
    images.compare(out, rows)
    return _side_by_side(facts)


def _facts(folder, step):
    """-> {label: text} of one run; `-` for what was not measured yet."""
    configuration = folder.configuration()
    overrides = {k: v for k, v in configuration.overrides.items() if k != "num_steps"}
    d_loss, g_loss = _last_losses(folder)
    scores = _scores(folder, step)
    return {
        "run": str(folder),
        "recipe": configuration.recipe,
        "overrides": ", ".join(f"{k}={v}" for k, v in overrides.items()) or "none",
        "seed": str(configuration.seed),
        "steps": f"{step:,}",
        "d_loss": d_loss,
        "g_loss": g_loss,
        **{metrics.LABELS[name]: f"{scores[name]:.4g}" if scores else "-" for name in _SCORES},
    }


def _last_losses(folder):
    """-> D's and G's mean loss over the last hundredth of the run, as text."""
    rows = folder.losses()
    if not rows:
        return "-", "-"
    tail = rows[-max(1, len(rows) // 100) :]
    return tuple(f"{sum(row[i] for row in tail) / len(tail):.3f}" for i in (1, 2))


def _scores(folder, step):
    """-> what metrics.json holds, or None if it is not of these weights or cannot be read."""
    try:
        scores = json.loads(folder.file("metrics.json").read_text())
        return scores if (scores["step"], scores["raw"]) == (step, False) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _side_by_side(facts):
    widths = [max(len(value) for value in column.values()) for column in facts]
    width = max(map(len, facts[0]))
    return "\n".join(
        f"{label:<{width}}  "
        + "  ".join(f"{column[label]:>{w}}" for column, w in zip(facts, widths, strict=True))
        for label in facts[0]
    )
