"""A trained generator as one HTML file that runs it, without server or network.

`generation/page/` has the parts of the file: `runner.js` runs the program, `page.js` is everything
else that moves, `page.html` and `page.css` are the layout.
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
from input_data import SIDE
from models import priors
from support.errors import UserError
from support.files import atomic_write
from training.run import RunFolder

MAX_BYTES = 10 * 2**20

_PARTS = Path(__file__).parent / "page"
_MAX_SLIDERS = 16
_SLOPE_IMAGES, _SLOPE_STEP = 300, 0.05
_FILM_FRAMES, _FILM_TILES, _MAX_FILM_BYTES = (48, 24, 12), 6, 600_000
# The scores that a page shows, if the run has any.
SCORES = ("frechet_distance", "classes_covered", "precision", "recall", "memorised_share")


def explore(run_dir, out, **loading) -> None:
    """Writes a page that runs a run's generator.

    Args:
      run_dir: The run folder.
      out: The file to write, .html.
      **loading: Options of `generation.load`.

    Raises:
      UserError: If the generator has an operation that pages do not have, which it names, or the
        page would exceed 10 MB.
    """
    out = Path(out).expanduser()
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out must end in .html, got {out}")
    generator = generation.load(run_dir, **loading)
    graph = frozen.freeze(generator)
    generator.close()
    labels = [
        name if label in generator.classes else None
        for label, name in enumerate(generator.class_names)
    ]
    about = _about(Path(run_dir).expanduser(), generator, graph)
    content = page(graph, about, labels if "labels" in graph.inputs else [])
    if len(content) > MAX_BYTES:
        raise UserError(
            f"--run_dir={run_dir}: the page would be {len(content) / 2**20:.1f} MB, the limit is "
            f"{MAX_BYTES / 2**20:.0f} MB: the generator has too many weights"
        )
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)


def page(graph, about, labels=()) -> bytes:
    """Makes the page of a frozen generator.

    Args:
      graph: A `Frozen`.
      about: Facts of the run to show, in the form of `_about`; its film is omitted if a large
        generator leaves no room for it.
      labels: The names of a conditional generator's labels, None for one that was not trained.

    Returns:
      The bytes of the file.
    """
    compiled, prior = program.compile_graph(graph), priors.get(graph.prior)
    constants, weights = _packed(compiled.constants)
    levels, quantiles = prior.quantiles()
    has_room = len(weights) + 2 * _MAX_FILM_BYTES < MAX_BYTES
    data = {
        **about,
        "film": about["film"] if has_room else None,
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
    return fill(data, weights)


def fill(data, weights) -> bytes:
    """Fills the template with the page's data and the base64 of its weights."""
    style, script = _part("page.css"), _part("page.js")
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    parts = {
        # All that the page may do: run its own script, style and worker, show inline images.
        "policy": f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src "
        f"'sha256-{hashes[1]}'; worker-src blob:; img-src data:; base-uri 'none'; "
        "form-action 'none'",
        "title": html.escape(data["title"]),
        "style": style,
        "about": _json_in_html(data),
        "weights": weights,
        "runner": _part("runner.js"),
        "script": script,
    }
    template = _part("page.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template).encode()


def sliders(compiled, prior, nlatent, labels=()):
    """Finds the directions in the space of latents that change the image most.

    For a prior whose directions are equal, the principal directions of the mean squared slope of
    the pixels; else the latents one by one, which stay within the range of training.

    Returns:
      [{"direction": unit vector [nlatent], "share": fraction of the change}], largest first.
    """
    gram = _mean_squared_slope(compiled, prior, nlatent, labels)
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


def _mean_squared_slope(compiled, prior, nlatent, labels):
    """Averages products `[nlatent, nlatent]` of the pixels' slopes over draws."""
    rng = np.random.default_rng(0)
    count = int(np.clip(_SLOPE_IMAGES // (nlatent + 1), 2, 64))
    trained = [label for label, name in enumerate(labels) if name is not None]
    gram = np.zeros([nlatent, nlatent])
    for k, z in enumerate(prior.sample(rng, [count, nlatent])):
        steps = np.vstack([np.zeros(nlatent), _SLOPE_STEP * np.eye(nlatent)])
        inputs = {"z": (z + steps).astype(np.float32)}
        if trained:
            one_hot = np.eye(len(labels), dtype=np.float32)[trained[k % len(trained)]]
            inputs["labels"] = np.tile(one_hot, [nlatent + 1, 1])
        images = numpy_generator.run(*compiled, **inputs).astype(np.float64)
        slopes = (images[1:] - images[0]) / _SLOPE_STEP
        gram += slopes @ slopes.T / count
    return gram


def _about(folder, generator, graph):
    """Returns what the page shows of a run."""
    configuration = RunFolder(folder).configuration()
    steps = f"{generator.step:,}"
    facts = {"recipe": configuration.recipe, "steps": steps}
    for name, value in configuration.overrides.items():
        if name != "num_steps":
            facts[name] = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    facts |= {"seed": str(configuration.seed), "latents": f"{graph.nlatent}, {graph.prior}"}
    scores, notes = _scores(folder / "metrics.json", generator)
    if graph.fixed_statistics:
        notes.append(
            "This generator normalises by the statistics of its batch. Here they are those of 256 "
            "draws, so that each latent has one image."
        )
    return {
        "title": f"{configuration.recipe}, {steps} steps",
        "recipe": configuration.recipe,
        "facts": facts,
        "scores": scores,
        "notes": notes,
        "film": _film(folder / "progress"),
    }


def _scores(path, generator):
    """Returns the rows of the table of scores, and notes if there are none."""
    try:
        content = json.loads(path.read_text())
        if not generator.is_scored_by(content):
            return [], ["The scores of this run are of other weights."]
        columns = {"this run": content, **content.get("reference_scores", {})}
        rows = [["", *columns]]
        for name in SCORES:
            rows.append(
                [LABELS[name], *(f"{float(scores[name]):.4g}" for scores in columns.values())]
            )
        return rows, []
    except FileNotFoundError:
        return [], ["No scores yet: run python main.py --mode=evaluate."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [], [f"Cannot read {path.name}."]


def _film(folder):
    """Reads progress/step-N.png: the first 6 x 6 tiles of each, one below the other.

    Returns:
      {"steps": [...], "sheet": data URI of a PNG}, with fewer frames if they exceed 600 kB; None if
      there are none.
    """
    paths, side = sorted(folder.glob("step-*.png")), _FILM_TILES * SIDE
    if len(paths) < 2:
        return None
    for count in _FILM_FRAMES:
        chosen = np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))
        sheet = Image.new("L", (side, side * len(chosen)))
        try:
            for row, k in enumerate(chosen):
                with Image.open(paths[k], formats=["PNG"]) as image:
                    sheet.paste(image.convert("L").crop((0, 0, side, side)), (0, row * side))
        except (OSError, ValueError, SyntaxError):
            return None
        buffer = io.BytesIO()
        sheet.quantize(32).save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= _MAX_FILM_BYTES:
            png = base64.b64encode(buffer.getvalue()).decode()
            steps = [int(re.sub(r"\D", "", paths[k].stem) or 0) for k in chosen]
            return {"steps": steps, "sheet": f"data:image/png;base64,{png}"}
    return None


def _packed(constants):
    """Packs constants for a page.

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


def _part(name):
    return (_PARTS / name).read_text(encoding="utf-8")


def _json_in_html(value):
    """Encodes JSON such that no text in it can end the element around it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
