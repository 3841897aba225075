"""The same GANs in PyTorch: eager, or with its steps compiled."""

import contextlib

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from benchmarks.jobs import Feed


def _dense_nets(g_widths, d_widths, slope, pixels):
    return _mlp(g_widths, slope, pixels), _mlp(d_widths, slope)


def _mlp(widths, slope, *last):
    layers = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers[:-1], *last)


def _dcgan_nets():
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


_NETS = {
    "minimal": lambda: _dense_nets([10, 64, 784], [784, 512, 1], 0, nn.Sigmoid()),
    "leaky_mlp": lambda: _dense_nets([100, 128, 784], [784, 128, 1], 0.01, nn.Tanh()),
    "dcgan": _dcgan_nets,
}
