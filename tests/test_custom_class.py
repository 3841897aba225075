"""Custom classes: classes with the article's interface, written by strangers."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import assembled, generate, main, progress, trained
from small_sets import write_set

from models import custom_class, recipes
from models.passes import Shard
from support.errors import UserError
from training.updates import Updates

ARTICLE = Path(__file__).with_name("grading_examples").joinpath("correct.py").read_text()
INIT = """
def __init__(self, ndims=784, nlatent=2):
    super().__init__(ndims, nlatent)
"""


def small(**values):
    values = {"nlatent": 3, "batch_size": 4, **values}
    return recipes.override(recipes.get("minimal"), **values)


@pytest.fixture
def written(tmp_path):
    """A function that writes and loads `Mine`, a subclass of the article's class.

    body: of the class; before: text before all; changed: (old, new) in the article's class.
    """

    def write(body="", before="", changed=("", "")):
        path = tmp_path / "mine.py"
        body = textwrap.indent(textwrap.dedent(body), "    ") or "    pass\n"
        path.write_text(f"{before}{ARTICLE.replace(*changed)}\n\nclass Mine(Gan):\n{body}")
        return custom_class.load(f"{path}:Mine")

    return write


UPDATE = """
def _update(self, loss, scope):
    weights = {"generator": [self.g], "discriminator": [self.d]}[scope]
    return tf1.train.AdamOptimizer(self.learning_rate_placeholder).minimize(loss, var_list=weights)
"""
WAYS = {
    "as the article": {},
    "other scopes": {"changed": ('"generator"', '"gen"')},
    "raw variables": {
        "body": """
        def __init__(self, ndims=784, nlatent=2):
            self.g = tf.Variable(tf.random.normal([nlatent, ndims], stddev=0.1))
            self.d = tf.Variable(tf.random.normal([ndims, 1], stddev=0.1))
            super().__init__(ndims, nlatent)

        def _generator(self, z, reuse=False):
            return tf.sigmoid(tf.matmul(z, self.g))

        def _discriminator(self, x, reuse=False):
            return tf.matmul(x, self.d)
        """
        + textwrap.indent(UPDATE, "        ")
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_class_with_the_articles_interface_trains_with_both_engines(written, way):
    custom = written(**WAYS[way])
    fused = "fused" if way == "as the article" else "fused without XLA"
    additions = {"r1_gamma": 1.0, "penalty_every": 2, "ema_decay": 0.9, "beta1": 0.5}
    for engine, tricks in [("step", {}), (fused, additions)]:
        with assembled(small(**tricks), engine, gan_class=custom) as built:
            before = built.state()
            (*_, last) = progress(built, (0, 3))
            after = built.state()
            assert np.isfinite(last).all()
            names = [v.op.name for v in tf.trainable_variables()]
            assert len(names) >= 2
            for name in names:
                assert not np.array_equal(before[name], after[name]), name
            assert generate(built, np.zeros([2, 3])).shape == (2, 784)


PENALTY = """
def _discriminator_loss(self, y, y_hat):
    {lines}
    slope = tf.gradients(logits, points)[0]
    penalty = tf.reduce_mean((tf.norm(slope, axis=1) - 1) ** 2)
    return super()._discriminator_loss(y, y_hat) + 10 * penalty
"""
READING = {
    "WGAN-GP": PENALTY.format(
        lines="points = 0.3 * self.x_placeholder + 0.7 * self.x_hat\n"
        "    logits = self._discriminator(points, reuse=True)"
    ),
    "R1": PENALTY.format(lines="logits, points = y, self.x_placeholder"),
    "feature matching": """
    def _generator_loss(self, y_hat):
        real, generated = (tf.reduce_mean(self._discriminator(x, reuse=True))
                           for x in (self.x_placeholder, self.x_hat))
        return (real - generated) ** 2 + 1e-3 * tf.reduce_mean(self.z_placeholder ** 2)
    """,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "R1" else pytest.mark.slow) for name in READING],
)
def test_losses_may_read_the_batch(written, name):
    """Our updates do what the class's own train ops do."""
    custom, recipe = written(READING[name]), small(batch_size=6)
    own, weights = trained(recipe, 3, gan_class=custom)
    ours, fused_weights = trained(recipe, 3, "fused without XLA", gan_class=custom)
    np.testing.assert_allclose(ours, own, rtol=1e-4)
    for key in ("generator/pixels/weights", "discriminator/logit/weights"):
        np.testing.assert_allclose(fused_weights[key], weights[key], atol=1e-4)


@pytest.mark.parametrize("name", READING)
def test_losses_that_read_the_batch_learn_from_shards(written, name):
    with tf.Graph().as_default():
        gan = recipes.build_gan(small(), written(READING[name]))
        Updates(gan, small(), 0, Shard(0, 2))
        gan.session.close()


NOT_FINITE = {
    "d_loss is nan, g_loss nan; .* logarithm": """
        def _discriminator(self, x, reuse=False):
            return super()._discriminator(x - tf.math.log(-1.0), reuse)
        """,
    "step 2: d_loss is nan, g_loss nan; .* logarithm": """
        def _generator_loss(self, y_hat):
            return super()._generator_loss(y_hat) + tf.reduce_mean(tf.sqrt(0 * y_hat ** 2))
        """,
}


