"""Images and figures: sheets of samples, latent grids, curves and animations.

An image is a float array `[height, width]` in [0, 1], 0 is black. Files are written atomically,
and the same input gives the same bytes.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from support.data_sets import NUM_PIXELS, SIDE
from support.errors import broken_package, one_line
from support.files import atomic_write

NETWORKS = ("discriminator", "generator")

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
FILM_FRAMES, FILM_MILLISECONDS = 200, 200
_CAPTION_HEIGHT = 16
SMALLEST_FRAME = 224  # pixels: a single image is enlarged eightfold
MOST_POINTS = 1500  # of a curve: about one per pixel of the figure's width


def tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images row by row.

    Args:
      images: `[n, 784]` in [0, 1].
      columns: Number of images per row.

    Returns:
      float32 `[rows * 28, columns * 28]`, black where the last row has no image.
    """
    images = np.asarray(images, np.float32)
    rows = -(-len(images) // columns)
    sheet = np.zeros([rows * columns, NUM_PIXELS], np.float32)
    sheet[: len(images)] = images
    sheet = sheet.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)  # [rows, 28, columns, 28]
    return sheet.reshape(rows * SIDE, columns * SIDE)


def grey(image: np.ndarray) -> Image.Image:
    """Converts `[height, width]` in [0, 1] to 8-bit grey levels round(255 v)."""
    levels = np.rint(255 * np.asarray(image, np.float32))
    if not (levels.min() >= 0 and levels.max() <= 255):  # comparisons with NaN are false
        found = f"values from {np.min(image):g} to {np.max(image):g}"
        raise ValueError(f"image must be in [0, 1], got {found}")
    return Image.fromarray(levels.astype(np.uint8))


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Saves `[height, width]` in [0, 1] as a grey PNG of that size."""
    with atomic_write(path) as temporary:
        grey(image).save(temporary, format="PNG")


def grid_latents(prior, nlatent: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the latents of a smooth map of the latent space.

    One latent goes through the prior's range in reading order. Two span the plane over that
    range, the first to the right, the second upwards. More are interpolated by the prior between
    four draws in the corners: linearly if it is bounded, on the sphere with linear norms if it is
    normal, so that every latent is as typical as a draw.

    Returns:
      float32 `[side * side, nlatent]`, row by row.
    """
    if nlatent == 1:
        return np.linspace(prior.low, prior.high, side * side, dtype=np.float32)[:, None]
    if nlatent == 2:
        axis = np.linspace(prior.low, prior.high, side, dtype=np.float32)
        return np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)
    corners = prior.sample(rng, [2, 2, nlatent])
    t = np.linspace(0, 1, side)
    top, bottom = (prior.interpolate(left, right, t) for left, right in corners)  # [side, nlatent]
    return prior.interpolate(top, bottom, t[:, None]).reshape(side * side, nlatent)


