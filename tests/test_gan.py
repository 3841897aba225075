"""The contract of `Gan`: article 003's names and values."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import twin
from assembly import changed, python, trained, update

import training
from models import recipes
from models.gan import Gan

HERE = Path(__file__).parent
NLATENT = 10
PLAIN = recipes.get("minimal")
NETWORKS = ("generator", "discriminator")


def random_batch(nlatent=NLATENT, count=8):
    """Returns images [count, 784] and latents [count, nlatent]."""
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, (count, nlatent)).astype(np.float32)
    return rng.random((count, 784), np.float32), z


def variables(gan):
    """Returns {name: variable} of its graph."""
    return {v.op.name: v for v in gan.x_hat.graph.get_collection("variables")}


def state(gan):
    return gan.session.run(variables(gan))


def weights_of(network, state):
    """Returns the names of the network's kernels and biases."""
    return {
        name for name in state if name.startswith(network) and name.endswith(("kernel", "bias"))
    }


@contextlib.contextmanager
def fresh(cls=Gan, *args, **options):
    """Context manager for a Gan in its own graph, which is the default one."""
    with tf.Graph().as_default():
        tf.set_random_seed(7)
        model = cls(*args, **options)
        yield model
        model.session.close()


@pytest.fixture
def model():
    with fresh(nlatent=NLATENT) as model:
        yield model


# Samples.


@pytest.mark.parametrize("count", [0, 1, 5])
def test_samples(model, count):
    _, z = random_batch(count=count)
    assert isinstance(model.session, tf.InteractiveSession)
    samples = model.generate_samples(z)
    assert (samples.shape, samples.dtype) == ((count, 784), np.float32)
    assert ((samples >= 0) & (samples <= 1)).all()
    np.testing.assert_allclose(samples, twin.generate(twin.doubles(state(model)), z), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (NLATENT,), (3, NLATENT - 1), (2, 3, NLATENT)])
def test_latents_of_another_shape_are_rejected(model, shape):
    with pytest.raises(ValueError) as error:
        model.generate_samples(np.zeros(shape))
    assert str(error.value) == f"latents must have shape (n, {NLATENT}), got {shape}"


# Neighbours.


@pytest.mark.parametrize("build, argument", [(Gan, 784), (training.build, "minimal")])
def test_two_gans_in_one_graph(build, argument):
    images, latents = random_batch(nlatent=2 if build is Gan else NLATENT)
    with fresh(build, argument) as first:
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


def check_both_engines():
    step, fused = (trained(PLAIN, 3, engine)[0] for engine in ("step", "fused"))
    np.testing.assert_allclose(step, fused, rtol=1e-4)


@pytest.mark.slow
def test_both_engines_train_without_the_behaviour_of_version_2():
    code = "import tensorflow.compat.v1 as tf; tf.disable_v2_behavior()\n"
    code += "import conftest, test_gan; test_gan.check_both_engines()"
    python("-c", code, cwd=HERE)