@pytest.mark.parametrize("message", NOT_FINITE)
def test_values_that_are_not_finite_at_once_are_named(written, tmp_path, message):
    written(NOT_FINITE[message])
    flags = ["--num_steps=2", "--noevents", f"--run_dir={tmp_path / 'run'}"]
    flags += [f"--gan={tmp_path}/mine.py:Mine", f"--data_dir={write_set(tmp_path / 'data')}"]
    code, printed, errors = main(*flags)
    assert "Note: the train ops of Mine run. --engine=fused trains most classes" in printed
    assert code == 1 and re.search(message, errors) and "--learning_rate" not in errors


def test_fused_engine_notes_that_it_replaces_the_train_ops(written):
    lines = []
    with assembled(small(), "fused", gan_class=written(), log=lines.append):
        pass
    assert any("--engine=step keeps them" in line for line in lines)


def test_updates_in_the_graphs_collection_are_run(written):
    """Batch normalisation of 2018 collects the steps of its moving averages there."""
    custom = written(
        """
        def _generator(self, z, reuse=False):
            with tf1.variable_scope("generator", reuse=reuse):
                mean = tf1.get_variable("mean", initializer=tf.zeros([3]), trainable=False)
                step = tf1.assign_add(mean, tf.ones([3]))
                tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, step)
            return super()._generator(z, reuse)
        """
    )
    recipe = small(d_iters=2, g_iters=3)
    _, state = trained(recipe, 4, "fused without XLA", gan_class=custom)
    passes_through_g = 4 * (2 + 3)
    np.testing.assert_array_equal(state["generator/mean"], np.full(3, passes_through_g))


def test_class_imports_its_neighbours_and_not_those_of_another(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.py").write_text(
            "from __future__ import annotations\nimport dataclasses\nfrom helper import NAME\n\n\n"
            "@dataclasses.dataclass\nclass Mine:\n    name: str = NAME\n"
        )
        (folder / "helper.py").write_text(f"NAME = {name!r}\n")
        assert custom_class.load(f"{folder / 'mine.py'}:Mine")().name == name


# Classes that only their own train ops can train, or only ours.

STORED = """
def _discriminator(self, x, reuse=False):
    self.last = super()._discriminator(x, reuse)
    return self.last if reuse else self.last + 0 * x[:, :1]

def __init__(self, ndims=784, nlatent=2):
    super().__init__(ndims, nlatent)
    self.kept = self.last

def _generator_loss(self, y_hat):
    return tf.reduce_mean(tf.nn.softplus(-y_hat)) + tf.reduce_mean(getattr(self, "kept", 0.0))
"""
STEP_ONLY = {
    r"in _generator: Mine\._generator creates another variable, gen": """
        def _generator(self, z, reuse=False):
            with tf1.variable_scope("generator", reuse=reuse):
                return tf.sigmoid(tf.matmul(z, tf.Variable(tf.random.normal([3, 784]))))
        """,
    "generator/Variable must be a resource variable, .* --engine=step": """
        def __init__(self, ndims=784, nlatent=2):
            with tf1.variable_scope("generator"):
                initial = tf.random.normal([nlatent, ndims])
                self.g = tf1.Variable(initial, use_resource=False)
            super().__init__(ndims, nlatent)

        def _generator(self, z, reuse=False):
            return tf.sigmoid(tf.matmul(z, self.g))
        """,
    r"mine.py, line \d+, in __init__: .*You must feed a value .* --engine=step": STORED,
    r"_generator_loss: Mine._generator_loss must return .* scalar, .* got \(None, 1\)": """
        def _generator_loss(self, y_hat):
            return tf.nn.softplus(-y_hat)

        def _update(self, loss, scope):
            self.g_loss = tf.reduce_mean(self.g_loss)
            return super()._update(tf.reduce_mean(loss), scope)
        """,
}


@pytest.mark.parametrize("words", STEP_ONLY)
def test_class_that_only_the_step_engine_can_train(written, words):
    custom = written(STEP_ONLY[words])
    (*_, last), _ = trained(small(), 2, gan_class=custom)
    assert np.isfinite(last).all()
    with pytest.raises(UserError, match=words) as error, custom_class.user_errors():
        trained(small(), 1, "fused", gan_class=custom)
    assert "\n" not in str(error.value)


OUTSIDE = """
def _generator(self, z, reuse=False):
    return super()._generator(z, reuse) * tf1.sigmoid(tf.Variable(1.0))
"""


@pytest.mark.parametrize("body", ["", STORED, OUTSIDE], ids=["plain", "stored", "outside"])
def test_variables_that_no_train_op_changes_are_named(written, body):
    lines = []
    with assembled(small(), gan_class=written(body), log=lines.append):
        pass
    named = "in _generator: the train ops of Mine never change Variable, which its networks use"
    assert any(named in line for line in lines) == (body == OUTSIDE)


