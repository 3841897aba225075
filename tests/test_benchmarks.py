"""The benchmarks count what they say: arithmetic by hand, parameters by the models themselves."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measuring, outcomes, quality, report, roofline
from benchmarks.__main__ import main
from benchmarks.contestants import CONTESTANTS, Contestant, Unavailable, Worker
from evaluation import metrics
from models import recipes
from support.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def test_arithmetic_of_a_minimal_step_by_hand():
    g, d = 10 * 64 + 64 * 784, 784 * 512 + 512
    d_update = 16 * g + 32 * d + 32 * d  # G and D forward, D's weights
    d_update += 32 * 512  # and the hidden layer's inputs of the logit
    g_update = 16 * g + 16 * d + 16 * d + 16 * g + 16 * 64 * 784  # forward, inputs, G's weights
    cost = roofline.step_cost(recipes.get("minimal"))
    assert cost.flops == pytest.approx(2 * (d_update + g_update), rel=1e-3)


def test_arithmetic_of_convolutions_by_hand():
    """Of D's first layer in dcgan, from the operations of its own graph."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        x, kernel = tf.zeros([2, 28, 28, 1]), tf.zeros([5, 5, 1, 64])
        y = tf.nn.conv2d(x, kernel, 2, "SAME")
        gradients = tf.gradients(y, [x, kernel])
        once = 2 * 2 * 14 * 14 * 64 * 25
        for tensor, count in [(y, 1), (gradients[0], 1), (gradients[1], 1)]:
            # A gradient's own graph has no forward product: dy is ones.
            assert roofline._ops_cost(tensor.op)[0] == count * once


def test_arithmetic_of_layers_by_hand():
    """Each of the forms that convolutions take in these networks, at a batch of 2."""
    import tensorflow.compat.v1 as tf

    from models import layers

    with tf.Graph().as_default():
        small, cells = tf.zeros([2, 4, 4, 6]), tf.zeros([2, 7, 7, 48])
        by_hand = [
            (layers.dense(tf.zeros([2, 100]), 30, name="dense"), 2 * 100 * 30),
            (layers.conv2d(cells, 5, 3, name="conv"), 2 * 49 * 5 * 9 * 48),
            # Taps that meet pixels alone: 4 + 3 + 3 + 2 + 2 a side in the place of 4 * 5.
            (layers.conv2d(small, 7, 5, name="conv_small"), 2 * 14**2 * 7 * 6),
            # 9 taps for 4 positions, and 25 weights summed into 3 * 3 * 4 in a product.
            (
                layers.upsample_conv2d(cells, 8, 5, name="upsampled"),
                2 * 49 * 9 * 48 * 4 * 8 + 36 * 25 * 48 * 8,
            ),
            (
                layers.conv2d_transpose_8x8_stride_4(cells, name="transposed"),
                2 * 49 * 48 * 64,
            ),
            (
                layers.conv2d_8x8_stride_4(tf.zeros([2, 28, 28, 1]), 24, name="strided"),
                2 * 49 * 64 * 24,
            ),
            (tf.nn.conv2d_transpose(cells, tf.zeros([3, 3, 5, 48]), [2, 14, 14, 5], 2),
             2 * 49 * 9 * 48 * 5),
            (layers.batch_norm(cells, name="norm"), 0),
        ]  # fmt: skip
        for y, multiplications in by_hand:
            assert np.ravel(roofline._ops_cost(y.op))[0] == 2 * multiplications, y.op.name


def test_traffic_counts_adam_and_every_use_of_the_weights():
    cost = roofline.step_cost(recipes.get("minimal"))
    adam = 4 * 7 * sum(roofline.parameters(recipes.get("minimal")))
    assert adam < cost.bytes < 3 * adam


def test_parameters_are_the_articles():
    assert roofline.parameters(recipes.get("minimal")) == (51_664, 402_433)


def test_tables_are_markdown_with_numbers_to_the_right():
    text = report.table(["a", "b"], [["x", "1"]])
    assert text.splitlines() == ["| a | b |", "| :-- | --: |", "| x | 1 |"]
    assert report.spread((2000.0, 1000.0, 4000.0), 1000) == "2.00 (1.00 to 4.00)"


