"""Runs docs/small_gans.ipynb: `python tests/notebook.py` writes it anew with its small pictures."""

import copy
import re
import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "small_gans.ipynb"
# A cell's tag: what it shows last is kept if that is a picture.
KEEP = "keep"


def tagged(notebook, tag):
    """-> the cells with that tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def run(folder, **parameters):
    """Runs the notebook in a kernel whose current folder is that one; -> it with all outputs.

    parameters: {name: text of an expression} in the place of what the cell of parameters says.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = tagged(notebook, "parameters")
    for name, value in parameters.items():
        pattern = re.compile(rf"^{name} = .*$", re.MULTILINE)
        cell.source, found = pattern.subn(lambda _, line=f"{name} = {value}": line, cell.source)
        assert found == 1, name
    client = nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def with_pictures_alone(notebook):
    """-> a copy without outputs, times and counts, but for the pictures of cells that keep them."""
    kept = copy.deepcopy(notebook)
    for cell in kept.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            pictures = [o for o in cell.outputs if KEEP in cell.metadata.get("tags", [])]
            cell.outputs = [_picture(o) for o in pictures if "image/png" in o.get("data", {})]
            cell.execution_count = None
    return kept


def _picture(output):
    data = {"image/png": output.data["image/png"].replace("\n", "")}
    return nbformat.v4.new_output("display_data", data)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(ROOT / "docs", runs=f"Path({folder!r})")
    done.cells = with_pictures_alone(done).cells
    original = nbformat.read(NOTEBOOK, as_version=4)
    for cell, ran in zip(original.cells, done.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, None
    nbformat.write(original, NOTEBOOK)
