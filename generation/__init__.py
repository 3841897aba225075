"""Uses of a trained generator: `load(run_dir)`, samples, walks, exports, a page.

generator = generation.load("runs/minimal")
images, latents = generator.sample(16, seed=1)    # [16, 28, 28] in [0, 1], [16, nlatent]
images = generator.generate(latents)              # the same images again
generation.picture(images)                        # an image that a notebook shows
"""

from generation.generator import Generator, load
from support import pictures

__all__ = ["Generator", "load", "picture"]


def picture(images, columns=10):
    """Returns images `[n, 28, 28]` in [0, 1] as rows of a `PIL.Image.Image`."""
    return pictures.grey(pictures.tiles(images.reshape(len(images), -1), columns))
