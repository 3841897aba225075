"""The program without POSIX-only names, and in a folder of any name."""

import ast
import shutil
import sys
from pathlib import Path

import pytest
from processes import Process
from small_sets import write_set

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["main", "command_line", "input_data"]
PACKAGES += ["models", "training", "support", "evaluation", "generation"]
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
NAMES = {
    "os": {"O_DIRECTORY", "rename", "sched_getaffinity", "fork", "geteuid", "getuid", "killpg"},
    "signal": {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGQUIT", "pthread_sigmask", "setitimer"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_posix_names_are_used_only_behind_hasattr(package):
    paths = sorted((ROOT / package).rglob("*.py")) or [ROOT / f"{package}.py"]
    found, waiting = set(), [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    assert waiting
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "hasattr(" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {each.name for each in node.names} | {getattr(node, "module", None)}
            found |= names & MODULES
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} & NAMES.get(node.value.id, set())
        waiting += ast.iter_child_nodes(node)
    assert not found


MINE = """
from models.gan import Gan
class Mine(Gan):
    pass
class Bad(Gan):
    def _generator(self, z, reuse=False):
        from mine import nothing
"""
OLD = """
import tensorflow as tf
with tf.Session() as session:
    print(session.run(tf.contrib.layers.flatten(tf.ones([1, 2, 3]))))
"""


@pytest.mark.slow
def test_folder_of_any_name(tmp_path):
    """Names of the project and of the user's files."""
    place = tmp_path / "tensorflow contrib" / "examples" / 'it\'s "ü"'
    ignored = shutil.ignore_patterns("MNIST_data", "docs", "benchmarks", "tests", ".*", "runs")
    shutil.copytree(ROOT, place, ignore=ignored)
    shutil.copy(ROOT / "tests" / "grading_examples" / "correct.py", place)
    (place / "mine.py").write_text(MINE)
    (place / "old.py").write_text(OLD)
    data = write_set(place / "data", suffix="", train=100, test=20)

    def run(*words):
        ended = Process(place, sys.executable, *words).end()
        return ended.stderr or ended.stdout

    train = ("main.py", f"--data_dir={data}", "--num_steps=2", "--batch_size=4")
    mine = f"--gan={place / 'mine.py'}:Mine"
    assert "Done: 2 steps" in run(*train, mine, f"--run_dir={place / 'run'}")
    assert "Saved run/sampled.png" in run("main.py", "--mode=sample", mine, "--run_dir=run")
    shown = run(*train, "--gan=mine.py:Bad")
    assert shown.startswith("main.py: mine.py, line 7, in _generator: ImportError: cannot import")
    assert shown.endswith("mine.py)\n")
    assert run("tf1.py", "old.py") == "[[1. 1. 1. 1. 1. 1.]]\n"
    assert run("-m", "grading", "correct.py").startswith("correct: 48 of 48 checks passed")
