"""Old programs, unmodified, each in a process of `python tf1.py`."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from assembly import python

import tf1
from support.errors import UserError

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "tests" / "old_programs"
CLASSES = ROOT / "tests" / "grading_examples" / "old_classes.py"
RNG = np.random.RandomState(0)
IMAGES = RNG.rand(8, 784).astype(np.float32)


def run(script, *args, folder, code=0, path=""):
    """Runs a program in a folder; returns the numbers it printed, and its stderr.

    path: PYTHONPATH.
    """
    command = [sys.executable, ROOT / "tf1.py", script, *args]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    # TensorFlow 2.18 writes lines of its own.
    own = re.sub(r"^(WARNING: All log|[IWE]\d{4} ).*\n", "", done.stderr, flags=re.MULTILINE)
    return [float(word) for word in done.stdout.split()], own


@pytest.mark.slow
def test_names_and_orders_of_before_1_0(tmp_path):
    printed, errors = run(PROGRAMS / "before_1_0.py", "logs", folder=tmp_path)

    labels, w = np.eye(10)[:8], np.random.RandomState(1).normal(0, 0.1, [784, 10])
    logits = np.concatenate([-IMAGES[:, 392:], IMAGES[:, :392]], 1) @ w - 0.5
    softmax = np.log(np.exp(logits).sum(axis=1)) - (logits * labels).sum(axis=1)
    sigmoid = np.log1p(np.exp(logits)) - logits * labels
    first = softmax.mean() + sigmoid.mean() + np.abs(w).sum()
    assert printed[0] == pytest.approx(first, rel=1e-4) and printed[2] < printed[1] < printed[0]
    assert not errors
    assert list((tmp_path / "logs").glob("events*"))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["gan.py", "rnn.py", "vae.py"])
def test_programs_train(program, tmp_path):
    printed, errors = run(PROGRAMS / program, folder=tmp_path)
    assert len(printed) >= 3
    assert np.isfinite(printed).all()
    assert printed[0] != printed[-1]
    reads = rf".* has no MNIST; reading {ROOT / 'MNIST_data'}.\n"
    assert re.fullmatch("" if program == "rnn.py" else reads, errors)


@pytest.mark.slow
def test_own_modules_are_imported_from_the_programs_folder(tmp_path):
    # A relative path, and a folder that is not the current one.
    (tmp_path / "code").symlink_to(PROGRAMS / "own")
    assert run("code/main.py", folder=tmp_path) == ([6.0], "")


def test_tutorials_module_is_there_under_its_first_name(tmp_path):
    program = "import input_data\nprint(input_data.read_data_sets('data/').test.num_examples)\n"
    (tmp_path / "old.py").write_text(program)
    printed, errors = run("old.py", folder=tmp_path)
    assert printed == [10_000] and errors.startswith("data has no MNIST; reading")
    with pytest.raises(UserError, match="fashion must contain"):  # another set
        tf1.read_data_sets("fashion")


PYTHON_2 = """
import inspect, helper
import numpy as np
values = {"a": 7}
for name, value in values.iteritems():
    print value / 2, np.int64(7) / 2, value / 2.0
    value /= 2
    print value
