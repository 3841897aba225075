"""The benchmarks count what they say: arithmetic by hand, parameters by the models themselves."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measuring, quality, report, roofline
from benchmarks.__main__ import main
from benchmarks.contestants import CONTESTANTS, Absent, Contestant, Worker
from errors import UserError
from evaluation import metrics
from models import recipes

ROOT = Path(__file__).resolve().parent.parent


def test_arithmetic_of_a_minimal_step_by_hand():
    g, d = 10 * 64 + 64 * 784, 784 * 512 + 512
    d_update = 16 * g + 32 * d + 32 * d  # G and D forward, D's weights
    g_update = 16 * g + 16 * d + 16 * d + 16 * g + 16 * 64 * 784  # forward, inputs, G's weights
    cost = roofline.step_cost("minimal", recipes.get("minimal"))
    assert cost.flops == pytest.approx(2 * (d_update + g_update), rel=1e-3)


def test_traffic_counts_adam_and_every_use_of_the_weights():
    cost = roofline.step_cost("minimal", recipes.get("minimal"))
    adam = 4 * 7 * sum(roofline.parameters("minimal"))
    assert adam < cost.bytes < 3 * adam


@pytest.mark.parametrize("name", roofline.NETS)
def test_nets_have_the_recipes_parameters(name):
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        model = recipes.build(name)
        counts = [
            sum(variable.shape.num_elements() for variable in net.trainable_variables)
            for net in model.nets
        ]
        model.session.close()
    assert tuple(counts) == roofline.parameters(name)


def test_tables_are_markdown_with_numbers_to_the_right():
    text = report.table(["a", "b"], [["x", "1"]])
    assert text.splitlines() == ["| a | b |", "| :-- | --: |", "| x | 1 |"]
    assert report.spread((2000.0, 1000.0, 4000.0), 1000) == "2.00 (1.00 to 4.00)"


def test_quality_tables_show_mean_and_range_over_the_seeds():
    scores = dict.fromkeys(metrics.LABELS, 1.0) | {"histogram": [0.1] * 10}
    scores["floors"] = {"real": scores | {"frechet_distance": 2.0}}
    runs = [
        quality.Outcome(scores | {"frechet_distance": value}, 10, 2.0, 3.0) for value in (8.0, 10.0)
    ]
    text = quality.table({"ours": runs, "theirs": runs[:1], "not yet": []})
    header, _, *rows = (line.strip("| ").split(" | ") for line in text.splitlines())
    assert header == ["ours", "theirs", "real"]
    cells = {label: values for label, *values in rows}
    assert cells["Fréchet distance"] == ["9 [8, 10]", "8", "2"]
    assert cells["rarest digit"] == ["10 %", "10 %", "10 %"]
    assert cells["steps"][:2] == ["10", "10"]
    assert cells["seconds of the whole command"][:2] == ["3", "3"]


def test_convolutions_count_what_an_output_depends_on():
    """Against the non-zero entries of TensorFlow's own map, taken pixel by pixel."""
    import tensorflow.compat.v1 as tf

    shapes = [(5, 7, 1, 2), (3, 14, 1, 2), (5, 28, 2, 1), (5, 7, 2, 1), (5, 4, 1, 1), (1, 28, 1, 1)]
    for size, side, stride, up in shapes:
        layer = roofline.Conv(3, 2, size, side, stride, up)
        basis = np.eye(side**2, dtype=np.float32).reshape(-1, side, side, 1)
        basis = basis.repeat(up, axis=1).repeat(up, axis=2)
        with tf.Graph().as_default(), tf.Session() as session:
            kernel = tf.ones([size, size, 1, 1])
            met = session.run(tf.nn.conv2d(basis, kernel, stride, "SAME"))
        assert layer.multiplications == 3 * 2 * np.count_nonzero(met)
        assert layer.values == 3 * side**2 + 2 * met[0].size


def test_r1_adds_three_products_of_d():
    recipe = recipes.get("stable_mlp")
    without = roofline.step_cost("stable_mlp", dataclasses.replace(recipe, r1_gamma=0.0))
    extra = roofline.step_cost("stable_mlp", recipe).flops - without.flops
    # Windows of 8 pixels, the first and the last in either direction with 6 inside the picture.
    d = 16 * (7 * 8 - 4) ** 2 + 25 * 9 * 16 * 32 + 800 * 256 + 257
    assert extra == pytest.approx(3 * 2 * recipe.batch_size * d / recipe.penalty_every)


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
def test_a_race_of_processes_that_train_the_same_nets(monkeypatch):
    monkeypatch.setitem(CONTESTANTS, "missing", Contestant("", "a:b", "no_such_module"))
    monkeypatch.setattr(measuring, "_lengths", lambda worker, answer, seconds: (2, 6))
    case = measuring.Case("leaky_mlp", 64, ("step", "missing", "literal_tf1"))
    notes = []
    outcome = measuring.race(case, measuring.Settings(2, 0.1, ()), notes.append)
    assert outcome.absent == {"missing": "no_such_module is not installed"}
    assert len(notes) == 9
    for name in ("step", "literal_tf1"):
        assert outcome.same_nets(name) and outcome.losses_alike(name)
        assert len(outcome.seconds[name]) == 2
        assert outcome.first[name]["start"] > outcome.first[name]["seconds"] > 0
    assert outcome.idle < 0.5


def test_a_worker_that_fails_says_why():
    with Worker("step", "minimal", 0) as worker, pytest.raises(Absent) as failure:
        worker.ready()
    assert "--batch_size=0: wanted 1 to" in str(failure.value)


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
@pytest.mark.parametrize(
    "words, written",
    [
        (["benchmarks", "--quick", "--recipes=minimal", "--rounds=1"], ["speed.md", "speed.png"]),
        (
            [
                "benchmarks.quality",
                "--only=minimal,stable_mlp",
                "--seeds=1",
                "--steps=20",
                "--jobs=2",
            ],
            ["quality-recipes.md", "quality-recipes.png"],
        ),
    ],
)
def test_both_commands_write_their_tables_and_pictures(words, written, tmp_path):
    command = [sys.executable, "-m", *words, f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    table = (tmp_path / written[0]).read_text().split("\n\n", 1)[1].strip()
    assert table in done.stdout
