"""The README and docs/ say what is so: their code runs, their commands work, links lead on."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app
from absl.testing import flagsaver

import main as program

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXT = {page.name if page.parent == ROOT else str(page.relative_to(ROOT)): page.read_text()
        for page in PAGES}  # fmt: skip
COMMANDS = sorted(
    {
        command
        for text in TEXT.values()
        for command in re.findall(r"python (main\.py [^`\n]+)", text)
    }
)
# Small enough for a test; the commands' own meaning stays.
SMALL = {
    "num_steps": "2", "batch_size": "4", "pretraining": "0", "checkpoint_every": "2",
    "engine": "step",
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the runs that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    with contextlib.chdir(folder):
        for recipe in ("minimal", "stable_mlp"):
            assert run(f"main.py --recipe={recipe} --run_dir=runs/{recipe}") == 0
    return folder


def run(command):
    """Runs a main.py command in this process with few steps; -> exit code."""
    if "mode" not in program.FLAGS:
        program.define_flags()
    if "help" not in program.FLAGS:
        app.define_help_flags()
    argv = shlex.split(command.replace("=NAME", "=minimal"), comments=True)
    if "--mode=" not in command:
        argv += [f"--{name}={value}" for name, value in SMALL.items()]
    if "--mode=evaluate" in command:
        argv.append("--num_samples=200")
    with flagsaver.flagsaver():
        try:
            return program.main(program.parse(argv)) or 0
        except SystemExit as end:
            return end.code


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, workplace):
    with contextlib.chdir(workplace):
        assert run(command) == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", TEXT)
def test_python_blocks(page, workplace):
    blocks = re.findall(r"```python\n(.*?)```", TEXT[page], re.DOTALL)
    if blocks:
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(blocks)],
            cwd=workplace, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT[page])
    assert [t for t in targets if "://" not in t and not (folder / t).exists()] == []


def test_every_folder_and_module_is_on_the_map():
    names = {path.name for path in ROOT.glob("*.py")} | {p.name for p in ROOT.glob("models/*.py")}
    names |= {path.name for path in [*ROOT.glob("training/*.py"), *ROOT.glob("evaluation/*.py")]}
    assert [n for n in sorted(names - {"__init__.py"}) if n not in TEXT["README.md"]] == []
