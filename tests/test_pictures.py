"""Images and figures, read back from their files."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from models import priors
from support import pictures

DIGITS = np.random.default_rng(0).random([30, 784]).astype(np.float32)
EQUAL_SHARES = np.full(10, 0.1)


def rng(seed=0):
    return np.random.default_rng(seed)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def ink(path, colour):
    """Returns the mask of pixels of exactly that colour, "#RRGGBB"."""
    expected = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return (pixels(path) == expected).all(axis=-1)


# Sheets


def test_tiles_are_in_reading_order_and_padded_with_black():
    numbered = np.repeat(np.arange(1, 8)[:, None] / 10, 784, axis=1)
    sheet = pictures.tiles(numbered, columns=3)
    assert sheet.shape == (84, 84) and sheet.dtype == np.float32
    expected = np.float32([[1, 2, 3], [4, 5, 6], [7, 0, 0]]) / 10
    np.testing.assert_allclose(sheet, np.kron(expected, np.ones([28, 28])), rtol=1e-6)
    sheet = pictures.tiles([np.zeros(784), DIGITS[0]], columns=2)
    np.testing.assert_array_equal(sheet[:, 28:], DIGITS[0].reshape(28, 28))


def test_png_contains_every_grey_level_exactly_and_accepts_rounding_errors(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    error = np.where(levels == 0, -1e-6, 1e-6)
    pictures.save_png(tmp_path / "a.png", levels / 255 + error)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.size) == ("L", (32, 8))
        np.testing.assert_array_equal(image, levels)


# Latent grids


def test_grids_of_one_and_two_latents_span_the_priors_range():
    z = pictures.grid_latents(priors.PRIORS["uniform"], 1, 3, None)
    np.testing.assert_allclose(z[:, 0], np.linspace(-1, 1, 9), rtol=1e-6)
    plane = pictures.grid_latents(priors.PRIORS["normal"], 2, 5, None).reshape(5, 5, 2)
    np.testing.assert_allclose(plane[..., 0], 5 * [[-2, -1, 0, 1, 2]])
    np.testing.assert_allclose(plane[..., 1], np.transpose(5 * [[2, 1, 0, -1, -2]]))


def test_grid_of_a_bounded_prior_is_bilinear_between_its_draws():
    prior = priors.PRIORS["uniform"]
    z = pictures.grid_latents(prior, 5, 3, rng()).reshape(3, 3, 5)
    corners = prior.sample(rng(), [2, 2, 5])
    np.testing.assert_allclose(z[::2, ::2], corners, rtol=1e-6)
    np.testing.assert_allclose(z[1, 1], corners.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(z[0, 1], corners[0].mean(axis=0), atol=1e-6)


def test_grid_of_the_normal_prior_has_bilinear_norms():
    z = pictures.grid_latents(priors.PRIORS["normal"], 100, 20, rng())
    norms = np.linalg.norm(z, axis=1).reshape(20, 20)
    t = np.linspace(0, 1, 20)
    weights = np.stack([1 - t, t], axis=1)
    corners = norms[[[0], [-1]], [0, -1]]
    np.testing.assert_allclose(norms, weights @ corners @ weights.T, rtol=1e-5)
    assert norms.min() > 8  # linear interpolation of four would have norms near sqrt(100 / 4)


# Loss curves


@pytest.mark.parametrize("n", [1, 2, 301, 100_000])
def test_curves_show_both_losses_and_their_running_means(tmp_path, n):
    losses = rng().gamma(2, 0.1, [2, n]) + np.array([[0], [3]])
    lines = pictures.curves(tmp_path / "a.png", range(n), *losses).axes[0].lines
    assert {line.get_color() for line in lines} == {pictures.BLUE, pictures.ORANGE}
    blue, orange = (ink(tmp_path / "a.png", c)[35:] for c in (pictures.BLUE, pictures.ORANGE))
    for mask in (blue, orange):  # below the legend; a marker of 4 points covers some 20 pixels
        assert mask.sum() > 10 * min(n, 50)
    assert np.median(blue.nonzero()[0]) > np.median(orange.nonzero()[0]) + 100  # counted from top
    if n == 301:
        means = [part.mean() for part in (losses[0, :2], losses[0, 99:102], losses[0, -2:])]
        np.testing.assert_allclose(lines[0].get_ydata()[[0, 100, -1]], means)


@pytest.mark.parametrize("n", [10, 1000])
def test_one_huge_loss_does_not_flatten_the_curves(tmp_path, n):
    steps, wave = np.arange(1000, 1000 + n), np.sin(np.arange(n))
    d_losses, g_losses = 1 + wave, 3 + wave
    plain = pictures.curves(tmp_path / "a.png", steps, d_losses, g_losses).axes[0]
    d_losses[n // 2], g_losses[1] = 1e30, -50
    spiked = pictures.curves(tmp_path / "a.png", steps, d_losses, g_losses).axes[0]
    assert np.ptp(spiked.get_ylim()) < 1.1 * np.ptp(plain.get_ylim())
    for line in spiked.lines:  # also the running mean around it
        inside = line.get_ydata().clip(*spiked.get_ylim())
        np.testing.assert_allclose(line.get_ydata(), inside)
    assert "drawn at the edge" not in plain.get_title("left")
    step = 1000 + n // 2
    note = f"2 of {2 * n:,} values, as large as 1e+30 at step {step:,}, are drawn at the edge"
    assert note in spiked.get_title("left").split("\n")


# Reports


def test_report_has_bars_as_long_as_the_shares_and_samples_in_the_row_of_their_class(tmp_path):
    shares = np.array([0.4, 0.2, 0.1, 0, 0, 0.3, 0, 0, 0, 0])
    labels = np.array([3, 1, 3, 9, 3, 3])
    path = tmp_path / "a.png"
    samples = np.repeat(labels[:, None] / 10, 784, axis=1)
    pictures.report(path, samples, labels, shares, EQUAL_SHARES, range(10))
    middle = pixels(path).shape[1] // 3
    assert not ink(path, pictures.BLUE)[:, middle:].any()
    drawn = [ink(path, grey)[:, middle:].nonzero()[0] for grey in ("#191919", "#4C4C4C", "#E6E6E6")]
    assert len(drawn[1]) > 3 * max(len(drawn[0]), len(drawn[2]))  # four of the six samples
    first, third, ninth = (rows.mean() for rows in drawn)
    assert (ninth - first) / (third - first) == pytest.approx(4, rel=0.05)
    generated = ink(path, pictures.BLUE)[40:].sum(axis=1)
    bars = generated[np.r_[True, np.diff(generated) != 0]]  # one length per block of rows
    lengths = bars[bars > 0]
    np.testing.assert_allclose(lengths / lengths.max(), [1, 0.5, 0.25, 0.75], atol=0.01)
    real = ink(path, pictures.GREY)[40:].sum(axis=1)
    assert real.max() == pytest.approx(generated.max() / 4, abs=2)


def test_compare_has_a_row_for_each_entry(tmp_path):
    white, black = np.ones([4, 784]), np.zeros([2, 784])
    pictures.compare(tmp_path / "a.png", [("real", white), ("recipe", black), ("last", white)])
    dark = pixels(tmp_path / "a.png")[:, :, 0] < 128
    row = dark[:, 180]  # through the first images
    across = dark[row.nonzero()[0].mean().astype(int)]  # through the black row
    assert np.count_nonzero(np.diff(row)) == 2
    assert across[180:].sum() + across[:180][::-1].argmin() == pytest.approx(4 * row.sum(), abs=10)


def test_long_names_are_not_cut_off_and_do_not_shrink_the_images(tmp_path):
    pictures.compare(tmp_path / "a.png", [(40 * "long", np.zeros([4, 784]))])
    image = pixels(tmp_path / "a.png")
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() == 255
    row = image[20, :, 0]  # above the label
    assert np.count_nonzero(row < 128) == pytest.approx(4 * 50, abs=2)


@pytest.mark.parametrize(
    "label", ["a $x^2$ b", "runs/$", "$\\frac$", "runs/\udcff", "runs/\x1b[31m", "runs/手"]
)
@pytest.mark.filterwarnings("error")
def test_labels_may_be_any_text(tmp_path, label):
    pictures.compare(tmp_path / "a.png", [(label, DIGITS[:2])])
    assert (tmp_path / "a.png").exists()


# Animations


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("count", [1, 5])
def test_animation_loops_over_the_exact_frames(tmp_path, suffix, count):
    frames = DIGITS[:count].reshape(-1, 28, 28)
    pictures.animation(tmp_path / f"a{suffix}", frames, milliseconds=120)
    with Image.open(tmp_path / f"a{suffix}") as film:
        assert (film.n_frames, film.size) == (count, (224, 224))
        for k, frame in enumerate(frames):
            film.seek(k)
            film.load()
            assert count == 1 or (film.info["duration"], film.info["loop"]) == (120, 0)
            large = np.rint(255 * frame).repeat(8, axis=0).repeat(8, axis=1)
            np.testing.assert_array_equal(film.convert("L"), large)


def test_film_chooses_frames_evenly(tmp_path):
    pngs = [tmp_path / f"{k:03}.png" for k in range(250)]
    for k, path in enumerate(pngs):
        Image.new("L", (28, 28), k).save(path)
    pictures.film(tmp_path / "a.gif", [(path.stem, path) for path in pngs])
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 200
        film.seek(199)
        assert film.convert("L").getpixel((0, 0)) == 249


# All of them


@pytest.mark.parametrize(("value", "message"), [(np.nan, "nan"), (1.01, r"0 to 1\.01")])
def test_values_outside_0_to_1_are_rejected_and_nothing_written(tmp_path, value, message):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got values from {message}"):
        pictures.save_png(tmp_path / "a", [[0, value]])
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_user_do_not_matter(tmp_path):
    settings = {"savefig.bbox": "tight", "axes.grid": True, "figure.dpi": 300}
    for name, used in (("a.png", {}), ("b.png", settings)):
        with matplotlib.rc_context(used):
            pictures.curves(tmp_path / name, [1, 2], [1, 2], [3, 4])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
