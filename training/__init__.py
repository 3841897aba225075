"""Training: one definition of an update, engines, run folders and the trainer that joins them.

run = training.train("minimal", num_steps=20_000)    # as `python main.py`; -> the run's folder
"""

from training.job import train

__all__ = ["build", "train"]


def build(recipe, seed=0, **overrides):
    """A recipe's name and hyper-parameters to replace -> its Gan in the current default graph.

    Its `d_loss`, `g_loss`, `d_optimizer` and `g_optimizer` are the recipe's, tricks included. A new
    graph should be the default one: the weights' seed is the graph's.
    """
    import tensorflow.compat.v1 as tf

    from models import hyperparameters, recipes
    from training.updates import Updates

    recipe = hyperparameters.override(recipes.get(recipe), **overrides)
    tf.set_random_seed(seed)
    gan = recipes.build_gan(recipe)
    before = {variable.name for variable in tf.global_variables()}
    Updates(gan, recipe, seed).install()
    new = [variable for variable in tf.global_variables() if variable.name not in before]
    gan.session.run(tf.variables_initializer(new))
    return gan
