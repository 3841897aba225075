"""docs/small_gans.ipynb runs from top to bottom, and stays small."""

import re

import nbformat
import notebook
import pytest

SMALL = {"steps": '{"minimal": 60, "stabilised": 60, "mine": 60}', "num_samples": "200"}
UNWANTED = ("Traceback", "Error", "Warning", "WARNING", "it/s]\n", "\x1b")


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    done = notebook.run(notebook.ROOT / "docs", **SMALL, runs=f"Path({str(tmp_path / 'runs')!r})")
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    shown = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    types = {output.output_type for output in outputs}
    assert types <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in shown if any(word in text for word in UNWANTED)]
    outputs_of_cells = [str(cell.get("outputs")) for cell in done.cells]
    assert sum(bool(re.search("60/60 .*d_loss", text)) for text in outputs_of_cells) == 3
    assert sum("Fréchet distance" in text for text in shown) == 2
    assert [text for text in shown if re.search(r"my_gan: (\d+) of \1 checks passed", text)]
    for cell in notebook.tagged(done, notebook.KEEP):
        assert "image/png" in cell.outputs[-1].data
    made = {"minimal", "stabilised", "mine", "my_gan.py", "stabilised.html", "export"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} - {"__pycache__"} == made


def test_saved_notebook_has_a_few_small_images_no_other_output_and_valid_links():
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")
    content = nbformat.reads(text, as_version=4)
    nbformat.validate(content)
    assert len(text) < 300_000
    assert content.cells == notebook.with_images_only(content).cells
    assert all(cell.outputs for cell in notebook.tagged(content, notebook.KEEP))
    prose = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
    assert targets and all((notebook.NOTEBOOK.parent / target).exists() for target in targets)
