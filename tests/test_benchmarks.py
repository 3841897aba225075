"""The benchmarks count what they say: arithmetic by hand, parameters by the models themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import quality, report, roofline
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
    extra = 1 if recipes.get(name).minibatch_stddev else 0
    g, d = roofline.parameters(name)
    assert counts[0] == g and counts[1] - d in (0, extra)


def test_tables_are_markdown_with_numbers_to_the_right():
    text = report.table(["a", "b"], [["x", "1"]])
    assert text.splitlines() == ["| a | b |", "| :-- | --: |", "| x | 1 |"]
    assert report.spread((2000.0, 1000.0, 4000.0), 1000) == "2.00 (1.00 to 4.00)"


def test_quality_tables_show_mean_and_range_over_the_seeds():
    scores = dict.fromkeys(quality._METRICS, 1.0) | {"histogram": [0.1] * 10}
    runs = [
        quality.Outcome(scores | {"frechet_distance": value}, 10, 2.0, 3.0) for value in (8.0, 10.0)
    ]
    row = quality.table({"ours": runs}).splitlines()[-1]
    assert row.startswith("| ours | 9 [8, 10] | 1 |")
    assert "10 %" in row and row.endswith("| 10 | 2 | 3 |")


def test_a_peer_that_is_not_there_is_skipped_by_name():
    command = [sys.executable, "-m", "benchmarks.worker", "nosuch", "minimal", "16"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input="")
    assert done.returncode != 0


def test_help_of_both_commands():
    for module in ("benchmarks", "benchmarks.quality"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "--" in done.stdout
