"""A class of one's own in the place of a recipe's: as a stranger who knows the article wrote it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from assembly import assembled, frozen, progress, trained
from test_resume import write_data

import input_data
from models import custom_class, hyperparameters, recipes
from support.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
import tensorflow.compat.v1 as tf


def dense(x, units, name):
    with tf.variable_scope(name):
        w = tf.get_variable("w", [x.shape[1], units])
        b = tf.get_variable("b", [units], initializer=tf.zeros_initializer())
        return tf.matmul(x, w) + b


class Gan(object):
    LATENTS = tf.float32

    def __init__(self, ndims=784, nlatent=2):
        self._ndims = ndims
        self._nlatent = nlatent
        self._prepare()
        self.x_placeholder = tf.placeholder(tf.float32, [None, ndims])
        self.z_placeholder = tf.placeholder(self.LATENTS, [None, nlatent])
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)
        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)
        self.learning_rate_placeholder = tf.placeholder(tf.float32)
        d_var = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, "discriminator")
        self.d_optimizer = self._optimizer().minimize(self.d_loss, var_list=d_var)
        g_var = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, "generator")
        self.g_optimizer = self._optimizer().minimize(self.g_loss, var_list=g_var)
        self.session = tf.InteractiveSession()
        self.session.run(tf.global_variables_initializer())

    def _prepare(self):
        pass

    def _optimizer(self):
        return tf.train.AdamOptimizer(self.learning_rate_placeholder)

    def _generator(self, z, reuse=False):
        with tf.variable_scope("generator", reuse=reuse):
            return tf.nn.sigmoid(dense(tf.nn.relu(dense(z, 16, "one")), self._ndims, "two"))

    def _discriminator(self, x, reuse=False):
        with tf.variable_scope("discriminator", reuse=reuse):
            return dense(tf.nn.relu(dense(x, 16, "one")), 1, "two")

    def _discriminator_loss(self, y, y_hat):
        ones, zeros = tf.ones_like(y), tf.zeros_like(y_hat)
        return tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=ones, logits=y)
            + tf.nn.sigmoid_cross_entropy_with_logits(labels=zeros, logits=y_hat)
        )

    def _generator_loss(self, y_hat):
        ones = tf.ones_like(y_hat)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=ones, logits=y_hat))

    def generate_samples(self, z_np):
        return self.x_hat.eval(session=self.session, feed_dict={self.z_placeholder: z_np})


class Mine(Gan):
    pass
"""
WAYS = {
    "as the article": "",
    "raw variables": """
        def _prepare(self):
            with tf.variable_scope("generator"):
                self.g = tf.Variable(tf.random_normal([self._nlatent, self._ndims], stddev=0.1))
            with tf.variable_scope("discriminator"):
                self.d = tf.Variable(tf.random_normal([self._ndims, 1], stddev=0.1))

        def _generator(self, z, reuse=False):
            return tf.nn.sigmoid(tf.matmul(z, self.g))

        def _discriminator(self, x, reuse=False):
            return tf.matmul(x, self.d)
        """,
    "scope objects": """
        def _prepare(self):
            with tf.variable_scope("generator") as self.scope:
                pass

        def _generator(self, z, reuse=False):
            with tf.variable_scope(self.scope, reuse=reuse):
                return tf.nn.sigmoid(dense(z, self._ndims, "pixels"))
        """,
    "tf.AUTO_REUSE": """
        def _generator(self, z, reuse=False):
            with tf.variable_scope("generator", reuse=tf.AUTO_REUSE):
                return tf.nn.sigmoid(dense(z, self._ndims, "pixels"))
        """,
    "latents in double precision": """
        LATENTS = tf.float64

        def _generator(self, z, reuse=False):
            return super()._generator(tf.cast(z, tf.float32), reuse)
        """,
    "RMSProp": """
        def _optimizer(self):
            return tf.train.RMSPropOptimizer(self.learning_rate_placeholder)
        """,
}


def small(**values):
    values = {"nlatent": 3, "batch_size": 4, **values}
    return recipes.override(recipes.get("minimal"), **values)


