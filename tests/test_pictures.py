"""What the pictures show, read back from the files."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import priors
from support import pictures

ALL_PRIORS = list(priors.PRIORS)
RNG = np.random.default_rng(0)
DIGITS = RNG.random([30, 784]).astype(np.float32)
UNIFORM_SHARES = np.full(10, 0.1)


def toy_generator(nlatent, seed=0):
    """A smooth map `[n, nlatent]` -> `[n, 784]` in (0, 1)."""
    rng = np.random.default_rng(seed)
    hidden, out = rng.normal(size=[nlatent, 32]), rng.normal(size=[32, 784])
    return lambda z: 1 / (1 + np.exp(-np.tanh(z @ hidden) @ out))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def ink(path, colour):
    """Mask of the pixels of exactly that colour, "#RRGGBB"."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return (pixels(path) == wanted).all(axis=-1)


# tiles and PNG


def test_tiles_are_in_reading_order_and_padded_with_black():
    numbered = np.repeat(np.arange(1, 8)[:, None] / 10, 784, axis=1)
    picture = pictures.tiles(numbered, columns=3)
    assert picture.shape == (84, 84) and picture.dtype == np.float32
    expected = np.float32([[1, 2, 3], [4, 5, 6], [7, 0, 0]]) / 10
    np.testing.assert_allclose(picture, np.kron(expected, np.ones([28, 28])), rtol=1e-6)


def test_tiles_keep_each_images_own_rows():
    image = np.arange(784, dtype=np.float32) / 784
    picture = pictures.tiles([np.zeros(784), image], columns=2)
    np.testing.assert_array_equal(picture[:, 28:], image.reshape(28, 28))


def test_png_holds_every_grey_level_exactly(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    pictures.save_png(tmp_path / "a.png", levels / 255)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.size) == ("L", (32, 8))
        np.testing.assert_array_equal(image, levels)


def test_png_forgives_rounding_but_nothing_more(tmp_path):
    pictures.save_png(tmp_path / "a.png", [[-1e-6, 1 + 1e-6]])
    with Image.open(tmp_path / "a.png") as image:
        assert list(np.asarray(image).ravel()) == [0, 255]
    with pytest.raises(ValueError, match=r"from 0 to 1\.01, wanted \[0, 1\]"):
        pictures.save_png(tmp_path / "a.png", [[0, 1.01]])


# the latent grid


@pytest.mark.parametrize("name", ALL_PRIORS)
@pytest.mark.parametrize("nlatent", [1, 2, 3, 10])
def test_grid_of_400_latents_makes_a_560_pixel_png(tmp_path, name, nlatent):
    prior = priors.get(name)
    z = pictures.grid_latents(prior, nlatent, 20, np.random.default_rng(0))
    assert z.shape == (400, nlatent) and z.dtype == np.float32
    picture = pictures.latent_grid(
        toy_generator(nlatent), prior, nlatent, rng=np.random.default_rng(0)
    )
    pictures.save_png(tmp_path / "grid.png", picture)
    with Image.open(tmp_path / "grid.png") as image:
        assert (image.mode, image.size) == ("L", (560, 560))


@pytest.mark.parametrize("name", ALL_PRIORS)
@pytest.mark.parametrize("nlatent", [1, 2, 10])
def test_neighbours_in_the_grid_are_alike(name, nlatent):
    picture = pictures.latent_grid(
        toy_generator(nlatent), priors.get(name), nlatent, rng=np.random.default_rng(1)
    )
    tiles = picture.reshape(20, 28, 20, 28).swapaxes(1, 2).reshape(20, 20, 784)
    right = np.linalg.norm(np.diff(tiles, axis=1), axis=-1)
    down = np.linalg.norm(np.diff(tiles, axis=0), axis=-1)
    shuffled = np.random.default_rng(0).permutation(tiles.reshape(400, 784))
    apart = np.linalg.norm(np.diff(shuffled, axis=0), axis=-1).mean()
    assert max(right.mean(), down.mean()) < 0.25 * apart


def test_grid_of_one_latent_reads_from_low_to_high():
    z = pictures.grid_latents(priors.get("uniform"), 1, 3, None)
    np.testing.assert_allclose(z[:, 0], np.linspace(-1, 1, 9), rtol=1e-6)


