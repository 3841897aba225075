"""A trained generator as one HTML file that runs it: no server, no network, no installation.

`generation/page/` holds what the file is made of: `runner.js` runs the program, `page.js` is the
rest that moves, `page.html` and `page.css` are what it looks like.
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
from generation import frozen, numpy_generator, program
from input_data import SIDE
from models import priors
from support.errors import UserError
from support.files import atomic_write
from training.run import RunFolder

MOST_BYTES = 10 * 2**20

_PARTS = Path(__file__).parent / "page"
_SLIDERS = 16
_SLOPE_IMAGES, _SLOPE_STEP = 300, 0.05
_FILM_FRAMES, _FILM_TILES, _FILM_BYTES = 48, 6, 600_000
# The scores that a page shows, if the run has been given them.
_SCORES = {
    "frechet_distance": "Fréchet distance",
    "classes_covered": "classes covered",
    "precision": "precision",
    "recall": "recall",
    "memorised_share": "memorised share",
}


def explore(run_dir, out, **loading):
    """A run -> the file `out`, a page to explore it with; loading: options of `generation.load`.

    UserError for an operation that no page can run, which it names, and for a page above 10 MB.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out={out}: wanted a name that ends in .html")
    generator = generation.load(run_dir, **loading)
    try:
        graph = frozen.freeze(generator)
    finally:
        generator.close()
    compiled, prior = program.compile_graph(graph), priors.get(graph.prior)
    classes = _class_names(generator) if "labels" in graph.inputs else ()
    facts = _facts(Path(run_dir), generator, graph)
    content = page(compiled, facts, prior, graph.nlatent, classes)
    if len(content) > MOST_BYTES:
        raise UserError(
            f"--run_dir={run_dir}: the page would have {len(content) / 2**20:.1f} MB, wanted at "
            f"most {MOST_BYTES / 2**20:.0f}: this generator has too many weights for a page"
        )
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)


def _class_names(generator):
    """-> what the labels of a conditional generator are called, None for one not learnt."""
    names = enumerate(generator.class_names)
    return [name if label in generator.classes else None for label, name in names]


def page(compiled, facts, prior, nlatent, classes=()):
    """What a page is made of -> its bytes.

    compiled: a Program; facts: what the page tells about the run, as `_facts` gives it, of which a
    very large generator leaves no room for the film;
    prior: a Prior; classes: names of the labels of a conditional generator, None for one that it
    has not learnt; none at all for a generator without labels.
    """
    constants, weights = _packed(compiled.constants)
    inputs = {"z": nlatent} | ({"labels": len(classes)} if classes else {})
    levels, quantiles = prior.quantiles()
    about = {
        **facts,
        "film": facts["film"] if len(weights) + 2 * _FILM_BYTES < MOST_BYTES else None,
        "nlatent": nlatent,
        "classes": list(classes),
        "program": {"inputs": inputs, "lines": compiled.lines, "constants": constants},
        "prior": {
            "name": prior.name,
            "low": prior.low,
            "high": prior.high,
            "spherical": prior.spherical,
            "levels": levels.tolist(),
            "quantiles": quantiles.tolist(),
        },
        "sliders": sliders(compiled, prior, nlatent, classes),
    }
    style, script = _part("page.css"), _part("page.js")
    return _filled(
        _part("page.html"),
        policy=_policy(style, script),
        title=html.escape(facts["title"]),
        style=style,
        about=_json_in_html(about),
        weights=weights,
        runner=_part("runner.js"),
        script=script,
    ).encode()


def sliders(compiled, prior, nlatent, classes=()):
    """-> [{"direction": unit vector [nlatent], "share": of the change of a picture}, ...].

    Those that change the picture most come first. The principal directions of the mean squared
    slope of the pixels for a prior whose directions are all alike; latents one by one, which stay
    within the range that was trained on, for any other.
    """
    gram = _mean_squared_slope(compiled, prior, nlatent, classes)
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
        for value, vector in zip(values[:_SLIDERS], vectors, strict=False)
    ]


