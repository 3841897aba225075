"""The races as one picture."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from atomic import replacing
from benchmarks.contestants import CONTESTANTS
from images import BLUE, GREY, ORANGE

_OURS = "benchmarks.ours:"
_COLOURS = {"fused": BLUE, "literal_tf1": ORANGE, "torch_tuned": "#009E73", "jax": "#CC79A7"}


def save(path, races, batch_races):
    """Lists of Outcomes -> a PNG: bars of time a step, and time over batch size."""
    races = [outcome for outcome in races if not all(map(_is_ours, outcome.seconds))]
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
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _is_ours(name):
    return CONTESTANTS[name].where.startswith(_OURS)


def _bars(axes, outcome):
    names = [name for name in outcome.case.names if name in outcome.seconds][::-1]
    unit, per = (1e-3, "ms") if outcome.step(names[0]).median < 0.1 else (1, "s")
    steps = [outcome.step(name) for name in names]
    middles = [step.median / unit for step in steps]
    reach = [
        [(step.median - step.low) / unit for step in steps],
        [(step.high - step.median) / unit for step in steps],
    ]
    colours = [BLUE if _is_ours(name) else GREY for name in names]
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
