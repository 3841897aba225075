"""Pictures: tiles of images, the latent grid, loss curves, reports and animations.

A picture is a float array `[height, width]` in [0, 1], 0 black. All files are written whole or
not at all, and the same input gives the same bytes. The only module that draws.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from support.data_sets import NUM_CLASSES
from support.errors import one_line
from support.files import atomic_write
from support.idx import NUM_PIXELS, SIDE

NETWORKS = ("discriminator", "generator")

# Okabe and Ito's palette: told apart by colour-blind readers too.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
FILM_FRAMES, FILM_MILLISECONDS = 200, 100
SMALLEST_FRAME = 224  # pixels: a single image is shown eightfold
MOST_POINTS = 1500  # on a curve: about one for each pixel of the figure's width
ANIMATIONS = {".gif": {}, ".webp": {"lossless": True}}  # suffix -> how to save it


def tiles(images, columns):
    """`[n, 784]` in [0, 1] -> float32 `[rows * 28, columns * 28]`, row by row, the rest black."""
    images = _checked("images", images, ["n", NUM_PIXELS])
    if columns < 1:
        raise ValueError(f"columns: {columns}, wanted at least 1")
    rows = -(-len(images) // columns)
    sheet = np.zeros([rows * columns, NUM_PIXELS], np.float32)
    sheet[: len(images)] = images
    sheet = sheet.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)  # [rows, 28, columns, 28]
    return sheet.reshape(rows * SIDE, columns * SIDE)


def grey(picture):
    """`[height, width]` in [0, 1] -> 8-bit grey `PIL.Image.Image` of levels round(255 v)."""
    picture = _checked("picture", picture, ["height", "width"])
    return Image.fromarray(np.rint(255 * picture).astype(np.uint8))


def save_png(path, picture):
    """`[height, width]` in [0, 1] -> a PNG of `grey`, one pixel a value."""
    with atomic_write(path) as temporary:
        grey(picture).save(temporary, format="PNG")


def grid_latents(prior, nlatent, side, rng):
    """A smooth map of the latent space -> float32 `[side * side, nlatent]`, row by row.

    nlatent 1: the prior's range from low to high in reading order; nlatent 2: the plane over that
    range, first latent to the right, second upwards; above: a patch between four draws of `rng`
    in the corners, bilinear for a bounded prior, along the sphere (with bilinear norms) for a
    normal one, so that every latent is as typical as a draw.
    """
    if nlatent == 1:
        return prior.axis(side * side)[:, None]
    if nlatent == 2:
        return prior.plane(side)
    corners = prior.sample(rng, [2, 2, nlatent])
    t = np.linspace(0, 1, side)
    top, bottom = (prior.interpolate(left, right, t) for left, right in corners)  # [side, nlatent]
    return prior.interpolate(top, bottom, t[:, None]).reshape(side * side, nlatent)


def latent_grid(generate, prior, nlatent, side=20, *, rng):
    """The generator's images at `grid_latents` -> float32 `[side * 28, side * 28]`.

    generate: `[n, nlatent]` -> `[n, 784]` in [0, 1].
    """
    return tiles(generate(grid_latents(prior, nlatent, side, rng)), side)


def curves(path, steps, d_losses, g_losses, title=""):
    """Three sequences `[n]`, n >= 1 -> a PNG of both losses: faint the values, thick their mean.

    Far outliers are drawn at the edge of the axes, and a note on the figure counts them.
    ValueError where the lengths differ or a loss is not finite.
    """
    steps, *losses = _checked_losses(steps, d_losses, g_losses)
    bottom, top = _limits(np.concatenate(losses))
    window = max(1, len(steps) // 100)
    figure = _figure(9, 5)
    axes = figure.add_subplot(xlabel="training step", ylabel="loss", ylim=(bottom, top))
    for name, colour, values in zip(NETWORKS, (BLUE, ORANGE), losses, strict=True):
        _draw_loss(axes, steps, values.clip(bottom, top), window, label=name, color=colour)
    notes = [f"faint: all values; thick: mean over {window:,}"] if window > 1 else []
    notes += _outside(steps, losses, bottom, top)
    axes.set_title("\n".join(notes), loc="left", fontsize=9, color="#555555")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    figure.suptitle(title)
    _save_figure(path, figure)


def sorted_samples(images, labels, per_class):
    """`[n, 784]`, labels `[n]` -> picture `[280, per_class * 28]`: a row of each label from 0 to 9.

    The first `per_class` samples of it, in their order; black where there are fewer.
    """
    images = _checked("images", images, ["n", NUM_PIXELS])
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels: shape {list(labels.shape)}, wanted {[len(images)]}")
    rows = np.zeros([NUM_CLASSES, per_class, NUM_PIXELS], np.float32)
    for label, row in enumerate(rows):
        found = images[labels == label][:per_class]
        row[: len(found)] = found
    return tiles(rows.reshape(-1, NUM_PIXELS), per_class)


def report(path, images, labels, shares, real_shares, names=tuple(range(10)), per_class=16):
    """One PNG: left how often each class is generated, right samples of it in the same row."""
    picture = sorted_samples(images, labels, per_class)
    figure, bars_width = _figure(12, 5.6), 6
    left, right = figure.subplots(1, 2, width_ratios=[bars_width, per_class])
    _bars(left, shares, real_shares, names)
    left.set_box_aspect(NUM_CLASSES / bars_width)  # as high as the samples, each class at its row
    _labelled_rows(right, picture, [""] * NUM_CLASSES)
    right.set_title("samples, sorted by the classifier's label", fontsize=10)
    _save_figure(path, figure)


def compare(path, rows):
    """List of (label, images `[n, 784]`) -> one PNG with a labelled row of samples for each."""
    if not rows:
        raise ValueError("rows: none, wanted at least one (label, images)")
    columns = max(len(images) for _, images in rows)
    strips = []
    for _, images in rows:
        strip = tiles(images, columns=len(images))
        strips.append(np.pad(strip, [(0, 0), (0, (columns - len(images)) * SIDE)]))
    figure = _figure(1.5 + 0.5 * columns, 0.3 + 0.5 * len(rows))
    _labelled_rows(figure.add_subplot(), np.concatenate(strips), [label for label, _ in rows])
    _save_figure(path, figure)


def animation(path, frames, milliseconds):
    """`[k, height, width]` in [0, 1] -> a looping .gif or .webp, each frame for that long.

    Gif counts in steps of 10 ms. ValueError for another suffix or less than 20 ms, which
    viewers slow down. Equal frames in a row may be stored as one that lasts longer.
    """
    options = ANIMATIONS.get(Path(path).suffix.lower())
    if options is None:
        raise ValueError(f"animation: {path}, wanted a name that ends in {' or '.join(ANIMATIONS)}")
    if milliseconds < 20:
        raise ValueError(f"milliseconds: {milliseconds}, wanted at least 20")
    frames = _checked("frames", frames, ["n", "height", "width"])
    enlarged = max(1, SMALLEST_FRAME // max(frames.shape[1:]))
    first, *others = map(grey, frames.repeat(enlarged, 1).repeat(enlarged, 2))
    with atomic_write(path) as temporary:
        first.save(
            temporary,
            save_all=True,
            append_images=others,
            duration=milliseconds,
            loop=0,
            **options,
        )


def film(path, pictures):
    """Paths of PNGs of one size, in order -> an animation of at most 200 of them, evenly chosen."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, FILM_FRAMES).round().astype(int))
    frames = [np.asarray(Image.open(pictures[i]).convert("L")) / np.float32(255) for i in chosen]
    animation(path, frames, FILM_MILLISECONDS)


