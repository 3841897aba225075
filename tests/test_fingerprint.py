"""A run knows its networks again, and no others of the same shapes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import LABELS, PIXELS

import generation
from input_data import DataSet, Datasets
from models import fingerprint, layers, recipes
from models.gan import Gan
from support.errors import UserError
from training import trainer
from training.configuration import Configuration
from training.run_folder import RunFolder


def of(gan_class):
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipes.get("minimal"), gan_class)
        gan.session.close()
        return fingerprint.of_gan(gan)


class Tidied(Gan):
    """The same networks, written otherwise."""

    def _generator(self, z, reuse=False):
        with tf.variable_scope(self._generator_scope, reuse=reuse), tf.name_scope("tidied"):
            hidden = tf.identity(tf.nn.relu(layers.dense(z, 64, name="hidden")))
            pixels = layers.dense(hidden, self._ndims, name="pixels")
            return tf.sigmoid(pixels)


class Tanh(Gan):
    def _generator(self, z, reuse=False):
        with tf.variable_scope(self._generator_scope, reuse=reuse):
            hidden = tf.nn.tanh(layers.dense(z, 64, name="hidden"))
            return tf.nn.sigmoid(layers.dense(hidden, self._ndims, name="pixels"))


class Computes:
    """As much of a Gan as is described: G is a function of [batch, 64], D hands its input on."""

    def __init__(self, function):
        self.z_placeholder = tf.placeholder(tf.float32, [None, 64])
        self.x_placeholder = tf.placeholder(tf.float32, [None, 64])
        self.x_hat = function(self.z_placeholder)

    def _discriminator(self, x, reuse):
        return tf.identity(x)


def lines_of(function):
    with tf.Graph().as_default():
        return fingerprint.of_gan(Computes(function))["generator"]


def picture(h):
    return tf.reshape(h, [-1, 8, 8, 1])


def pixels(x):
    return tf.reshape(x, [-1, 64])


def resized(**options):
    return lambda h: pixels(tf.raw_ops.ResizeBilinear(images=picture(h), size=[8, 8], **options))


def cast(dtype):
    return lambda h: tf.cast(tf.cast(h, dtype), tf.float32)


def padded(mode):
    return lambda h: tf.pad(h, [[0, 0], [1, 1]], mode)[:, :64]


def product(turned):
    return lambda h: pixels(tf.matmul(picture(h)[..., 0], picture(h)[..., 0], transpose_b=turned))


def branch(factor):
    return lambda h: tf.cond(tf.reduce_sum(h) > 0, lambda: h, lambda: factor * h)


def repeated(function, times=3):
    def body(i, x):
        return i + 1, function(x)

    return lambda h: tf.while_loop(lambda i, _: i < times, body, [0, h])[1]


def called(function):
    return lambda h: tf.function(lambda x: function(x), autograph=False)(h)


# What tells two networks of the same shapes apart: attributes, constants, functions.
UNLIKE = {
    "activation": (tf.nn.relu, tf.nn.tanh, tf.nn.elu, tf.nn.selu),
    "share": (lambda h: tf.nn.leaky_relu(h, 0.1), lambda h: tf.nn.leaky_relu(h, 0.2)),
    "constant": (lambda h: 2 * h - 1, lambda h: 3 * h - 1, lambda h: 2 * h - 0.5),
    "part": (lambda h: h * h[:, :1], lambda h: h * h[:, 0:1]),
    "axes": (
        lambda h: h - tf.reduce_mean(h, 1, keepdims=True),
        lambda h: h - tf.reduce_mean(h, 0, keepdims=True),
    ),
    "sum": (tf.cumsum, lambda h: tf.cumsum(h, reverse=True)),
    "precision": (cast(tf.float16), cast(tf.bfloat16), cast(tf.float64)),
    "resize": (resized(), resized(align_corners=True), resized(half_pixel_centers=True)),
    "padding": (padded("REFLECT"), padded("SYMMETRIC")),
    "product": (product(False), product(True)),
    "branch": (branch(2), branch(3)),
    "loop": (repeated(tf.tanh), repeated(tf.sin), repeated(tf.tanh, 4)),
    "function": (called(tf.tanh), called(tf.sin)),
    "map": (lambda h: tf.map_fn(tf.tanh, h), lambda h: tf.map_fn(tf.sin, h)),
    "order": (lambda h: h - tf.tanh(h), lambda h: tf.tanh(h) - h),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_networks_that_compute_something_else_are_told_apart(kind):
    generators = [lines_of(function) for function in UNLIKE[kind]]
    assert all(generators.count(each) == 1 for each in generators)
    assert generators[0] == lines_of(UNLIKE[kind][0])


def noise(h):
    return h + tf.random_normal([64])


def later_noise(h):
    """Its seed is another one: TensorFlow counts the graph's operations."""
    tf.constant(1)
    return h + tf.random_normal([64])


