"""Makes the top-level modules importable; MNIST and a cache of classifiers."""

import gzip
import signal
import sys
from pathlib import Path

import pytest

# A shell that runs the tests in the background lets them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture(scope="session")
def mnist():
    import input_data

    return input_data.load("mnist")[0]


@pytest.fixture(scope="session")
def small_data_dir(mnist, tmp_path_factory):
    """A folder with 600 training and 200 test images of MNIST."""
    from small_sets import NAMES, idx

    folder = tmp_path_factory.mktemp("mnist")
    train, test = mnist.train[:600], mnist.test[:200]
    arrays = train.pixels.reshape(-1, 28, 28), train.file_labels
    arrays += test.pixels.reshape(-1, 28, 28), test.file_labels
    for name, array in zip(NAMES, arrays, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
    return folder


@pytest.fixture
def small(small_data_dir):
    import input_data

    return input_data.load(data_dir=small_data_dir)[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of the user's classifiers, which are trained for 20 steps."""
    from evaluation import reference

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(reference, "CACHED_STEPS", 20)
        yield folder / "small_gans"
