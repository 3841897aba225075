"""Inputs of each step: a function of (seed, step), with every image once per epoch."""

import dataclasses

import numpy as np
import pytest

from models import priors, recipes
from training.batches import Batches

SIZE = 50
LABELS = np.arange(SIZE) % 10
# All pixels of an image are its number.
PIXELS = np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None], 784, axis=1)


def batches(seed=3, pixels=PIXELS, labels=LABELS, **values):
    recipe = dataclasses.replace(recipes.get("minimal"), **{"batch_size": 8, **values})
    return Batches(recipe, pixels, seed, labels)


def numbers(images):
    """Returns the numbers of images."""
    assert (images == images[..., :1]).all()
    return images[..., 0]


@pytest.mark.parametrize("values", [{}, {"d_iters": 3}, {"batch_size": 7}, {"batch_size": 120}])
def test_every_image_once_per_epoch_in_another_order(values):
    images = numbers(batches(**values).block(0, 40).images).ravel()
    epochs = [images[i : i + SIZE] for i in range(0, len(images) - SIZE + 1, SIZE)]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [range(SIZE), *epochs]}) == len(epochs) + 1


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
@pytest.mark.parametrize("start, stop", [(0, 9), (13, 27)])
def test_block_is_the_same_as_its_steps_in_any_order(values, start, stop):
    block = batches(**values).block(start, stop)
    again = batches(**values)
    steps = [again.block(step, step + 1) for step in reversed(range(start, stop))][::-1]
    for joined, parts in zip(block, zip(*steps, strict=True), strict=True):
        np.testing.assert_array_equal(joined, np.concatenate(parts))


def test_half_batches_are_the_discriminators():
    block = batches(half_batches=True, d_iters=2, nlatent=5).block(4, 7)
    assert (block.images.shape, block.images.dtype) == ((3, 2, 4, 784), np.uint8)
    assert (block.d_latents.shape, block.g_latents.shape) == ((3, 2, 4, 5), (3, 1, 8, 5))


def test_labels_belong_to_the_images_and_those_to_generate_are_uniform():
    block = batches(conditional=True, d_iters=2, g_iters=3).block(0, 300)
    np.testing.assert_array_equal(block.labels, LABELS[numbers(block.images)].reshape(300, 2, 8))
    assert block.d_labels.shape == (300, 2, 8) and block.g_labels.shape == (300, 3, 8)
    counts = np.bincount(np.concatenate([block.d_labels.ravel(), block.g_labels.ravel()]))
    assert len(counts) == 10 and np.abs(counts - 1200).max() < 5 * 1200**0.5
    # Neither images nor latents depend on labels.
    plain = batches(d_iters=2, g_iters=3).block(0, 300)
    for name in ("images", "d_latents", "g_latents", "rates"):
        np.testing.assert_array_equal(getattr(block, name), getattr(plain, name))


def test_labels_that_never_occur_are_not_generated():
    block = batches(conditional=True, pixels=PIXELS[:4], labels=[7, 2, 2, 7]).block(0, 50)
    assert set(block.d_labels.ravel()) == set(block.g_labels.ravel()) == {2, 7}


def test_steps_per_epoch():
    for values, steps in [({"half_batches": True}, 12), ({"d_iters": 2}, 3), ({"d_iters": 9}, 1)]:
        assert batches(**values).steps_per_epoch == steps


def test_each_update_has_new_latents_of_the_recipes_prior():
    block = batches(d_iters=2, g_iters=2, prior="uniform01").block(0, 100)
    latents = np.concatenate([block.d_latents, block.g_latents], axis=1)
    assert 0 <= latents.min() < 0.01 and 0.99 < latents.max() < 1
    assert len(np.unique(latents)) > 0.99 * latents.size
    correlations = np.corrcoef(latents.reshape(-1, 10).T) - np.eye(10)
    assert np.abs(correlations).max() < 5 / 3200**0.5


def test_reused_latents_are_the_discriminators_last_ones():
    block = batches(reuse_latents=True, d_iters=2, g_iters=3).block(0, 4)
    for g_latents in np.moveaxis(block.g_latents, 1, 0):
        np.testing.assert_array_equal(g_latents, block.d_latents[:, -1])


def test_images_and_latents_follow_from_the_seed():
    one, same, other = (batches(seed).block(0, 12) for seed in (1, 1, 2))
    for name in ("images", "d_latents", "g_latents"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert (getattr(one, name) != getattr(other, name)).mean() > 0.9
    np.testing.assert_array_equal(one.rates, other.rates)


def test_streams_of_one_seed_do_not_repeat_each_other():
    each = batches(batch_size=SIZE, nlatent=4)
    first, again = (priors.PRIORS["uniform"].sample(each.picture_rng(), SIZE * 4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    latents = [
        each.block(0, 1).d_latents.ravel(),
        each.block(1, 2).d_latents.ravel(),
        each.pretraining(SIZE)[1].ravel(),
        each.held_out(PIXELS, SIZE, 0)[1].ravel(),
        each.held_out(PIXELS, SIZE, 1)[1].ravel(),
        first,
    ]
    assert len(np.unique(np.float32(latents))) > 0.99 * 6 * SIZE * 4


def test_pretraining_uses_different_images():
    for count, expected in [(20, 20), (10_000, SIZE)]:
        images, latents = batches().pretraining(count)
        assert len(set(numbers(images))) == len(images) == expected
        assert latents.shape == (expected, 10)


def test_learning_rates_decay_and_drop():
    values = {"learning_rate": 1e-2, "g_learning_rate": 4e-3, "num_steps": 8}
    values |= {"lr_decay": 0.5, "lr_milestones": (3, 5), "lr_cooldown": 0.25}
    factors = np.array([1, 1, 1, 0.1, 0.1, 0.01, 0.001, 0.001]) / (1 + 0.5 * np.arange(8))
    rates = batches(**values).block(0, 8).rates
    np.testing.assert_allclose(rates, np.outer(factors, [1e-2, 4e-3]), rtol=1e-6)
    rates = batches(learning_rate=2e-3).block(7, 9).rates
    np.testing.assert_allclose(rates, np.full((2, 2), 2e-3), rtol=1e-6)
