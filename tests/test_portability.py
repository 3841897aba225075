"""The program without names that only POSIX systems have."""

import ast
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
import builtins, os, signal, sys
root, *commands = sys.argv[1:]
sys.path.insert(0, root)
real_import, real_rename = builtins.__import__, os.rename

def importing(name, globals=None, *others, **more):
    if name in {"fcntl", "resource", "pwd", "termios"}:
        file = (globals or {}).get("__file__", "")
        # An environment of Python may be in the project's folder; its libraries are not ours.
        if file.startswith(root + os.sep) and "site-packages" not in file:
            raise ImportError(f"No module named {name!r}")
    return real_import(name, globals, *others, **more)

def rename(old, new, **more):
    if os.path.exists(new):
        raise FileExistsError(new)
    real_rename(old, new, **more)

builtins.__import__, os.rename = importing, rename
del signal.SIGHUP, signal.SIGKILL, os.sched_getaffinity, os.O_DIRECTORY
import main
from absl.testing import flagsaver
main.define_flags()
for command in commands:
    with flagsaver.flagsaver():
        code = main.main(main.parse(["main.py", *command.split()]))
    print(f"{command}: {code or 0}", flush=True)
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
    words = [sys.executable, "-c", PROGRAM, str(ROOT), *commands]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line.endswith(": 0")] == [
        f"{command}: 0" for command in commands
    ]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"losses.csv", "metrics.json", "sampled.png", "explore.html"}
    assert (tmp_path / "run.old-1" / "checkpoints" / "step-000000006.npz").exists()