def test_quality_tables_show_mean_and_range_over_the_seeds():
    scores = dict.fromkeys(metrics.LABELS, 1.0) | {"histogram": [0.1] * 10}
    scores["reference_scores"] = {"real": scores | {"frechet_distance": 2.0}}
    eight, ten = (scores | {"frechet_distance": value} for value in (8.0, 10.0))
    runs = [outcomes.Outcome(each, 10, 2.0, 3.0) for each in (eight, ten)]
    text = outcomes.table({"ours": runs, "theirs": runs[:1], "not yet": []})
    header, _, *rows = (line.strip("| ").split(" | ") for line in text.splitlines())
    assert header == ["ours", "theirs", "real"]
    cells = {label: values for label, *values in rows}
    assert cells["Fréchet distance"] == ["9 [8, 10]", "8", "2"]
    assert "taken for the label asked for" not in cells
    assert cells["rarest class"] == ["10 %", "10 %", "10 %"]
    assert cells["steps"][:2] == ["10", "10"]
    assert cells["seconds of the whole command"][:2] == ["3", "3"]


def test_quality_tables_show_labels_where_a_run_has_them():
    plain = dict.fromkeys(metrics.LABELS, 1.0) | {"histogram": [0.1] * 10}
    plain["reference_scores"] = {"real": plain}
    labelled = plain | {
        "label_accuracy": 0.99,
        "real_label_accuracy": 0.995,
        "label_accuracies": {"0": 0.98, "1": 1.0},
        "label_frechet_distances": {"0": 3.0, "1": 7.0},
        "real_label_frechet_distances": {"0": 2.0, "1": 1.0},
        "trained_on_samples_accuracy": 0.97,
    }
    runs = {
        "plain": [outcomes.Outcome(plain, 10, 2.0, 3.0)],
        "with labels": [outcomes.Outcome(labelled, 10, 2.0, 3.0)],
    }
    rows = outcomes.table(runs).splitlines()
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in rows}
    assert cells["taken for the label asked for"] == ["", "99 %", "99.5 % |"]
    assert cells["the worst label"] == ["", "98 %", " |"]
    assert cells["greatest Fréchet distance within a label"] == ["", "7", "2 |"]
    assert cells["accuracy after training on samples alone"] == ["", "97 %", " |"]


@pytest.mark.slow
def test_a_penalty_of_every_nth_update_counts_as_an_nth():
    recipe = recipes.get("stable_cnn")

    def flops(**values):
        return roofline.step_cost(dataclasses.replace(recipe, **values)).flops

    always, often, never = flops(penalty_every=1), flops(penalty_every=4), flops(r1_gamma=0.0)
    assert often - never == pytest.approx((always - never) / 4)
    assert always > 1.2 * never


def test_runs_are_parsed_and_refused_by_name():
    runs = quality.parse_runs(["a: --recipe=stable_cnn", "b b: --r1_gamma=1 --prior='normal'"])
    assert runs == {"a": ("--recipe=stable_cnn",), "b b": ("--r1_gamma=1", "--prior=normal")}
    for text, words in [
        ("no colon", "wanted another NAME"),
        ("../x: --seed", "wanted another NAME"),
        ("a: --seed=3", "--seed=3 is this command's to set"),
    ]:
        with pytest.raises(UserError, match=words):
            quality.parse_runs([text])
    with pytest.raises(UserError, match="another NAME"):
        quality.parse_runs(["a: --r1_gamma=1", "a: --r1_gamma=2"])


@pytest.mark.parametrize(
    "text, words",
    [
        ("..: --r1_gamma=1", "wanted another NAME"),
        ("a: --prior='normal", "No closing quotation"),
        ("a: -seed=3", "-seed=3 is no flag"),
        ("a: stray", "stray is no flag"),
        ("a: --nonew", "--nonew is this command's to set"),
        ("a: --flagfile=x", "--flagfile=x is this command's to set"),
        ("a: --summary", "--summary is this command's to set"),
    ],
)
def test_runs_that_would_escape_or_do_something_else_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        quality.parse_runs([text])


def test_kept_runs_made_by_other_flags_are_refused(tmp_path):
    columns = tmp_path / "columns.json"
    made = quality._command(outcomes.Column("a", ("--r1_gamma=1",), None), 20)
    quality.check_kept(columns, {"a": made})
    quality.check_kept(columns, {"b": made})
    quality.check_kept(columns, {"a": made, "b": made})
    for other in ({"flags": ("--r1_gamma=2",)}, {"steps": 2000}, {"seconds": 5}, {"beta1": 0.5}):
        with pytest.raises(UserError, match=f"runs of a with other {next(iter(other))}"):
            quality.check_kept(columns, {"a": {**made, **other}})
    assert "num_steps" not in made  # which `steps` overrides
    assert "num_steps" in quality._command(outcomes.Column("a", (), None), None)


