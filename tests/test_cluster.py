"""What TF_CONFIG may say, how batches are shared, and which classes learn from shares."""

import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import yaml

from benchmarks import workers
from models import layers, passes, recipes
from models.gan import Gan
from models.passes import WHOLE, Shard
from support.errors import UserError
from training import cluster, launch
from training.batches import Batches
from training.updates import Updates

ROOT = Path(__file__).resolve().parent.parent
TWO = {"worker": ["a:1", "b:2"]}


def told(addresses, role="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": addresses, "task": {"type": role, "index": index}})}


def test_workers_and_a_chief():
    assert cluster.from_environment(told(TWO, index=1)) == cluster.Cluster(("a:1", "b:2"), 1)
    with_chief = {"chief": ["c:3"], **TWO}
    addresses = ("c:3", "a:1", "b:2")
    assert cluster.from_environment(told(with_chief, "chief")) == (addresses, 0)
    assert cluster.from_environment(told(with_chief, index=1)) == (addresses, 2)
    assert cluster.from_environment(told(with_chief, index=1)).name(2) == "worker 2 (b:2)"


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": " "}, told({"worker": ["a:1"]})])
def test_one_process_is_alone(environment):
    assert cluster.from_environment(environment) == cluster.ALONE
    assert cluster.ALONE.is_chief


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "wanted such as"),
        ({"TF_CONFIG": "[" * 100_000}, "wanted such as"),
        ({"TF_CONFIG": "[1]"}, "wanted such as"),
        ({"TF_CONFIG": json.dumps({"cluster": TWO})}, "'task'"),
        (told({"worker": "ab"}), "address 'a', wanted host:port"),
        (told({"worker": ["a:1", "b"]}), "address 'b', wanted host:port"),
        (told({"worker": ["a:1", "b:99999"]}), "address 'b:99999', wanted host:port"),
        (told({"worker": ["a:1", "a:1"]}), "a:1 twice"),
        (told(TWO, index=2), "worker 2, wanted an index below 2"),
        (told(TWO, index=-1), "worker -1, wanted an index below 2"),
        (told(TWO, index="1"), "worker '1', wanted an index"),
        (told(TWO, "chief"), "chief 0, wanted an index below 0"),
        (told(TWO, "evaluator"), "role 'evaluator', wanted chief or worker"),
        (told({**TWO, "ps": ["p:1"]}), "role 'ps', wanted chief or worker"),
        (told({**TWO, "chief": ["c:1", "d:1"]}, "chief"), "2 chiefs"),
    ],
)
def test_what_else_it_says_is_refused(environment, message):
    with pytest.raises(UserError, match=r"^TF_CONFIG: ") as error:
        cluster.from_environment(environment)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("minimal", {"batch_size": 16}, "--batch_size=16: 3 workers .* a multiple of 3$"),
        ("upsampling_cnn", {"batch_size": 12}, None),
        ("upsampling_cnn", {"batch_size": 9}, "--batch_size=9: 3 workers .* a multiple of 6$"),
        ("upsampling_cnn", {"batch_size": 13}, "--batch_size=13: 3 workers .* a multiple of 6$"),
        ("pretrained_cnn", {"batch_size": 9}, "--pretraining_batch=64: 3 workers"),
    ],
)
def test_batches_that_do_not_divide_are_refused(name, values, message):
    recipe = recipes.override(recipes.get(name), **values)
    three = cluster.Cluster(("a:1", "b:1", "c:1"), 0)
    expected = pytest.raises(UserError, match=message) if message else contextlib.nullcontext()
    with expected:
        cluster.check(three, recipe, "float32")


def test_bfloat16_is_for_one_process():
    recipe = recipes.override(recipes.get("dcgan"), batch_size=4)
    cluster.check(cluster.ALONE, recipe, "bfloat16")
    with pytest.raises(UserError, match=r"--precision=bfloat16: .* leave it at float32"):
        cluster.check(cluster.Cluster(("a:1", "b:1"), 0), recipe, "bfloat16")


@pytest.mark.parametrize("name", ["minimal", "stable_cnn", "upsampling_cnn"])
def test_shares_of_a_batch_are_its_parts_in_order(name):
    recipe = recipes.override(recipes.get(name), batch_size=12, d_iters=2)
    recipe = recipes.override(recipe, conditional=name != "upsampling_cnn")
    pixels = np.random.default_rng(0).integers(0, 256, [50, 784], np.uint8)
    labels = np.arange(50) % 10
    whole = Batches(recipe, pixels, 1, labels).block(3, 5)
    parts = [Batches(recipe, pixels, 1, labels, Shard(i, 3)).block(3, 5) for i in range(3)]
    for field in whole._fields:
        arrays = [getattr(part, field) for part in parts]
        if field == "rates":
            assert all((array == whole.rates).all() for array in arrays)
        elif getattr(whole, field) is not None:
            np.testing.assert_array_equal(np.concatenate(arrays, axis=2), getattr(whole, field))


