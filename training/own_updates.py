"""A comparison of a custom class's own train ops with those of --engine=fused."""

import contextlib
import copy

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, recipes
from models.inference import assign, one_hot
from support.errors import UserError
from training.engines import run_step
from training.updates import Updates

_STEPS, _REPETITIONS = 2, 4
_LEARNING_RATE = 1e-3
_TOLERANCE = 1e-3  # relative difference of the changes of all weights


def has_own_updates(recipe, batches, gan_class) -> bool:
    """Returns whether a class has an optimizer, clipping or a penalty of its own.

    Its own train ops and ours, without the recipe's additions, take two steps from the same weights
    on the same batches, a few times because they may be random. False if its own train ops cannot
    train it.

    Raises:
      UserError: If ours cannot train the class.
    """
    plain, _ = recipes.without_update_fields(recipe)
    name = f"class {gan_class.__name__} with --engine=fused"
    with tf.Graph().as_default(), custom_class.user_errors(otherwise=name):
        tf.set_random_seed(0)
        gan = recipes.build_gan(plain, gan_class)
        custom_class.check(gan, plain)
        with contextlib.closing(gan.session):
            with_ours = _with_our_updates(gan, plain)
            try:
                custom_class.check_own_train_ops(gan, plain)
            except UserError:  # nothing to compare with
                return False
            own, again, ours = _changes([gan, gan, with_ours], batches)

    # A class that draws random numbers changes the weights differently each time.
    expected = max(_TOLERANCE * np.linalg.norm(own), 2 * np.linalg.norm(again - own))
    return bool(np.linalg.norm(ours - own) > expected)


def _with_our_updates(gan, recipe):
    """Returns a copy of a Gan with our train ops.

    Its methods are called on constants first. A placeholder behind a result is then one that no
    step of the fused engine feeds, and is rejected.
    """
    gan = copy.copy(gan)
    for method in custom_class.METHODS:
        setattr(gan, method, custom_class.checked(gan, method))
    updates, sizes = Updates(gan, recipe, seed=0), (recipe.d_batch_size, recipe.batch_size)
    x = tf.zeros([sizes[0], gan.x_placeholder.shape[1]])
    z, g_z = (tf.zeros([size, recipe.nlatent]) for size in sizes)
    labels = g_labels = None
    if recipe.conditional:
        labels, g_labels = (tf.constant(one_hot(np.zeros(size, int))) for size in sizes)
    rate = tf.constant(_LEARNING_RATE)
    updates.d_update(x, z, rate, labels, labels)
    updates.g_update(g_z, rate, g_labels, x, labels)
    updates.install()
    return gan


def _changes(gans, batches):
    """Returns the mean change of all weights, `[n]`, by the train ops of each Gan."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    trained = [variable.op.name for variable in tf.trainable_variables()]
    changes = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(variables)
        for gan in [gan for gan in gans for _ in range(_REPETITIONS)]:
            assign(session, variables, before)
            for step in range(_STEPS):
                inputs = batches.block(step, step + 1)
                inputs = inputs._replace(rates=np.full_like(inputs.rates, _LEARNING_RATE))
                run_step(session, gan, inputs, batches.recipe.conditional)
            after = session.run(variables)
            moved = [np.ravel(after[name] - before[name]) for name in trained]
            changes.append(np.concatenate(moved))
    return np.reshape(changes, [len(gans), _REPETITIONS, -1]).mean(axis=1)
