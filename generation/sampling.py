"""Samples of a trained generator into a file: arrays, a sheet of tiles, a walk or its animation."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from support import pictures
from support.errors import UserError
from support.files import atomic_write

_STEPS_OF_A_WALK = 24
_STRIP_STEPS = 8
_MILLISECONDS = 60


class SampleOptions(NamedTuple):
    """What to draw. seed: of the latents; truncation: as `Generator.sample` takes it.

    labels: whole numbers that a conditional GAN goes round, or None.
    """

    seed: int = 0
    truncation: float | None = None
    labels: list | None = None


class Drawn(NamedTuple):
    """images float32 [n, 28, 28] in [0, 1], latents [n, nlatent], labels [n] or None.

    class_names: of the labels from 0 to 9.
    """

    images: np.ndarray
    latents: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple = ()


def sample(out, n):
    """-> a function of (generator, SampleOptions) that writes n draws to `out`.

    .npz with `images`, `latents` and, of a conditional GAN, `labels`; or .png with a sheet of
    tiles, a named row for each label. Raises UserError at once for another suffix, later for a
    truncation of a bounded prior.
    """
    write = _writer(out, {".npz": _save_arrays, ".png": _save_sheet})

    def take(generator, wish):
        labels = None
        if wish.labels is not None or generator.recipe.conditional:
            labels = generator.labels_in_turn(n, wish.labels)
        images, latents = generator.sample(n, wish.seed, truncation=wish.truncation, labels=labels)
        write(out, Drawn(images, latents, labels, generator.class_names))

    return take


def walk(out, draws):
    """-> a function as that of `sample`, which writes a closed walk through some draws to `out`.

    .gif or .webp, .png with a strip a leg, or .npz. Of a conditional GAN it keeps one label, or
    crosses from each of several to the next.
    """
    writers = {".gif": _save_animation, ".webp": _save_animation}
    write = _writer(out, {**writers, ".png": _save_strips, ".npz": _save_arrays})
    frames = _STRIP_STEPS if write is _save_strips else _STEPS_OF_A_WALK

    def take(generator, wish):
        labels = None if wish.labels is None else generator.labels_in_turn(draws, wish.labels)
        write(
            out,
            Drawn(
                *generator.interpolate(
                    draws, frames, wish.seed, truncation=wish.truncation, labels=labels
                )
            ),
        )

    return take


def _writer(out, writers):
    suffix = Path(out).suffix.lower()
    if suffix not in writers:
        raise UserError(f"--out={out}: wanted a name that ends in {' or '.join(writers)}")
    if not Path(out).absolute().parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {Path(out).parent}")
    return writers[suffix]


def _save_arrays(out, drawn):
    arrays = {"images": drawn.images, "latents": drawn.latents}
    if drawn.labels is not None:
        arrays["labels"] = drawn.labels
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _save_sheet(out, drawn):
    images = _flat(drawn.images)
    if drawn.labels is None:
        pictures.save_png(out, pictures.tiles(images, math.ceil(math.sqrt(len(images)))))
        return
    labels = sorted(set(drawn.labels.tolist()))
    names = drawn.class_names
    pictures.compare(out, [(names[label], images[drawn.labels == label]) for label in labels])


def _save_strips(out, drawn):
    pictures.save_png(out, pictures.tiles(_flat(drawn.images), _STRIP_STEPS))


def _save_animation(out, drawn):
    pictures.animation(out, drawn.images, _MILLISECONDS)


def _flat(images):
    return images.reshape(len(images), -1)