@pytest.mark.parametrize("width", [4, 5])
def test_a_share_drops_what_the_whole_batch_drops(width):
    def dropped(rows, share):
        with passes.sharding(share), passes.training(tf.constant([1, 2]), batches=2):
            return layers.dropout(tf.ones([2 * rows, width]), 0.5)

    parts = [dropped(3, Shard(i, 3)) for i in range(3)]
    with tf.Session() as session:
        whole, *shares = session.run([dropped(9, WHOLE), *parts])
    for half in range(2):
        rows = np.concatenate([share[3 * half : 3 * half + 3] for share in shares])
        np.testing.assert_array_equal(rows, whole[9 * half : 9 * half + 9])


class Sum(Gan):
    def _generator_loss(self, y_hat):
        return tf.reduce_sum(tf.nn.softplus(-y_hat))


class Relativistic(Gan):
    def _discriminator_loss(self, y, y_hat):
        return tf.reduce_mean(tf.nn.softplus(tf.reduce_mean(y_hat) - y))


class OwnStatistics(Gan):
    def _discriminator(self, x, reuse=False):
        return super()._discriminator(x - tf.reduce_mean(x, axis=0), reuse)


class OurStatistics(Gan):
    def _discriminator(self, x, reuse=False):
        with tf.variable_scope(self._discriminator_scope, reuse=reuse):
            x = layers.batch_norm(layers.dense(x, 8, name="hidden"), name="norm")
            return layers.dense(layers.minibatch_stddev(x), 1, name="logit")


@pytest.mark.parametrize(
    ("gan_class", "message"),
    [
        (Gan, None),
        (OurStatistics, None),
        (Sum, "Sum._generator_loss is no mean over the batch"),
        (Relativistic, "Relativistic._discriminator_loss is no mean over the batch"),
        (OwnStatistics, "OwnStatistics._discriminator mixes the images of a batch"),
    ],
)
def test_a_class_that_shares_would_change_is_refused(gan_class, message):
    with tf.Graph().as_default():
        gan = gan_class(nlatent=3)
        share = Shard(0, 2, lambda x: x)
        if message is None:
            Updates(gan, recipes.get("minimal"), 0, share)
        else:
            with pytest.raises(UserError, match=message):
                Updates(gan, recipes.get("minimal"), 0, share)
        gan.session.close()


def test_the_launcher_takes_flags_of_main_behind_two_dashes():
    options, flags = launch._parsed(["--workers=a:1,b:1", "--index=1", "--", "--recipe=dcgan"])
    assert (options.workers, options.index, flags) == (["a:1", "b:1"], 1, ["--recipe=dcgan"])
    options, _ = launch._parsed(["--workers=3", "--"])
    assert len(set(options.workers)) == 3
    with pytest.raises(SystemExit):
        launch._parsed(["--workers=2", "--index=2"])


PAGE = (ROOT / "docs" / "several_machines.md").read_text()


@pytest.mark.parametrize(
    ("option", "words"),
    [("--workers=0", "wanted at least 1"), ("--restarts=-1", "wanted a whole number, 0 or more")],
)
def test_the_launcher_refuses_numbers_that_cannot_be(option, words, capsys):
    with pytest.raises(SystemExit):
        launch._parsed(["--workers=2", option])
    assert words in capsys.readouterr().err


def test_a_worker_that_was_told_to_stop_is_not_started_again():
    worker = launch.Worker(("a:1",), 0, ["--help"], environment={}, restarts=9, told=True)
    assert worker._may_start_again(75)
    worker.stop(None)
    assert not worker._may_start_again(75)


def test_the_job_for_kubernetes_is_one():
    documents = list(yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text()))
    for document in documents:
        version = kubernetes_validate.latest_version()
        assert kubernetes_validate.validate(document, version, strict=True)
    (container,) = documents[1]["spec"]["template"]["spec"]["containers"]
    words = shlex.split(container["command"][-1].replace("$JOB_COMPLETION_INDEX", "1"))
    options, flags = launch._parsed(words[words.index("training.launch") + 1 :])
    assert (options.index, flags[0]) == (1, "--recipe=dcgan")
    assert len(options.workers) == documents[1]["spec"]["completions"]


def test_the_script_for_slurm_starts_a_worker_on_each_node(tmp_path):
    (script,) = re.findall(r"```bash\n(#!.*?)```", PAGE, re.DOTALL)
    programs = {
        "scontrol": 'echo "$2" "$3" > asked; printf "node1\\nnode2\\n"',
        "srun": 'for i in 0 1; do SLURM_PROCID=$i "$@"; done',
        "python": 'echo "$@" >> started',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]"}
    words = ["bash", "-eu"]
    subprocess.run(words, input=script, env=environment, cwd=tmp_path, text=True, check=True)
    assert (tmp_path / "asked").read_text() == "hostnames node[1-2]\n"
    started = (tmp_path / "started").read_text().splitlines()
    parsed = [launch._parsed(line.split()[2:]) for line in started]
    assert [options.index for options, _ in parsed] == [0, 1]
    assert {tuple(options.workers) for options, _ in parsed} == {("node1:23456", "node2:23456")}


def test_what_many_machines_would_take():
    # Without a network to wait for, n machines are n times as fast; at a bit a second, none is.
    assert workers._times("minimal", 100.0, 8, 1e12) == pytest.approx(8, rel=1e-3)
    assert workers._times("minimal", 1e-3, 8, 125e6) < 1
    # Of two in a ring each sends all its 454,097 gradients and two losses, 4 bytes each, once.
    assert workers._sent("minimal", 2) == 4 * (51_664 + 402_433 + 2)
