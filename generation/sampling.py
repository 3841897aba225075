"""Files of samples: arrays, a sheet of tiles, an image each, or a walk."""

import math
import os
from pathlib import Path

import numpy as np

from support import pictures
from support.errors import UserError
from support.files import atomic_write

# What --out may end in; a folder takes a file for each image.
_SUFFIXES, _WALK_SUFFIXES = ("/", ".npz", ".png"), ("/", ".gif", ".webp", ".png", ".npz")
_FRAMES_PER_LEG, _TILES_PER_LEG = 24, 8
_MILLISECONDS = 60


def check_out(out, walk) -> tuple[Path, str]:
    """Returns the path that `out` names, and its suffix in lower case, / for a folder.

    Raises:
      UserError: If its suffix is not one of samples or of a walk, its folder does not exist, or it
        is a folder with numbered PNGs, which are not replaced.
    """
    path, suffixes = Path(out).expanduser(), _WALK_SUFFIXES if walk else _SUFFIXES
    is_folder = str(out).endswith(("/", os.sep)) or path.is_dir()
    ending = "/" if is_folder else path.suffix.lower()
    if ending not in suffixes:
        hint = "; add --interpolate=6 for a walk" if ending in _WALK_SUFFIXES else ""
        raise UserError(f"--out must end in {' or '.join(suffixes)}, got {out}{hint}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {path.parent}; create it")
    if ending == "/" and (found := min(path.glob("[0-9]*.png"), default=None)):
        raise UserError(
            f"--out={path}/ must not contain numbered images, found {found.name}; choose another "
            "folder"
        )
    return path, ending


def save(generator, out, n, *, walk=False, labels=None, **options) -> None:
    """Draws samples, or a walk through some draws and back to the first, into a file.

    Args:
      generator: A `generation.Generator`.
      out: .npz with `images`, `latents` and, for samples if conditional, `labels`; .png with a
        square sheet of tiles, in named rows if there are several labels, or a row for each leg of a
        walk; a folder for a PNG of each; for a walk also .gif or .webp.
      n: The number of samples, or of the walk's draws.
      walk: Whether to walk.
      labels: Labels of a conditional generator: of samples in turn, None for all; of a walk's
        draws, None for the first.
      **options: `seed` and `truncation` of `Generator.sample`.
    """
    path, ending = check_out(out, walk)
    rows = None
    if walk:
        columns = _TILES_PER_LEG if ending == ".png" else _FRAMES_PER_LEG
        images, latents = generator.interpolate(n, columns, labels=labels, **options)
    else:
        columns = math.ceil(math.sqrt(n))
        if labels is not None or generator.recipe.conditional:
            rows = generator.labels_in_turn(n, labels)
        images, latents = generator.sample(n, labels=rows, **options)
    tiles = images.reshape(len(images), -1)
    if ending == "/":
        path.mkdir(exist_ok=True)
        for k, image in enumerate(images):
            label = "" if rows is None else f"-label-{rows[k]}"
            with open(path / f"{k:06}{label}.png", "xb") as file:
                pictures.grey(image).save(file, format="PNG")
    elif ending == ".npz":
        named = {} if rows is None else {"labels": rows}
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, images=images, latents=latents, **named)
    elif ending != ".png":
        pictures.animation(path, images, _MILLISECONDS)
    elif rows is None or len(set(rows)) == 1:
        pictures.save_png(path, pictures.tiles(tiles, columns))
    else:
        strips, names = [], generator.configuration.label_names()
        for label in sorted(set(rows.tolist())):
            of_label = tiles[rows == label]
            for start in range(0, len(of_label), columns):
                name = "" if start else names[label]
                strips.append((name, of_label[start : start + columns]))
        pictures.compare(path, strips)
