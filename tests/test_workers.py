"""Several processes that train one GAN: they come together, and learn what one learns."""

import contextlib
import json
import re
import socket
import time

import numpy as np
import pytest
from groups import GONE, assert_one_line, group
from test_resume import Process, data_dir, last_checkpoint, server, write_data

from benchmarks import workers

__all__ = ["data_dir", "group", "server"]  # fixtures

pytestmark = pytest.mark.slow
# Few images a step, so that convolutions are quick.
SMALL = {
    "minimal": ["--batch_size=12", "--r1_gamma=1", "--penalty_every=2", "--ema_decay=0.99"],
    "leaky_mlp": ["--batch_size=12"],
    "stable_cnn": ["--batch_size=12", "--penalty_every=2"],
    "upsampling_cnn": ["--batch_size=12"],
    "dcgan": ["--batch_size=6"],
    "pretrained_cnn": ["--batch_size=6", "--pretraining=24", "--pretraining_batch=12"],
}


def losses(folder):
    return np.loadtxt(folder / "losses.csv", delimiter=",", skiprows=1)


@pytest.mark.parametrize(("recipe", "size"), [(name, 2) for name in SMALL] + [("stable_cnn", 3)])
def test_a_group_learns_what_one_process_learns(server, data_dir, tmp_path, group, recipe, size):
    flags = [f"--recipe={recipe}", "--num_steps=4", "--noevents", *SMALL[recipe]]
    alone = Process(server, tmp_path, f"--data_dir={data_dir}", "--run_dir=alone", *flags)
    assert alone.end().code == 0
    together = group(size, *flags).start_all()
    assert [each.code for each in together.ends()] == [0] * size, together.ends()
    # Sums in another order differ by a rounding, which every step after the first makes larger.
    for steps, tolerance in [(1, 5e-5), (2, 5e-4), (4, 5e-3)]:
        found, wanted = losses(together.run)[:steps], losses(tmp_path / "alone")[:steps]
        np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_conditional_networks_and_a_class_of_ones_own(server, data_dir, tmp_path, group):
    code = "import models.gan\n\n\nclass Net(models.gan.Gan):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    labels = ["--recipe=stable_cnn", "--conditional", "--batch_size=12", "--penalty_every=2"]
    mine = [f"--gan={tmp_path}/mine.py:Net", "--engine=fused", "--r1_gamma=1"]
    for name, flags in {"labels": labels, "own": mine}.items():
        flags = ["--num_steps=4", "--noevents", *flags]
        alone = Process(server, tmp_path, f"--data_dir={data_dir}", f"--run_dir={name}", *flags)
        assert alone.end().code == 0
        together = group(2, *flags, name=f"group-{name}").start_all()
        assert [each.code for each in together.ends()] == [0, 0], together.ends()
        np.testing.assert_allclose(losses(together.run), losses(tmp_path / name), rtol=1e-3)


def test_train_ops_of_a_class_of_ones_own_are_refused(tmp_path, group):
    (tmp_path / "mine.py").write_text("from models.gan import Gan\n")
    ended = group(2, f"--gan={tmp_path}/mine.py:Gan").start_all().ends()
    assert {each.code for each in ended} == {1}
    assert any("add --engine=fused" in e.stderr or "--engine=fused" in e.stderr for e in ended)


# Coming together.


def test_a_group_of_another_size_goes_on_and_says_so(server, data_dir, group):
    flags = ["--batch_size=12", "--checkpoint_every=2"]
    together = group(2, *flags, "--num_steps=4").start_all()
    assert [each.code for each in together.ends()] == [0, 0]
    assert json.loads((together.run / "config.json").read_text())["workers"] == 2
    place = together.run.parent
    one = Process(
        server, place, f"--data_dir={data_dir}", "--run_dir=run", *flags, "--num_steps=6"
    ).end()
    assert one.code == 0
    assert "Note: the run began with 2 workers and goes on with 1; the bytes may" in one.stdout
    assert last_checkpoint(together.run) == 6


def test_processes_are_timed_beside_threads():
    case = workers.Case(("--batch_size=8", "--engine=step"), 20, 420)
    (found,) = workers.measure({"minimal": case}, rounds=1, sizes=(2,)).values()
    assert found[2].processes > 0 and found[2].threads > 0


# Coming together.


def test_a_group_waits_for_the_late_and_not_for_ever(group):
    together = group(2, "--num_steps=3", "--group_timeout=120")
    together.start(1)
    time.sleep(7)
    together.start(0)
    ended = together.ends()
    assert [each.code for each in ended] == [0, 0], ended
    assert (
        f"Waiting for the chief ({together.addresses[0]}) (Connection refused)." in ended[1].stdout
    )
    alone = group(3, "--batch_size=12", "--group_timeout=8", name="alone")
    alone.start(0)
    alone.start(1)
    chief, worker = alone.ends()
    missing = re.escape(f"worker 2 ({alone.addresses[2]})")
    assert_one_line(chief, GONE, f"no group after 8 s, for {missing} did not come")
    assert f"Waiting for worker 2 ({alone.addresses[2]})." in worker.stdout
    assert_one_line(worker, GONE, "no group after 8 s, for the chief")


def test_who_differs_says_what_differs_and_leaves(tmp_path, group):
    other = write_data(tmp_path / "other", train=10_100)
    together = group(2, "--num_steps=3")
    together.start(0)
    for flags, pattern in [
        (["--batch_size=32"], r"--batch_size is 32 on worker 1 and 16 on the chief"),
        (["--seed=1", "--num_steps=4"], r"--num_steps is 4 .*, --seed is 1 on worker 1 and 0"),
        (
            [f"--data_dir={other}"],
            r"the checksum of the images .* is crc32:\w+ on worker 1 and crc",
        ),
    ]:
        assert_one_line(together.start(1, *flags).end(), 1, f"does not belong .*{pattern}")
    together.start(1)
    ended = together.ends()
    assert [each.code for each in ended] == [0, 0], ended
    assert "Refused: --batch_size is 32 on worker 1" in ended[0].stdout


def test_addresses_that_cannot_be_are_told(group):
    together = group(2, "--num_steps=3", "--group_timeout=5")
    host, _, port = together.addresses[1].rpartition(":")
    with socket.create_server((host, int(port))):
        taken = together.start(1).end()
    assert_one_line(taken, 1, r"worker 1 \(.*\) cannot listen there \(Address already in use\)")
    together.addresses[1] = f"192.0.2.1:{port}"
    elsewhere = together.start(1).end()
    assert_one_line(elsewhere, 1, r"cannot listen there \(Cannot assign requested address\)")
    together.addresses = ["no-such-host.invalid:1", f"{host}:{port}"]
    assert_one_line(together.start(1).end(), GONE, r"the chief \(no-such-host.invalid:1\) did not")


def test_whoever_else_calls_is_no_worker(group):
    together = group(2, "--num_steps=3")
    together.start(0)
    host, _, port = together.addresses[0].rpartition(":")
    for words in [b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"hello": 1}\n', b"x" * 100_000]:
        together.workers[0].wait_until(lambda: connected(host, port, words))  # noqa: B023
    together.start(1)
    assert [each.code for each in together.ends()] == [0, 0], together.ends()


def connected(host, port, words):
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1) as stranger:
        stranger.sendall(words)
        return True
    return False
