"""Runs an exported generator with NumPy alone: no TensorFlow, nothing else of this project.

python numpy_generator.py generator.npz 16        16 images into samples.npz
images = numpy_generator.generate("generator.npz", latents)
"""

import sys

import numpy as np

# Images made at once: their pictures of many channels have to fit into memory.
_AT_ONCE = 100
_NUM_LABELS = 10


def _convolution(x, kernel, strides):
    """[n, h, w, c], [height, width, c, m] -> [n, ., ., m], within the borders."""
    (height, width), (down, right) = kernel.shape[:2], strides
    rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // right + 1
    total = np.zeros([len(x), rows, columns, kernel.shape[3]], np.float32)
    for i in range(height):
        for j in range(width):
            met = x[
                :, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right
            ]
            total += met @ kernel[i, j]
    return total


def _depth_to_space(x, block):
    n, height, width, depth = x.shape
    filters = depth // block**2
    squares = x.reshape(n, height, width, block, block, filters).swapaxes(2, 3)
    return squares.reshape(n, height * block, width * block, filters)


def _slice(x, begin, size):
    """A size of -1 reaches to the end."""
    ends = (None if n < 0 else start + n for start, n in zip(begin, size, strict=True))
    return x[tuple(map(slice, begin, ends))]


def _spread(x, strides):
    """Zeros between the pixels, so that they are `strides` apart."""
    n, height, width, depth = x.shape
    down, right = strides
    spread = np.zeros([n, (height - 1) * down + 1, (width - 1) * right + 1, depth], np.float32)
    spread[:, ::down, ::right] = x
    return spread


_OPERATIONS = {
    "Abs": np.abs,
    "Add": np.add,
    "Concat": lambda *parts: np.concatenate(parts[:-1], parts[-1]),
    "Conv2D": _convolution,
    "DepthToSpace": _depth_to_space,
    "Div": np.divide,
    "Elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "Exp": np.exp,
    "LeakyRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "MatMul": np.matmul,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Mul": np.multiply,
    "Pad": np.pad,
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": np.reshape,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Sigmoid": lambda x: 0.5 * (np.tanh(0.5 * x) + 1),
    "Slice": _slice,
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Spread": _spread,
    "Sqrt": np.sqrt,
    "Square": np.square,
    "Sub": np.subtract,
    "Sum": lambda x, axes: np.sum(x, tuple(axes), keepdims=True),
    "Tanh": np.tanh,
    "Transpose": np.transpose,
}


def run(lines, constants, **inputs):
    """A program's lines and constants, inputs of n rows each -> pixels [n, 784]."""
    values = {**constants, **inputs}
    for operation, name, *taken in lines:
        values[name] = _OPERATIONS[operation](*(values[key] for key in taken))
    return values[name]


def generate(path, z, labels=None):
    """A `generator.npz` and latents [n, nlatent] -> float32 [n, 28, 28] in [0, 1].

    labels: whole numbers [n], for a conditional generator alone. A latent with a NaN gives an image
    of NaN. ValueError for other shapes or labels.
    """
    with np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in file.files}
    lines = [line.split() for line in values.pop("program")]
    inputs = _inputs(np.asarray(z, np.float32), labels, values)
    images = [
        run(lines, values, **{name: rows[k : k + _AT_ONCE] for name, rows in inputs.items()})
        for k in range(0, max(1, len(z)), _AT_ONCE)
    ]
    images = np.concatenate(images).reshape(-1, 28, 28).astype(np.float32, copy=False)
    images[np.isnan(inputs["z"]).any(axis=1)] = np.nan
    return images


def sample(path, n, seed=0, labels=None):
    """n draws from the generator's prior -> (float32 [n, 28, 28] in [0, 1], latents).

    labels: as for `generate`; a conditional generator takes each in turn unless told otherwise.
    """
    with np.load(path, allow_pickle=False) as file:
        nlatent, classes = int(file["nlatent"]), file["classes"]
        levels, quantiles = file["prior_levels"], file["prior_quantiles"]
    uniform = np.random.default_rng(seed).random((n, nlatent))
    z = np.interp(uniform, levels, quantiles).astype(np.float32)
    if len(classes) and labels is None:
        labels = np.resize(classes, n)
    return generate(path, z, labels), z


def _inputs(z, labels, about):
    """-> {name of an input: array [n, .]}."""
    nlatent, classes = int(about["nlatent"]), about["classes"].tolist()
    if z.ndim != 2 or z.shape[1] != nlatent:
        raise ValueError(f"latents have shape {z.shape}, wanted (n, {nlatent})")
    if not classes:
        if labels is not None:
            raise ValueError("labels: this generator is not conditional, leave them out")
        return {"z": z}
    if np.shape(labels) != (len(z),) or not set(np.unique(labels)) <= set(classes):
        raise ValueError(f"labels: wanted {len(z)} of {', '.join(map(str, classes))}")
    return {"z": z, "labels": np.eye(_NUM_LABELS, dtype=np.float32)[np.asarray(labels)]}


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python numpy_generator.py generator.npz COUNT")
    made, latents = sample(sys.argv[1], int(sys.argv[2]))
    np.savez("samples.npz", images=made, latents=latents)
    print(f"samples.npz: images {made.shape}, latents {latents.shape}")
