"""The learning-rate schedule."""


def learning_rates(recipe, step: int) -> tuple[float, float]:
    """Returns D's and G's learning rate at `step`.

    They follow from the recipe's `lr_...` hyperparameters.
    """
    factor = 0.1 ** sum(step >= milestone for milestone in recipe.lr_milestones)
    if step >= (1 - recipe.lr_cooldown) * recipe.num_steps:
        factor *= 0.1
    factor /= 1 + recipe.lr_decay * step
    g_rate = recipe.learning_rate if recipe.g_learning_rate is None else recipe.g_learning_rate
    return recipe.learning_rate * factor, g_rate * factor
