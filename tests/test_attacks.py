"""The command line with hostile streams and signals: it trains, or saves and reports one line."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = "--nlatent=2 --batch_size=16 --checkpoint_every=20 --image_every=0 --run_dir=run"


def shell(folder, words, *flags):
    """Starts `bash -c words`, in which "$@" is `python main.py ...`."""
    command = [sys.executable, ROOT / "main.py", *flags]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHON"))}
    return subprocess.Popen(
        ["bash", "-c", words, "bash", *command],
        cwd=folder,
        env=kept,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def num_losses(folder):
    ((table),) = folder.rglob("losses.csv")
    with open(table, newline="", encoding="utf-8") as file:
        return len(list(csv.DictReader(file)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        '"$@" | head -1; exit ${PIPESTATUS[0]}',
        '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
        'PYTHONIOENCODING=ascii exec "$@" --run_dir=run/ün',
    ],
)
def test_run_is_trained_whatever_reads_its_output(tmp_path, words):
    process = shell(tmp_path, words, *FLAGS.split(), "--num_steps=50")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert num_losses(tmp_path) == 50


@pytest.mark.slow
def test_closed_terminal_saves_a_checkpoint(tmp_path):
    process = shell(tmp_path, 'exec "$@"', *FLAGS.split(), "--num_steps=1_000_000")
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/checkpoints/*.npz")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGHUP
    assert "SIGHUP" in output and "Traceback" not in output + errors
    newest = max(tmp_path.glob("run/checkpoints/step-*.npz"))
    assert num_losses(tmp_path) == int(newest.stem.removeprefix("step-"))
