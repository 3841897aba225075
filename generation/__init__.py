"""Uses of a trained generator: `load(run_dir)`, samples, walks, exports, a page.

generator = generation.load("runs/minimal")
images, latents = generator.sample(16, seed=1)    # [16, 28, 28] in [0, 1], [16, nlatent]
images = generator.generate(latents)              # the same images again
generation.picture(images)                        # an image that a notebook shows
"""

from support import pictures, terminal


def load(run_dir, **options):
    """Loads a run's `generation.generator.Generator`; options like `generator.load`."""
    terminal.import_tensorflow()
    from generation import generator  # here, because it imports TensorFlow

    return generator.load(run_dir, **options)


def picture(images, columns=10):
    """Returns images `[n, 28, 28]` in [0, 1] as rows of a `PIL.Image.Image`."""
    return pictures.grey(pictures.tiles(images.reshape(len(images), -1), columns))