@pytest.fixture
def written(tmp_path):
    """A function: body of the class `Mine` and text before all -> its CustomClass."""

    def write(body="", before="", head=HEAD):
        path = tmp_path / "mine.py"
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        path.write_text(before + head + indented)
        return custom_class.load(f"{path}:Mine")

    return write


@pytest.mark.parametrize("way", WAYS)
def test_a_class_of_the_articles_shape_trains_at_both_engines(written, way):
    own = written(WAYS[way])
    for engine, tricks in [
        ("step", {}),
        ("fused", {"r1_gamma": 1.0, "penalty_every": 2, "ema_decay": 0.9, "beta1": 0.5}),
    ]:
        with assembled(small(**tricks), engine, gan_class=own.gan_class) as engine:
            before = engine.state()
            (*_, last) = progress(model, built, (0, 3))
            after = engine.state()
            assert np.isfinite(last).all()
            for network in ("generator", "discriminator"):
                names = [v.op.name for v in tf.trainable_variables(f"{network}/")]
                kernels = [name for name in names if before[name].ndim == 2]
                assert kernels
                for name in kernels:
                    assert not np.array_equal(before[name], after[name]), name
            images = generate(engine, np.zeros([2, 3]))
            assert images.shape == (2, 784)


def test_tensorflow_s_first_version_may_be_taken_from_its_second(written):
    head = HEAD.replace("tensorflow.compat.v1 as tf", "tensorflow as tf\ntf = tf.compat.v1", 1)
    own = written(head=head)
    assert (
        trained(small(), 2, gan_class=own.gan_class)[0]
        == (trained(small(), 2, gan_class=written().gan_class)[0])
    )


def test_the_step_engine_runs_the_classs_own_train_ops(written):
    """By gradient descent at a known rate, which no Adam does."""
    own = written(
        """
        def _optimizer(self):
            return tf.train.GradientDescentOptimizer(self.learning_rate_placeholder)
        """
    )
    recipe = small(learning_rate=0.5)
    with assembled(recipe, gan_class=own.gan_class) as engine:
        before, block = engine.state(), engine._batches.block(0, 1)
        gan = engine.gan
        variables = tf.trainable_variables("discriminator/")
        feed = {
            gan.x_placeholder: block.images[0, 0] / 255,
            gan.z_placeholder: block.d_latents[0, 0],
        }
        gradients = engine.session.run(tf.gradients(gan.d_loss, variables), feed)
        progress(engine, (0, 1))
        after = engine.state()
    for variable, gradient in zip(variables, gradients, strict=True):
        name = variable.op.name
        np.testing.assert_allclose(after[name], before[name] - 0.5 * gradient, atol=1e-6)


DRAWS = {
    "tf.nn.dropout(x, rate=0.5)": "RandomUniform",
    "tf.cond(x[0, 0] >= 0, lambda: tf.nn.dropout(x, rate=0.5), lambda: x)": "RandomUniform",
    "tf.map_fn(lambda row: row + tf.random.normal([]), x)": "RandomStandardNormal",
    "tf.function(lambda: tf.random.normal([]))() + x": "RandomStandardNormal",
    "x + tf.random.poisson(3.0, [])": "RandomPoissonV2",
    "x + tf.random.stateless_normal([], [1, 2])": None,
    "x": None,  # its weights' initial values alone are random
}


@pytest.mark.parametrize("expression, wanted", DRAWS.items(), ids=DRAWS)
def test_random_numbers_that_no_checkpoint_holds_are_told(written, expression, wanted):
    own = written(
        f"""
        def _discriminator(self, x, reuse=False):
            return super()._discriminator({expression}, reuse)
        """
    )
    with tf.Graph().as_default():
        gan = recipes.build_gan(small(), own.gan_class)
        names = custom_class.random_ops(gan)
        gan.session.close()
    assert bool(names) == bool(wanted)
    assert all(wanted in name for name in names)