def test_seconds_of_runs_that_went_on_are_left_out():
    assert outcomes._spread([None, 2.0, 4.0]) == "3 [2, 4]"
    assert outcomes._spread([None]) == ""


def test_every_recipe_has_its_distance_against_seconds():
    arguments = quality._parser().parse_args(["--table=seconds"])
    assert arguments.seconds is None
    named = {quality._recipe(flags) for flags in quality.TABLES["seconds"].values()}
    assert named == {recipes.get(name) for name in recipes.RECIPES}
    columns = quality._columns({"a": ("--r1_gamma=1",)}, (5, 120))
    assert columns["a 120 s"] == outcomes.Column("a", ("--r1_gamma=1",), 120)
    assert list(columns) == ["a 5 s", "a 120 s"]


def test_distances_by_seconds_beside_the_reference_scores():
    scores = {"reference_scores": {"real": {"frechet_distance": 2.0}}}
    runs = {
        f"a {seconds} s": [
            outcomes.Outcome(scores | {"frechet_distance": value}, 1, 1.0, 1.0) for value in values
        ]
        for seconds, values in {30: (4.0, 6.0), 5: (9.0,), 60: ()}.items()
    }
    columns = quality._columns({"a": ()}, (30, 5, 60))
    rows = outcomes.seconds_table(columns, runs).splitlines()
    assert rows[0] == "|  | 5 s | 30 s | 60 s |"
    assert rows[2:] == ["| a | 9 | 5 [4, 6] |  |", "| real | 2 | 2 | 2 |"]


def test_products_of_several_matrices_by_hand_and_other_kinds_refused():
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        a, b = tf.zeros([3, 4, 5]), tf.zeros([3, 5, 6])
        assert roofline._ops_cost(tf.matmul(a, b).op)[0] == 2 * 3 * 4 * 5 * 6
        turned = tf.matmul(tf.zeros([3, 5, 4]), b, transpose_a=True)
        assert roofline._ops_cost(turned.op)[0] == 2 * 3 * 4 * 5 * 6
        other = tf.nn.depthwise_conv2d(
            tf.zeros([1, 8, 8, 2]), tf.zeros([3, 3, 2, 1]), [1, 1, 1, 1], "SAME"
        )
        with pytest.raises(NotImplementedError, match="DepthwiseConv2dNative"):
            roofline._ops_cost(other.op)


def test_a_minimal_step_is_83_7_million_operations():
    assert roofline.step_cost(recipes.get("minimal")).flops == pytest.approx(83.7e6, rel=1e-3)


def test_ratios_are_taken_within_each_round():
    case = measuring.Case("minimal", 16, ("fused", "jax"))
    outcome = measuring.Outcome(case, {"fused": [1.0, 2.0, 4.0], "jax": [3.0, 4.0, 6.0]})
    assert outcome.step("fused") == (2.0, 1.0, 4.0)
    assert outcome.ratio("jax") == (2.0, 1.5, 3.0)
    assert outcome.ratio("fused") == (1.0, 1.0, 1.0)


def test_convolutions_race_in_both_precisions():
    for case in measuring.races(recipes.RECIPES):
        assert ("bfloat16" in case.names) == recipes.get(case.recipe).convolutional


def test_turns_begin_with_another_contestant_in_each_round():
    assert "".join(measuring._turns("abc", 3)) == "abcbcacab"


@pytest.mark.slow
def test_a_race_of_processes_that_train_the_same_networks(monkeypatch):
    monkeypatch.setitem(CONTESTANTS, "missing", Contestant("", "a:b", "no_such_module"))
    monkeypatch.setattr(measuring, "_lengths", lambda worker, answer, seconds: (2, 6))
    case = measuring.Case("leaky_mlp", 64, ("step", "missing", "literal_tf1"))
    notes = []
    outcome = measuring.race(case, measuring.Settings(2, 0.1, ()), notes.append)
    assert outcome.absent == {"missing": "no_such_module is not installed"}
    assert len(notes) == 9
    for name in ("step", "literal_tf1"):
        assert outcome.same_networks(name) and outcome.losses_alike(name)
        assert len(outcome.seconds[name]) == 2
        assert outcome.first[name]["start"] > outcome.first[name]["seconds"] > 0
    assert outcome.idle < 0.5


