"""Several processes that train one GAN: `main.py` itself, with TF_CONFIG as schedulers set it."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from test_resume import (
    ROOT,
    Process,
    assert_same_results,
    be_main,
    data_dir,
    last_checkpoint,
    server,
    write_data,
)

from benchmarks import workers
from training.launch import free_addresses

__all__ = ["data_dir", "server"]  # fixtures

pytestmark = pytest.mark.slow
GONE = 75
# Few images a step, so that convolutions are quick.
SMALL = {
    "minimal": ["--batch_size=12", "--r1_gamma=1", "--penalty_every=2", "--ema_decay=0.99"],
    "leaky_mlp": ["--batch_size=12"],
    "stable_cnn": ["--batch_size=12", "--penalty_every=2"],
    "upsampling_cnn": ["--batch_size=12"],
    "dcgan": ["--batch_size=6"],
    "pretrained_cnn": ["--batch_size=6", "--pretraining=24", "--pretraining_batch=12"],
}


def be_worker(config, *arguments):
    os.environ["TF_CONFIG"] = config
    be_main(*arguments)


class Worker(Process):
    """A process of a group, in a folder of its own."""

    def __init__(self, server, place, config, *flags):
        self._streams = [place / f".{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        self._process = server.Process(target=be_worker, args=(config, place, self._streams, flags))
        self._process.start()
        self.pid = self._process.pid


class Group:
    """`size` processes with addresses of their own on this machine."""

    def __init__(self, server, data_dir, place, size, *flags):
        self._server, self._place = server, place
        self._flags = [f"--data_dir={data_dir}", "--run_dir=run", *flags]
        self.addresses = free_addresses(size)
        self.workers = {}

    def start(self, index, *flags, config=None):
        place = self._place / f"worker{index}"
        place.mkdir(parents=True, exist_ok=True)
        config = config or self.config(index)
        self.workers[index] = Worker(self._server, place, config, *self._flags, *flags)
        return self.workers[index]

    def config(self, index):
        task = {"type": "worker", "index": index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})

    def start_all(self):
        for index in range(len(self.addresses)):
            self.start(index)
        return self

    def ends(self):
        return [self.workers[index].end() for index in sorted(self.workers)]

    @property
    def run(self):
        return self._place / "worker0" / "run"

    def close(self):
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.send(signal.SIGKILL)
            worker.end()


@pytest.fixture
def group(server, data_dir, tmp_path):
    """A function that makes a Group, which ends with the test."""
    made = []

    def group(size, *flags, name="group"):
        made.append(Group(server, data_dir, tmp_path / name, size, *flags))
        return made[-1]

    yield group
    for each in made:
        each.close()


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


def assert_one_line(ended, code, pattern):
    assert ended.code == code, ended
    assert re.fullmatch(rf"main\.py: .*({pattern}).*\n", ended.stderr), ended.stderr


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


# Failing together.

STEPS = 240
QUICK = ["--recipe=minimal", "--engine=step", "--checkpoint_every=40", f"--num_steps={STEPS}"]


@pytest.fixture(scope="module")
def unbroken(server, data_dir, tmp_path_factory):
    """Run folders of groups that nothing has disturbed, by their size."""
    made = {}

    def unbroken(size):
        if size not in made:
            place = tmp_path_factory.mktemp(f"unbroken{size}")
            made[size] = Group(server, data_dir, place, size, *QUICK, "--batch_size=12").start_all()
            assert {each.code for each in made[size].ends()} == {0}
        return made[size].run

    return unbroken


def supervise(together, disturb, restarts=60):
    """Starts whoever was killed or leaves with 75 again, until the chief is done."""
    together.start_all()
    while together.workers[0].running or together.workers[0].end().code:
        disturb()
        for index, worker in list(together.workers.items()):
            done = not worker.running and worker.end().code == 0
            if worker.running or (done and together.workers[0].running):
                continue
            assert worker.end().code in (0, GONE, -signal.SIGKILL), worker.end()
            assert restarts, "they never end"
            restarts -= 1
            together.start(index)
        time.sleep(0.02)


@pytest.mark.parametrize(("size", "kills"), [(2, 6), (3, 5)])
def test_killed_at_random_moments_a_group_ends_in_the_same_bytes(group, unbroken, size, kills):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    together = group(size, *QUICK, "--batch_size=12")
    moments = [time.monotonic() + 2]

    def disturb():
        if len(moments) > kills or time.monotonic() < moments[-1]:
            return
        victim = rng.choice([w for w in together.workers.values() if w.running] or [None])
        if victim:
            victim.send(signal.SIGKILL)
            moments.append(time.monotonic() + rng.uniform(0.2, 9))

    supervise(together, disturb)
    assert_same_results(together.run, unbroken(size))


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_a_checkpoint_is_written_and_at_the_very_end(group, unbroken, victim):
    together = group(2, *QUICK, "--batch_size=12")
    due = [40, STEPS - 40, STEPS]

    def disturb():
        if due and last_checkpoint(together.run) >= due[0] and together.workers[victim].running:
            due.pop(0)
            together.workers[victim].send(signal.SIGKILL)

    supervise(together, disturb)
    assert_same_results(together.run, unbroken(2))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_of_them_saves_what_all_have_learnt(group, unbroken, victim):
    together = group(2, *QUICK, "--batch_size=12").start_all()
    chief, other = together.workers[0], together.workers[1 - victim]
    chief.wait_until(lambda: last_checkpoint(together.run))
    together.workers[victim].send(signal.SIGTERM)
    assert together.workers[victim].end().code == 128 + signal.SIGTERM
    assert_one_line(other.end(), GONE, "was stopped by SIGTERM.*after step")
    stopped = last_checkpoint(together.run)
    assert 0 < stopped < STEPS
    supervise(together, lambda: None)
    assert "Continuing run after step" in together.workers[0].end().stdout
    assert_same_results(together.run, unbroken(2))


def be_impatient(*arguments):
    from training import group

    group.SILENCE = 12
    be_worker(*arguments)


def be_heard(*arguments):
    """A process whose silence nobody minds: what it computes alone tells that it hangs."""
    from training import group

    group.SILENCE = 1000
    be_worker(*arguments)


def test_a_step_that_takes_for_ever_is_given_up(group, unbroken, monkeypatch):
    monkeypatch.setitem(globals(), "be_worker", be_heard)
    together = group(2, *QUICK, "--batch_size=12", "--group_timeout=15").start_all()
    chief, worker = together.workers[0], together.workers[1]
    chief.wait_until(lambda: last_checkpoint(together.run))
    worker.send(signal.SIGSTOP)
    assert_one_line(chief.end(), GONE, "a step failed on another worker, or took longer than")
    worker.send(signal.SIGCONT)
    assert worker.end().code == GONE
    supervise(together, lambda: None)
    assert_same_results(together.run, unbroken(2))


def test_one_that_hangs_holds_up_nobody_for_ever(group, unbroken, monkeypatch):
    monkeypatch.setitem(globals(), "be_worker", be_impatient)
    together = group(2, *QUICK, "--batch_size=12").start_all()
    chief, worker = together.workers[0], together.workers[1]
    chief.wait_until(lambda: last_checkpoint(together.run))
    worker.send(signal.SIGSTOP)
    assert_one_line(chief.end(), GONE, r"worker 1 \(.*\) has not said a word for 12 s")
    worker.send(signal.SIGCONT)
    assert_one_line(
        worker.end(), GONE, r"worker 1 \(.*\) has not said a word for 12 s|the chief .*"
    )
    supervise(together, lambda: None)
    assert_same_results(together.run, unbroken(2))


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


def test_the_launcher_starts_them_and_starts_them_again(data_dir, tmp_path, unbroken):
    command = [sys.executable, "-m", "training.launch", "--workers=2", "--", *QUICK]
    command += ["--batch_size=12", f"--data_dir={data_dir}", f"--run_dir={tmp_path}/run"]
    launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not last_checkpoint(tmp_path / "run"):
        assert launcher.poll() is None
        time.sleep(0.05)
    os.kill(children(launcher.pid)[1], signal.SIGKILL)
    told, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, told
    killed, left = re.findall(r"launch: worker (\d) ended with (\S+), starts again", told)
    assert {killed[0], left[0]} == {"0", "1"}
    assert {killed[1], left[1]} == {"-9", "75"}
    assert_same_results(tmp_path / "run", unbroken(2))


def children(pid):
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return sorted(map(int, listed.stdout.split()))


def test_processes_are_timed_beside_threads():
    case = workers.Case(("--batch_size=8", "--engine=step"), 20, 420)
    (found,) = workers.measure({"minimal": case}, rounds=1, sizes=(2,)).values()
    assert found[2].processes > 0 and found[2].threads > 0