def _checked(name, values, wanted):
    """Values in [0, 1] of the wanted shape (a word: any length >= 1) -> float32; or ValueError."""
    values = np.asarray(values, np.float32)
    shape = list(values.shape)
    fits = len(shape) == len(wanted) and all(
        n == w or (n > 0 and isinstance(w, str)) for n, w in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: shape {shape}, wanted [{', '.join(map(str, wanted))}]")
    # Rounding may leave [0, 1] by less than half a grey level. False for NaN, too.
    if not (values.min() > -0.5 / 255 and values.max() < 1 + 0.5 / 255):
        found = f"values from {values.min():g} to {values.max():g}"
        raise ValueError(f"{name} of shape {shape}: {found}, wanted [0, 1]")
    return values


def _figure(width, height):
    """An empty figure, in inches of 100 pixels."""
    from matplotlib.figure import Figure  # here: importing it takes longer than most pictures

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _save_figure(path, figure):
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box there
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _checked_losses(steps, *losses):
    """Sequences `[n]` -> float64 arrays `[n]`; ValueError unless alike, not empty and finite."""
    arrays = [np.asarray(values, np.float64) for values in (steps, *losses)]
    shapes = [list(values.shape) for values in arrays]
    if arrays[0].ndim != 1 or not arrays[0].size or any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"steps, d_losses, g_losses: shapes {shapes}, wanted [n] thrice, n >= 1")
    for name, values in zip(NETWORKS, arrays[1:], strict=True):
        if not np.isfinite(values).all():
            first = np.argmin(np.isfinite(values))
            found = f"{values[first]} at step {arrays[0][first]:.0f}"
            raise ValueError(f"loss of the {name}: {found}, wanted a finite number")
    return arrays


