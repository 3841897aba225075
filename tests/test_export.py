"""Exports: the same images elsewhere, and no other files lost on the way."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import test_priors
from assembly import python
from test_generation import main, metadata_of, train

import generation
from generation import frozen, numpy_generator
from generation.export import export
from models import priors

# dcgan's generator has no operation that the last two have not.
EXPORTED = ("stable_cnn", "minimal", "leaky_mlp", "upsampling_cnn", "pretrained_cnn")
# Priors and statistics differ; a process takes seconds.
IN_PLAIN_TENSORFLOW = ("stable_cnn", "minimal", "pretrained_cnn")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("minimal"))


@pytest.fixture(scope="module")
def exported(run):
    export(run, run / "export")
    return run / "export"


@pytest.fixture
def without_onnx(monkeypatch):
    """Makes exports several times faster."""
    monkeypatch.setitem(sys.modules, "tf2onnx", None)


_PLAIN_TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
generate = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.save(sys.argv[3], generate(z=tf.constant(np.load(sys.argv[2])))["images"].numpy())
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EXPORTED)
def test_exports_generate_the_same_images(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "STATISTICS_BATCH", 32)
    folder = train(tmp_path, f"--recipe={recipe}")
    main("--mode=export", f"--run_dir={folder}")
    out, generator = folder / "export", generation.load(folder)
    about = json.loads((out / "export.json").read_text())
    assert about["fixed_statistics"] == (recipe == "pretrained_cnn")
    # As many as pretrained_cnn's statistics are taken from, and the same.
    z = generator.latents(32 if recipe == "pretrained_cnn" else 9, np.random.default_rng(0))
    images = generator.generate(z)
    onnx = onnxruntime.InferenceSession(out / "generator.onnx")
    for generate in (
        lambda z: onnx.run(["images"], {"z": z})[0],
        lambda z: numpy_generator.generate(out / "generator.npz", z),
    ):
        np.testing.assert_allclose(generate(z), images, atol=1e-4)
        np.testing.assert_allclose(generate(z[7:8])[0], images[7], atol=1e-4)
        assert generate(z[:0]).shape == (0, 28, 28)
    if recipe not in IN_PLAIN_TENSORFLOW:
        return
    np.save(tmp_path / "z.npy", z)
    paths = out / "saved_model", tmp_path / "z.npy", tmp_path / "out.npy"
    python("-c", _PLAIN_TENSORFLOW, *paths)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), images, atol=1e-4)
    _, drawn = numpy_generator.sample(out / "generator.npz", 300, seed=3)
    cdf = test_priors.CDFS[generator.recipe.prior]
    assert test_priors.kolmogorov(drawn.ravel(), cdf) < 1.95


def test_exports_of_numpy_and_onnx_without_this_project(exported):
    path, z = exported / "generator.npz", np.full([3, 10], 0.5, np.float32)
    z[1, 4] = np.nan
    onnx = onnxruntime.InferenceSession(exported / "generator.onnx")
    for images in (numpy_generator.generate(path, z), onnx.run(None, {"z": z})[0]):
        assert np.isnan(images).mean(axis=(1, 2)).tolist() == [0, 1, 0]
    assert metadata_of(exported) == {"nlatent": 10, "prior": "uniform", "classes": []}
    with pytest.raises(ValueError, match=r"must have shape \(n, 10\), got \(3, 4\)"):
        numpy_generator.generate(path, np.zeros([3, 4]))
    with pytest.raises(ValueError, match="not conditional"):
        numpy_generator.generate(path, np.zeros([3, 10]), labels=[1, 2, 3])
    program = "import numpy_generator as g; print(g.sample('generator.npz', 6)[0].shape)"
    assert python("-c", program, cwd=exported) == "(6, 28, 28)\n"


def test_new_prior_is_exported_by_its_draws(tmp_path, monkeypatch, without_onnx):
    class Triangle(priors.Prior):
        def sample(self, rng, shape):
            return np.minimum(*rng.random([2, *np.atleast_1d(shape)], np.float32))

    monkeypatch.setitem(priors.PRIORS, "triangle", Triangle("triangle", 0.0, 1.0))
    export(train(tmp_path, "--prior=triangle"), tmp_path / "out")
    _, z = numpy_generator.sample(tmp_path / "out" / "generator.npz", 2000, seed=1)
    assert test_priors.kolmogorov(z.ravel(), lambda x: 1 - (1 - x) ** 2) < 1.95


def test_only_an_unchanged_export_is_replaced(run, exported, tmp_path, without_onnx):
    alike, added, file, link = (tmp_path / name for name in ("alike", "added", "file", "link"))
    (alike / "saved_model").mkdir(parents=True)
    (alike / "saved_model" / "precious").write_text("x")
    export(run, added)
    assert (added / "generator.npz").read_bytes() == (exported / "generator.npz").read_bytes()
    (added / "saved_model" / "mine").write_text("kept")
    file.write_text("x")
    link.symlink_to(exported)
    for path in (alike, added, file, link, run):
        before = sorted(map(str, path.rglob("*")))
        _, err = main("--mode=export", f"--run_dir={run}", f"--out={path}", ok=False)
        assert err.startswith(f"main.py: --out={path} exists and is not an export")
        assert sorted(map(str, path.rglob("*"))) == before
    for path in (tmp_path / ("x" * 256), file / "below"):
        _, err = main("--mode=export", f"--run_dir={run}", f"--out={path}", ok=False)
        assert err.startswith("main.py: ") and len(err.splitlines()) == 1
    (added / "saved_model" / "mine").unlink()
    (added / "generator.npz").write_text("old")
    main("--mode=export", f"--run_dir={run}", f"--out={added}")
    assert (added / "generator.npz").stat().st_size > 1000
    assert not list(tmp_path.glob(".*"))


def test_files_that_cannot_be_made_are_skipped(tmp_path, without_onnx):
    own = tmp_path / "own.py"
    own.write_text(_SINE)
    folder = train(tmp_path, f"--gan={own}:Sine")
    flags = (f"--gan={own}:Sine", f"--run_dir={folder}")
    text, _ = main("--mode=export", *flags, f"--out={tmp_path / 'out'}")
    onnx, numpy, _ = text.splitlines()
    assert onnx == "Skipped generator.onnx: install tf2onnx for it."
    assert numpy.startswith("Skipped generator.npz: the generator's operation Sin (")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"export.json", "saved_model"}


_SINE = """
import tensorflow.compat.v1 as tf
from models.gan import Gan

class Sine(Gan):
    def _generator(self, z, reuse=False):
        return 0.5 * tf.sin(super()._generator(z, reuse)) + 0.5
"""
