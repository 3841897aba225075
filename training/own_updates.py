"""A comparison of a custom class's own train ops with ours."""

import numpy as np
import tensorflow.compat.v1 as tf

from models import custom_class, recipes
from models.inference import assign
from support.errors import UserError
from training.engines import run_step
from training.updates import Updates

_STEPS = 2
_LEARNING_RATE = 1e-3
_TOLERANCE = 1e-3  # relative difference of the changes of all weights


def differ_from_ours(recipe, batches, gan_class) -> bool:
    """Returns whether a class has an optimizer, clipping or a penalty of its own.

    Its own train ops and ours, without the recipe's additions, take two steps from the same weights
    on the same batches. A class that draws random numbers, or that its own train ops could not
    train, cannot be compared; then the result is False.
    """
    plain, _ = recipes.without_update_fields(recipe)
    with tf.Graph().as_default():
        gan = recipes.build_gan(plain, gan_class)
        try:
            custom_class.check(gan, plain)
            custom_class.check_generator(gan)
            own_ops = _ops(gan)
            try:
                custom_class.check_own_train_ops(gan, plain)
            except UserError:
                return False
            Updates(gan, plain, seed=0).install()
            own, again, ours = _changes(gan, batches, [own_ops, own_ops, _ops(gan)])
        finally:
            custom_class.close_session(gan)
    scale = _TOLERANCE * np.linalg.norm(own)
    is_random = np.linalg.norm(again - own) > scale
    return bool(not is_random and np.linalg.norm(ours - own) > scale)


def _ops(gan):
    names = ("d_loss", "d_optimizer", "g_loss", "g_optimizer")
    return {name: getattr(gan, name) for name in names}


def _changes(gan, batches, all_ops):
    """Returns the change of all weights, [n], by each set of train ops."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    trained = [variable.op.name for variable in tf.trainable_variables()]
    changes = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(variables)
        for ops in all_ops:
            vars(gan).update(ops)
            assign(session, variables, before)
            for step in range(_STEPS):
                inputs = batches.block(step, step + 1)
                inputs = inputs._replace(rates=np.full_like(inputs.rates, _LEARNING_RATE))
                run_step(session, gan, inputs, batches.recipe.conditional)
            after = session.run(variables)
            moved = [np.ravel(after[name] - before[name]) for name in trained]
            changes.append(np.concatenate(moved))
    return changes
