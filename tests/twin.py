"""Article 003's networks and their losses in float64 NumPy, for comparison.

`w` are the variables by name in float64, `recipe` a Recipe, x images and z latents.
"""

import numpy as np


def doubles(state):
    """Returns {name: array} in float64."""
    return {name: np.asarray(array, np.float64) for name, array in state.items()}


def softplus(x):
    """Returns ln(1 + e^x)."""
    return np.logaddexp(0, x)


def sigmoid(x):
    """Returns 1 / (1 + e^-x)."""
    return np.exp(-softplus(-x))


def cross_entropy(label, logits):
    """Returns -label ln p - (1 - label) ln(1 - p) with p = sigmoid(logits), in nats."""
    return label * softplus(-logits) + (1 - label) * softplus(logits)


def generate(w, z):
    """Returns G's images [batch, ndims]."""
    hidden = np.maximum(_dense(w, "generator/hidden", z), 0)
    return sigmoid(_dense(w, "generator/pixels", hidden))


def logits(w, x):
    """Returns D's logits [batch, 1]."""
    hidden = np.maximum(_dense(w, "discriminator/hidden", x), 0)
    return _dense(w, "discriminator/logit", hidden)


def gradients_at(w, x):
    """Returns the gradient of D's logits in the images, [batch, ndims]."""
    on = _dense(w, "discriminator/hidden", x) > 0
    paths = on * w["discriminator/logit/kernel"][:, 0]
    return paths @ w["discriminator/hidden/kernel"].T


def _softened(y, y_hat, s):
    return (cross_entropy(1 - s, y) + cross_entropy(0, y_hat)).mean()


# The losses of D, functions of (y, y_hat, label_smoothing), and of G, functions of (y, y_hat).
D_LOSSES = {
    "cross_entropy": _softened,
    "minimax": _softened,
    "least_squares": lambda y, y_hat, s: ((y - 1 + s) ** 2 + y_hat**2).mean() / 2,
    "hinge": lambda y, y_hat, s: (np.maximum(1 - y, 0) + np.maximum(1 + y_hat, 0)).mean(),
    "wasserstein": lambda y, y_hat, s: (y_hat - y).mean(),
    "relativistic": lambda y, y_hat, s: softplus(y_hat - y).mean(),
}
G_LOSSES = {
    "cross_entropy": lambda y, y_hat: softplus(-y_hat).mean(),
    "minimax": lambda y, y_hat: -softplus(y_hat).mean(),
    "least_squares": lambda y, y_hat: ((y_hat - 1) ** 2).mean() / 2,
    "hinge": lambda y, y_hat: -y_hat.mean(),
    "wasserstein": lambda y, y_hat: -y_hat.mean(),
    "relativistic": lambda y, y_hat: softplus(y - y_hat).mean(),
}


def d_loss(w, recipe, x, z):
    """Returns the reported d_loss."""
    y, y_hat = logits(w, x), logits(w, generate(w, z))
    return D_LOSSES[recipe.loss](y, y_hat, recipe.label_smoothing)


def d_total(w, recipe, x, z):
    """Returns the loss that D's update descends: d_loss and the penalties.

    The gradient penalty is that of generated images that equal the real ones.
    """
    real, generated = ((gradients_at(w, images) ** 2).sum(axis=1) for images in (x, generate(w, z)))
    penalties = (recipe.r1_gamma * real + recipe.r2_gamma * generated) / 2
    penalties += recipe.gradient_penalty * (np.sqrt(real) - 1) ** 2
    return d_loss(w, recipe, x, z) + penalties.mean()


def g_loss(w, recipe, x, z):
    """Returns the reported g_loss; x may be None unless the loss reads it."""
    y = None if x is None else logits(w, x)
    return G_LOSSES[recipe.loss](y, logits(w, generate(w, z)))


def directional(function, w, name, direction):
    """Returns the central difference of function(w) in a direction of a variable."""
    # Small, so that no ReLU turns on the way: the penalties jump there.
    size = 1e-7
    ahead, behind = ({**w, name: w[name] + step * direction} for step in (size, -size))
    return (function(ahead) - function(behind)) / (2 * size)


def _dense(w, layer, x):
    return x @ w[f"{layer}/kernel"] + w[f"{layer}/bias"]


# Article 004's networks, which have leaky units and images in [-1, 1] inside.


def leaky_generate(w, z):
    """Returns the images [batch, ndims] of leaky_mlp's G."""
    hidden = _leaky(_dense(w, "generator/hidden", z))
    return (np.tanh(_dense(w, "generator/pixels", hidden)) + 1) / 2


def leaky_logits(w, x):
    """Returns the logits [batch, 1] of leaky_mlp's D."""
    return _dense(w, "discriminator/logit", _leaky(_dense(w, "discriminator/hidden", 2 * x - 1)))


def _leaky(x):
    return np.where(x > 0, x, 0.01 * x)
