"""What each step sees: a function of (seed, step) alone, every image once in each epoch."""

import dataclasses

import numpy as np
import pytest

from models import priors, recipes
from training.batches import Batches

SIZE = 50
LABELS = np.arange(SIZE) % 10
# Each image is its own number in all of its pixels.
PIXELS = np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None], 784, axis=1)


def batches(seed=3, pixels=PIXELS, **values):
    recipe = dataclasses.replace(recipes.get("minimal"), **{"batch_size": 8, **values})
    return Batches(recipe, pixels, seed, LABELS)


def numbers(images):
    """Images of PIXELS -> their numbers."""
    assert (images == images[..., :1]).all()
    return images[..., 0]


# Batches.


@pytest.mark.parametrize("values", [{}, {"d_iters": 3}, {"batch_size": 7}, {"batch_size": 120}])
def test_every_image_once_an_epoch_whether_or_not_the_batch_divides(values):
    seen = numbers(batches(**values).block(0, 40).images).ravel()
    epochs = [seen[i : i + SIZE] for i in range(0, len(seen) - SIZE + 1, SIZE)]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert not any(sorted(epoch) == list(epoch) for epoch in epochs)


def test_shuffled_orders_are_uniform():
    seen = numbers(batches(batch_size=SIZE).block(0, 2000).images).reshape(2000, SIZE)
    places = np.argsort(seen, axis=1).mean(axis=0)
    # An image's mean place: standard deviation SIZE / sqrt(12) / sqrt(2000).
    assert np.abs(places - (SIZE - 1) / 2).max() < 5 * SIZE / 12**0.5 / 2000**0.5


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"d_iters": 2, "g_iters": 3, "half_batches": True, "prior": "semicircle"},
        {"conditional": True, "d_iters": 2},
        {"reuse_latents": True, "prior": "normal", "lr_decay": 0.01, "lr_milestones": (15,)},
    ],
    ids=str,
)
@pytest.mark.parametrize("start, stop", [(0, 9), (5, 6), (13, 27)])
def test_a_block_is_its_steps_wherever_it_starts(values, start, stop):
    block = batches(**values).block(start, stop)
    again = batches(**values)
    # Backwards, so that nothing can depend on what was drawn before.
    steps = [again.block(step, step + 1) for step in reversed(range(start, stop))][::-1]
    for whole, parts in zip(block, zip(*steps, strict=True), strict=True):
        if whole is not None:
            np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("d_iters, g_iters", [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("half", [False, True])
def test_shapes_and_types(d_iters, g_iters, half):
    values = {"d_iters": d_iters, "g_iters": g_iters, "half_batches": half, "nlatent": 5}
    block = batches(**values).block(4, 7)
    count = 4 if half else 8
    expected = {
        "images": ((3, d_iters, count, 784), np.uint8),
        "d_latents": ((3, d_iters, count, 5), np.float32),
        "g_latents": ((3, g_iters, 8, 5), np.float32),
        "rates": ((3, 2), np.float32),
    }
    assert {n: (a.shape, a.dtype) for n, a in block._asdict().items() if a is not None} == expected


def test_labels_are_those_of_the_images_and_uniform_ones_to_generate():
    block = batches(conditional=True, d_iters=2, g_iters=3).block(0, 300)
    np.testing.assert_array_equal(block.labels, LABELS[numbers(block.images)].reshape(300, 2, 8))
    assert block.d_labels.shape == (300, 2, 8) and block.g_labels.shape == (300, 3, 8)
    counts = np.bincount(np.concatenate([block.d_labels.ravel(), block.g_labels.ravel()]))
    assert len(counts) == 10 and np.abs(counts - 1200).max() < 5 * 1200**0.5
    # Neither images nor latents depend on there being labels.
    plain = batches(d_iters=2, g_iters=3).block(0, 300)
    for name in ("images", "d_latents", "g_latents", "rates"):
        np.testing.assert_array_equal(getattr(block, name), getattr(plain, name))


def test_labels_that_never_occur_are_asked_for_never():
    recipe = dataclasses.replace(recipes.get("minimal"), conditional=True)
    there = Batches(recipe, PIXELS[:4], 0, [7, 2, 2, 7]).block(0, 50)
    assert set(there.d_labels.ravel()) == set(there.g_labels.ravel()) == {2, 7}


@pytest.mark.parametrize(
    "values, steps",
    [({}, 6), ({"half_batches": True}, 12), ({"d_iters": 2}, 3), ({"batch_size": 64}, 1)],
    ids=str,
)
def test_steps_per_epoch(values, steps):
    assert batches(**values).steps_per_epoch == steps


# Latents.


def test_each_update_has_latents_of_its_own():
    block = batches(d_iters=2, g_iters=2).block(0, 100)
    latents = np.concatenate([block.d_latents, block.g_latents], axis=1)
    assert len(np.unique(latents)) > 0.99 * latents.size
    correlations = np.corrcoef(latents.reshape(-1, 10).T) - np.eye(10)
    assert np.abs(correlations).max() < 5 / 3200**0.5


def test_reused_latents_are_d_s_last_ones():
    block = batches(reuse_latents=True, d_iters=2, g_iters=3).block(0, 4)
    for g_latents in np.moveaxis(block.g_latents, 1, 0):
        np.testing.assert_array_equal(g_latents, block.d_latents[:, -1])


@pytest.mark.parametrize("prior, low", [("uniform", -1), ("uniform01", 0)])
def test_latents_come_from_the_recipe_s_prior(prior, low):
    z = batches(prior=prior).block(0, 100).g_latents
    assert low <= z.min() < low + 0.01
    assert 0.99 < z.max() < 1


# Seeds and streams.


def test_everything_but_the_rates_follows_from_the_seed():
    one, same, other = (batches(seed).block(0, 12) for seed in (1, 1, 2))
    for name in ("images", "d_latents", "g_latents"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert (getattr(one, name) != getattr(other, name)).mean() > 0.9
    np.testing.assert_array_equal(one.rates, other.rates)


def test_streams_of_one_seed_do_not_repeat_each_other():
    each = batches(batch_size=SIZE, nlatent=4)
    latents = [
        each.block(0, 1).d_latents.ravel(),
        each.block(1, 2).d_latents.ravel(),
        each.pretraining(SIZE)[1].ravel(),
        each.held_out(PIXELS, SIZE, 0)[1].ravel(),
        each.held_out(PIXELS, SIZE, 1)[1].ravel(),
        priors.get("uniform").sample(each.picture_rng(), SIZE * 4),
    ]
    assert len(np.unique(np.float32(latents))) > 0.99 * 6 * SIZE * 4


def test_pictures_have_the_same_latents_at_every_call():
    each = batches()
    first, again = (each.picture_rng().random(5) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != batches(seed=4).picture_rng().random(5)).all()


def test_pretraining_takes_different_images():
    images, latents = batches().pretraining(20)
    assert len(set(numbers(images))) == 20
    assert latents.shape == (20, 10)
    images, latents = batches().pretraining(10_000)
    assert sorted(numbers(images)) == list(range(SIZE))
    assert latents.shape == (SIZE, 10)


def test_held_out_images_change_from_epoch_to_epoch():
    held_out = PIXELS[:30]
    first, again, later = (batches().held_out(held_out, 16, epoch)[0] for epoch in (1, 1, 2))
    assert len(set(numbers(first))) == 16
    np.testing.assert_array_equal(first, again)
    assert set(numbers(first)) != set(numbers(later))


# Rates.


def test_rates_decay_and_drop():
    values = {
        "learning_rate": 1e-2,
        "g_learning_rate": 4e-3,
        "lr_decay": 0.5,
        "lr_milestones": (3, 5),
    }
    expected = [
        (1e-2, 4e-3),
        (1e-2 / 1.5, 4e-3 / 1.5),
        (1e-2 / 2, 4e-3 / 2),
        (1e-3 / 2.5, 4e-4 / 2.5),
        (1e-3 / 3, 4e-4 / 3),
        (1e-4 / 3.5, 4e-5 / 3.5),
    ]
    np.testing.assert_allclose(batches(**values).block(0, 6).rates, expected, rtol=1e-6)


def test_the_last_share_of_the_steps_has_a_tenth_of_the_rates():
    rates = batches(num_steps=8, lr_cooldown=0.25, learning_rate=1e-2).block(0, 8).rates[:, 0]
    np.testing.assert_allclose(rates, [1e-2] * 6 + [1e-3] * 2, rtol=1e-6)


def test_g_s_rate_is_d_s_unless_it_has_one():
    rates = batches(learning_rate=2e-3).block(7, 9).rates
    np.testing.assert_allclose(rates, np.full((2, 2), 2e-3), rtol=1e-6)
