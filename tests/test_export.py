"""Exports: the same images elsewhere, and no other files lost on the way."""

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import test_priors
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
model = tf.saved_model.load(sys.argv[1])
z = tf.constant(np.load(sys.argv[2]))
serve, draw = model.signatures["serving_default"], model.signatures["sample"]
out = serve(z=z)["images"]
assert serve(z=z[:0])["images"].shape == (0, 28, 28)
unknown = tf.tensor_scatter_nd_update(z, [[1, 0]], [np.nan])
strange = serve(z=unknown)["images"].numpy()
assert np.isnan(strange[1]).all() and np.allclose(np.delete(strange, 1, 0), np.delete(out, 1, 0))
one, same, two = (draw(seed=tf.constant(s), count=tf.constant(5)) for s in (1, 1, 2))
assert one["images"].shape == (5, 28, 28)
assert np.array_equal(one["z"], same["z"]) and not np.array_equal(one["z"], two["z"])
assert draw(seed=tf.constant(1), count=tf.constant(0))["images"].shape == (0, 28, 28)
many = draw(seed=tf.constant(3), count=tf.constant(300))["z"].numpy()
metadata = {name: tensor.numpy() for name, tensor in model.signatures["metadata"]().items()}
np.savez(sys.argv[3], images=out.numpy(), drawn=many, **metadata)
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EXPORTED)
def test_exports_generate_the_same_images(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "STATISTICS_BATCH", 32)
    folder = train(tmp_path, f"--recipe={recipe}")
    main("--mode=export", f"--run_dir={folder}")
    out, generator = folder / "export", generation.load(folder)
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
    command = [sys.executable, "-c", _PLAIN_TENSORFLOW, out / "saved_model", tmp_path / "z.npy"]
    done = subprocess.run([*command, tmp_path / "out.npz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_allclose(file["images"], images, atol=1e-4)
        assert len(np.unique(file["drawn"])) > 0.99 * file["drawn"].size
        assert (file["nlatent"], len(file["classes"])) == (generator.recipe.nlatent, 0)
        assert file["prior"].item().decode() == generator.recipe.prior
        cdf = test_priors.CDFS[generator.recipe.prior]
        assert test_priors.kolmogorov(file["drawn"].ravel(), cdf) < 1.95


def test_exports_of_numpy_and_onnx_without_this_project(exported, tmp_path):
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
    command = [sys.executable, exported / "numpy_generator.py", path, "6"]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONSAFEPATH": "1"})
    with np.load(tmp_path / "samples.npz") as file:
        assert file["images"].shape == (6, 28, 28)


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
        assert "cannot write it (" in err and len(err.splitlines()) == 1
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


def test_interrupted_export_keeps_the_old_one(run, tmp_path, monkeypatch, without_onnx):
    target, replace = tmp_path / "out", os.replace
    export(run, target)
    before = (target / "export.json").stat().st_mtime_ns

    def interrupt(source, to):
        replace(source, to)
        if os.fspath(source) == os.fspath(target):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        export(run, target)
    assert (target / "export.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
