"""The dense GANs in JAX: blocks of steps as a `lax.scan` under `jit`.

The state is donated to each block.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from benchmarks.peers.job import DENSE, Job

_EPSILON = 1e-8


class Peer:
    """A jitted function that trains a block of steps.

    The data of the next block are drawn while one runs.
    """

    def __init__(self, job: Job):
        self._job = job
        self.block = job.block
        g_widths, d_widths, _ = DENSE[job.name]
        g_key, d_key = jax.random.split(jax.random.key(0), 2)
        nets = _weights(g_key, g_widths), _weights(d_key, d_widths)
        self.parameters = [sum(w.size for w in jax.tree.leaves(net)) for net in nets]
        # For each net: weights, first moments, second moments, number of updates.
        self._state = tuple((net, _zeros(net), _zeros(net), 0.0) for net in nets)
        step = _step(job)
        self._train = jax.jit(lambda state, block: lax.scan(step, state, block), donate_argnums=0)

    def train(self, steps):
        """Trains whole blocks; yields the losses of D and G of each block, [steps, 2]."""
        shape = self.block, self._job.batch
        for _ in range(0, steps, self.block):
            images, latents = self._job.images(*shape), self._job.latents(*shape)
            self._state, losses = self._train(self._state, (images, *latents))
            yield losses


def _weights(key, widths):
    """Returns [(kernel, bias), ...]: Glorot uniform kernels and zero biases."""
    inputs, hidden, outputs = widths
    first, second = jax.random.split(key, 2)
    glorot = nn.initializers.glorot_uniform()
    return [
        (glorot(first, (inputs, hidden)), jnp.zeros(hidden)),
        (glorot(second, (hidden, outputs)), jnp.zeros(outputs)),
    ]


def _zeros(net):
    return jax.tree.map(jnp.zeros_like, net)


def _step(job):
    """Returns the function of one step.

    It maps a state and (images, D's z, G's z) to the next state and the losses.
    """
    *_, slope = DENSE[job.name]
    a, b = job.scale
    pixels = jnp.tanh if b else nn.sigmoid
    real, fake = np.split(job.labels, 2)
    d_rate, g_rate = job.rates

    def apply(net, x):
        (kernel, bias), (last_kernel, last_bias) = net
        x = x @ kernel + bias
        x = nn.leaky_relu(x, slope) if slope else nn.relu(x)
        return x @ last_kernel + last_bias

    def d_loss(d, images, labels):
        return _cross_entropy(labels, apply(d, images))

    def g_loss(g, d, z):
        return _cross_entropy(1.0, apply(d, pixels(apply(g, z))))

    def step(state, block):
        g_state, d_state = state
        images, d_latents, g_latents = block
        if job.recipe.reuse_latents:
            g_latents = d_latents  # the same tensor, so that XLA merges G's passes
        x = images.astype(jnp.float32) * a + b
        x_hat = pixels(apply(g_state[0], d_latents))
        batches, weight = [(jnp.concatenate([x, x_hat]), job.labels)], 2
        if job.recipe.separate_updates:
            batches, weight = [(x, real), (x_hat, fake)], 1
        total = 0.0
        for batch in batches:
            loss, gradients = jax.value_and_grad(d_loss)(d_state[0], *batch)
            d_state = _adam(d_state, gradients, d_rate, job.recipe)
            total += weight * loss
        loss, gradients = jax.value_and_grad(g_loss)(g_state[0], d_state[0], g_latents)
        g_state = _adam(g_state, gradients, g_rate, job.recipe)
        return (g_state, d_state), jnp.stack([total, loss])

    return step


def _cross_entropy(labels, logits):
    return jnp.mean(nn.softplus(logits) - labels * logits)


def _adam(state, gradients, rate, recipe):
    """Applies one update of Adam.

    Returns:
      (weights, first moments, second moments, number of updates) after it.
    """
    weights, first, second, count = state
    beta1, beta2, count = recipe.beta1, recipe.beta2, count + 1
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, gradients)
    rate *= jnp.sqrt(1 - beta2**count) / (1 - beta1**count)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + _EPSILON), weights, first, second
    )
    return weights, first, second, count