def test_a_run_of_ones_own_class_follows_from_the_seed(written):
    own = written()
    first, again, other = (
        trained(small(), 3, gan_class=own.gan_class, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_updates_that_a_network_leaves_to_its_trainer_are_run(written):
    """As batch norm of 2018 leaves the step of its moving averages."""
    own = written(
        """
        def _generator(self, z, reuse=False):
            with tf.variable_scope("generator", reuse=reuse):
                mean = tf.get_variable("mean", initializer=tf.zeros([3]), trainable=False)
                step = tf.assign_add(mean, tf.ones([3]))
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, step)
            return super()._generator(z, reuse)
        """
    )
    _, state = trained(small(d_iters=2, g_iters=3), 4, "fused", gan_class=own.gan_class)
    passes_through_g = 4 * (2 + 3)
    np.testing.assert_array_equal(state["generator/mean"], np.full(3, passes_through_g))


def test_a_generator_that_makes_new_variables_trains_by_its_own_train_ops_alone(written):
    own = written(
        """
        def _generator(self, z, reuse=False):
            with tf.variable_scope("generator", reuse=reuse):
                return tf.nn.sigmoid(tf.matmul(z, tf.Variable(tf.random_normal([3, 784]))))
        """
    )
    (*_, last), _ = trained(small(), 2, gan_class=own.gan_class)
    assert np.isfinite(last).all()
    with pytest.raises(UserError, match=r"Mine\._generator creates another variable, gen"):
        trained(small(), 1, "fused", gan_class=own.gan_class)


def test_files_of_classes_import_each_other_and_no_other_class_s(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.py").write_text(
            "from __future__ import annotations\nimport dataclasses\nfrom helper import NAME\n\n\n"
            "@dataclasses.dataclass\nclass Mine:\n    name: str = NAME\n"
        )
        (folder / "helper.py").write_text(f"import mine\nNAME = {name!r}\n")
        assert custom_class.load(f"{folder / 'mine.py'}:Mine").gan_class().name == name


def test_the_programs_own_modules_are_not_forgotten(tmp_path):
    for folder in (ROOT, tmp_path):
        custom_class._let_import_from(str(folder))
    assert sys.modules["input_data"] is input_data


def test_a_class_that_no_statement_made_trains(written):
    start, _ = HEAD.split("class Mine(Gan):")
    own = written(head=f"{start}Mine = type('Mine', (Gan,), {{}})\n")
    (last,), _ = trained(small(), 1, gan_class=own.gan_class)
    assert np.isfinite(last).all()


def test_a_variable_that_no_checkpoint_can_name_is_told_before_training(written):
    own = written(
        """
        def _prepare(self):
            tf.Variable(0, name="step", trainable=False)

        def _generator(self, z, reuse=False):
            step = next(v for v in tf.global_variables() if v.op.name == "step")
            return super()._generator(z, reuse) + 0 * tf.cast(step, tf.float32)
        """
    )
    with pytest.raises(UserError, match="the variable step: no checkpoint can hold that name"):
        trained(small(), 1, gan_class=own.gan_class)


def test_layers_that_differ_in_training_are_not_for_a_class_s_own_train_ops(written):
    own = written(
        """
        def _discriminator(self, x, reuse=False):
            with tf.variable_scope("discriminator", reuse=reuse):
                return layers.dense(layers.dropout(x, 0.5), 1, name="logit")
        """,
        before="from models import layers\n",
    )
    with pytest.raises(
        UserError, match=r"Mine has layers that differ in training.* --engine=fused"
    ):
        trained(small(), 1, gan_class=own.gan_class)
    (*_, last), _ = trained(small(), 2, "fused", gan_class=own.gan_class)
    assert np.isfinite(last).all()


@pytest.mark.parametrize("engine", ["step", pytest.param("fused", marks=pytest.mark.slow)])
def test_a_run_of_ones_own_class_goes_on_in_the_same_bytes(written, engine):
    own, recipe = written(), small(ema_decay=0.9, r1_gamma=1.0)
    rows, state = trained(recipe, 4, engine, gan_class=own.gan_class)
    first, halfway = trained(recipe, 2, engine, gan_class=own.gan_class)
    with assembled(recipe, engine, gan_class=own.gan_class) as engine:
        engine.load(halfway)
        assert first + progress(model, built, (2, 4)) == rows
        assert frozen(engine.state()) == frozen(state)


REFERENCES = """
    def _prepare(self):
        with tf.variable_scope("generator"):
            initial = tf.random_normal([self._nlatent, self._ndims])
            self.g = tf.Variable(initial, use_resource=False)

    def _generator(self, z, reuse=False):
        return tf.nn.sigmoid(tf.matmul(z, self.g))
    """


def test_reference_variables_train_one_step_at_a_time_alone(written):
    own = written(REFERENCES)
    (*_, last), state = trained(small(), 2, gan_class=own.gan_class)
    assert np.isfinite(last).all() and "generator/Variable" in state
    with pytest.raises(UserError, match="generator/Variable is a reference variable, wanted a r"):
        trained(small(), 2, "fused", gan_class=own.gan_class)


def test_what_xla_cannot_compile_is_told_by_name(written):
    own = written(
        """
        def _discriminator(self, x, reuse=False):
            return super()._discriminator(x + tf.random.poisson(3.0, []), reuse)
        """
    )
    with pytest.raises(UserError, match=r"compile the operation RandomPoissonV2; .* --engine=step"):
        trained(small(), 1, "fused", gan_class=own.gan_class)


MISSING = [
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, nlatent)\n"
     "    del self.g_loss", "Mine has no g_loss: set self.g_loss in __init__"),
    ("_generator_loss = None", "line .*, in __init__: TypeError: 'NoneType'"),
    ("def _generator(self, z, reuse=False):\n    with tf.variable_scope('gen', reuse=reuse):\n"
     "        return tf.nn.sigmoid(dense(z, self._ndims, 'pixels'))",
     "No variables to optimize|makes no trainable variable under the scope 'generator'"),
    ("def _discriminator_loss(self, y, y_hat):\n    return y + y_hat",
     r"Mine.d_loss must be a scalar, got shape .*; take the mean over the batch in "
     "_discriminator_loss"),
    ("def _generator(self, z, reuse=False):\n    raise KeyError('my own mistake')",
     r"mine.py, line \d+, in _generator: KeyError: 'my own mistake'"),
    ("def _generator(self, z, reuse=False):\n    return tf.layers.dense(z, 784)",
     r"tf.layers was removed: write dense layers with tf.get_variable and tf.matmul; see docs/port"),
    ("def __init__(self):\n    Gan.__init__(self)",
     r"mine.py, line \d+, class Mine: __init__ is called with ndims and nlatent, got an "),
    ("def _generator(self, z):\n    return Gan._generator(self, z)",
     r"Mine._generator: got an unexpected keyword argument 'reuse'; write it as def _generator\("),
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, nlatent)\n"
     "    self.d_optimizer = 'adam'", "Mine.d_optimizer must be the discriminator's train op, got a str"),
    ("def __init__(self, ndims=784, nlatent=2):\n    with tf.Graph().as_default():\n"
     "        Gan.__init__(self, ndims, nlatent)", "x_placeholder is in another graph"),
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, 7)",
     r"Mine.z_placeholder must have shape \(None, 3\), got \(.*, 7\)"),
    ("def _prepare(self):\n    self.keep = tf.placeholder(tf.float32, [], name='keep_prob')\n"
     "def _discriminator(self, x, reuse=False):\n"
     "    return Gan._discriminator(self, x * self.keep, reuse)",
     "Mine needs a value for the placeholder keep_prob, which no step feeds"),
    ("def _generator(self, z, reuse=False):\n    return 2 * Gan._generator(self, z, reuse) - 1",
     r"Mine.x_hat must be in \[0, 1\], got values from -0.\d+ to 0.\d+"),
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, nlatent)\n"
     "    self.session.close()", "Mine.session must be open and its variables initialised"),
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, nlatent)\n"
     "    self.session = tf.InteractiveSession()", "Mine.session must be open and its variables initialised"),
    ("def __init__(self, ndims=784, nlatent=2):\n    Gan.__init__(self, ndims, nlatent)\n"
     "    D = self._discriminator\n    self._discriminator = lambda x, reuse=False: (D(x, True),)",
     "Mine._discriminator must return one tensor, logits .*, got a tuple"),
]  # fmt: skip


