"""Several processes that train one GAN: when one of them is killed, stopped or hangs."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from groups import GONE, Group, assert_one_line, be_worker, group
from test_resume import ROOT, assert_same_results, data_dir, last_checkpoint, server

__all__ = ["data_dir", "group", "server"]  # fixtures

pytestmark = pytest.mark.slow
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


@pytest.mark.parametrize(("size", "kills"), [(2, 4), (3, 3)])
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


def test_a_chief_whose_run_is_finished_needs_nobody(group):
    """It may be killed when it has told the others that all is done, and before it has ended."""
    together = group(2, *QUICK, "--batch_size=12", "--num_steps=2").start_all()
    assert {each.code for each in together.ends()} == {0}
    ended = together.start(0).end()
    assert ended.code == 0 and "run is finished: 2 steps are done" in ended.stdout


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


def test_a_step_that_takes_for_ever_is_given_up(group, unbroken):
    together = group(2, *QUICK, "--batch_size=12", "--group_timeout=15", be=be_heard).start_all()
    chief, worker = together.workers[0], together.workers[1]
    chief.wait_until(lambda: last_checkpoint(together.run))
    worker.send(signal.SIGSTOP)
    assert_one_line(chief.end(), GONE, "a step failed on another worker, or took longer than")
    worker.send(signal.SIGCONT)
    assert worker.end().code == GONE
    supervise(together, lambda: None)
    assert_same_results(together.run, unbroken(2))


def test_one_that_hangs_holds_up_nobody_for_ever(group, unbroken):
    together = group(2, *QUICK, "--batch_size=12", be=be_impatient).start_all()
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
