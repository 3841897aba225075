"""Runs an exported dense generator with NumPy alone: no TensorFlow, nothing else of this project.

python numpy_generator.py generator.npz 16        16 images into samples.npz
images = numpy_generator.generate("generator.npz", latents)
"""

import sys

import numpy as np


def _sigmoid(x):
    return 0.5 * (np.tanh(0.5 * x) + 1)


def _part(x, begin, size):
    """A size of -1 reaches to the end."""
    ends = (None if n < 0 else start + n for start, n in zip(begin, size, strict=True))
    return x[tuple(map(slice, begin, ends))]


_OPERATIONS = {
    "AddN": lambda *terms: sum(terms),
    "AddV2": np.add,
    "Identity": np.asarray,
    "MatMul": np.matmul,
    "Maximum": np.maximum,
    "Mul": np.multiply,
    "Pad": np.pad,
    "RealDiv": np.divide,
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": np.reshape,
    "Sigmoid": _sigmoid,
    "Slice": _part,
    "Tanh": np.tanh,
    "Transpose": np.transpose,
}
OPERATIONS = tuple(_OPERATIONS)
_SAMPLERS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "semicircle": lambda rng, shape: 2 * rng.beta(1.5, 1.5, shape) - 1,
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "uniform01": lambda rng, shape: rng.uniform(0, 1, shape),
}


def generate(path, z):
    """A `generator.npz` and latents [n, nlatent] -> float32 [n, 28, 28] in [0, 1]."""
    with np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in file.files}
    values["z"] = np.asarray(z, np.float32)
    name = "z"
    for line in values["program"]:
        operation, name, *inputs = line.split()
        values[name] = _OPERATIONS[operation](*(values[key] for key in inputs))
    return values[name].reshape(-1, 28, 28)


def sample(path, n, seed=0):
    """n draws from the generator's prior -> (float32 [n, 28, 28] in [0, 1], latents)."""
    with np.load(path, allow_pickle=False) as file:
        prior, nlatent = str(file["prior"]), int(file["nlatent"])
    z = _SAMPLERS[prior](np.random.default_rng(seed), (n, nlatent)).astype(np.float32)
    return generate(path, z), z


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python numpy_generator.py generator.npz COUNT")
    made, latents = sample(sys.argv[1], int(sys.argv[2]))
    np.savez("samples.npz", images=made, latents=latents)
    print(f"samples.npz: images {made.shape}, latents {latents.shape}")