print helper.HALF, len(inspect.getargspec(lambda a, b: a).args)
"""


def test_python_2(tmp_path):
    (tmp_path / "old.py").write_text(PYTHON_2)
    (tmp_path / "helper.py").write_text("HALF = 5 / 2\n")  # decided for the whole program
    assert run("old.py", folder=tmp_path) == ([3, 3, 3.5, 3, 2, 2], "")


def test_pictures_are_scipys(tmp_path):
    misc = tf1.SCIPY_MISC
    misc["imsave"](tmp_path / "picture.png", [[-1.0, 0.0], [1.0, 3.0]])  # stretched to 0..255
    np.testing.assert_array_equal(misc["imread"](tmp_path / "picture.png"), [[0, 64], [128, 255]])
    for size in (50, 0.5, (2, 3)):
        assert misc["imresize"](np.zeros([4, 6]), size).shape == (2, 3)
    half = misc["imresize"](np.full([4, 6], 0.5), 50, mode="F")  # not stretched
    np.testing.assert_array_equal(half, np.full([2, 3], np.float32(0.5)))


def test_integer_flags_take_the_first_names_of_their_arguments():
    with tf1.substituted():
        import tensorflow as tf
    values = flags.FlagValues()
    tf.flags.DEFINE_integer("most", default_value=np.inf, docstring="any", flag_values=values)
    assert values(["program"]) and values.most == np.inf


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from tensorflow.contrib import eager", "tf.contrib.eager is not available: eager"),
        ("tf.contrib.factorization.KMeans()", "tf.contrib.factorization is not available: use"),
        ("tf.contrib.layers.nothing()", "tf.contrib.layers.nothing is not available: TensorFlow 2"),
        ("tf.nothing", "tf.nothing is not available: TensorFlow 2 does not have it"),
    ],
)
def test_missing_names_say_what_to_use_instead(line, message):
    with tf1.substituted(), pytest.raises((AttributeError, ImportError), match=re.escape(message)):
        exec(f"import tensorflow as tf\n{line}", {})


def test_substitution_ends_with_its_context():
    before = sys.modules["tensorflow"]
    with tf1.substituted():
        assert importlib.import_module("tensorflow.contrib.slim")
        assert sys.modules["tensorflow"] is not before
    assert importlib.import_module("tensorflow") is before
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tensorflow.contrib.slim")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tf.estimator.Estimator()", "tf.estimator is not available: call"),
        pytest.param("import nothing", "No module named 'nothing'", marks=pytest.mark.slow),
        pytest.param("raise ValueError(tf)", None, marks=pytest.mark.slow),
    ],
)
def test_what_cannot_run_ends_in_one_line(line, message, tmp_path):
    program = f"import tensorflow as tf\n\ndef main(_):\n    {line}\n\ntf.app.run()\n"
    (tmp_path / "old.py").write_text(program)
    printed, errors = run("old.py", folder=tmp_path, code=1)
    assert not printed
    if message is None:  # a fault of the program
        assert "Traceback" in errors
    else:
        assert errors.startswith(f"Error: old.py, line 4: {message}")
        assert errors.count("\n") == 1


def test_syntax_error_is_python_3s(tmp_path):
    (tmp_path / "f.py").write_text("def f(:\n")
    assert run("f.py", folder=tmp_path, code=1)[1] == "Error: f.py, line 1: invalid syntax\n"


def test_wrong_arguments_are_named(tmp_path, capsys):
    for words in ([], [tmp_path], [tmp_path / "x.py"]):
        with pytest.raises(SystemExit, match="Error: the program to run must be a file, got"):
            tf1.main(["tf1.py", *map(str, words)])
    tf1.main(["tf1.py", "--help"])
    assert "Runs a TensorFlow 1 program" in capsys.readouterr().out


MAINS = """
import json, sys
from assembly import main
print(json.dumps([main(*flags) for flags in json.loads(sys.argv[1])]))
"""


def mains(commands, folder):
    """Runs main.py on classes of old_classes.py, one after another in one process.

    Args:
      commands: Pairs (name of a class, flags).

    Returns:
      A list of what each printed.
    """
    flags = [[f"--gan={CLASSES}:{name}", *words] for name, words in commands]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    printed = python("-c", MAINS, json.dumps(flags), cwd=folder, env=environment)
    return [out + err for _, out, err in json.loads(printed)]


def training(run_dir, engine, steps):
    return ["--nlatent=10", f"--run_dir={run_dir}", f"--engine={engine}", f"--num_steps={steps}"]


def test_a_class_trains_with_version_1s_names_of_variables(tmp_path):
    mains([("Gan", training("run", "step", 2))], tmp_path)
    with np.load(tmp_path / "run" / "checkpoints" / "step-000000002.npz") as checkpoint:
        names = [name for name in checkpoint if re.search("(kernel|bias)$", name)]
    assert names == [
        f"{layer}/{name}"
        for layer in (
            "generator/inputs-layer", "generator/dense",
            "discriminator/dense", "discriminator/dense_1",
        )
        for name in ("kernel", "bias")
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of runs of `old_classes.py`, and {name: what the command printed}.

    Both engines train `Normalised` and `Slim`; each resumes one of them.
    """
    place, commands = tmp_path_factory.mktemp("classes"), {}
    for name, engine, other in [("Normalised", "step", "fused"), ("Slim", "fused", "step")]:
        for part, steps in [("whole", 6), ("parts", 3), ("parts", 6)]:
            words = training(f"{name}-{part}", engine, steps)
            commands[f"{name}-{part}-{steps}"] = (name, words)
        commands[f"{name}-{other}"] = (name, training(f"{name}-{other}", other, 2))
    commands["train"] = ("Gan", training("run", "fused", 4))
    for mode in ("export", "explore", "sample", "evaluate"):
        samples = ["--num_samples=500"] if mode in ("sample", "evaluate") else []
        commands[mode] = ("Gan", [f"--mode={mode}", *samples, "--run_dir=run"])
    return place, dict(zip(commands, mains(commands.values(), place), strict=True))


@pytest.mark.slow
def test_classes_train(ended):
    place, printed = ended
    for name, other in [("Normalised", "fused"), ("Slim", "step")]:
        whole = (place / f"{name}-whole" / "losses.csv").read_text()
        assert whole.count("\n") == 7
        assert (place / f"{name}-parts" / "losses.csv").read_text() == whole  # resumed exactly
        assert "Done: 2 steps" in printed[f"{name}-{other}"]
    for mode in ("export", "explore", "sample", "evaluate"):
        assert "Saved" in printed[mode], printed[mode]


def test_importing_changes_nothing():
    code = "import sys, tf1; assert not {'tensorflow', 'tf_slim'} & sys.modules.keys()"
    python("-c", code, cwd=ROOT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise ModuleNotFoundError('', name='tf_keras')", "is not installed; run python -m pip"),
        pytest.param(
            "import tensorflow\ntensorflow.nosuch",
            "is broken; run python -m pip install --force-",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_missing_or_old_tf_keras_is_one_line(tmp_path, content, message):
    (tmp_path / "tf_keras.py").write_text(content)
    old = tmp_path / "program" / "old.py"  # elsewhere than tf_keras
    old.parent.mkdir()
    old.write_text("import tensorflow as tf\ntf.layers.dense(tf.ones([1, 1]), 1)")
    _, errors = run(old, folder=tmp_path, code=1, path=tmp_path)
    assert errors.startswith(f"Error: old.py, line 2: tf_keras {message}")
    assert errors.count("\n") == 1
