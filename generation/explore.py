"""Writes a trained generator as one HTML file that runs it in a browser, offline.

`generation/page/` contains the parts of the file: `runner.js` runs the program, `page.js` handles
all other interaction, `page.html` and `page.css` define the layout.
"""

import base64
import hashlib
import html
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

import generation
from evaluation.metrics import LABELS
from generation import frozen, numpy_generator, program
from support.data_sets import SIDE
from support.errors import UserError
from support.files import atomic_write

_PARTS = Path(__file__).parent / "page"
_MAX_SLIDERS = 16
_SLOPE_IMAGES, _SLOPE_STEP = 300, 0.05
_FILM_FRAMES, _FILM_TILES = 24, 6
# The scores that a page shows, if the run has any.
SCORES = ("frechet_distance", "classes_covered", "precision", "recall", "memorised_share")


def explore(run_dir, out, **loading) -> None:
    """Writes a page with the generator of a run.

    Args:
      run_dir: The run folder.
      out: The file to write, .html.
      **loading: Options of `generation.load`.

    Raises:
      UserError: If the generator has an operation that pages do not support.
    """
    out = Path(out).expanduser()
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out must end in .html, got {out}")
    generator = generation.load(run_dir, **loading)
    graph = frozen.freeze(generator)
    generator.close()
    labels = enumerate(generator.configuration.label_names())
    names = [name if k in graph.classes else None for k, name in labels]
    about = _about(Path(run_dir).expanduser(), generator, graph)
    content = page(graph, about, names if graph.classes else [])
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)


def page(graph, about, labels=()) -> bytes:
    """Makes the page of a frozen generator.

    Args:
      graph: A `Frozen`.
      about: Facts of the run to show, in the form of `_about`.
      labels: The names of a conditional generator's labels, None for untrained ones.

    Returns:
      The bytes of the file.
    """
    compiled, prior = program.compile_graph(graph), graph.prior
    constants, weights = _pack(compiled.constants)
    levels, quantiles = prior.quantiles()
    data = {
        **about,
        "nlatent": graph.nlatent,
        "classes": list(labels),
        "program": {
            "inputs": {"z": graph.nlatent} | ({"labels": len(labels)} if labels else {}),
            "lines": compiled.lines,
            "constants": constants,
        },
        "prior": {
            "low": prior.low,
            "high": prior.high,
            "spherical": prior.spherical,
            "levels": levels.tolist(),
            "quantiles": quantiles.tolist(),
        },
        "sliders": sliders(compiled, prior, graph.nlatent, labels),
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # no text in the data can then end the element around it
        text = text.replace(character, f"\\u{ord(character):04x}")
    parts = {path.name: path.read_text(encoding="utf-8") for path in _PARTS.iterdir()}
    script, style = (
        base64.b64encode(hashlib.sha256(parts[name].encode()).digest()).decode()
        for name in ("page.js", "page.css")
    )
    values = {
        # All that the page may do: run its own script, style and worker, show inline images.
        "policy": f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "worker-src blob:; img-src data:; base-uri 'none'; form-action 'none'",
        "title": html.escape(about["title"]),
        "style": parts["page.css"],
        "about": text,
        "weights": weights,
        "runner": parts["runner.js"],
        "script": parts["page.js"],
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], parts["page.html"]).encode()


