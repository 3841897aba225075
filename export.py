"""A trained generator without this project: a SavedModel, ONNX, NumPy for the dense ones."""

import importlib.util
import logging
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import numpy_generator
import trained
from errors import UserError
from input_data import SIDE
from models import recipes

_OPSET = 17
_CONTENTS = {"saved_model", "generator.onnx", "generator.npz", "numpy_generator.py"}


class _Frozen(NamedTuple):
    """The part of a graph from `z` to the images, with constants for variables."""

    definition: tf.GraphDef
    output: str
    recipe: recipes.Recipe

    def images(self, z):
        """[n, nlatent] -> [n, 28, 28] in [0, 1], in the current graph."""
        feed, fetch = {"z:0": z}, [f"{self.output}:0"]
        (pixels,) = tf.import_graph_def(self.definition, feed, fetch, name="generator")
        return tf.reshape(pixels, [-1, SIDE, SIDE], name="images")

    def latents(self):
        """A placeholder for z."""
        return tf.placeholder(tf.float32, [None, self.recipe.nlatent], "z")


def export(run_dir, target, *, checkpoint=None, raw=False, say=print):
    """A run -> a folder `target`, put in place when it is complete; -> the names of what it holds.

    saved_model/: signature `serving_default`, z [n, nlatent] -> images [n, 28, 28] in [0, 1], and
    `sample`, int32 seed and count -> images and z, drawn from the prior.
    generator.onnx, z -> images, where tf2onnx is installed.
    For dense recipes also generator.npz and numpy_generator.py, which runs it.
    say: takes a line for the user.
    """
    target = Path(target).absolute()
    if target.exists() and not _is_export(target):
        raise UserError(f"--out={target} exists and is no export: name another folder")
    generator = trained.load(run_dir, checkpoint=checkpoint, raw=raw)
    frozen = _frozen(generator, raw)
    generator.close()
    with _new_folder(target) as folder:
        _save_model(folder / "saved_model", frozen)
        _save_onnx(folder / "generator.onnx", frozen, say)
        _save_program(folder, frozen)
        return sorted(path.name for path in folder.iterdir())


def _is_export(path):
    """Whether a folder is empty or holds what an export leaves, and nothing else."""
    return path.is_dir() and {each.name for each in path.iterdir()} <= _CONTENTS


def _frozen(generator, raw):
    model = generator.model
    output = (model.x_hat if raw else model.x_average).op.name
    definition = model.graph.as_graph_def()
    with model.graph.as_default():
        frozen = tf.graph_util.convert_variables_to_constants(model.session, definition, [output])
    for node in frozen.node:  # elsewhere nobody knows the layers' own gradients
        node.attr.pop("_gradient_op_type", None)
    return _Frozen(frozen, output, generator.recipe)


def _save_model(path, frozen):
    with tf.Graph().as_default(), tf.Session() as session:
        z = frozen.latents()
        seed, count = (tf.placeholder(tf.int32, [], name) for name in ("seed", "count"))
        drawn = _DRAWS[frozen.recipe.prior](tf.stack([count, frozen.recipe.nlatent]), seed)
        signatures = {
            "serving_default": _signature({"z": z}, {"images": frozen.images(z)}),
            "sample": _signature(
                {"seed": seed, "count": count}, {"images": frozen.images(drawn), "z": drawn}
            ),
        }
        builder = tf.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()


def _signature(inputs, outputs):
    return tf.saved_model.predict_signature_def(inputs, outputs)


def _save_onnx(path, frozen, say):
    if importlib.util.find_spec("tf2onnx") is None:
        say(f"Left out: {path.name}, which takes `pip install tf2onnx`.")
        return
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with tf.Graph().as_default() as graph:
        images = frozen.images(frozen.latents())
        model, _ = tf2onnx.convert.from_graph_def(
            graph.as_graph_def(),
            input_names=["z:0"],
            output_names=[images.name],
            tensors_to_rename={"z:0": "z", images.name: "images"},
            opset=_OPSET,
        )
    path.write_bytes(model.SerializeToString())


def _save_program(folder, frozen):
    program = _program(frozen.definition)
    if program is not None:
        about = {"prior": frozen.recipe.prior, "nlatent": frozen.recipe.nlatent}
        np.savez(folder / "generator.npz", **about, **program)
        shutil.copy(numpy_generator.__file__, folder)


def _uniform(shape, seed, stream=0, low=0.0, high=1.0):
    return tf.random.stateless_uniform(shape, tf.stack([seed, stream]), low, high)


def _semicircle(shape, seed):
    radius = tf.sqrt(_uniform(shape, seed))
    return radius * tf.cos(np.pi * _uniform(shape, seed, stream=1))


_DRAWS = {
    "normal": lambda shape, seed: tf.random.stateless_normal(shape, tf.stack([seed, 0])),
    "semicircle": _semicircle,
    "uniform": lambda shape, seed: _uniform(shape, seed, low=-1.0),
    "uniform01": _uniform,
}


def _program(frozen):
    """A frozen graph -> arrays for `numpy_generator`, or None if it has other operations."""
    constants, lines = {}, []
    for node in frozen.node:
        if node.op == "Const":
            constants[node.name] = tf.make_ndarray(node.attr["value"].tensor)
        elif node.op in numpy_generator.OPERATIONS:
            inputs = [name.split(":")[0] for name in node.input]
            lines.append([node.op, node.name, *inputs])
        elif node.op != "Placeholder":
            return None
    used = {name for _, _, *inputs in lines for name in inputs} & constants.keys()
    program = np.array([" ".join(line) for line in lines])
    return {"program": program, **{name: constants[name] for name in used}}


@contextmanager
def _new_folder(target):
    """A folder to fill beside `target`, which it replaces when the body ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        old = Path(scratch) / "old"
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