def test_grid_of_two_latents_is_the_priors_plane():
    prior = priors.get("normal")
    np.testing.assert_array_equal(pictures.grid_latents(prior, 2, 7, None), prior.plane(7))


def test_grid_patch_of_a_bounded_prior_is_bilinear_between_its_draws():
    z = pictures.grid_latents(priors.get("uniform"), 5, 3, np.random.default_rng(0))
    z = z.reshape(3, 3, 5)
    corners = priors.get("uniform").sample(np.random.default_rng(0), [2, 2, 5])
    np.testing.assert_allclose(z[::2, ::2], corners, rtol=1e-6)
    np.testing.assert_allclose(z[1, 1], corners.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(z[0, 1], corners[0].mean(axis=0), atol=1e-6)


def test_grid_patch_of_the_normal_prior_has_bilinear_norms():
    z = pictures.grid_latents(priors.get("normal"), 100, 20, np.random.default_rng(0))
    norms = np.linalg.norm(z, axis=1).reshape(20, 20)
    t = np.linspace(0, 1, 20)
    weights = np.stack([1 - t, t], axis=1)
    corners = norms[[[0], [-1]], [0, -1]]
    np.testing.assert_allclose(norms, weights @ corners @ weights.T, rtol=1e-5)
    assert norms.min() > 8  # a straight mix of four would have norms near sqrt(100 / 4)


# curves


def test_curves_of_a_long_run_are_quick_and_show_both_losses(tmp_path):
    steps = np.arange(1, 100_001)
    d_losses, g_losses = RNG.gamma(2, 0.1, 100_000), RNG.gamma(2, 0.1, 100_000) + 3
    pictures.curves(tmp_path / "warm.png", [1], [1], [2])
    start = time.perf_counter()
    pictures.curves(tmp_path / "a.png", steps, d_losses, g_losses)
    assert time.perf_counter() - start < 5  # about 0.5 s on an idle machine
    blue, orange = (
        ink(tmp_path / "a.png", c).nonzero()[0] for c in (pictures.BLUE, pictures.ORANGE)
    )
    assert len(blue) > 500 and len(orange) > 500
    assert np.median(blue) > np.median(orange) + 100  # rows count from the top


@pytest.mark.parametrize("n", [1, 2, 10])
def test_curves_of_a_short_run_show_every_value(tmp_path, n):
    pictures.curves(tmp_path / "a.png", range(n), np.full(n, 1.0), np.full(n, 2.0))
    for colour in (pictures.BLUE, pictures.ORANGE):
        # Below the legend; a marker of 4 points covers some 20 pixels.
        assert np.count_nonzero(ink(tmp_path / "a.png", colour)[35:]) > 10 * n


@pytest.mark.parametrize("n", [10, 150])
def test_one_huge_loss_does_not_flatten_the_curves(tmp_path, n):
    steps, wave = np.arange(n), np.sin(np.arange(n))
    d_losses, g_losses = 1 + wave, 3 + wave
    pictures.curves(tmp_path / "plain.png", steps, d_losses, g_losses)
    d_losses[n // 2] = 1e30
    pictures.curves(tmp_path / "spiked.png", steps, d_losses, g_losses)
    heights = [
        np.ptp(ink(tmp_path / name, pictures.ORANGE)[35:].nonzero()[0])
        for name in ("plain.png", "spiked.png")
    ]
    assert heights[0] > 150
    assert heights[1] > 0.9 * heights[0]
    note = [
        (pixels(tmp_path / name)[:32, :450] < 128).any() for name in ("plain.png", "spiked.png")
    ]
    assert note == [False, True]


def test_running_mean_stays_in_the_picture_around_a_huge_loss(tmp_path):
    d_losses = 1 + 0.1 * np.sin(np.arange(1000))
    d_losses[500] = 1e30
    pictures.curves(tmp_path / "a.png", np.arange(1000), d_losses, d_losses + 0.5)
    columns = ink(tmp_path / "a.png", pictures.BLUE)[35:].any(axis=0).nonzero()[0]
    assert np.ptp(columns) > 600 and np.diff(columns).max() <= 3


def test_outliers_are_counted_and_the_largest_is_named():
    losses = [np.array([1.0, 1.1, -9.0, 1.2, 1e6]), np.array([1.0, 1.0, 1.0, 1.0, 1.1])]
    (note,) = pictures._outside(np.arange(1000, 1005), losses, 0.9, 1.3)
    assert note == "2 of 10 values, as large as 1e+06 at step 1,004, are drawn at the edge"
    assert pictures._outside(np.arange(5), losses, -10, 1e7) == []


def test_running_mean_is_a_mean_by_hand():
    mean = pictures._running_mean(np.array([1.0, 2.0, 4.0, 8.0]), 3)
    np.testing.assert_allclose(mean, [3 / 2, 7 / 3, 14 / 3, 12 / 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_curves_name_the_first_loss_that_is_not_finite(tmp_path, bad):
    with pytest.raises(ValueError, match=rf"generator: {bad} at step 20"):
        pictures.curves(tmp_path / "a.png", [10, 20, 30], [1, 1, 1], [1, bad, bad])


@pytest.mark.parametrize("steps, d_losses", [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_curves_name_shapes_that_do_not_fit(tmp_path, steps, d_losses):
    with pytest.raises(ValueError, match="steps, d_losses, g_losses: shapes"):
        pictures.curves(tmp_path / "a.png", steps, d_losses, steps)


# reports


def test_histogram_bars_are_as_long_as_the_shares(tmp_path):
    shares = np.array([0.4, 0.2, 0.1, 0, 0, 0.3, 0, 0, 0, 0])
    nothing, labels = np.zeros([1, 784], np.float32), np.zeros(1, int)
    pictures.report(tmp_path / "a.png", nothing, labels, shares, UNIFORM_SHARES)
    generated = ink(tmp_path / "a.png", pictures.BLUE)[40:].sum(axis=1)
    bars = generated[np.r_[True, np.diff(generated) != 0]]  # one length for each block of rows
    lengths = bars[bars > 0]
    np.testing.assert_allclose(lengths / lengths.max(), [1, 0.5, 0.25, 0.75], atol=0.01)
    real = ink(tmp_path / "a.png", pictures.GREY)[40:].sum(axis=1)
    assert real.max() == pytest.approx(generated.max() / 4, abs=2)


def test_sorted_samples_put_each_digit_in_its_row_in_order():
    labels = np.array([3, 1, 3, 9, 3, 3])
    picture = pictures.sorted_samples(DIGITS[:6], labels, per_class=3)
    assert picture.shape == (280, 84)
    expected = np.zeros([10, 3, 784], np.float32)
    expected[3] = DIGITS[[0, 2, 4]]
    expected[1, 0], expected[9, 0] = DIGITS[1], DIGITS[3]
    np.testing.assert_array_equal(picture, pictures.tiles(expected.reshape(30, 784), 3))


def test_report_has_bars_left_and_samples_right(tmp_path):
    labels = np.arange(30) % 10
    pictures.report(tmp_path / "a.png", DIGITS, labels, UNIFORM_SHARES, UNIFORM_SHARES)
    blue, black = ink(tmp_path / "a.png", pictures.BLUE), ink(tmp_path / "a.png", "#000000")
    middle = blue.shape[1] // 3
    assert blue[:, :middle].sum() > 1000 and not blue[:, middle:].any()
    assert black[:, middle:].mean() > 0.3  # 3 of 16 columns hold samples


def test_report_is_complete_or_absent(tmp_path):
    with pytest.raises(ValueError, match=r"real_shares: shape \[9\], wanted \[10\]"):
        pictures.report(tmp_path / "a.png", DIGITS, np.zeros(30), UNIFORM_SHARES, np.zeros(9))
    assert list(tmp_path.iterdir()) == []


def test_compare_has_a_row_for_each_entry(tmp_path):
    white, black = np.ones([4, 784]), np.zeros([2, 784])
    pictures.compare(tmp_path / "a.png", [("real", white), ("recipe", black), ("last", white)])
    dark = pixels(tmp_path / "a.png")[:, :, 0] < 128
    row = dark[:, 180]  # through the first images
    across = dark[row.nonzero()[0].mean().astype(int)]  # through the black row
    assert np.count_nonzero(np.diff(row)) == 2
    assert across[180:].sum() + across[:180][::-1].argmin() == pytest.approx(4 * row.sum(), abs=6)


def test_compare_needs_rows(tmp_path):
    with pytest.raises(ValueError, match="rows: none"):
        pictures.compare(tmp_path / "a.png", [])


# animations


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation_loops_over_the_exact_frames(tmp_path, suffix):
    frames = DIGITS[:5].reshape(5, 28, 28)
    pictures.animation(tmp_path / f"a{suffix}", frames, milliseconds=120)
    with Image.open(tmp_path / f"a{suffix}") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (5, (224, 224), 0)
        for k, frame in enumerate(frames):
            film.seek(k)
            film.load()
            assert film.info["duration"] == 120
            large = np.rint(255 * frame).repeat(8, axis=0).repeat(8, axis=1)
            np.testing.assert_array_equal(film.convert("L"), large)


def test_animation_of_one_frame(tmp_path):
    pictures.animation(tmp_path / "a.gif", DIGITS[:1].reshape(1, 28, 28), 100)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 1


def test_animation_refuses_other_files_and_speeds(tmp_path):
    frames = DIGITS[:2].reshape(2, 28, 28)
    with pytest.raises(ValueError, match=r"a\.mp4, wanted .*\.gif or \.webp"):
        pictures.animation(tmp_path / "a.mp4", frames, 100)
    with pytest.raises(ValueError, match="milliseconds: 5"):
        pictures.animation(tmp_path / "a.gif", frames, 5)


# all of them

WRITERS = {
    "save_png.png": lambda path: pictures.save_png(path, pictures.tiles(DIGITS, 6)),
    "curves.png": lambda path: pictures.curves(
        path, range(30), DIGITS[:, 0], DIGITS[:, 1], "a run"
    ),
    "report.png": lambda path: pictures.report(
        path, DIGITS, np.arange(30) % 10, UNIFORM_SHARES, UNIFORM_SHARES
    ),
    "compare.png": lambda path: pictures.compare(path, [("a", DIGITS[:3]), ("b", DIGITS[3:9])]),
    "animation.gif": lambda path: pictures.animation(path, DIGITS.reshape(-1, 28, 28), 50),
    "animation.webp": lambda path: pictures.animation(path, DIGITS.reshape(-1, 28, 28), 50),
}


@pytest.mark.parametrize("name", WRITERS)
def test_same_input_gives_the_same_bytes_and_one_file(tmp_path, name):
    WRITERS[name](tmp_path / name)
    first = (tmp_path / name).read_bytes()
    WRITERS[name](tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: pictures.tiles(np.zeros([2, 28, 28]), 2),
            r"shape \[2, 28, 28\], wanted \[n, 784\]",
        ),
        (lambda: pictures.tiles(np.zeros([0, 784]), 2), r"shape \[0, 784\], wanted \[n, 784\]"),
        (lambda: pictures.tiles(np.full([2, 784], np.nan), 2), r"\[2, 784\]: values from nan"),
        (lambda: pictures.tiles(255 * DIGITS, 2), r"\[30, 784\]: values from .*wanted \[0, 1\]"),
        (lambda: pictures.tiles(DIGITS, 0), "columns: 0"),
        (lambda: pictures.save_png("a", DIGITS[0]), r"shape \[784\], wanted \[height, width\]"),
        (lambda: pictures.sorted_samples(DIGITS, [1, 2], 3), r"shape \[2\], wanted \[30\]"),
        (lambda: pictures.animation("a.gif", DIGITS, 99), r"wanted \[n, height, width\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "label", ["a $x^2$ b", "runs/$", "$\\frac$", "runs/\udcff", "runs/\x1b[31m", "runs/手"]
)
@pytest.mark.filterwarnings("error")
def test_labels_are_no_mathematics_and_any_text(tmp_path, label):
    pictures.compare(tmp_path / "a.png", [(label, np.zeros([2, 784], np.float32))])
    assert (tmp_path / "a.png").exists()


def test_single_digits_walk_eightfold(tmp_path):
    pictures.animation(tmp_path / "walk.gif", np.eye(28)[None], 100)
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.size == (224, 224)


def test_importing_does_not_load_matplotlib():
    code = "import sys, support.pictures; sys.exit('matplotlib' in sys.modules)"
    root = Path(pictures.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root.parent).returncode == 0
