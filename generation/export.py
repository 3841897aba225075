"""A trained generator for use without this project: SavedModel, ONNX, NumPy."""

import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

import generation
from generation import numpy_generator, program
from generation.frozen import freeze
from support.data_sets import SIDE
from support.errors import UserError

_OPSET = 17
# Tells an export from other folders; lists all files of the export.
_MARK, _FORMAT = "export.json", "export of a small GAN, 1"


def export(run_dir, target, *, log: Callable = print, **loading) -> list[str]:
    """Exports a run's generator to a folder; replaces an earlier export.

    saved_model/ has the signature `serving_default`, z `[n, nlatent]` to images `[n, 28, 28]` in
    [0, 1]. generator.onnx has z and images; it requires tf2onnx. generator.npz is run by
    numpy_generator.py; it requires that program.py has all operations. With a conditional generator
    all take labels, one-hot `[n, 10]`. export.json, generator.onnx and generator.npz have the
    prior, its quantiles, the number of latents and the labels.

    Args:
      run_dir: The run folder.
      target: The folder to write: a new one, an empty one or an earlier export.
      log: A function of a line, for damaged checkpoints and skipped files.
      **loading: Options of `generation.load`.

    Returns:
      The names of what the folder contains.

    Raises:
      UserError: If `target` is something else; it is unchanged.
    """
    target = Path(target).expanduser().absolute()
    _check_replaceable(target)
    generator = generation.load(run_dir, log=log, **loading)
    frozen = freeze(generator)
    generator.close()
    metadata = frozen.metadata()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as scratch:
        new = Path(scratch, "new")
        _save_model(new / "saved_model", frozen)
        _save_onnx(new / "generator.onnx", frozen, metadata, log)
        _save_program(new, frozen, metadata, log)
        about = {
            "format": _FORMAT,
            "step": generator.step,
            **{name: value.tolist() for name, value in metadata.items()},
            "fixed_statistics": frozen.fixed_statistics,
            "files": sorted(_files(new) | {_MARK}),
        }
        (new / _MARK).write_text(json.dumps(about, indent=2) + "\n")
        if target.exists():
            target.rename(Path(scratch, "old"))
        new.rename(target)
    return sorted(path.name for path in target.iterdir())


def _save_model(path, frozen):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = frozen.placeholders()
        outputs = {"images": _images(frozen, inputs)}
        tf.saved_model.simple_save(session, str(path), inputs, outputs)


def _images(frozen, inputs):
    return tf.reshape(frozen.pixels(**inputs), [-1, SIDE, SIDE], name="images")


def _save_onnx(path, frozen, metadata, log):
    if importlib.util.find_spec("tf2onnx") is None:
        log(f"Skipped {path.name}: install tf2onnx for it.")
        return
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with tf.Graph().as_default() as graph:
        inputs = frozen.placeholders()
        names = {tensor.name: name for name, tensor in inputs.items()}
        images = _images(frozen, inputs)
        model, _ = tf2onnx.convert.from_graph_def(
            graph.as_graph_def(),
            input_names=list(names),
            output_names=[images.name],
            tensors_to_rename={**names, images.name: "images"},
            opset=_OPSET,
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        log(f"Skipped {path.name}: {str(error).splitlines()[0]}.")
        return
    texts = {name: json.dumps(value.tolist()) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    path.write_bytes(model.SerializeToString())


def _save_program(folder, frozen, metadata, log):
    try:
        compiled = program.compile_graph(frozen)
    except program.UnsupportedOperation as error:
        log(f"Skipped generator.npz: {error}.")
        return
    np.savez(
        folder / "generator.npz",
        **metadata,
        program=np.array([" ".join(line) for line in compiled.lines]),
        **compiled.constants,
    )
    shutil.copyfile(numpy_generator.__file__, folder / "numpy_generator.py")


def _check_replaceable(target):
    """Checks that `target` is missing, empty or an unchanged export.

    Raises:
      UserError: If it is not.
    """
    own = set()
    with suppress(OSError, ValueError, KeyError, TypeError):
        own = set(json.loads((target / _MARK).read_text())["files"])
    is_folder = target.is_dir() and not target.is_symlink()
    if os.path.lexists(target) and not (is_folder and _files(target) <= own):
        raise UserError(f"--out={target} exists and is not an export; choose another folder")


def _files(folder):
    """Returns the relative paths of all that a folder contains except folders."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
