"""Runs docs/small_gans.ipynb; as a program it saves it with small images."""

import copy
import re
import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "small_gans.ipynb"
# Tag of cells whose image is saved.
KEEP = "keep"


def tagged(notebook, tag):
    """Returns the cells with that tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def run(folder, **parameters):
    """Runs the notebook in a kernel and returns it with all outputs.

    Args:
      folder: The kernel's current folder.
      **parameters: Expressions, as text, that replace those in the cell of parameters.
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


def with_images_only(notebook):
    """Returns a copy without outputs, except the images of tagged cells."""
    kept = copy.deepcopy(notebook)
    for cell in kept.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            shown = cell.outputs if KEEP in cell.metadata.get("tags", []) else []
            cell.outputs = [_image(o) for o in shown if "image/png" in o.get("data", {})]
            cell.execution_count = None
    return kept


def _image(output):
    data = {"image/png": output.data["image/png"].replace("\n", "")}
    return nbformat.v4.new_output("display_data", data)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(ROOT / "docs", runs=f"Path({folder!r})")
    done.cells = with_images_only(done).cells
    original = nbformat.read(NOTEBOOK, as_version=4)
    for cell, ran in zip(original.cells, done.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, None
    nbformat.write(original, NOTEBOOK)