def test_layers_that_differ_in_training_need_the_fused_engine(written):
    custom = written(
        """
        def _discriminator(self, x, reuse=False):
            with tf1.variable_scope("discriminator", reuse=reuse):
                return layers.dense(layers.dropout(x, 0.5), 1, name="logit")
        """,
        before="from models import layers\n",
    )
    with pytest.raises(UserError, match=r"Mine has layers that differ .* --engine=fused"):
        trained(small(), 1, gan_class=custom)


# Errors in one line.

UNFED = """
def _discriminator(self, x, reuse=False):
    keep = tf1.placeholder(tf.float32, [], name='keep_prob')
    return super()._discriminator(x * keep, reuse)
"""
TUPLE = """
    D = self._discriminator
    self._discriminator = lambda x, reuse=False: (D(x, True),)
"""
GENERATOR = "def _generator(self, z, reuse=False):\n    "
INCOMPATIBLE = [
    (INIT + "    del self.g_loss", r"in __init__: Mine\.g_loss must be .* got nothing; set it"),
    (INIT + "    del self.session", "Mine.session must be open and its variables initialised"),
    (INIT + TUPLE, r"Mine._discriminator must return one tensor, logits \[b.*, got tuple"),
    (INIT + "    self._generator_loss = None", r"Mine\._generator_loss is missing: write it"),
    (INIT.replace("nlatent)\n", "7)\n"), r"z_placeholder must be .* \(None, 3\), got float32 .*7"),
    (INIT.replace("    super", "    with tf.Graph().as_default(): super"), "is in another graph"),
    ("def __init__(self):\n    super().__init__()",
     "in __init__: class Mine: .*'ndims' .write it as `def __in"),
    ("def _generator_loss(self, y_hat):\n    pass", "a network return nothing"),
    (GENERATOR + "with tf1.variable_scope('gen', reuse=reuse):\n"
     "        return tf.sigmoid(dense(z, 784, 'pixels'))", "no variable is in the scope that"),
    (GENERATOR + "raise KeyError('my own\\nmistake')", r"mine.py, line \d+, in _generator: KeyErr"),
    (GENERATOR + "return 2 * super()._generator(z, reuse) - 1",
     r"in _generator: Mine.x_hat must be in \[0, 1\], got values from -0.\d+ to 0.\d+: end"),
    ("def _generator(self, z):\n    return super()._generator(z)",
     r"Mine._generator: got an unexpected .* 'reuse'; write it as def _generator\(self, z, reuse"),
    ("def _discriminator_loss(self, y, y_hat):\n    return y + y_hat",
     r"_discriminator_loss: Mine.d_loss must .* shape .., got .*None, 1.: .* mean over the batch"),
    (UNFED, r"mine.py, line \d+, in _discriminator: Mine needs a value for the placeholder keep_"),
    (GENERATOR + "return tf.math.log(super()._generator(z, reuse) - 2)",
     "got values from nan to nan: look for a logarithm"),
]  # fmt: skip


@pytest.mark.parametrize("body, words", INCOMPATIBLE, ids=range(len(INCOMPATIBLE)))
def test_incompatible_class_is_rejected_in_one_line(written, body, words):
    custom = written(body)
    with pytest.raises(UserError, match=words) as error, custom_class.user_errors():
        trained(small(), 1, gan_class=custom)
    assert "\n" not in str(error.value)


def test_images_that_leave_the_unit_interval_are_rejected(written):
    """The check before the training sees only those of the first weights."""
    custom = written(
        """
        def _generator(self, z, reuse=False):
            with tf1.variable_scope("generator", reuse=reuse):
                zeros = tf1.get_variable("zeros", [3, 784], initializer=tf1.zeros_initializer())
            return 0.5 + z @ zeros
        """
    )
    message = r"x_hat must be in \[0, 1\], got values from -\d.* to \d.*; end _generator with"
    with assembled(small(), gan_class=custom) as engine:
        progress(engine, (0, 2))
        with pytest.raises(UserError, match=message):
            generate(engine, np.full([2, 3], 1e6))


IMPORTS = {
    "import tensorflow.contrib\n": "line 1: .*only a file of TensorFlow 1.*docs/porting.md",
    "import tensorflow as tf\ntf.placeholder\n": "line 2: .*import tensorflow.compat.v1 as tf",
    "from tensorflow import placeholder\n": "import tensorflow.compat.v1 as tf",
    "import tensorflow.compat.v1 as tf\ntf.examples\n": "only a file of TensorFlow 1",
    "import layers_of_mine\n": "No module named 'layers_of_mine'$",
    "def broken(:\n": "mine.py, line 1: SyntaxError",
    "raise SystemExit(3)\n": "line 1: SystemExit: 3 .*__main__",
}


@pytest.mark.parametrize("before", IMPORTS)
def test_file_that_cannot_be_imported_is_rejected_in_one_line(written, before):
    with pytest.raises(UserError, match=IMPORTS[before]):
        written(before=before)


def test_class_that_the_file_does_not_have_is_rejected(written, tmp_path):
    written()
    words = r"--gan must name a class of .*mine.py \(Gan, Mine\), got Other"
    with pytest.raises(UserError, match=words):
        custom_class.load(f"{tmp_path}/mine.py:Other")
