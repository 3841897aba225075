"""The pages are correct: commands and Python blocks run, links and anchors exist."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from assembly import main, python
from small_sets import write_set

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [*ROOT.glob("*.md"), ROOT / "benchmarks/README.md", *ROOT.glob("docs/*.md")]
}
TEXT = re.sub(r"\\\n *", "", "\n".join(PAGES.values()))
# One of those that differ only in the number of steps or the place of the files.
COMMANDS = {
    re.sub(r" --(num_steps|run_dir|out)=\S+", "", command): command
    for command in sorted(re.findall(r"python (main\.py [^`\n]+)", TEXT))
}
# Small enough for a test, without another meaning of the commands.
SMALL = ["--num_steps=2", "--batch_size=4", "--pretraining=0", "--checkpoint_every=2"]
LABELLED_RUN = "--recipe=stable_cnn --conditional --run_dir=runs/stable_cnn-conditional=True"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A current folder with the files and runs that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for name, body in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL):
            Path(name).write_text(body)
        # The class that students write in docs/teachers.md.
        shutil.copy(ROOT / "tests" / "grading_examples" / "correct.py", folder / "gan.py")
        write_set(folder / "my_data")
        for flags in (
            "--recipe=minimal --run_dir=runs/minimal",
            "--recipe=stable_cnn --run_dir=runs/stable_cnn",
            LABELLED_RUN,
            "--gan=my_gan.py:Gan --run_dir=runs/mine",
            "--mode=export --run_dir=runs/minimal --out=generator",
        ):
            assert run(f"main.py {flags}") == 0
        yield folder


def run(command):
    """Runs a main.py command in this process, with few steps; returns its exit code."""
    _, *argv = shlex.split(command.replace("=NAME", "=minimal"), comments=True)
    if "--mode=" not in command:
        argv += [*SMALL, "--engine=fused" if "--engine=fused" in command else "--engine=step"]
    if "--mode=evaluate" in command:
        argv.append("--num_samples=200")
    return main(*argv)[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values())
def test_command_runs(command, workplace):
    assert run(command) == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```python" in text])
def test_python_blocks_run(page, workplace):
    blocks = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    python("-c", "\n".join(blocks), env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_exist(page):
    broken = []
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}")
    assert not broken


def anchors(path):
    """Returns the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_readme_lists_every_folder_and_its_second_block_runs_tests():
    """`.ci/run` executes that block."""
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert [name for name in sorted(folders) if f"{name}/" not in PAGES["README.md"]] == []
    assert "pytest" in re.findall(r"```\w+\n(.*?)```", PAGES["README.md"], re.DOTALL)[1]
