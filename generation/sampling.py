"""Files of samples: arrays, a sheet of tiles, an image each, or a walk."""

import math
import os
from pathlib import Path

import numpy as np

from support import pictures
from support.errors import UserError
from support.files import atomic_write

# What --out may end in; a folder takes a file for each image.
SAMPLE_SUFFIXES, WALK_SUFFIXES = ("/", ".npz", ".png"), ("/", ".gif", ".webp", ".png", ".npz")
_FRAMES_PER_LEG, _TILES_PER_LEG = 24, 8
_MILLISECONDS = 60


def check_out(out, suffixes) -> tuple[Path, str]:
    """Returns the path that `out` names, and its suffix in lower case, / for a folder.

    Raises:
      UserError: If it ends in none of the suffixes, its folder does not exist, or it is a folder
        with numbered PNGs, which are not replaced.
    """
    path = Path(out).expanduser()
    is_folder = str(out).endswith(("/", os.sep)) or path.is_dir()
    ending = "/" if is_folder else path.suffix.lower()
    if ending not in suffixes:
        hint = "; add --interpolate=6 for a walk" if ending in WALK_SUFFIXES else ""
        raise UserError(f"--out must end in {' or '.join(suffixes)}, got {out}{hint}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {path.parent}; create it")
    if ending == "/" and (found := min(path.glob("[0-9]*.png"), default=None)):
        raise UserError(
            f"--out={path}/ must not contain numbered images, found {found.name}; choose another "
            "folder"
        )
    return path, ending


def save_samples(generator, out, n, *, seed=0, truncation=None, labels=None) -> None:
    """Draws n samples into a file.

    Args:
      generator: A `generation.Generator`.
      out: .npz with `images`, `latents` and, if conditional, `labels`; .png with a square sheet of
        tiles, in named rows if there are several labels; or a folder for a PNG of each.
      n: The number of samples.
      seed, truncation: Like `Generator.sample`.
      labels: Labels to draw in turn, of a conditional generator; None for all.
    """
    path, ending = check_out(out, SAMPLE_SUFFIXES)
    has_labels = labels is not None or generator.recipe.conditional
    rows = generator.labels_in_turn(n, labels) if has_labels else None
    images, latents = generator.sample(n, seed, truncation=truncation, labels=rows)
    tiles, side = images.reshape(n, -1), math.ceil(math.sqrt(n))
    if ending == "/":
        _save_each(path, images, rows)
    elif ending == ".npz":
        _save_arrays(path, images, latents, **({} if rows is None else {"labels": rows}))
    elif rows is None or len(set(rows)) == 1:
        pictures.save_png(path, pictures.tiles(tiles, side))
    else:
        strips = []
        for label in sorted(set(rows.tolist())):
            of_label = tiles[rows == label]
            for start in range(0, len(of_label), side):
                name = "" if start else generator.class_names[label]
                strips.append((name, of_label[start : start + side]))
        pictures.compare(path, strips)


def save_walk(generator, out, draws, *, seed=0, truncation=None, labels=None) -> None:
    """Walks through some draws and back to the first, into a file.

    Args:
      generator: A `generation.Generator`.
      out: .gif or .webp, .png with a row of tiles for each leg, .npz or a folder like
        `save_samples`.
      draws: The number of draws.
      seed, truncation: Like `Generator.sample`.
      labels: For a conditional generator, labels to cross between in turn; None keeps the first.
    """
    path, ending = check_out(out, WALK_SUFFIXES)
    frames = _TILES_PER_LEG if ending == ".png" else _FRAMES_PER_LEG
    images, latents = generator.interpolate(
        draws, frames, seed, truncation=truncation, labels=labels
    )
    if ending == "/":
        _save_each(path, images)
    elif ending == ".npz":
        _save_arrays(path, images, latents)
    elif ending == ".png":
        pictures.save_png(path, pictures.tiles(images.reshape(len(images), -1), frames))
    else:
        pictures.animation(path, images, _MILLISECONDS)


def _save_arrays(path, images, latents, **labels):
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images, latents=latents, **labels)


def _save_each(folder, images, labels=None):
    """Saves each image as a numbered PNG, with its label in the name."""
    folder.mkdir(exist_ok=True)
    for k, image in enumerate(images):
        label = "" if labels is None else f"-label-{labels[k]}"
        with open(folder / f"{k:06}{label}.png", "xb") as file:
            pictures.grey(image).save(file, format="PNG")
