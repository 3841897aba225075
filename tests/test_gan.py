"""The contract of `Gan`: article 003's names and values."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import changed, python, trained, update

import training
from models import recipes
from models.gan import Gan

NLATENT = 10
NETWORKS = ("generator", "discriminator")


def variables(gan):
    """Returns {name: variable} of its graph."""
    return {v.op.name: v for v in gan.x_hat.graph.get_collection("variables")}


def weights_of(network, state):
    """Returns the names of the network's kernels and biases."""
    return {
        name for name in state if name.startswith(network) and name.endswith(("kernel", "bias"))
    }


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default():
        yield


def test_samples_of_any_number_of_latents_of_one_shape():
    gan = Gan(nlatent=NLATENT)
    assert isinstance(gan.session, tf.InteractiveSession)
    assert gan.generate_samples(np.zeros([0, NLATENT])).shape == (0, 784)
    for shape in [(), (NLATENT,), (3, NLATENT - 1), (2, 3, NLATENT)]:
        with pytest.raises(ValueError) as error:
            gan.generate_samples(np.zeros(shape))
        assert str(error.value) == f"latents must have shape (n, {NLATENT}), got {shape}"
    gan.session.close()


@pytest.mark.parametrize("build, argument", [(Gan, 784), (training.build, "minimal")])
def test_two_gans_in_one_graph(build, argument):
    rng = np.random.default_rng(0)
    images = rng.random((8, 784))
    latents = rng.uniform(-1, 1, (8, 2 if build is Gan else NLATENT))
    first = build(argument)
    mine = variables(first)
    before = first.session.run(mine)
    second = build(argument)
    assert changed(before, first.session.run(mine)) == set()
    others = {name: v for name, v in variables(second).items() if name not in mine}
    for gan, own, suffix in [(first, mine, ""), (second, others, "_1")]:
        engine = SimpleNamespace(gan=gan, session=gan.session)
        for network in NETWORKS:
            before = gan.session.run(own)
            update(engine, network, images, latents)
            weights = weights_of(f"{network}{suffix}/", before)
            assert weights and weights <= changed(before, gan.session.run(own))
    second.session.close()
    first.session.close()


def check_both_engines():
    recipe = recipes.get("minimal")
    step, fused = (trained(recipe, 3, engine)[0] for engine in ("step", "fused"))
    np.testing.assert_allclose(step, fused, rtol=1e-4)


@pytest.mark.slow
def test_both_engines_train_without_the_behaviour_of_version_2():
    code = "import tensorflow.compat.v1 as tf; tf.disable_v2_behavior()\n"
    code += "import conftest, test_gan; test_gan.check_both_engines()"
    python("-c", code, cwd=Path(__file__).parent)
