"""A trained generator for use without this project: a SavedModel, and NumPy for the dense ones."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

import numpy_generator
import trained
from atomic import replacing

_SIDE = 28


def export(run_dir, target, *, checkpoint=None, raw=False):
    """A run -> a folder `target`, put in place when it is complete; -> the names of what it holds.

    saved_model/: signature `serving_default`, z [n, nlatent] -> images [n, 28, 28] in [0, 1], and
    `sample`, int32 seed and count -> images and z, drawn from the prior.
    For dense recipes also generator.npz and numpy_generator.py, which runs it.
    """
    generator = trained.load(run_dir, checkpoint=checkpoint, raw=raw)
    frozen, output = _frozen(generator.model, raw)
    with _new_folder(Path(target)) as folder:
        _save_model(folder / "saved_model", generator.recipe, frozen, output)
        program = _program(frozen)
        if program is not None:
            recipe = generator.recipe
            with replacing(folder / "generator.npz") as temporary:
                np.savez(temporary, prior=recipe.prior, nlatent=recipe.nlatent, **program)
            shutil.copy(numpy_generator.__file__, folder)
        names = sorted(path.name for path in folder.iterdir())
    generator.close()
    return names


def _frozen(model, raw):
    """-> the part of the graph from z to the images with constants for variables, its output."""
    output = (model.x_hat if raw else model.x_average).op.name
    definition = model.graph.as_graph_def()
    with model.graph.as_default():
        frozen = tf.graph_util.convert_variables_to_constants(model.session, definition, [output])
    return frozen, output


def _save_model(path, recipe, frozen, output):
    with tf.Graph().as_default(), tf.Session() as session:

        def images(z):
            (pixels,) = tf.import_graph_def(frozen, {"z:0": z}, [f"{output}:0"], name="generator")
            return tf.reshape(pixels, [-1, _SIDE, _SIDE], name="images")

        z = tf.placeholder(tf.float32, [None, recipe.nlatent], "z")
        seed, count = (tf.placeholder(tf.int32, [], name) for name in ("seed", "count"))
        drawn = _DRAWS[recipe.prior](tf.stack([count, recipe.nlatent]), seed)
        signatures = {
            "serving_default": _signature({"z": z}, {"images": images(z)}),
            "sample": _signature(
                {"seed": seed, "count": count}, {"images": images(drawn), "z": drawn}
            ),
        }
        builder = tf.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()


def _signature(inputs, outputs):
    return tf.saved_model.predict_signature_def(inputs, outputs)


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
            if node.op == "LeakyRelu":
                inputs.append(f"{node.name}/slope")
                constants[inputs[-1]] = np.float32(node.attr["alpha"].f)
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
        if target.exists():
            target.rename(Path(scratch) / "old")
        folder.rename(target)
