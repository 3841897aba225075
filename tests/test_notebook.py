"""docs/small_gans.ipynb runs from top to bottom, and stays small."""

import json
import re

import nbformat
import notebook
import pytest

SMALL = {
    "steps": '{"minimal": 60, "stabilised": 60, "mine": 60}',
    "num_samples": "200",
}
UNWANTED = ("Traceback", "Error", "Warning", "WARNING", "it/s]\n", "\x1b")


@pytest.fixture(scope="module")
def text():
    return notebook.NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    done = notebook.run(notebook.ROOT / "docs", **SMALL, runs=f"Path({str(tmp_path / 'runs')!r})")
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    shown = [text for output in outputs for text in _texts(output)]
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in shown if any(word in text for word in UNWANTED)]
    outputs_of_cells = [str(cell.get("outputs")) for cell in done.cells]
    assert sum(bool(re.search("60/60 .*d_loss", text)) for text in outputs_of_cells) == 3
    assert sum("Fréchet distance" in text for text in shown) == 2
    assert [text for text in shown if re.search(r"my_gan: (\d+) of \1 checks passed", text)]
    for cell in notebook.tagged(done, notebook.KEEP):
        assert "image/png" in cell.outputs[-1].data
    made = {"minimal", "stabilised", "mine", "my_gan.py", "stabilised.html", "export"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == made


def _texts(output):
    data = output.get("data", {})
    return [text for text in (output.get("text"), data.get("text/plain")) if text]


def test_notebook_has_a_few_small_images_and_no_other_output(text):
    content = nbformat.reads(text, as_version=4)
    nbformat.validate(content)
    assert len(text) < 300_000
    assert content.cells == notebook.with_images_only(content).cells
    assert all(cell.outputs for cell in notebook.tagged(content, notebook.KEEP))


def test_links_exist(text):
    cells = json.loads(text)["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    targets = re.findall(r"\]\(([^)#]+)\)", "\n".join(prose))
    assert targets and all((notebook.NOTEBOOK.parent / target).exists() for target in targets)


def test_only_images_are_kept():
    code = nbformat.v4.new_code_cell("1", execution_count=3, metadata={"tags": [notebook.KEEP]})
    png, plain = {"image/png": "AA\nAA", "text/plain": "<Figure>"}, {"text/plain": "2"}
    code.outputs = [nbformat.v4.new_output("display_data", data) for data in (png, plain)]
    other = nbformat.v4.new_code_cell("2", outputs=[nbformat.v4.new_output("stream", text="x")])
    cells = nbformat.v4.new_notebook(cells=[code, other])
    first, second = notebook.with_images_only(cells).cells
    assert [output.data for output in first.outputs] == [{"image/png": "AAAA"}]
    assert first.execution_count is None and second.outputs == []
    assert len(code.outputs) == 2