@pytest.mark.parametrize("body, words", MISSING, ids=range(len(MISSING)))
def test_what_a_class_lacks_is_told_in_one_line(written, body, words):
    own = written(body)
    with pytest.raises(UserError, match=words) as error, custom_class.user_errors(own.path):
        trained(small(), 1, gan_class=own.gan_class)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "before, words",
    [
        (
            "import tensorflow.contrib\n",
            "line 1: .*tf.contrib and tensorflow.examples were removed",
        ),
        (
            "import tensorflow as tf\ntf.placeholder\n",
            "line 2: .*import tensorflow.compat.v1 as tf",
        ),
        ("import tensorflow as tf\ntf.train.AdamOptimizer\n", "import tensorflow.compat.v1 as tf"),
        ("import tensorflow as tf\ntf.layers\n", "tf.layers was removed"),
        ("import tensorflow as tf\ntf.losses.log_loss\n", "import tensorflow.compat.v1 as tf"),
        ("from tensorflow import placeholder\n", "import tensorflow.compat.v1 as tf"),
        ("from tensorflow import contrib\n", "tf.contrib and tensorflow.examples were removed"),
        ("import tensorflow.compat.v1 as tf\ntf.examples\n", "tensorflow.examples were removed"),
        ("import layers_of_mine\n", "No module named 'layers_of_mine'$"),
        ("{}['layers']\n", "KeyError: 'layers'$"),
        ("def broken(:\n", "mine.py, line 1: SyntaxError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_in_one_line(written, before, words):
    with pytest.raises(UserError, match=words):
        written(before=before)


@pytest.mark.parametrize(
    "spec, words",
    [
        ("mine.py", "--gan must be FILE.py:CLASS"),
        ("", "--gan must be FILE.py:CLASS"),
        ("no/such/file.py:Gan", "cannot read no/such/file.py"),
    ],
)
def test_a_wrong_name_is_told(spec, words):
    with pytest.raises(UserError, match=words):
        custom_class.load(spec)


def test_a_class_that_is_not_there_is_told_with_those_that_are(written, tmp_path):
    written()
    with pytest.raises(UserError, match="has no class Other, but Gan, Mine"):
        custom_class.load(f"{tmp_path / 'mine.py'}:Other")


def run(*flags, cwd):
    command = [sys.executable, ROOT / "main.py", *flags]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.slow
def test_a_file_of_2018_in_all_modes(tmp_path):
    """Real processes; the file turns version 2's behaviour off."""
    path = tmp_path / "mine.py"
    path.write_text(HEAD.replace("as tf\n", "as tf\ntf.disable_v2_behavior()\n", 1))
    data = f"--data_dir={write_data(tmp_path / 'data')}"
    for engine in ("step", "fused"):
        flags = ["--gan=mine.py:Gan", "--num_steps=3", f"--engine={engine}", data, "--noevents"]
        done = run(*flags, f"--run_dir={engine}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "step" / "config.json").read_text())
    assert config["gan"] == "mine.py:Gan" and len(config["gan_sha256"]) == 64
    own = ["--run_dir=fused", "--gan=mine.py:Gan"]
    for flags in (
        ["--mode=sample", "--out=x.npz", *own],
        ["--mode=export", "--out=out", *own],
        ["--mode=explore", "--out=x.html", *own],
    ):
        done = run(*flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    without = run("--mode=sample", "--run_dir=fused", cwd=tmp_path)
    assert without.returncode == 1
    assert "add --gan=mine.py:Gan (no code is loaded from a run folder)" in without.stderr
    path.write_text(path.read_text() + "\n# changed\n")
    changed = run("--mode=sample", *own, cwd=tmp_path)
    assert changed.returncode == 1 and "the file's SHA-256 differs" in changed.stderr
    for flags in (["--mode=sample"], ["--num_steps=9", "--engine=fused", data]):
        other = run(*flags, "--run_dir=fused", "--gan=mine.py:Mine", cwd=tmp_path)
        assert other.returncode == 1 and "class" in other.stderr and "Mine" in other.stderr
    refused = run("--gan=mine.py:Gan", "--r1_gamma=1", "--run_dir=x", data, cwd=tmp_path)
    assert refused.returncode == 1 and "--r1_gamma has no effect" in refused.stderr
