"""The command: its help, refusals and output, and one small run on the real files."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from assembly import main
from PIL import Image
from processes import MAIN, Process, sends_signals, wait_until
from small_sets import write_set
from test_resume import SUMMARY, done, steps_of_checkpoints

from command_line import FIELDS, MODES
from training.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def environment():
    """Returns this process's environment without what makes TensorFlow quiet."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "PYTHON"))}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("main") / "data", suffix="", train=100, test=20)


# Help.


def flags_in(text):
    """Returns {name: (placeholder of its value, the rest as one line)} of a help text."""
    found = re.findall(r"^  --(?:\[no\])?(\w+)(\S*) +(.*(?:\n {26}.*)*)", text, re.M)
    return {name: (value, " ".join(rest.split())) for name, value, rest in found}


def test_help_shows_each_flag_with_its_range_and_default():
    """Quickly, and without TensorFlow."""
    resource = pytest.importorskip("resource", reason="not on Windows")
    words = [sys.executable, "-X", "importtime", str(ROOT / "main.py"), "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(words, capture_output=True, text=True, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    # Of the processor, since others may keep it busy.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "matplotlib")}
    help_text = shown.stdout
    assert re.match(r".*GANs on MNIST.*\.\n", help_text)
    assert "python main.py --nlatent=10 --num_steps=50000" in help_text
    assert max(map(len, help_text.splitlines())) <= 100
    entries = flags_in(help_text)
    assert entries.keys() == FIELDS.keys()
    for name, (value, text) in entries.items():
        assert re.search(r"\w{3}.* \[", text), name
        assert text.count("default ") == 1, name
        assert value not in ("=N", "=X") or re.search(r"\[(above )?\d\S* to \d", text), name
        assert "None" not in text and "unset" not in text, name


@pytest.mark.parametrize("mode", MODES)
def test_help_of_a_mode_shows_only_its_flags(mode):
    code, text, _ = main(f"--mode={mode}", "--help")
    assert code == 0
    valid = {name for name, field in FIELDS.items() if mode in field.metadata["modes"]}
    assert flags_in(text).keys() == valid - {"mode"}
    assert f"python main.py --mode={mode} " in text


def test_help_shows_the_defaults_of_a_recipe():
    shown = flags_in(main("--recipe=stable_cnn", "--help")[1])
    assert shown["learning_rate"][1].endswith("[1e-12 to 1, default 0.003]")
    assert shown["nlatent"][1].endswith("[1 to 4096, default 16]")


def test_texts_name_only_flags_that_exist():
    """All code that main.py runs is searched."""
    known = {"help", "no", *FIELDS, *(f"no{name}" for name in FIELDS)}
    known |= {"logdir", "force", "table"}  # of TensorBoard, pip and the benchmarks
    packages = ("models", "training", "evaluation", "generation", "support")
    paths = [path for name in packages for path in (ROOT / name).glob("*.py")]
    for path in [*paths, *(ROOT / f"{name}.py" for name in ("main", "command_line", "input_data"))]:
        texts = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
        assert set(re.findall(r"--([a-z]\w+)", "\n".join(texts))) <= known, path


# Refusals.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nosuch=1"], "Unknown command line flag 'nosuch'; see python main.py --help"),
        (["--num_step=1"], "flag 'num_step'. Did you mean: num_steps; see"),
        (["train", "--seed=1"], "unexpected argument train; use --mode=train, see python main.py"),
        (["dcgan"], "; use --recipe=dcgan, "),
        (["--new", "true"], "unexpected argument true; write --FLAG=VALUE without spaces, see "),
        (["--gan=C:\\me\\a.py"], "--gan must be FILE.py:CLASS"),
        (["--gan=C:\\me\\a.py:Gan"], r"--gan: C:\\me\\a.py does not exist"),
        (["--num_steps"], "Missing value for flag --num_steps; see python main.py --help"),
        (["--lr_milestones=1,5"], "--lr_milestones must be .*, got 1,5$"),
        (["--new=perhaps"], "--new must be True or False, got perhaps$"),
        (["--pretraining_batch=32"], "--pretraining_batch requires --pretraining"),
        (["--penalty_every=4"], "--penalty_every requires --r1_gamma, --r2_gamma or"),
        (["--mode=nosuch"], "--mode must be one of train, .*, got nosuch"),
        (["--prior="], "--prior= is empty: give it a value, or omit it"),
        (["--recipe=upsampling_cnn", "--conditional"], "--conditional requires networks that"),
        (["--dataset=kmnist", f"--data_dir={ROOT}/MNIST_data"], "MNIST"),
        (["--labels=3"], "--labels is only valid with --mode=sample"),
        (["--out=a"], "only valid with --mode=sample, export, explore or compare$"),
        (["--mode=sample"], "--mode=sample requires --run_dir; no runs in runs/"),
        (["--mode=evaluate", "--run_dir=nosuch"], "--run_dir=nosuch is not a run folder"),
        (["--mode=evaluate", f"--run_dir={__file__}"], "is a file; name a run folder"),
        (["--mode=compare", "--run_dirs=none"], "--run_dirs=none is not a run folder"),
    ],
    ids=str,
)
def test_wrong_flags_are_refused_by_name(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = main(*words)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("main.py: ") and len(line) < 700
    assert re.search(message, line)
    assert list(tmp_path.iterdir()) == []


def test_tilde_in_a_path_is_the_home_folder(data_dir, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (home / "mine.py").write_text("from models.gan import Gan\n\n\nclass Mine(Gan):\n    pass\n")
    flags = ("--gan=~/mine.py:Mine", "--run_dir=~/run")
    assert main(f"--data_dir={data_dir}", *flags, "--num_steps=2", "--batch_size=4")[0] == 0
    assert main("--mode=sample", *flags, "--out=~/a.png")[0] == 0
    assert {path.name for path in home.iterdir()} >= {"run", "a.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# Runs in a process.


def test_only_our_lines_are_printed(tmp_path, monkeypatch):
    """On the real files, also in a shell that a notebook started."""
    monkeypatch.setenv("MPLBACKEND", "module://nosuch")
    flags = ("--num_steps", "300", "--checkpoint_every=80", "--image_every=150")
    code, stdout, stderr = Process(tmp_path, *MAIN, *flags, env=environment()).end()
    assert (code, stderr) == (0, "")
    assert re.fullmatch(SUMMARY + done(300, "runs/minimal"), stdout)
    folder = tmp_path / "runs" / "minimal"
    assert steps_of_checkpoints(folder) == [160, 240, 300]
    losses = np.array(RunFolder(folder).losses())
    assert list(losses[:, 0]) == list(range(1, 301))
    # D has not learned anything: both of its cross-entropies are near log 2.
    assert losses[0, 1] == pytest.approx(np.log(4), abs=0.3)
    for name in ("samples.png", "latent_grid.png"):
        tiles = np.asarray(Image.open(folder / name)).reshape(20, 28, 20, 28).swapaxes(1, 2)
        assert len(np.unique(tiles.reshape(400, 784), axis=0)) > 300


@sends_signals
def test_signal_during_the_import_of_tensorflow_ends_cleanly(tmp_path, data_dir):
    flags = (f"--data_dir={data_dir}", "--num_steps=10", "--run_dir=run")
    process, folder = Process(tmp_path, *MAIN, *flags, env=environment()), tmp_path / "run"
    wait_until(process, (folder / "config.json").exists)
    time.sleep(0.2)  # the import comes next, and takes seconds
    process.send(signal.SIGINT)
    code, stdout, stderr = process.end()
    assert (code, stderr) == (128 + signal.SIGINT, "")
    assert stdout.splitlines()[-1] == "Stopped by SIGINT."
    assert [path.name for path in folder.rglob("*.npz")] == []