def _draw_loss(axes, steps, values, window, **style):
    """The band between each bin's least and greatest value, and the running mean over it."""
    bins = np.linspace(0, len(steps), min(len(steps), MOST_POINTS), endpoint=False).astype(int)
    low, high = np.minimum.reduceat(values, bins), np.maximum.reduceat(values, bins)
    # The band's outline is what shows where every bin has one value.
    axes.fill_between(steps[bins], low, high, color=style["color"], alpha=0.2, linewidth=0.5)
    marker = "o" if len(steps) <= 50 else None
    mean = _running_mean(values, window)[bins]
    axes.plot(steps[bins], mean, linewidth=1.5, marker=marker, markersize=4, **style)


def _running_mean(values, window):
    """`[n]` -> `[n]`: mean over `window` <= n values around each, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    first = np.arange(len(values)) - window // 2
    start, stop = first.clip(0), (first + window).clip(max=len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def _plain(label):
    """A label as matplotlib shows it: `$` is no mathematics, what cannot be printed is escaped.

    A character that its font lacks becomes a question mark.
    """
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    text = "".join(c if font.get_char_index(ord(c)) else "?" for c in one_line(label))
    return text.replace("$", r"\$")


def _limits(values):
    """`[n]` -> lower and upper end of an axis for all but far outliers.

    Far: more than 3 times the width of the middle 80 % of the values away from it.
    """
    low, high = np.quantile(values, [0.1, 0.9], method="nearest")
    reach = 3 * (high - low)
    near = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.05 * max(np.ptp(near), 0.2 * np.abs(near).max(), 1e-3)
    return near.min() - margin, near.max() + margin


def _outside(steps, losses, bottom, top):
    """The note on values outside the axes, in a list; an empty list when all are inside."""
    values, at = np.concatenate(losses), np.tile(steps, len(losses))
    count = np.count_nonzero((values < bottom) | (values > top))
    if not count:
        return []
    worst = np.abs(values).argmax()
    largest = f"as large as {values[worst]:.4g} at step {at[worst]:,.0f}"
    return [f"{count:,} of {len(values):,} values, {largest}, are drawn at the edge"]


def _bars(axes, shares, real_shares, names):
    """Two horizontal bars for each class, 0 on top, in percent."""
    for shift, values, label, colour in [
        (-0.2, _checked("shares", shares, [NUM_CLASSES]), "generated", BLUE),
        (+0.2, _checked("real_shares", real_shares, [NUM_CLASSES]), "real", GREY),
    ]:
        axes.barh(np.arange(NUM_CLASSES) + shift, 100 * values, 0.38, label=label, color=colour)
    axes.set(xlabel="share of all images, %", ylim=(NUM_CLASSES - 0.5, -0.5))
    axes.set_yticks(range(NUM_CLASSES), map(_plain, names))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)


def _labelled_rows(axes, picture, labels):
    """Draws rows of 28 x 28 images and a label to the left of each, a white line between rows."""
    columns = picture.shape[1] / SIDE
    extent = (0, columns, len(labels) - 0.5, -0.5)  # so that row k is at y = k
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.hlines(np.arange(1, len(labels)) - 0.5, 0, columns, color="white", linewidth=1.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(labels)), map(_plain, labels))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