ALIKE = {
    "names": (tf.nn.relu, lambda h: tf.identity(tf.nn.relu(h, name="other"), name="same")),
    "twice": (
        lambda h: (lambda x: x * x)(tf.tanh(h)),
        lambda h: tf.tanh(h) * tf.tanh(h),
    ),
    "not used": (tf.tanh, lambda h: (tf.sin(h), tf.tanh(h))[1]),
    "gradient": (tf.tanh, tf.custom_gradient(lambda x: (tf.tanh(x), lambda d: d))),
    "default": (lambda h: tf.cumsum(h, 1), lambda h: tf.cumsum(h, 1, exclusive=False)),
    "seeds": (noise, later_noise),
    "python": (
        lambda h: tf.reshape(tf.py_func(np.tanh, [h], tf.float32), [-1, 64]),
        lambda h: tf.reshape(tf.py_func(np.tanh, [h], tf.float32), [-1, 64]),
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_networks_that_compute_the_same_are_alike(kind):
    first, second = map(lines_of, ALIKE[kind])
    assert first == second


def test_a_class_that_was_tidied_is_the_same():
    assert of(Gan) == of(Gan) == of(Tidied)


def test_the_lines_read_as_the_network_computes():
    assert of(Gan)["generator"] == [
        "z_placeholder",
        "variable generator/hidden/kernel [10, 64]",
        "MatMul T=DT_FLOAT %0 %1",
        "variable generator/hidden/bias [64]",
        "AddV2 T=DT_FLOAT %2 %3",
        "Relu T=DT_FLOAT %4",
        "variable generator/pixels/kernel [64, 784]",
        "MatMul T=DT_FLOAT %5 %6",
        "variable generator/pixels/bias [784]",
        "AddV2 T=DT_FLOAT %7 %8",
        "Sigmoid T=DT_FLOAT %9",
        "-> %10",
    ]


def test_a_network_sees_labels_whichever_placeholder_they_come_by():
    recipe = recipes.override(recipes.get("minimal"), conditional=True)
    with tf.Graph().as_default():
        gan = recipes.build_gan(recipe)
        gan.session.close()
        networks = fingerprint.of_gan(gan)
        gan.x_labels_placeholder = gan.labels_placeholder
        others = fingerprint.of_gan(gan)
    assert networks == others
    assert all("labels_placeholder" in lines for lines in networks.values())


OLD_BEHAVIOUR = """
    import tensorflow.compat.v1 as tf
    from test_fingerprint import branch, lines_of, repeated
    tf.disable_v2_behavior()
    makers = (repeated(tf.tanh), repeated(tf.sin), branch(2), branch(3))
    networks = list(map(lines_of, makers))
    assert all(networks.count(each) == 1 for each in networks)
    assert lines_of(repeated(tf.tanh)) == networks[0]
    assert any("NextIteration" in line for line in networks[0])
"""


@pytest.mark.slow
def test_loops_of_tensorflow_s_first_version_lead_back_and_come_to_an_end():
    words = [sys.executable, "-c", textwrap.dedent(OLD_BEHAVIOUR)]
    here = Path(__file__).parent
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_run_is_not_read_nor_gone_on_with_by_other_networks(tmp_path, monkeypatch):
    recipe = recipes.override(recipes.get("minimal"), num_steps=2, batch_size=4)
    data = Datasets(DataSet(PIXELS, LABELS), None, DataSet(PIXELS, LABELS))
    configuration = Configuration.of("minimal", recipe, 0, "step", "float32", data.train)
    folder = RunFolder(tmp_path / "run")

    def train(steps):
        longer = recipes.override(recipe, num_steps=steps)
        with folder.prepared(configuration, new=False, log=print):
            trainer.train(longer, data, folder, trainer.Settings(engine="step"))

    train(2)
    generation.load(folder.path).close()
    monkeypatch.setattr(recipes, "class_of", lambda recipe: Tanh)
    for use in (lambda: generation.load(folder.path), lambda: train(4)):
        with pytest.raises(UserError) as error:
            use()
        assert (
            "its generator computed something else when it was trained, in the same shapes: "
            "operation 5 was 'Relu T=DT_FLOAT %4' and is 'Tanh T=DT_FLOAT %4' now; bring"
        ) in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": "0"}', '{"generator": 3}', "[" * 10**5])
def test_what_is_no_description_is_refused(tmp_path, content):
    (tmp_path / "networks.json").write_text(content)
    with pytest.raises(UserError, match=r"networks\.json: not readable .*move it elsewhere to use"):
        RunFolder(tmp_path).check_networks({"generator": ["z"], "discriminator": ["x"]})


def test_a_description_outlives_a_file(tmp_path):
    folder, networks = RunFolder(tmp_path), of(Gan)
    folder.note_networks(networks)
    folder.check_networks(networks)
    assert json.loads((tmp_path / "networks.json").read_text()) == networks
