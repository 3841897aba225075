"""The same GANs in PyTorch: as in its tutorials, tuned for a CPU, or compiled."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from benchmarks.peers.job import DENSE, Job


def _dense(widths, slope, *last):
    inputs, hidden, outputs = widths
    activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
    return nn.Sequential(nn.Linear(inputs, hidden), activation, nn.Linear(hidden, outputs), *last)


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


def _glorot(layer):
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


class Peer:
    """A generator and a discriminator, each with its Adam, and the usual loop.

    Args:
      job: `Job`.
      tuned: Whether to use fused Adam, flush denormals to zero, and use channels last.
      compiled: Whether to compile each net and its loss with torch.compile.
    """

    block = 1

    def __init__(self, job: Job, tuned: bool = False, compiled: bool = False):
        torch.manual_seed(0)
        self._job = job
        if job.name == "dcgan":
            nets = _dcgan()
        else:
            g_widths, d_widths, slope = DENSE[job.name]
            pixels = nn.Tanh() if job.scale[1] else nn.Sigmoid()
            nets = _dense(g_widths, slope, pixels), _dense(d_widths, slope)
        if tuned:
            torch.set_flush_denormal(True)
        memory_format = torch.channels_last if tuned else torch.contiguous_format
        self._g, self._d = (net.apply(_glorot).to(memory_format=memory_format) for net in nets)
        self.parameters = [sum(p.numel() for p in net.parameters()) for net in (self._g, self._d)]
        self._normalises = job.name == "dcgan"
        betas, fused = (job.recipe.beta1, job.recipe.beta2), True if tuned else None
        d_rate, g_rate = job.rates
        self._d_adam = torch.optim.Adam(self._d.parameters(), d_rate, betas, fused=fused)
        self._g_adam = torch.optim.Adam(self._g.parameters(), g_rate, betas, fused=fused)
        self._ones = torch.ones(job.batch, 1)
        self._sample, self._losses = self._g, (self._d_loss, self._g_loss)
        if compiled:
            self._sample = torch.compile(self._g)
            self._losses = torch.compile(self._d_loss), torch.compile(self._g_loss)

    def train(self, steps):
        """Trains; yields the losses of D and G of each step."""
        job = self._job
        a, b = job.scale
        labels = torch.from_numpy(job.labels)
        d_loss_of, g_loss_of = self._losses
        for _ in range(steps):
            x = torch.from_numpy(job.images(job.batch)).float().mul_(a).add_(b)
            z, g_z = map(torch.from_numpy, job.latents(job.batch))
            x_hat = self._generate(z)
            # Images, labels and the weight of the mean loss, of one or two updates of D.
            d_batches = [(torch.cat([x, x_hat]), labels, 2)]
            if job.recipe.separate_updates:
                real, fake = labels.split(job.batch)
                d_batches = [(x, real, 1), (x_hat, fake, 1)]
            d_loss = sum(_update(self._d_adam, d_loss_of(*batch)) for batch in d_batches)
            yield d_loss, _update(self._g_adam, g_loss_of(g_z))

    def _generate(self, z):
        with torch.no_grad():
            if not self._normalises:
                return self._sample(z)
            self._g.eval()
            x_hat = self._sample(z)
            self._g.train()
            return x_hat

    def _d_loss(self, images, labels, weight):
        return weight * cross_entropy(self._d(images), labels)

    def _g_loss(self, z):
        return cross_entropy(self._d(self._g(z)), self._ones)


def _update(adam, loss):
    """Runs one update of an Adam, and returns the loss before it."""
    adam.zero_grad(set_to_none=True)
    loss.backward(inputs=adam.param_groups[0]["params"])
    adam.step()
    return loss.item()
