"""The README and docs/ say what is so: their code runs, their commands work, links lead on."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver
from test_resume import write_data

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
    for name, body in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", "".join(TEXT.values()), re.S):
        (folder / name).write_text(body)
    sys.path.append(str(folder))
    with contextlib.chdir(folder):
        write_data(folder / "my_data")
        for recipe in ("minimal", "stable_cnn"):
            assert run(f"main.py --recipe={recipe} --run_dir=runs/{recipe}") == 0
        folder_of_labels = "runs/stable_cnn-conditional=True"
        command = f"main.py --recipe=stable_cnn --conditional --run_dir={folder_of_labels}"
        assert run(command) == 0
        assert run("main.py --gan=my_gan.py:Gan --run_dir=runs/mine") == 0
    return folder


def run(command):
    """Runs a main.py command in this process with few steps; -> exit code."""
    if "mode" not in program.FLAGS:
        program.define_flags()
    argv = shlex.split(command.replace("=NAME", "=minimal"), comments=True)
    if "--mode=" not in command:
        small = {**SMALL, "engine": "fused"} if "--engine=fused" in command else SMALL
        argv += [f"--{name}={value}" for name, value in small.items()]
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


def test_every_folder_is_on_the_map():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert [name for name in sorted(folders) if f"{name}/" not in TEXT["README.md"]] == []
