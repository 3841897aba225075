"""The dense GANs in JAX: blocks of steps as a `lax.scan` under `jit`, the state donated."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from benchmarks.jobs import Feed
from training.batches import block_steps

_EPSILON = 1e-8
# Recipe -> widths of G and of D, activation, activation of the pixels.
_NETS = {
    "minimal": ([10, 64, 784], [784, 512, 1], nn.relu, nn.sigmoid),
    "leaky_mlp": (
        [100, 128, 784], [784, 128, 1], functools.partial(nn.leaky_relu, negative_slope=0.01),
        jnp.tanh,
    ),
}  # fmt: skip


class JaxPeer:
    """One jitted function that trains a block of steps; a block is drawn while one computes."""

    def __init__(self, job):
        self._feed, self._batch = Feed(job), job.batch
        self.block = block_steps(job.recipe)
        self._reuse = job.recipe.reuse_latents
        nets = _NETS[job.name][:2]
        keys = jax.random.split(jax.random.key(0), 2)
        self._nets = tuple(_weights(key, net) for key, net in zip(keys, nets, strict=True))
        self._state = tuple((net, _zeros(net), _zeros(net), 0.0) for net in self._nets)
        self.parameters = tuple(sum(w.size for w in jax.tree.leaves(net)) for net in self._nets)
        step = _step(job)
        self._train = jax.jit(lambda state, block: lax.scan(step, state, block), donate_argnums=0)

    def run(self, steps):
        """Trains whole blocks; -> the mean losses (D's, G's)."""
        losses = []
        for _ in range(0, steps, self.block):
            self._state, block_losses = self._train(self._state, self._draw())
            losses.append(block_losses)
        return np.mean(losses, axis=(0, 1))

    def _draw(self):
        shape = self.block, self._batch
        latents = self._feed.latents(*shape)
        again = latents if self._reuse else self._feed.latents(*shape)
        return self._feed.images(*shape), latents, again


def _weights(key, widths):
    """-> [(kernel, bias), ...], Glorot uniform and zeros."""
    shapes = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(shapes))
    glorot = nn.initializers.glorot_uniform()
    return [(glorot(k, shape), jnp.zeros(shape[1])) for k, shape in zip(keys, shapes, strict=True)]


def _zeros(net):
    return jax.tree.map(jnp.zeros_like, net)


def _step(job):
    """-> the function of one step, (state, (images, D's latents, G's)) -> (state, losses)."""
    _, _, activation, pixels = _NETS[job.name]
    labels, (a, b) = job.labels, job.scale
    real, fake = np.split(labels, 2)
    d_rate, g_rate = job.rates
    adam = functools.partial(_adam, betas=(job.recipe.beta1, job.recipe.beta2))

    def apply(net, x):
        (kernel, bias), (last_kernel, last_bias) = net
        return activation(x @ kernel + bias) @ last_kernel + last_bias

    def d_loss(d, images, labels):
        return _cross_entropy(labels, apply(d, images))

    def g_loss(g, d, z):
        return _cross_entropy(1.0, apply(d, pixels(apply(g, z))))

    def step(state, block):
        g_state, d_state = state
        images, d_latents, g_latents = block
        x = images.astype(jnp.float32) * a + b
        x_hat = pixels(apply(g_state[0], d_latents))
        batches, weight = [(jnp.concatenate([x, x_hat]), labels)], 2
        if job.recipe.separate_updates:
            batches, weight = [(x, real), (x_hat, fake)], 1
        total = 0.0
        for batch in batches:
            loss, gradients = jax.value_and_grad(d_loss)(d_state[0], *batch)
            d_state = adam(d_state, gradients, d_rate)
            total += weight * loss
        loss, gradients = jax.value_and_grad(g_loss)(g_state[0], d_state[0], g_latents)
        return (adam(g_state, gradients, g_rate), d_state), jnp.stack([total, loss])

    return step


def _cross_entropy(labels, logits):
    return jnp.mean(nn.softplus(logits) - labels * logits)


def _adam(state, gradients, rate, betas):
    """(weights, first moments, second moments, updates) -> the same after one update."""
    weights, first, second, count = state
    (beta1, beta2), count = betas, count + 1
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, gradients)
    rate *= jnp.sqrt(1 - beta2**count) / (1 - beta1**count)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + _EPSILON), weights, first, second
    )
    return weights, first, second, count
