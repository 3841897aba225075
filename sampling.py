"""Samples of a trained generator into a file: arrays, a sheet of tiles, a walk or its animation."""

import math
from pathlib import Path

import numpy as np

import images
from atomic import replacing
from errors import UserError

_STEPS_OF_A_WALK = 24
_STRIP_STEPS = 8
_MILLISECONDS = 60


def sample(out, n):
    """-> a function of (generator, seed, truncation) that writes n draws to `out`.

    .npz with `images` and `latents`, or .png with a sheet of tiles. Raises UserError at once for
    another suffix, later for a truncation of a bounded prior.
    """
    write = _writer(out, {".npz": _save_arrays, ".png": _save_sheet})
    return lambda generator, seed, truncation: write(
        out, *generator.sample(n, seed, truncation=truncation)
    )


def walk(out, draws):
    """-> a function as that of `sample`, which writes a closed walk through some draws to `out`.

    .gif or .webp, .png with a strip a leg, or .npz.
    """
    writers = {".gif": _save_animation, ".webp": _save_animation}
    write = _writer(out, {**writers, ".png": _save_strips, ".npz": _save_arrays})
    frames = _STRIP_STEPS if write is _save_strips else _STEPS_OF_A_WALK
    return lambda generator, seed, truncation: write(
        out, *generator.interpolate(draws, frames, seed, truncation=truncation)
    )


def _writer(out, writers):
    suffix = Path(out).suffix.lower()
    if suffix not in writers:
        raise UserError(f"--out={out}: wanted a name that ends in {' or '.join(writers)}")
    if not Path(out).absolute().parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {Path(out).parent}")
    return writers[suffix]


def _save_arrays(out, pictures, latents):
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=pictures, latents=latents)


def _save_sheet(out, pictures, _):
    images.save_png(out, images.tiles(_flat(pictures), math.ceil(math.sqrt(len(pictures)))))


def _save_strips(out, pictures, _):
    images.save_png(out, images.tiles(_flat(pictures), _STRIP_STEPS))


def _save_animation(out, pictures, _):
    images.animation(out, pictures, _MILLISECONDS)


def _flat(pictures):
    return pictures.reshape(len(pictures), -1)
