"""Runs an exported generator with NumPy only, without TensorFlow or this project.

images, latents = numpy_generator.sample("generator.npz", 16)
images = numpy_generator.generate("generator.npz", latents)
"""

import numpy as np

# Images per pass: feature maps of many channels must fit into memory.
_IMAGES_PER_PASS = 100
_NUM_LABELS = 10


def _convolution(x, kernel, strides):
    """Convolves `[n, h, w, c]` with `[height, width, c, m]`, without padding."""
    (height, width), (down, right) = kernel.shape[:2], strides
    rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // right + 1
    total = np.zeros([len(x), rows, columns, kernel.shape[3]], np.float32)
    for i in range(height):
        for j in range(width):
            below, beyond = i + (rows - 1) * down + 1, j + (columns - 1) * right + 1
            total += x[:, i:below:down, j:beyond:right] @ kernel[i, j]
    return total


def _slice(x, begin, size):
    """Returns a part of x; a size of -1 reaches to the end."""
    ends = (None if n < 0 else start + n for start, n in zip(begin, size, strict=True))
    return x[tuple(map(slice, begin, ends))]


_OPERATIONS = {
    "Abs": np.abs,
    "Add": np.add,
    "Concat": lambda *parts: np.concatenate(parts[:-1], parts[-1]),
    "Conv2D": _convolution,
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
    "Sqrt": np.sqrt,
    "Square": np.square,
    "Sub": np.subtract,
    "Sum": lambda x, axes: np.sum(x, tuple(axes), keepdims=True),
    "Tanh": np.tanh,
    "Transpose": np.transpose,
}


def run(lines, constants, **inputs):
    """Runs a program's lines on inputs of n rows each. Returns the last result."""
    results = []
    for start in range(0, max(1, len(inputs["z"])), _IMAGES_PER_PASS):
        values = dict(constants)
        for name, rows in inputs.items():
            values[name] = rows[start : start + _IMAGES_PER_PASS]
        for operation, name, *arguments in lines:
            values[name] = _OPERATIONS[operation](*(values[key] for key in arguments))
        results.append(values[name])
    return np.concatenate(results)


def generate(path, z, labels=None):
    """Generates images from latents.

    Args:
      path: A `generator.npz`.
      z: Latents `[n, nlatent]`.
      labels: Integers `[n]`, only for a conditional generator.

    Returns:
      float32 `[n, 28, 28]` in [0, 1].

    Raises:
      ValueError: For a wrong shape, or a label that was not trained.
    """
    with np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in file.files}
    lines = [line.split() for line in values.pop("program")]
    z, classes = np.asarray(z, np.float32), values["classes"].tolist()
    if z.ndim != 2 or z.shape[1] != values["nlatent"]:
        raise ValueError(f"latents must have shape (n, {values['nlatent']}), got {z.shape}")
    inputs = {"z": z}
    if classes:
        if np.shape(labels) != (len(z),) or not set(np.unique(labels)) <= set(classes):
            raise ValueError(f"labels must be {len(z)} of {', '.join(map(str, classes))}")
        inputs["labels"] = np.eye(_NUM_LABELS, dtype=np.float32)[np.asarray(labels, int)]
    elif labels is not None:
        raise ValueError("labels must be None, this generator is not conditional")
    return run(lines, values, **inputs).reshape(-1, 28, 28).astype(np.float32, copy=False)


def sample(path, n, seed=0, labels=None):
    """Draws n latents from the generator's prior and generates their images.

    Args:
      path: A `generator.npz`.
      n: The number of draws.
      seed: Seed of the latents.
      labels: Like `generate`, but None stands for all trained labels in turn.

    Returns:
      (float32 images `[n, 28, 28]` in [0, 1], latents `[n, nlatent]`).
    """
    with np.load(path, allow_pickle=False) as file:
        nlatent, quantiles, classes = file["nlatent"], file["prior_quantiles"], file["classes"]
    uniform = np.random.default_rng(seed).random((n, nlatent))
    z = np.interp(uniform, *quantiles).astype(np.float32)
    if len(classes) and labels is None:
        labels = np.resize(classes, n)
    return generate(path, z, labels), z
