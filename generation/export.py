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
from input_data import NUM_CLASSES, SIDE
from support.errors import UserError

_OPSET = 17
# Tells an export from other folders; lists all files of the export.
_MARK, _FORMAT = "export.json", "export of a small GAN, 1"


def export(run_dir, target, *, log: Callable = print, **loading) -> list[str]:
    """Exports a run's generator to a folder; replaces an earlier export atomically.

    saved_model/ has the signatures `serving_default`, z `[n, nlatent]` to images `[n, 28, 28]` in
    [0, 1], `sample`, int32 seed and count to images and z from the prior, and `metadata`.
    generator.onnx has z and images; it requires tf2onnx. generator.npz is run by
    numpy_generator.py; it requires that program.py has all operations. With a conditional generator
    all take labels, one-hot `[n, 10]`; its samples have each in turn. Each form has the prior, the
    number of latents and the labels.

    Args:
      run_dir: The run folder.
      target: The folder to write: a new one, an empty one or an earlier export.
      log: A function of a line, for damaged checkpoints and skipped files.
      **loading: Options of `generation.load`.

    Returns:
      The names of what the folder contains.

    Raises:
      UserError: If `target` is something else, or cannot be written; it is unchanged.
    """
    target = Path(target).expanduser().absolute()
    _check_replaceable(target)
    generator = generation.load(run_dir, log=log, **loading)
    frozen = freeze(generator)
    generator.close()
    metadata = frozen.metadata()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as scratch:
            new, old = Path(scratch, "new"), Path(scratch, "old")
            _save_model(new / "saved_model", frozen, metadata)
            _save_onnx(new / "generator.onnx", frozen, metadata, log)
            _save_program(new, frozen, metadata, log)
            about = {
                "format": _FORMAT,
                "step": generator.step,
                **{name: metadata[name].tolist() for name in ("nlatent", "prior", "classes")},
                "fixed_statistics": frozen.fixed_statistics,
                "files": sorted(_files(new) | {_MARK}),
            }
            (new / _MARK).write_text(json.dumps(about, indent=2) + "\n")
            _check_replaceable(target)  # again: it may have changed meanwhile
            try:
                if target.exists():
                    os.replace(target, old)
                os.replace(new, target)
            except BaseException:
                if old.exists() and not target.exists():
                    os.replace(old, target)
                raise
        return sorted(path.name for path in target.iterdir())
    except (OSError, tf.errors.OpError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(f"--out={target}: cannot write it ({why})") from error


def _save_model(path, frozen, metadata):
    signature = tf.saved_model.predict_signature_def
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = frozen.placeholders()
        seed, count = (tf.placeholder(tf.int32, [], name) for name in ("seed", "count"))
        draws = _draw(frozen, metadata, seed, count)
        images, drawn = (_images_of_any_number(frozen, each) for each in (inputs, draws))
        constants = {
            name: tf.saved_model.build_tensor_info(tf.constant(value))
            for name, value in metadata.items()
        }
        signatures = {
            "serving_default": signature(inputs, {"images": images}),
            "sample": signature({"seed": seed, "count": count}, {"images": drawn, **draws}),
            "metadata": tf.saved_model.build_signature_def(
                {}, constants, tf.saved_model.PREDICT_METHOD_NAME
            ),
        }
        builder = tf.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()


def _images_of_any_number(frozen, inputs):
    """Generates images `[n, 28, 28]`, also for n = 0, of NaN for a latent with a NaN.

    TensorFlow's convolutions return a wrong shape for an empty batch; its ReLU maps NaN to 0.
    """
    count = tf.shape(inputs["z"])[0]
    spare = [[0, tf.maximum(1 - count, 0)], [0, 0]]
    padded = {name: tf.pad(tensor, spare) for name, tensor in inputs.items()}
    images = _images(frozen, padded)[:count]
    unknown = tf.reduce_any(tf.is_nan(inputs["z"]), axis=1)[:, None, None]
    return tf.where_v2(unknown, tf.constant(np.nan, tf.float32), images)


def _images(frozen, inputs):
    return tf.reshape(frozen.pixels(**inputs), [-1, SIDE, SIDE], name="images")


def _draw(frozen, metadata, seed, count):
    """Draws `count` latents, {"z": ...}, with "labels" in turn if conditional."""
    levels, quantiles = map(tf.constant, metadata["prior_quantiles"])
    shape = tf.stack([count, frozen.nlatent])
    level = tf.reshape(tf.random.stateless_uniform(shape, tf.stack([seed, 0])), [-1])
    above = tf.clip_by_value(tf.searchsorted(levels, level, "right"), 1, levels.shape[0] - 1)
    ends = [tf.gather(each, above + k) for each in (levels, quantiles) for k in (-1, 0)]
    low, high, value, next_value = ends
    z = value + (next_value - value) * (level - low) / (high - low)
    draws = {"z": tf.reshape(z, shape)}
    if frozen.classes:
        in_turn = tf.gather(frozen.classes, tf.range(count) % len(frozen.classes))
        draws["labels"] = tf.one_hot(in_turn, NUM_CLASSES)
    return draws


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
    if not os.path.lexists(target):
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((target / _MARK).read_text())
            if about["format"] == _FORMAT and _files(target) <= set(about["files"]):
                return
    raise UserError(f"--out={target} exists and is not an export; choose another folder")


def _files(folder):
    """Returns the relative paths of all that a folder contains except folders."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
