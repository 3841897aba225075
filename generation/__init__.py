"""What a trained generator is good for: `load(run_dir)`, samples, walks, exports.

generator = generation.load("runs/minimal")
images, latents = generator.sample(16, seed=1)    # [16, 28, 28] in [0, 1], [16, nlatent]
images = generator.generate(latents)              # the same images again
generation.picture(images)                        # which a notebook shows
"""

from support import pictures, terminal


def load(run_dir, **options):
    """A run folder -> its `generation.generator.Generator`; options as for `generator.load`."""
    terminal.import_tensorflow()
    from generation import generator  # here: it imports TensorFlow

    return generator.load(run_dir, **options)


def picture(images, columns=10):
    """[n, 28, 28] in [0, 1] -> a `PIL.Image.Image` with rows of them."""
    return pictures.grey(pictures.tiles(images.reshape(len(images), -1), columns))
