"""Loads and uses trained generators.

generator = generation.load("runs/minimal")
images, latents = generator.sample(16, seed=1)    # [16, 28, 28] in [0, 1], [16, nlatent]
images = generator.generate(latents)              # the same images again
generation.picture(images)                        # an image to display in a notebook
"""

from generation.generator import Generator, load
from support import pictures

__all__ = ["Generator", "load", "picture"]


def picture(images, columns=10):
    """Returns images `[n, 28, 28]` in [0, 1] as tiles of a `PIL.Image.Image`."""
    return pictures.grey(pictures.tiles(images.reshape(len(images), -1), columns))