def curves(path: str | Path, steps, d_losses, g_losses, title: str = ""):
    """Saves a PNG of both losses: a band of all values, and their running mean.

    Far outliers are drawn at the edge of the axes, and a note counts them.

    Args:
      path: The PNG.
      steps: Training steps, `[n]` with n >= 1.
      d_losses: The discriminator's losses, `[n]`.
      g_losses: The generator's losses, `[n]`.
      title: Title of the figure.

    Returns:
      The matplotlib Figure.
    """
    # Tables hold float32 values, so that the figure is the same after a run was resumed.
    steps, *losses = (np.float64(v) for v in (steps, np.float32(d_losses), np.float32(g_losses)))
    values = np.concatenate(losses)
    # Far outliers are more than 3 times the width of the middle 80 % of the values away from it.
    low, high = np.quantile(values, [0.1, 0.9], method="nearest")
    reach = 3 * (high - low)
    near = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.05 * max(np.ptp(near), 0.2 * np.abs(near).max(), 1e-3)
    bottom, top = near.min() - margin, near.max() + margin
    # Each bin of steps is drawn as the range of its values, which is a line if it has only one.
    bins = np.linspace(0, len(steps), min(len(steps), MOST_POINTS), endpoint=False).astype(int)
    sizes = np.diff([*bins, len(steps)])
    window = np.ones(max(1, len(bins) // 100))
    marker = "o" if len(steps) <= 50 else None
    over = len(steps) // 100
    notes = [f"faint: all values; thick: mean over {over:,} values"] if over > 1 else []
    at = np.tile(steps, 2)
    outside = np.count_nonzero((values < bottom) | (values > top))
    if outside:
        worst = np.abs(values).argmax()
        largest = f"as large as {values[worst]:.4g} at step {at[worst]:,.0f}"
        notes.append(f"{outside:,} of {len(values):,} values, {largest}, are drawn at the edge")
    with figure(path, 9, 5) as drawn:
        axes = drawn.add_subplot(xlabel="training step", ylabel="loss", ylim=(bottom, top))
        for name, colour, one in zip(NETWORKS, (BLUE, ORANGE), losses, strict=True):
            inside = one.clip(bottom, top)
            low, high = np.minimum.reduceat(inside, bins), np.maximum.reduceat(inside, bins)
            axes.fill_between(steps[bins], low, high, color=colour, alpha=0.2, linewidth=0.5)
            sums = np.convolve(np.add.reduceat(inside, bins), window, "same")
            mean = sums / np.convolve(sizes, window, "same")
            axes.plot(
                steps[bins],
                mean,
                linewidth=1.5,
                marker=marker,
                markersize=4,
                label=name,
                color=colour,
            )
        axes.set_title("\n".join(notes), loc="left", fontsize=9, color="#555555")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
        drawn.suptitle(title)
    return drawn


def report(
    path: str | Path,
    images: np.ndarray,
    labels: np.ndarray,
    shares: np.ndarray,
    real_shares: np.ndarray,
    names: Sequence,
) -> None:
    """Saves a PNG of how often each class is generated, with samples in the same row.

    Args:
      path: The PNG.
      images: Samples `[n, 784]` in [0, 1].
      labels: Their classes as a classifier sees them, integers `[n]`.
      shares: Fraction of each class in the samples, `[10]`.
      real_shares: Fraction of each class in real images, `[10]`.
      names: Names of the first classes, of which each has a row.
    """
    count, per_class, bars_width = len(names), 16, 6
    rows = np.zeros([count, per_class, NUM_PIXELS], np.float32)  # black if there are fewer
    for k, row in enumerate(rows):
        found = images[labels == k][:per_class]
        row[: len(found)] = found
    sheet = tiles(rows.reshape(-1, NUM_PIXELS), per_class)
    with figure(path, 12, 1.1 + 0.45 * count) as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=[bars_width, per_class])
        at = np.arange(count)
        left.barh(at - 0.2, 100 * shares[:count], 0.38, label="generated", color=BLUE)
        left.barh(at + 0.2, 100 * real_shares[:count], 0.38, label="real", color=GREY)
        left.set(xlabel="share of all images, %", ylim=(count - 0.5, -0.5))
        left.set_yticks(range(count), map(one_line, names), parse_math=False)
        left.tick_params(axis="y", length=0)
        left.spines[["top", "right"]].set_visible(False)
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        left.set_box_aspect(count / bars_width)  # as high as the samples, each class at its row
        _draw_rows(right, sheet, [""] * count)
        right.set_title("samples, sorted by the classifier's label", fontsize=10)


def compare(path: str | Path, rows: Sequence[tuple[str, np.ndarray]]) -> None:
    """Saves a PNG with one labelled row of images for each (label, images `[n, 784]`)."""
    columns = max(len(images) for _, images in rows)
    sheet = np.concatenate([tiles(images, columns) for _, images in rows])
    with figure(path, 0.5 * columns, 0.5 * len(rows)) as drawn:
        # The labels are outside of the axes, so that a long one does not shrink the images.
        drawn.set_layout_engine("none")
        axes = drawn.add_axes((0, 0, 1, 1))
        _draw_rows(axes, sheet, [label for label, _ in rows])


def animation(path: str | Path, frames: np.ndarray, milliseconds: int) -> None:
    """Saves a looping animation.

    Args:
      path: A `.gif` or `.webp` file.
      frames: `[n, height, width]` in [0, 1]. Equal frames in a row may be stored as one.
      milliseconds: Duration of each frame; GIF rounds it to 10 ms.
    """
    scale = max(1, SMALLEST_FRAME // max(frames.shape[1:]))
    first, *others = map(grey, frames.repeat(scale, 1).repeat(scale, 2))
    with atomic_write(path) as temporary:
        first.save(
            temporary,
            save_all=True,
            append_images=others,
            duration=milliseconds,
            loop=0,
            lossless=True,  # of WebP
        )


def film(path: str | Path, pngs: Sequence[tuple[str, Path]]) -> None:
    """Saves an animation of at most 200 PNGs of one size, with captions below.

    They are evenly chosen and stay in their order.

    Args:
      path: A `.gif` or `.webp` file.
      pngs: Captions and files.
    """
    chosen = np.unique(np.linspace(0, len(pngs) - 1, FILM_FRAMES).round().astype(int))
    frames = []
    for caption, png in (pngs[i] for i in chosen):
        with Image.open(png) as image:
            frame = Image.new("L", (image.width, image.height + _CAPTION_HEIGHT))
            frame.paste(image)
        ImageDraw.Draw(frame).text((4, image.height + 2), caption, fill=255)
        frames.append(np.asarray(frame) / np.float32(255))
    animation(path, np.stack(frames), FILM_MILLISECONDS)


@contextlib.contextmanager
def figure(path: str | Path, width: float, height: float) -> Iterator:
    """Context manager for a matplotlib Figure, which is then saved as a PNG.

    The settings of the user do not matter.

    Args:
      path: The PNG. It is cropped or extended to all that is drawn.
      width, height: Size in inches, each of 100 pixels.
    """
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(matplotlib.rcParamsDefault), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it draws a box there
        drawn = matplotlib.figure.Figure(figsize=(width, height), dpi=100, layout="constrained")
        yield drawn
        with atomic_write(path) as temporary:
            # The layout may cut off text next to axes of a fixed aspect.
            options = {"bbox_inches": "tight", "metadata": {"Software": None}}
            drawn.savefig(temporary, format="png", **options)


def import_matplotlib():
    """Returns matplotlib, whose import takes longer than drawing most images.

    Commands that work for minutes call it early, so that their work is not lost.

    Raises:
      UserError: If it is missing or broken.
    """
    try:
        import matplotlib.figure
    except Exception as error:
        raise broken_package("matplotlib, your matplotlibrc or MPLBACKEND,", error) from error
    return matplotlib


def _draw_rows(axes, sheet, labels):
    """Draws rows of 28 x 28 images.

    Each row has a label to its left, and there is a line between two rows.
    """
    columns = sheet.shape[1] / SIDE
    extent = (0, columns, len(labels) - 0.5, -0.5)  # so that row k is at y = k
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.hlines(np.arange(1, len(labels)) - 0.5, 0, columns, color="white", linewidth=1.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(labels)), map(one_line, labels), parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