def _mean_squared_slope(compiled, prior, nlatent, classes):
    """-> [nlatent, nlatent]: the pixels' slopes times each other, on average over a few draws."""
    rng = np.random.default_rng(0)
    count = int(np.clip(_SLOPE_IMAGES // (nlatent + 1), 2, 64))
    learnt = [label for label, name in enumerate(classes) if name is not None]
    gram = np.zeros([nlatent, nlatent])
    for k, z in enumerate(prior.sample(rng, [count, nlatent])):
        beside = np.concatenate([z[None], z + _SLOPE_STEP * np.eye(nlatent, dtype=np.float32)])
        label = learnt[k % len(learnt)] if learnt else None
        images = _images(compiled, beside, label, len(classes))
        slopes = (images[1:] - images[0]) / _SLOPE_STEP
        gram += slopes @ slopes.T / count
    return gram


def _images(compiled, z, label, classes):
    """[n, nlatent], one label or None -> float64 [n, 784]."""
    images = []
    for part in np.array_split(z, -(-len(z) // 100)):
        labels = {}
        if label is not None:
            labels["labels"] = np.eye(classes, dtype=np.float32)[[label] * len(part)]
        images.append(numpy_generator.run(compiled.lines, compiled.constants, z=part, **labels))
    return np.concatenate(images).astype(np.float64)


def _facts(folder, generator, graph):
    """What the page says about a run."""
    configuration = RunFolder(folder).configuration()
    overrides = {name: v for name, v in configuration.overrides.items() if name != "num_steps"}
    scores, note = _scores(folder / "metrics.json", generator)
    notes = [note] if note else []
    if graph.fixed_statistics:
        notes.append(
            "This generator normalises by the statistics of its batch. Here they are those of 256 "
            "draws, so that each latent has one picture."
        )
    return {
        "title": f"{configuration.recipe}, {generator.step:,} steps",
        "recipe": configuration.recipe,
        "facts": {
            "recipe": configuration.recipe,
            "steps": f"{generator.step:,}",
            **{name: _shown(value) for name, value in overrides.items()},
            "seed": str(configuration.seed),
            "latents": f"{graph.nlatent}, {graph.prior}",
        },
        "scores": scores,
        "notes": notes,
        "film": film(folder / "progress"),
    }


def _scores(path, generator):
    """-> (rows of a table, a note on why there is none); the first row holds the headings."""
    try:
        content = json.loads(path.read_text())
        if not generator.is_scored_by(content):
            return [], "There are scores of other weights only."
        columns = {"this run": content, **content.get("reference_scores", {})}
        rows = [
            [text, *(f"{float(scores[name]):.4g}" for scores in columns.values())]
            for name, text in _SCORES.items()
        ]
        return [["", *columns], *rows], ""
    except FileNotFoundError:
        return [], "No scores yet: python main.py --mode=evaluate gives some."
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], f"{path.name} could not be read."


def film(folder):
    """progress/step-N.png -> {"steps": [...], "side", "sheet": a data URI of all frames}, or None.

    The frames lie one below the other, of the first 6 x 6 tiles each; fewer where they take more
    than 600 kB.
    """
    paths = sorted(folder.glob("step-*.png"))
    for most in (_FILM_FRAMES, _FILM_FRAMES // 2, _FILM_FRAMES // 4):
        chosen = np.unique(np.linspace(0, len(paths) - 1, most).round().astype(int))
        frames = [_frame(paths[k]) for k in chosen] if len(paths) > 1 else []
        if not frames or any(frame is None for frame in frames):
            return None
        sheet = _png(np.concatenate(frames))
        if len(sheet) <= _FILM_BYTES:
            return {
                "steps": [int(re.sub(r"\D", "", paths[k].stem) or 0) for k in chosen],
                "side": _FILM_TILES * SIDE,
                "sheet": "data:image/png;base64," + base64.b64encode(sheet).decode(),
            }
    return None


def _frame(path):
    """A sheet of tiles -> its upper left corner, uint8 [168, 168]; None for another file."""
    side = _FILM_TILES * SIDE
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if not side <= min(picture.size) or max(picture.size) > 100 * SIDE:
                return None
            return np.asarray(picture.convert("L").crop((0, 0, side, side)))
    except (OSError, ValueError, SyntaxError):
        return None


def _png(levels):
    buffer = io.BytesIO()
    Image.fromarray(levels).quantize(32).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _packed(constants):
    """{name: ndarray} -> (JSON of each, base64 of all float numbers as float16).

    Each array is first divided by the power of two that its largest number is near, so that none
    is out of float16's range. All low bytes come before all high ones: so they compress.
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
    return described, base64.b64encode(_deflated(planes)).decode()


def _deflated(data):
    """By the frequency of each byte alone: weights have no words that come again."""
    packer = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(data) + packer.flush()


def _part(name):
    return (_PARTS / name).read_text(encoding="utf-8")


def _policy(style, script):
    """The only things that the page may do: its own style and script, a worker, inline pictures."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "worker-src blob:; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text):
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _json_in_html(value):
    """No text in it can end the element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _filled(template, **parts):
    """A template -> the same with parts for {{names}}, whatever stands in a part."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _shown(value):
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
