"""The races as one picture."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.contestants import CONTESTANTS
from support.files import atomic_write
from support.pictures import BLUE, GREY, ORANGE

_COLOURS = {"fused": BLUE, "literal_tf1": ORANGE, "torch_tuned": "#009E73", "jax": "#CC79A7"}


def distances(path, values):
    """{name: Fréchet distances of its seeds} -> a PNG: their mean, and each seed as a dot."""
    figure = Figure(figsize=(7, 0.9 + 0.4 * len(values)), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="Fréchet distance", xscale="log")
    for row, each in enumerate(values.values()):
        axes.plot(sum(each) / len(each), row, "|", color=BLUE, markersize=16, markeredgewidth=2)
        axes.plot(each, [row] * len(each), "o", color=GREY, markersize=4)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def distances_over_time(path, curves):
    """{name: {seconds: Fréchet distances of its seeds}} -> a PNG: means and ranges."""
    figure = Figure(figsize=(7, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    axes.set(xlabel="seconds of training", ylabel="Fréchet distance")
    for name, points in curves.items():
        seconds = sorted(points)
        means = [sum(points[each]) / len(points[each]) for each in seconds]
        pairs = list(zip(means, (points[each] for each in seconds), strict=True))
        reach = [[mean - min(v) for mean, v in pairs], [max(v) - mean for mean, v in pairs]]
        axes.errorbar(seconds, means, yerr=reach, marker="o", markersize=4, capsize=2, label=name)
    ticks = sorted({each for points in curves.values() for each in points})
    axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def save(path, races, batch_races):
    """Lists of Outcomes -> a PNG: bars of time a step, and time over batch size."""
    races = [outcome for outcome in races if _has_peers(outcome)]
    main = [outcome for outcome in races if outcome.case.recipe == "minimal"]
    by_batch = sorted([*main, *batch_races], key=lambda outcome: outcome.case.batch)
    count = len(races) + (len(by_batch) > 1)
    if not count:
        return
    figure = Figure(
        figsize=(6 * min(count, 2), 3.4 * -(-count // 2)), dpi=100, layout="constrained"
    )
    axes = figure.subplots(-(-count // 2), min(count, 2), squeeze=False).flat
    for outcome, panel in zip(races, axes, strict=False):
        _bars(panel, outcome)
    if len(by_batch) > 1:
        _curves(axes[len(races)], by_batch)
    for panel in axes[count:]:
        panel.set_axis_off()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _has_peers(outcome):
    return not all(CONTESTANTS[name].is_ours for name in outcome.seconds)


def _bars(axes, outcome):
    names = [name for name in outcome.case.names if name in outcome.seconds][::-1]
    unit, per = (1e-3, "ms") if outcome.step(names[0]).median < 0.1 else (1, "s")
    steps = [outcome.step(name) for name in names]
    middles = [step.median / unit for step in steps]
    reach = [
        [(step.median - step.low) / unit for step in steps],
        [(step.high - step.median) / unit for step in steps],
    ]
    colours = [BLUE if CONTESTANTS[name].is_ours else GREY for name in names]
    axes.barh([CONTESTANTS[name].label for name in names], middles, color=colours)
    axes.errorbar(middles, range(len(names)), xerr=reach, fmt="none", ecolor="black", elinewidth=1)
    for place, name in enumerate(names):
        text = f"  {outcome.ratio(name).median:.2g} x"
        axes.text(middles[place] + reach[1][place], place, text, va="center", fontsize=8)
    axes.margins(x=0.15)
    axes.set(title=f"{outcome.case.recipe}, batch {outcome.case.batch}", xlabel=f"{per} a step")
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes, outcomes):
    batches = [outcome.case.batch for outcome in outcomes]
    for name in outcomes[-1].case.names:
        if all(name in outcome.seconds for outcome in outcomes):
            middles = [1e3 * outcome.step(name).median for outcome in outcomes]
            label = CONTESTANTS[name].label
            axes.plot(batches, middles, marker="o", label=label, color=_COLOURS[name])
    axes.set(title="minimal, by batch size", xlabel="images a batch", ylabel="ms a step")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
