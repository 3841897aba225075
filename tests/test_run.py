"""Run folders without TensorFlow: configuration, lock, checkpoints and tables."""

import contextlib
import dataclasses
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from input_data import DataSet, known
from models import recipes
from support.errors import RunError, UserError
from training.options import Configuration, RunOptions
from training.run import LOSS_COLUMNS, RunFolder, Table, digest

ROOT = Path(__file__).resolve().parent.parent
GAN = f"{ROOT}/models/gan.py:Gan"
DATA = DataSet(np.arange(90 * 784, dtype=np.uint32).astype(np.uint8).reshape(90, 784), [0] * 90)


def configuration(data=DATA, recipe="minimal", dataset="mnist", workers=1, **values):
    """Returns a configuration; `values` are options and hyperparameters."""
    options = {name: values.pop(name) for name in ("seed", "engine", "gan") if name in values}
    chosen = recipes.override(recipes.get(recipe), **values)
    info = known(dataset)
    return Configuration.of(recipe, chosen, RunOptions(**options), data, info, workers)


def state(step):
    """Returns variables of a small model after a step."""
    weights = np.random.default_rng(step).standard_normal([5, 3]).astype(np.float32)
    return {"generator/hidden/kernel": weights, "g_adam/updates": np.int32(step)}


def snapshot(folder):
    """Returns {path: (time, bytes)} of everything in a folder, itself included."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in paths}


def prepare(path, expected=None, *, new=False):
    """Opens a run folder for training and closes it; returns the lines logged."""
    lines = []
    with RunFolder(path).open_for_training(expected or configuration(), new=new, log=lines.append):
        pass
    return lines


@contextlib.contextmanager
def refused(folder, *patterns):
    """Context manager that expects a one-line UserError and no changed file."""
    before = snapshot(folder)
    with pytest.raises(UserError) as error:
        yield
    assert "\n" not in str(error.value)
    for pattern in patterns:
        assert re.search(pattern, str(error.value)), str(error.value)
    assert snapshot(folder) == before


@pytest.fixture
def folder(tmp_path):
    prepare(tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def begun(folder):
    folder.save_checkpoint(10, state(10))
    return folder


# Opening.


def test_new_folder_has_a_readable_configuration(tmp_path):
    expected = configuration(seed=7, nlatent=3, prior="normal", lr_milestones=(3, 5))
    assert prepare(tmp_path / "deep" / "run", expected) == []
    folder = RunFolder(tmp_path / "deep" / "run")
    assert sorted(os.listdir(folder.path)) == [".lock", "checkpoints", "config.json"]
    assert folder.configuration() == expected
    recorded = json.loads(folder.file("config.json").read_text())
    assert recorded["overrides"] == {"nlatent": 3, "prior": "normal", "lr_milestones": [3, 5]}
    assert recorded["versions"]["numpy"] == np.__version__


def test_folder_name_shows_what_differs_from_the_recipe():
    for values, name in [
        ({"num_steps": 7, "nlatent": 10}, "minimal"),  # the recipe's own nlatent
        ({"seed": 3, "nlatent": 2}, "minimal-nlatent=2-seed=3"),
        ({"dataset": None}, r"data=\w{8}-minimal"),
        ({"dataset": "kmnist", "gan": GAN}, r"kmnist-gan\.Gan-minimal"),
    ]:
        assert re.fullmatch(name, configuration(**values).folder_name())


def test_run_can_be_extended_and_shortened_but_not_below_its_checkpoint(tmp_path):
    for steps, kept in [(10, 10), (20, 20), (5, 5), (3, 5)]:
        assert prepare(tmp_path, configuration(num_steps=steps)) == []
        assert RunFolder(tmp_path).configuration().overrides == {"num_steps": kept}
        RunFolder(tmp_path).save_checkpoint(3, state(1))


DIFFERENT = [
    ({"nlatent": 3}, "--nlatent was 10, now 3"),
    ({"digit": 0}, "--digit was unset, now 0"),
    ({"engine": "step"}, "--engine was auto, now step"),
    ({"data": DataSet(255 - DATA.pixels, DATA.labels)}, r"was crc32:\w{8}, now crc32:\w{8}"),
    ({"gan": GAN}, r"\(--gan\) was unset, now Gan"),
    ({"seed": 1, "learning_rate": 0.5, "num_steps": 3}, "--seed was 0, .*0.001, now 0.5"),
]


@pytest.mark.parametrize(("values", "pattern"), DIFFERENT, ids=[min(v) for v, _ in DIFFERENT])
def test_folder_of_a_different_run_is_refused_untouched(begun, values, pattern):
    begun.file(".lock").unlink()
    with refused(begun.path, "contains a different run", pattern, "--new"):
        prepare(begun.path, configuration(**values))


def test_changed_file_of_the_class_is_a_different_run(tmp_path):
    mine = configuration(gan=GAN)
    prepare(tmp_path, mine)
    RunFolder(tmp_path).save_checkpoint(1, state(1))
    assert prepare(tmp_path, mine) == []
    with refused(tmp_path, "a different run; .*: the SHA-256 of the class file"):
        prepare(tmp_path, dataclasses.replace(mine, gan_sha256="0" * 64))


@pytest.mark.parametrize(
    ("trained_with", "given", "message"),
    [
        (GAN, None, r"add --gan=.*:Gan \(no code is loaded from a run folder\)"),
        (None, GAN, "--gan is not valid here: the run was trained with the recipe minimal"),
        (GAN, GAN.replace(":Gan", ":Other"), "--gan must name the class Gan, got .*:Other"),
        (GAN, GAN.replace("gan.py", "dcgan.py"), "SHA-256 differs"),
    ],
)
def test_class_of_a_run_must_be_given_unchanged(trained_with, given, message):
    with pytest.raises(UserError, match=message):
        configuration(gan=trained_with).check_class(given)


def test_labels_are_part_of_the_data_if_they_are_learned():
    data, other = (DataSet(DATA.pixels, (np.arange(90) + k) % 10) for k in (0, 1))
    assert configuration(data=other) == configuration(data=data)
    labelled = configuration(data=data, conditional=True)
    assert configuration(data=other, conditional=True).data != labelled.data
    labelled.check_data(data, "data")
    with pytest.raises(UserError, match="data does not contain the images that the run was"):
        labelled.check_data(other, "data")
    with pytest.raises(UserError, match="--conditional requires images of at least two labels"):
        configuration(conditional=True)


def test_changed_defaults_of_a_recipe_do_not_change_its_runs(begun, monkeypatch):
    changed = dataclasses.replace(recipes.get("minimal"), learning_rate=0.5, lr_milestones=(3, 8))
    monkeypatch.setitem(recipes.RECIPES, "minimal", changed)
    assert begun.configuration().full_recipe().learning_rate == 1e-3
    with refused(begun.path, "--learning_rate was 0.001, now 0.5", "_milestones was none, now 3,8"):
        prepare(begun.path)


def test_versions_other_than_at_the_begin_are_logged(begun):
    path = begun.file("config.json")
    content = json.loads(path.read_text())
    content["versions"]["numpy"] = "0.0.1"
    path.write_text(json.dumps(content))
    for _ in range(2):
        (line,) = prepare(begun.path)
        assert line.startswith("Note: numpy was 0.0.1 ")
    begun.file("checkpoints/step-000000010.npz").unlink()
    assert prepare(begun.path) == []  # it starts again, with these versions
    assert begun.configuration().versions["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, None),
        ({"pretraining_batch": 91}, "--pretraining_batch must be at most 90, .* got 91"),
        ({"batch_size": 9}, "--batch_size must be a multiple of 6 with 3 processes, got 9"),
        ({"half_batches": False, "batch_size": 9}, None),
        ({"pretraining_batch": 88}, "--pretraining_batch must be a multiple of 3 with"),
    ],
    ids=str,
)
def test_batches_that_are_too_large_or_cannot_be_divided_are_refused(values, message):
    recipe = dataclasses.replace(
        recipes.get("minimal"),
        half_batches=True,
        batch_size=90,
        pretraining=1000,
        pretraining_batch=90,
    )
    recipe = dataclasses.replace(recipe, **values)
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        Configuration.of("minimal", recipe, RunOptions(), DATA, known(None), workers=3)


@pytest.mark.parametrize("readable", [True, False])
def test_new_renames_the_run_to_the_first_free_name(begun, readable):
    if not readable:
        begun.file("config.json").write_text("{")
    checkpoint = begun.file("checkpoints/step-000000010.npz").read_bytes()
    for number in (1, 2):
        backup = begun.path.with_name(f"run.old-{number}")
        assert prepare(begun.path, configuration(seed=number), new=True) == [
            f"Moved the existing run to {backup}."
        ]
    assert begun.load_checkpoint(pytest.fail) is None
    assert begun.configuration().seed == 2
    first = begun.path.with_name("run.old-1")
    assert (first / "checkpoints" / "step-000000010.npz").read_bytes() == checkpoint


def test_new_run_in_the_current_folder(begun, monkeypatch):
    monkeypatch.chdir(begun.path)
    assert prepare(".", new=True) == [f"Moved the existing run to {begun.path}.old-1."]
    assert begun.load_checkpoint(pytest.fail) is None


UNUSABLE = {
    "deep": lambda good: "[" * 100_000,
    "of another program": lambda good: '{"name": "web", "version": 2}',
    "of an older format": lambda good: good.replace('"format": 2', '"versions": {}'),
    "an unknown recipe": lambda good: good.replace('"minimal"', '"nosuch"'),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE)
def test_configuration_that_cannot_be_used_is_refused_untouched(begun, change):
    path = begun.file("config.json")
    path.write_text(change(path.read_text()))
    begun.file(".lock").unlink()
    for use in (begun.configuration, lambda: prepare(begun.path)):
        with refused(begun.path, f"cannot read {path}: .*; restore the file, or train again with"):
            use()


@pytest.mark.parametrize("new", [False, True])
def test_what_is_not_a_run_folder_is_refused_untouched(tmp_path, new):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, pattern in [
        ("folder", "folder is not a run folder"),
        ("file", "file is not a run folder"),
        ("file/run", "cannot use .*(File exists|Not a directory)"),
    ]:
        with refused(tmp_path, pattern):
            prepare(tmp_path / name, new=new)


def test_one_process_at_a_time_uses_a_folder(begun):
    with begun.open_for_training(configuration(), new=False, log=pytest.fail):
        for values in ({}, {"new": True}):
            with refused(begun.path, f"{begun.path} is used by another process"):
                prepare(begun.path, **values)
    assert prepare(begun.path) == []


def test_full_disk_names_the_last_checkpoint(folder):
    def run():
        with folder.open_for_training(configuration(), new=False, log=pytest.fail):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"disk full: .* no checkpoint yet; free"):
        run()
    folder.save_checkpoint(1500, state(1))
    with pytest.raises(RunError, match=r"checkpoint is at step 1,500; free .* rerun the command"):
        run()


# Checkpoints.


def save(folder, *steps):
    for step in steps:
        folder.save_checkpoint(step, state(step))


def loaded(folder):
    """Returns (step, lines logged) of the newest checkpoint, whose content is checked."""
    lines = []
    step, read = folder.load_checkpoint(lines.append)
    assert digest(read) == digest(state(step))
    return step, lines


def test_last_three_checkpoints_and_named_ones_are_kept(folder):
    assert folder.load_checkpoint(pytest.fail) is None
    folder.save_checkpoint(3, state(3), "best")
    save(folder, 5, 10, 15, 20, 1_000_000_000)
    names = ["best.npz", "step-000000015.npz", "step-000000020.npz", "step-1000000000.npz"]
    assert sorted(os.listdir(folder.file("checkpoints"))) == names
    assert loaded(folder) == (1_000_000_000, [])
    step, read = folder.load_named_checkpoint("best")
    assert (step, digest(read)) == (3, digest(state(3)))
    for name in ("nosuch", "../checkpoints/best", ""):
        with pytest.raises(
            RunError, match=r"--checkpoint must be one of best, step-000000015, step-"
        ):
            folder.load_named_checkpoint(name)


DAMAGES = {
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a flipped bit": lambda good: good[:150] + bytes([(good[150] + 1) % 256]) + good[151:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_one_before(folder, damage):
    save(folder, 10, 20, 30)
    paths = sorted(folder.file("checkpoints").iterdir())
    for count, expected in [(1, 20), (2, 10)]:
        paths[-count].write_bytes(damage(paths[-count].read_bytes()))
        step, lines = loaded(folder)
        assert (step, len(lines)) == (expected, count)
        assert lines[0].startswith(f"Warning: {paths[-1]} is damaged (")
        assert lines[0].endswith("; trying the checkpoint before it.")
    save(folder, 11)  # which the damaged later ones do not push out
    assert loaded(folder)[0] == 11
    for path in folder.file("checkpoints").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        RunError, match=r"no valid checkpoint in .*checkpoints; train again with --new"
    ):
        folder.load_checkpoint(lambda line: None)
    with pytest.raises(RunError, match=r"step-000000020\.npz is damaged"):
        folder.load_named_checkpoint("step-000000020")


UNTRUSTED = {
    "an object": ({"w": np.array([{"code": print}], object)}, "is damaged .*allow_pickle"),
    "three steps": ({"step": np.arange(3)}, r"expected step 20, found \[0 1 2\]"),
    "no step": ({"step": None}, "is damaged"),
}


@pytest.mark.parametrize(("arrays", "pattern"), UNTRUSTED.values(), ids=UNTRUSTED)
def test_checkpoint_of_other_content_falls_back_to_the_one_before(begun, arrays, pattern):
    path = begun.file("checkpoints/step-000000020.npz")
    arrays = {"step": np.int64(20), **arrays}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    step, (line,) = loaded(begun)
    assert step == 10
    assert re.search(pattern, line)


def test_digest_differs_for_different_states():
    first = {"a": np.float32([1, 2]), "b": np.int64(3)}
    assert digest(first) == digest(dict(reversed(first.items())))
    others = [np.float32([1, 2.0000002]), np.float32([[1, 2]]), np.float64([1, 2])]
    others = [{**first, "a": a} for a in others] + [{"a": first["a"]}, {"a": first["a"], "c": 3}]
    assert len({digest(each) for each in [first, *others]}) == 6


# Tables.

ROWS = [(1, 0.1, 1 / 3), (2, np.float32(0.1), 12345678.0), (3, 1e-30, -2.5)]


def open_table(folder, last=0):
    return Table(folder / "losses.csv", LOSS_COLUMNS, last)


@pytest.mark.parametrize("tail", ["", "4,0.25", "4,", "4", "4,0.5,0.5,0.5", "x,1,1", "\x00\x00"])
def test_table_is_cut_back_to_the_step_of_the_run(tmp_path, tail):
    table = open_table(tmp_path)
    assert table.rows == []
    table.append(ROWS)
    table.close()
    path = tmp_path / "losses.csv"
    content = path.read_bytes()
    with open(path, "a") as file:
        file.write(tail)  # a line that was cut short
    table = open_table(tmp_path, last=2)
    np.testing.assert_array_equal(np.float32(table.rows), np.float32(ROWS[:2]))
    table.append(ROWS[2:])
    table.close()
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", ["7,nan,7\n", "7,0.5,7,7\n", "6,0.5,7\n"])
def test_damaged_row_is_named_and_nothing_is_cut(tmp_path, line):
    rows = [f"{n},0.5,{n}\n" for n in range(1, 31)]
    text = "".join(["step,d_loss,g_loss\n", *rows[:6], line, *rows[7:]])
    (tmp_path / "losses.csv").write_text(text)
    expected = "expected a step above 6, and 2 finite numbers; correct it"
    for use in (RunFolder(tmp_path).losses, lambda: open_table(tmp_path, last=20)):
        with refused(tmp_path, rf"losses\.csv is damaged in line 8, [ -~]*: {expected}"):
            use()


def test_table_of_scores_has_rows_at_any_steps(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes(b"step,d_loss,g_loss\r\n100,1,1\r\n200,1E-3,1\r\n250,1,1\r\n")  # by Excel
    table = Table(path, LOSS_COLUMNS, last=220)
    assert table.rows == [[100, 1, 1], [200, 0.001, 1]]
    table.close()
    assert path.read_text() == "step,d_loss,g_loss\n100,1,1\n200,0.001,1\n"


@pytest.mark.parametrize("content", [os.urandom(3000) + b"\n", b"step,d_loss\n1,2\n", b"1,2,3\n"])
def test_table_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "losses.csv").write_bytes(content)
    with refused(tmp_path, r"losses\.csv is damaged in line 1, .*expected step,d_loss,g_loss"):
        open_table(tmp_path, last=100)
