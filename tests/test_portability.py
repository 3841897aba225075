"""The program without names that only POSIX systems have."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


PROGRAM = """
import os, signal, sys
import filelock, matplotlib, tensorflow
from assembly import main

sys.modules.update(dict.fromkeys(["fcntl", "resource", "pwd", "termios"]))
del signal.SIGHUP, signal.SIGKILL, os.sched_getaffinity, os.O_DIRECTORY
for command in sys.argv[1:]:
    code, _, error = main(*command.split())
    assert not code, error
"""


@pytest.mark.slow
def test_commands_run_without_posix_names(tmp_path):
    train = "--run_dir=run --batch_size=4 --checkpoint_every=2"
    commands = [
        f"{train} --num_steps=4",
        f"{train} --num_steps=6",
        f"{train} --num_steps=4 --new",
        "--mode=evaluate --run_dir=run --num_samples=128",
        "--mode=sample --run_dir=run",
        "--mode=explore --run_dir=run",
    ]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    words = [sys.executable, "-c", PROGRAM, *commands]
    ended = subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run.old-1" / "checkpoints" / "step-000000006.npz").exists()
