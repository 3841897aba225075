"""A trained generator without this project: a SavedModel, ONNX, a program for NumPy."""

import fcntl
import importlib.util
import json
import logging
import os
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

import generation
from generation import numpy_generator, program
from generation.frozen import freeze
from input_data import NUM_CLASSES, SIDE
from models import priors
from support.errors import UserError

_OPSET = 17
# The file that tells an export from other folders; it lists all the files beside it.
_MARK, _FORMAT = "export.json", "export of a small GAN, 1"


def export(run_dir, target, *, log=print, **loading):
    """A run -> a folder `target`, put in place when it is complete; -> the names of what it holds.

    saved_model/: signature `serving_default`, z [n, nlatent] -> images [n, 28, 28] in [0, 1], and
    `sample`, int32 seed and count -> images and z, drawn from the prior.
    generator.onnx, z -> images, where tf2onnx is installed.
    generator.npz and numpy_generator.py, which runs it, where all operations are known there.
    A conditional generator also takes labels, one-hot [n, 10]; its samples have each in turn.
    log: takes a line for the user; loading: options of `generation.load`.
    UserError, with `target` untouched, where that is something else than an export, or where
    nothing can be written.
    """
    target = Path(target).absolute()
    with _user_errors(target):
        if os.path.lexists(target) and not _is_export(target):
            raise UserError(f"--out={target} exists and is no export: name another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        generator = generation.load(run_dir, **loading)
        try:
            frozen = freeze(generator)
        finally:
            generator.close()
        with _new_folder(target) as folder:
            _save_model(folder / "saved_model", frozen)
            _save_onnx(folder / "generator.onnx", frozen, log)
            _save_program(folder, frozen, log)
            _save_mark(folder, frozen, generator.step)
            return sorted(path.name for path in folder.iterdir())


@contextmanager
def _user_errors(target):
    """What a disk or a name has against a folder ends in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--out={target}: cannot write it ({error.strerror or error})") from error
    except tf.errors.OpError as error:
        raise UserError(f"--out={target}: cannot write it ({error.message})") from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"--out={target}: TensorFlow writes to names in UTF-8 alone, name another folder"
        ) from error


# The files.


def _save_model(path, frozen):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = frozen.placeholders()
        seed, count = (tf.placeholder(tf.int32, [], name) for name in ("seed", "count"))
        drawn = _draws(frozen, seed, count)
        signatures = {
            "serving_default": _signature(inputs, {"images": _any_images(frozen, inputs)}),
            "sample": _signature(
                {"seed": seed, "count": count}, {"images": _any_images(frozen, drawn), **drawn}
            ),
        }
        builder = tf.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()


def _signature(inputs, outputs):
    return tf.saved_model.predict_signature_def(inputs, outputs)


def _any_images(frozen, inputs):
    """{name: [n, .]} -> [n, 28, 28] for all n, with NaN for a latent with a NaN.

    TensorFlow's convolutions give an empty batch a wrong shape, and its ReLU makes 0 of NaN.
    """
    count = tf.shape(inputs["z"])[0]
    spare = [[0, tf.maximum(1 - count, 0)], [0, 0]]
    padded = {name: tf.pad(tensor, spare) for name, tensor in inputs.items()}
    images = _images(frozen, padded)[:count]
    unknown = tf.reduce_any(tf.is_nan(inputs["z"]), axis=1)[:, None, None]
    return tf.where_v2(unknown, tf.constant(np.nan, tf.float32), images)


def _images(frozen, inputs):
    return tf.reshape(frozen.pixels(**inputs), [-1, SIDE, SIDE], name="images")


def _draws(frozen, seed, count):
    """-> {"z": count draws from the prior, and "labels", each in turn, if there are any}."""
    levels, quantiles = map(tf.constant, priors.get(frozen.prior).quantiles())
    shape = tf.stack([count, frozen.nlatent])
    level = tf.reshape(tf.random.stateless_uniform(shape, tf.stack([seed, 0])), [-1])
    above = tf.clip_by_value(tf.searchsorted(levels, level, "right"), 1, levels.shape[0] - 1)
    ends = [tf.gather(each, above + k) for each in (levels, quantiles) for k in (-1, 0)]
    low, high, value, next_value = ends
    z = value + (next_value - value) * (level - low) / (high - low)
    drawn = {"z": tf.reshape(z, shape)}
    if "labels" in frozen.inputs:
        in_turn = tf.gather(frozen.classes, tf.range(count) % len(frozen.classes))
        drawn["labels"] = tf.one_hot(in_turn, NUM_CLASSES)
    return drawn


def _save_onnx(path, frozen, log):
    if importlib.util.find_spec("tf2onnx") is None:
        log(f"Left out: {path.name}, which takes `pip install tf2onnx`.")
        return
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
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
    path.write_bytes(model.SerializeToString())


def _save_program(folder, frozen, log):
    try:
        compiled = program.compile_graph(frozen)
    except program.Unknown as error:
        log(f"Left out: generator.npz, for {error}.")
        return
    levels, quantiles = priors.get(frozen.prior).quantiles()
    np.savez(
        folder / "generator.npz",
        prior=frozen.prior,
        prior_levels=levels,
        prior_quantiles=quantiles,
        nlatent=frozen.nlatent,
        classes=np.array(frozen.classes, int),
        program=np.array([" ".join(line) for line in compiled.lines]),
        **compiled.constants,
    )
    shutil.copyfile(numpy_generator.__file__, folder / "numpy_generator.py")


def _save_mark(folder, frozen, step):
    about = {"format": _FORMAT, "step": step, "nlatent": frozen.nlatent, "prior": frozen.prior}
    about["fixed_statistics"] = frozen.fixed_statistics
    text = json.dumps({**about, "files": sorted({*_files(folder), _MARK})}, indent=2)
    (folder / _MARK).write_text(text + "\n")


# The folder.


def _files(folder):
    """-> relative paths of all that is in a folder but folders."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not _is_folder(path)}


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


def _is_export(path):
    """Whether a folder is empty, or an export by its own mark, with nothing added to it."""
    if not _is_folder(path):
        return False
    if not any(path.iterdir()):
        return True
    mark = path / _MARK
    try:
        about = json.loads(mark.read_text() if mark.is_file() else "")
        return about["format"] == _FORMAT and _files(path) <= set(about["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


@contextmanager
def _new_folder(target):
    """A folder to fill, which takes the place of `target` when the body ends well.

    All happens in a scratch folder beside it. What a kill leaves there is seen to by the next
    export to the same place: the old export put back, the rest removed.
    """
    # By its checksum: the name itself may have no room for more letters.
    scratch = target.with_name(f".export-{zlib.crc32(os.fsencode(target.name)):08x}")
    new, old = scratch / "new", scratch / "old"
    scratch.mkdir(exist_ok=True)
    with _held(scratch, target):
        try:
            _put_back(old, target)
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            yield new
            if target.exists():
                target.rename(old)
            new.rename(target)
        finally:
            _put_back(old, target)
            shutil.rmtree(scratch, ignore_errors=True)


def _put_back(old, target):
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _held(scratch, target):
    """Holds a folder for this process; UserError if another one has it."""
    handle = os.open(scratch, os.O_RDONLY)
    try:
        if not _locked(handle, scratch):
            raise UserError(f"--out={target}: another export to it is under way")
        yield
    finally:
        os.close(handle)


def _locked(handle, path):
    """Locks an open folder; -> whether it is this process's, and still the one at that path."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
