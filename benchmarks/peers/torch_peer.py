"""The same GANs in PyTorch, three ways: as its tutorials write it, tuned for a CPU, compiled."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from benchmarks.jobs import Feed


def eager(job):
    """PyTorch as it comes."""
    return TorchPeer(job)


def tuned(job):
    """Eager, with Adam as one kernel, denormals as zeros, and channels last in convolutions."""
    torch.set_flush_denormal(True)
    return TorchPeer(job, fused=True, memory_format=torch.channels_last)


def compiled(job):
    """As tuned, with each net and its loss through torch.compile."""
    torch.set_flush_denormal(True)
    peer = TorchPeer(job, fused=True, memory_format=torch.channels_last)
    peer.compile()
    return peer


def _mlp(widths, slope, *last):
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers[:-1], *last)


def _minimal():
    return _mlp([10, 64, 784], 0, nn.Sigmoid()), _mlp([784, 512, 1], 0)


def _leaky_mlp():
    return _mlp([100, 128, 784], 0.01, nn.Tanh()), _mlp([784, 128, 1], 0.01)


def _dcgan():
    def norm_relu(norm, features):
        return norm(features, eps=1e-3, momentum=0.1), nn.ReLU()

    def up(inputs, outputs):
        convolution = nn.Conv2d(inputs, outputs, 5, padding=2)
        return nn.Upsample(scale_factor=2), convolution, *norm_relu(nn.BatchNorm2d, outputs)

    def down(inputs, outputs, stride):
        convolution = nn.Conv2d(inputs, outputs, 5, stride, padding=2)
        return convolution, nn.LeakyReLU(0.2), nn.Dropout(0.2)

    generator = nn.Sequential(
        nn.Linear(100, 12544), *norm_relu(nn.BatchNorm1d, 12544), nn.Unflatten(1, (256, 7, 7)),
        *up(256, 128), *up(128, 64),
        nn.Conv2d(64, 32, 5, padding=2), *norm_relu(nn.BatchNorm2d, 32),
        nn.Conv2d(32, 1, 5, padding=2), nn.Sigmoid(), nn.Flatten(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *down(1, 64, 2), *down(64, 128, 2), *down(128, 256, 2), *down(256, 512, 1),
        nn.Flatten(), nn.Linear(8192, 1),
    )  # fmt: skip
    return generator, discriminator


_NETS = {"minimal": _minimal, "leaky_mlp": _leaky_mlp, "dcgan": _dcgan}


def _glorot(layer):
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


class TorchPeer:
    """A generator, a discriminator, an Adam for each, and the usual loop."""

    block = 1

    def __init__(self, job, *, fused=None, memory_format=torch.contiguous_format):
        torch.manual_seed(0)
        self._job, self._feed = job, Feed(job)
        self._g, self._d = (
            net.apply(_glorot).to(memory_format=memory_format) for net in _NETS[job.name]()
        )
        self._normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in self._g)
        betas = job.recipe.beta1, job.recipe.beta2
        d_rate, g_rate = job.rates
        self._d_adam = torch.optim.Adam(self._d.parameters(), d_rate, betas, fused=fused)
        self._g_adam = torch.optim.Adam(self._g.parameters(), g_rate, betas, fused=fused)
        self._labels, self._ones = torch.from_numpy(job.labels), torch.ones(job.batch, 1)
        self._sample = self._g

    def compile(self):
        """Puts torch.compile around all that runs the nets."""
        self._sample = torch.compile(self._g)
        self._d_loss, self._g_loss = torch.compile(self._d_loss), torch.compile(self._g_loss)

    @property
    def parameters(self):
        """Trainable parameters (G's, D's)."""
        return tuple(sum(p.numel() for p in net.parameters()) for net in (self._g, self._d))

    def run(self, steps):
        """Trains; -> the mean losses (D's, G's)."""
        return np.mean([self._step() for _ in range(steps)], axis=0)

    def _step(self):
        x, z = self._images(), self._latents()
        d_loss = sum(
            _update(self._d_adam, self._d_loss(*batch))
            for batch in self._d_batches(x, self._fake(z))
        )
        if not self._job.recipe.reuse_latents:
            z = self._latents()
        return d_loss, _update(self._g_adam, self._g_loss(z))

    def _images(self):
        a, b = self._job.scale
        return torch.from_numpy(self._feed.images(self._job.batch)).float().mul_(a).add_(b)

    def _latents(self):
        return torch.from_numpy(self._feed.latents(self._job.batch))

    def _fake(self, z):
        with torch.no_grad():
            if not self._normalised:
                return self._sample(z)
            self._g.eval()
            x_hat = self._sample(z)
            self._g.train()
            return x_hat

    def _d_batches(self, x, x_hat):
        """-> what D learns from in turn: (images, labels, weight of the mean loss)."""
        if self._job.recipe.separate_updates:
            real, fake = self._labels.split(self._job.batch)
            return [(x, real, 1), (x_hat, fake, 1)]
        return [(torch.cat([x, x_hat]), self._labels, 2)]

    def _d_loss(self, images, labels, weight):
        return weight * cross_entropy(self._d(images), labels)

    def _g_loss(self, z):
        return cross_entropy(self._d(self._g(z)), self._ones)


def _update(adam, loss):
    """Moves the weights of one Adam down the loss; -> its value before."""
    adam.zero_grad(set_to_none=True)
    loss.backward(inputs=adam.param_groups[0]["params"])
    adam.step()
    return loss.item()