def sliders(compiled, prior, nlatent, labels=()):
    """Finds the directions in latent space that change the image most.

    For a spherical prior, these are the principal directions of the mean squared slope of the
    pixels. Otherwise they are the single latents, so that sliders stay in the range of training.

    Returns:
      [{"direction": unit vector [nlatent], "share": fraction of the change}], largest first.
    """
    rng = np.random.default_rng(0)
    count = int(np.clip(_SLOPE_IMAGES // (nlatent + 1), 2, 64))
    trained = [label for label, name in enumerate(labels) if name is not None]
    steps = np.vstack([np.zeros(nlatent), _SLOPE_STEP * np.eye(nlatent)])
    gram = np.zeros([nlatent, nlatent])  # the mean of products of the pixels' slopes
    for k, z in enumerate(prior.sample(rng, [count, nlatent])):
        inputs = {"z": (z + steps).astype(np.float32)}
        if trained:
            one_hot = np.eye(len(labels), dtype=np.float32)[trained[k % len(trained)]]
            inputs["labels"] = np.tile(one_hot, [nlatent + 1, 1])
        images = numpy_generator.run(*compiled, **inputs).astype(np.float64)
        slopes = (images[1:] - images[0]) / _SLOPE_STEP
        gram += slopes @ slopes.T / count
    if prior.spherical:
        values, vectors = np.linalg.eigh(gram)
        values, vectors = values[::-1], vectors.T[::-1]
        vectors *= np.sign(vectors[np.arange(nlatent), np.abs(vectors).argmax(axis=1)])[:, None]
    else:
        order = np.argsort(-np.diag(gram), kind="stable")
        values, vectors = np.diag(gram)[order], np.eye(nlatent)[order]
    total = max(np.trace(gram), np.finfo(np.float64).tiny)
    return [
        {"direction": np.round(vector, 6).tolist(), "share": round(float(value / total), 6)}
        for value, vector in zip(values[:_MAX_SLIDERS], vectors, strict=False)
    ]


def _about(folder, generator, graph):
    """Returns the facts, scores and film of a run for the page."""
    configuration, steps = generator.configuration, f"{generator.step:,}"
    facts = {"recipe": configuration.recipe, "steps": steps}
    for name, value in configuration.overrides.items():
        if name != "num_steps":
            facts[name] = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    facts |= {"seed": str(configuration.seed), "latents": f"{graph.nlatent}, {graph.prior.name}"}
    scores, notes = [], []
    if content := generator.scores(folder):
        columns = {"this run": content, **content["reference_scores"]}
        scores.append(["", *columns])
        for name in SCORES:
            if content[name] is not None:  # of classes, without labels
                cells = [f"{column[name]:.4g}" for column in columns.values()]
                scores.append([LABELS[name], *cells])
    else:
        command = "python main.py --mode=evaluate --run_dir=DIR"
        notes.append(f"These weights have no scores yet: run {command}.")
    if graph.fixed_statistics:
        notes.append(
            "This generator normalises by the statistics of its batch. Here they are those of "
            f"{frozen.STATISTICS_BATCH} draws, so that each latent has one image."
        )
    return {
        "title": f"{configuration.recipe}, {steps} steps",
        "recipe": configuration.recipe,
        "facts": facts,
        "scores": scores,
        "notes": notes,
        "film": _film(folder / "progress"),
    }


def _film(folder):
    """Reads progress/step-N.png: the first 6 x 6 tiles of each, stacked vertically.

    Returns:
      {"steps": [...], "sheet": data URI of a PNG} of at most 24 frames; None if there are fewer
      than two images.
    """
    paths, side = sorted(folder.glob("step-*.png")), _FILM_TILES * SIDE
    if len(paths) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(paths) - 1, _FILM_FRAMES).round().astype(int))
    sheet = Image.new("L", (side, side * len(chosen)))
    for row, k in enumerate(chosen):
        with Image.open(paths[k], formats=["PNG"]) as image:
            sheet.paste(image.convert("L").crop((0, 0, side, side)), (0, row * side))
    buffer = io.BytesIO()
    sheet.quantize(32).save(buffer, format="PNG", optimize=True)
    png = base64.b64encode(buffer.getvalue()).decode()
    steps = [int(paths[k].stem.removeprefix("step-")) for k in chosen]
    return {"steps": steps, "sheet": f"data:image/png;base64,{png}"}


def _pack(constants):
    """Packs the constants of a program as text.

    Each array is divided by the power of two near its largest value, so that none exceeds the range
    of float16. All low bytes come before all high ones, which compresses better.

    Returns:
      ({name: its description for JSON}, base64 of all float values as float16).
    """
    described, halves, start = {}, [np.zeros(0, np.uint16)], 0
    for name, array in constants.items():
        shape = list(array.shape)
        if array.dtype.kind != "f":
            described[name] = {"shape": shape, "integers": array.ravel().tolist()}
            continue
        power = int(np.frexp(np.abs(array).max(initial=0))[1])
        halves.append(np.ldexp(array, -power).astype(np.float16).ravel().view(np.uint16))
        described[name] = {"shape": shape, "start": start, "power": power}
        start += array.size
    numbers = np.concatenate(halves)
    planes = (numbers & 255).astype(np.uint8).tobytes() + (numbers >> 8).astype(np.uint8).tobytes()
    packer = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)  # weights repeat no strings
    return described, base64.b64encode(packer.compress(planes) + packer.flush()).decode()