def test_a_worker_that_fails_says_why():
    with Worker("step", "minimal", 0) as worker, pytest.raises(Unavailable) as failure:
        worker.ready()
    assert "--batch_size=0: wanted 1 to" in str(failure.value)


def test_results_are_the_users_unless_they_are_to_be_published(tmp_path, monkeypatch):
    from benchmarks import __main__ as speed

    monkeypatch.setattr(report, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(speed, "_measure", lambda *_: "measured")
    written = ("speed.md", "speed.png")
    monkeypatch.setattr(
        speed, "_write", lambda folder, _: [(folder / name).write_text(name) for name in written]
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published").mkdir()
    speed.main(["--quick"])
    assert sorted(path.name for path in (tmp_path / "speed").iterdir()) == list(written)
    assert not list((tmp_path / "published").iterdir())
    speed.main(["--quick", "--publish", "--out=elsewhere"])
    assert [(tmp_path / "published" / name).read_text() for name in written] == list(written)


def test_wrong_options_end_in_one_line():
    for option, words in [
        ("--recipes=nosuch", "no such recipe"),
        ("--rounds=0", "wanted at least 1"),
        ("--rounds=x", "invalid int value"),
    ]:
        with pytest.raises(UserError, match=words):
            main([option])


def test_help_of_both_commands():
    for module in ("benchmarks", "benchmarks.quality"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "--" in done.stdout


@pytest.mark.slow
def test_speed_writes_a_table_and_a_picture(tmp_path):
    words = ["--quick", "--recipes=minimal", "--rounds=1", f"--out={tmp_path}"]
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.md", "speed.png"]
    (page,) = tmp_path.glob("*.md")
    assert page.read_text().split("\n\n", 1)[1].strip() in done.stdout


def _quality(out, *words):
    command = [sys.executable, "-m", "benchmarks.quality", f"--out={out}", "--seeds=1", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_that_went_on_has_no_seconds_and_other_flags_are_refused(tmp_path):
    folder = tmp_path / "runs" / "seed-0" / "a"
    begun = [sys.executable, "main.py", "--num_steps=3", f"--run_dir={folder}"]
    subprocess.run(begun, cwd=ROOT, check=True, capture_output=True)
    done = _quality(tmp_path, "--runs=a: --recipe=minimal", "--steps=6")
    assert done.returncode == 0, done.stderr
    header, row = (tmp_path / "quality-runs.csv").read_text().splitlines()
    assert row.split(",")[-3:] == ["6", "", ""] and header.endswith("command_seconds")
    other = _quality(tmp_path, "--runs=a: --recipe=minimal --beta1=0.5", "--steps=6")
    assert other.returncode and "with other flags" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_flags_are_compared_and_leave_a_table_and_pictures(tmp_path):
    (tmp_path / "mine.py").write_text("from models.gan import Gan\n\n\nclass Mine(Gan): pass\n")
    runs = ["--runs=a: --recipe=minimal", f"--runs=b: --gan={tmp_path / 'mine.py'}:Mine"]
    done = _quality(tmp_path / "out", *runs, "--steps=20", "--jobs=2")
    assert done.returncode == 0, done.stderr
    names = [f"quality-runs{end}" for end in ("-distances.png", ".csv", ".md", ".png")]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["columns.json", *names, "runs"]
    page = (tmp_path / "out" / "quality-runs.md").read_text()
    assert page.split("\n\n", 1)[1].strip() in done.stdout


@pytest.mark.slow
def test_distance_against_seconds_of_real_runs(tmp_path):
    done = _quality(tmp_path, "--runs=a: --recipe=minimal", "--seconds=1")
    assert done.returncode == 0, done.stderr
    (row,) = (tmp_path / "quality-runs.csv").read_text().splitlines()[1:]
    name, *_, steps, seconds, _ = row.split(",")
    assert name == "a" and int(steps) > 20 and 0.1 < float(seconds) < 10
    assert "| a |" in done.stdout and (tmp_path / "quality-runs-distances.png").exists()
