"""Small trainings as the trainer assembles them: a model and an engine on a few images."""

import contextlib
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from training import trainer
from training.batches import Batches

SEED = 3
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 784), np.uint8)
LABELS = np.arange(64) % 10


@contextlib.contextmanager
def assembled(recipe, engine="step", *, seed=SEED, pixels=PIXELS, gan_class=None):
    """-> the TrainingModel and the engine, their graph the default one meanwhile.

    engine: `step`, `fused` or `fused without XLA`.
    """
    settings = trainer.Settings(seed, engine.split()[0], gan_class=gan_class)
    labels = np.resize(LABELS, len(pixels))
    slow = mock.patch.object(trainer, "_slow_under_xla", lambda gan: True)
    with (
        tf.Graph().as_default(),
        slow if engine.endswith("XLA") else contextlib.nullcontext(),
    ):
        model, built = trainer.assemble(recipe, Batches(recipe, pixels, seed, labels), settings)
        yield model, built
        model.session.close()


def progress(model, engine, *spans):
    """Trains those spans (start, stop) -> the list of Progress."""
    return [p for span in spans for block in engine.blocks(model.session, *span) for p in block]


def trained(recipe, steps, engine="step", **options):
    """Trains from a fresh start -> progress and the state at the end."""
    with assembled(recipe, engine, **options) as (model, built):
        return progress(model, built, (0, steps)), model.state()


def frozen(state):
    """{name: array} -> {name: bytes}."""
    return {name: array.tobytes() for name, array in state.items()}


def feed(model, x=None, z=None, rate=1e-3):
    """A feed of the model's placeholders."""
    gan = model.gan
    values = {gan.x_placeholder: x, gan.z_placeholder: z, gan.learning_rate_placeholder: rate}
    return {key: value for key, value in values.items() if value is not None}
