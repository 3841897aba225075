"""Run folders without TensorFlow: tables, checkpoints, damage, locks, refusals."""

import dataclasses
import errno
import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import training.configuration
from training.configuration import Configuration
from training.run_folder import RunError, RunFolder, Table, digest, read_checkpoint

from input_data import DataSet
from models import hyperparameters, recipes
from support.errors import UserError

ROOT = Path(training.configuration.__file__).parent.parent
DATA = DataSet(np.arange(90 * 784, dtype=np.uint32).astype(np.uint8).reshape(90, 784), [0] * 90)


def configuration(seed=0, engine="auto", precision="float32", data=DATA, **numbers):
    recipe = hyperparameters.override(recipes.get("minimal"), **numbers)
    made = Configuration.of("minimal", recipe, seed, engine, "float32", data)
    return dataclasses.replace(made, precision=precision)  # whether or not this CPU has it


def state(step, size=5):
    """What a small model's variables could be after a step."""
    weights = np.random.default_rng(step).standard_normal([size, 3]).astype(np.float32)
    return {"generator/hidden/kernel": weights, "g_optimizer/updates": np.int32(step)}


def snapshot(folder):
    """{path: (mtime in ns, bytes)} of all that is in a folder, itself included."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in paths}


def prepare(path, wanted=None, *, new=False):
    """Opens and leaves a run folder; -> the lines that were said."""
    said = []
    with RunFolder(path).prepared(wanted or configuration(), new=new, log=said.append):
        pass
    return said


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def folder(tmp_path):
    prepare(tmp_path / "run")
    return RunFolder(tmp_path / "run")


# Opening.


def test_new_folder_has_a_readable_configuration_and_room_for_checkpoints(tmp_path):
    wanted = configuration(seed=7, nlatent=3, prior="normal", r1_gamma=0.5)
    assert prepare(tmp_path / "deep" / "run", wanted) == []
    folder = RunFolder(tmp_path / "deep" / "run")
    assert sorted(os.listdir(folder.path)) == ["checkpoints", "config.json"]
    assert folder.configuration() == wanted
    recorded = json.loads(folder.file("config.json").read_text())
    assert recorded["overrides"] == {"nlatent": 3, "prior": "normal", "r1_gamma": 0.5}
    assert recorded["seed"] == 7
    assert recorded["versions"]["numpy"] == np.__version__


def test_folder_name_tells_the_recipe_and_what_overrides_it():
    assert configuration().folder_name() == "minimal"
    assert configuration(num_steps=7).folder_name() == "minimal"
    assert configuration(nlatent=10).folder_name() == "minimal"  # the recipe's own number
    named = configuration(
        seed=3, nlatent=2, learning_rate=2e-4, separate_updates=True
    ).folder_name()
    assert named.startswith("minimal-")
    assert set(named.split("-")[1:3]) < {
        "nlatent=2",
        "learning_rate=0.0002",
        "separate_updates=True",
    }
    assert named.endswith("-seed=3")


def test_folder_name_tells_other_data_than_mnist():
    recipe = recipes.get("minimal")
    args = ("minimal", recipe, 0, "auto", "float32", DATA, None)
    assert Configuration.of(*args, "fashion_mnist").folder_name() == "fashion_mnist-minimal"
    assert re.fullmatch(r"data=\w{8}-minimal", Configuration.of(*args, None).folder_name())


def test_the_same_run_may_go_on_and_further(tmp_path):
    prepare(tmp_path, configuration(num_steps=10))
    assert prepare(tmp_path, configuration(num_steps=10)) == []
    assert prepare(tmp_path, configuration(num_steps=20)) == []
    RunFolder(tmp_path).save_checkpoint(1, state(1))
    for shorter in (20, 5):
        prepare(tmp_path, configuration(num_steps=shorter))
        assert RunFolder(tmp_path).configuration().overrides == {"num_steps": 20}


OTHER_DATA = DataSet(255 - DATA.pixels, DATA.labels)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"nlatent": 3}, ["--nlatent is 10 there and 3 here"]),
        ({"digit": 3}, ["--digit is unset there and 3 here"]),
        ({"seed": 5}, ["--seed is 0 there and 5 here"]),
        ({"engine": "step"}, ["--engine is auto there and step here"]),
        ({"precision": "bfloat16"}, ["--precision is float32 there and bfloat16 here"]),
        ({"prior": "normal"}, ["--prior is uniform there and normal here"]),
        ({"separate_updates": True}, ["--separate_updates is False there and True here"]),
        ({"data": OTHER_DATA}, [r"--data_dir\) is crc32:\w{8} there and crc32:\w{8} here"]),
        (
            {"seed": 1, "learning_rate": 0.5, "batch_size": 2, "num_steps": 3},
            ["--seed is 0", "--learning_rate is 0.001 there and 0.5 here", "--batch_size is 16"],
        ),
    ],
)
def test_another_configuration_is_refused_and_touches_nothing(folder, other, told):
    folder.save_checkpoint(1, state(1))
    before = snapshot(folder.path)
    with pytest.raises(UserError) as error:
        prepare(folder.path, configuration(**other))
    text = message(error)
    for part in told:
        assert re.search(part, text), text
    assert text.count(" there and ") == len(told)
    assert f"--run_dir={folder.path} holds another run" in text
    assert "another --run_dir" in text and "--new" in text and "kept under" in text
    assert "num_steps" not in text
    assert snapshot(folder.path) == before


def test_labels_are_part_of_the_data_where_they_are_learnt(folder):
    other = DataSet(DATA.pixels, (DATA.labels + 1) % 10)
    assert configuration(data=other) == configuration()
    plain, conditional = configuration(), configuration(conditional=True)
    assert configuration(data=other, conditional=True).data != conditional.data != plain.data
    conditional.check_data(DATA, "data")
    with pytest.raises(UserError, match="data holds other images"):
        conditional.check_data(other, "data")


def test_a_run_that_has_not_begun_gives_way(folder):
    prepare(folder.path, configuration(seed=1))
    assert folder.configuration().seed == 1
    folder.file("losses.csv").touch()
    with pytest.raises(UserError, match="--seed is 1 there and 0 here"):
        prepare(folder.path)


def test_other_versions_are_only_said(folder):
    folder.save_checkpoint(1, state(1))
    path = folder.file("config.json")
    path.write_text(path.read_text().replace(np.__version__, "0.0.1"))
    (line,) = prepare(folder.path)
    assert re.search(rf"numpy 0\.0\.1 .* {re.escape(np.__version__)}", line)
    assert prepare(folder.path) == []  # said once, then recorded


def test_another_number_of_cores_is_told(folder):
    folder.save_checkpoint(1, state(1))
    path = folder.file("config.json")
    content = json.loads(path.read_text())
    content["versions"]["processor cores"] = "99"
    path.write_text(json.dumps(content))
    (line,) = prepare(folder.path)
    assert "began with processor cores 99" in line and "bytes may differ" in line


def test_fewer_images_than_a_batch_of_the_pretraining_are_refused():
    recipe = hyperparameters.override(
        recipes.get("pretrained_cnn"), pretraining_batch=8_000, batch_size=2
    )
    few = DataSet(DATA.pixels[:9], DATA.labels[:9])
    with pytest.raises(UserError, match="--pretraining_batch=8000: wanted at most 9, the number"):
        Configuration.of("pretrained_cnn", recipe, 0, "auto", "float32", few)


def test_new_keeps_the_old_folder_under_the_first_free_name(folder):
    folder.save_checkpoint(1, state(1))
    held = snapshot(folder.path / "checkpoints").values()
    for number in (1, 2):
        (line,) = prepare(folder.path, configuration(seed=number), new=True)
        aside = folder.path.with_name(f"run.old-{number}")
        assert str(aside) in line
        assert aside.is_dir()
    assert folder.load_checkpoint(pytest.fail) is None
    assert folder.configuration().seed == 2
    old = folder.path.with_name("run.old-1") / "checkpoints"
    assert list(snapshot(old).values()) == list(held)


def test_new_needs_no_old_run_and_no_readable_one(tmp_path):
    assert prepare(tmp_path / "run", new=True) == []
    (tmp_path / "run" / "config.json").write_text("{")
    assert len(prepare(tmp_path / "run", new=True)) == 1


DAMAGED_CONFIGURATIONS = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"recipe": "minimal"}',
    "\x00\x01",
    "[" * 100_000,
    lambda good: good.replace('"minimal"', '"nosuch"'),
    lambda good: good.replace('"overrides": {', '"overrides": {"nosuch": 1, '),
    lambda good: good.replace('"overrides": {', '"overrides": {"nlatent": "x", '),
    lambda good: good.replace('"overrides": {', '"overrides": {"nlatent": 0, '),
    lambda good: good.replace('"overrides": {}', '"overrides": 3'),
    lambda good: json.dumps({**json.loads(good), "versions": None}),
    lambda good: good[: len(good) // 2],
]


@pytest.mark.parametrize("text", DAMAGED_CONFIGURATIONS)
def test_damaged_configuration_is_refused_and_touches_nothing(folder, text):
    path = folder.file("config.json")
    path.write_text(text(path.read_text()) if callable(text) else text)
    before = snapshot(folder.path)
    with pytest.raises(RunError, match=re.escape(f"--run_dir={folder.path}: no readable config")):
        prepare(folder.path)
    assert snapshot(folder.path) == before


def test_configuration_that_is_not_text(folder):
    folder.file("config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="no readable config"):
        prepare(folder.path)


@pytest.mark.parametrize("new", [False, True])
def test_what_is_no_run_folder_is_refused_and_touched_nowhere(tmp_path, new):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    for name in ("folder", "file"):
        with pytest.raises(RunError, match=rf"--run_dir={tmp_path / name} exists but is no run"):
            prepare(tmp_path / name, new=new)
    with pytest.raises(RunError, match=rf"cannot use {tmp_path}.*\((File|Not)"):
        prepare(tmp_path / "file" / "run", new=new)
    assert snapshot(tmp_path) == before


def test_a_folder_that_may_not_be_made_is_refused(tmp_path):
    if os.geteuid():
        tmp_path.chmod(0o500)
    forbidden = tmp_path if os.geteuid() else Path("/sys")  # where not even root may make one
    with pytest.raises(RunError, match=r"not permitted|denied|Read-only") as error:
        prepare(forbidden / "run")
    assert f"--run_dir={forbidden / 'run'}: cannot use" in message(error)


def test_a_name_too_long_is_refused(tmp_path):
    with pytest.raises(RunError, match="name too long"):
        prepare(tmp_path / ("n" * 300))


def test_a_folder_killed_at_birth_is_taken_over(tmp_path):
    (tmp_path / ".config.unfinished-0123abcd.json").write_text('{"recipe"')
    prepare(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "config.json"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(folder):
    keep = [
        folder.file(".gitignore"),
        folder.file("notes.txt"),
        folder.file(".notes.20240101.txt"),
        folder.file("checkpoints/best.npz"),
    ]
    gone = [
        folder.file("checkpoints/.step-000000010.unfinished-0123abcd.npz"),
        folder.file(".samples.unfinished-89abcdef.png"),
    ]
    for path in (*keep, *gone):
        path.write_text("x")
    prepare(folder.path)
    assert all(path.exists() for path in keep)
    assert not any(path.exists() for path in gone)


def test_a_run_keeps_its_hyperparameters_when_the_recipe_of_its_name_changes(folder, monkeypatch):
    save(folder, 5)
    changed = dataclasses.replace(recipes.get("minimal"), learning_rate=0.5, lr_milestones=(3, 8))
    monkeypatch.setitem(recipes.RECIPES, "minimal", changed)
    assert folder.configuration().full_recipe().learning_rate == 1e-3
    with pytest.raises(UserError) as error:
        prepare(folder.path)
    assert "--learning_rate is 0.001 there and 0.5 here" in message(error)
    assert "--lr_milestones is none there and 3,8 here" in message(error)


def test_a_configuration_of_an_earlier_version_is_told(folder):
    save(folder, 5)
    for other in ({"numbers": {}}, {"hyperparameters": {"windows": 3}}):
        content = json.loads(folder.file("config.json").read_text()) | other
        folder.file("config.json").write_text(json.dumps(content))
        with pytest.raises(RunError, match="written by another version of this project"):
            folder.configuration()


def test_two_holders_of_one_folder(folder):
    with RunFolder(folder.path).lock():
        before = snapshot(folder.path)
        for new in (False, True):
            with pytest.raises(RunError, match="in use by another process") as error:
                prepare(folder.path, new=new)
            assert str(folder.path) in message(error)
        assert snapshot(folder.path) == before
    prepare(folder.path)


def test_the_lock_is_on_the_folder_that_has_the_name_now(folder, monkeypatch):
    """Between opening the folder and locking it, another process sets it aside and makes a new one.

    The moment is found by doing just that in the place of the first lock.
    """
    aside, flock, taken = folder.path.with_name("aside"), fcntl.flock, []

    def late(handle, kind):
        if not taken:
            folder.path.rename(aside)
            folder.path.mkdir()
        taken.append(os.fstat(handle).st_ino)
        flock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with folder.lock():
        monkeypatch.undo()
        assert taken == [aside.stat().st_ino, folder.path.stat().st_ino]
        with RunFolder(aside).lock():
            pass
        with pytest.raises(RunError, match="in use"), folder.lock():
            pass


HELD_BY_MANY = """
    import os, sys, time
    from test_run_folder import RunError, RunFolder, configuration

    held, refused, until = 0, 0, time.monotonic() + 2
    while time.monotonic() < until:
        try:
            with RunFolder(sys.argv[1]).prepared(configuration(), new=True, log=str):
                os.close(os.open(f"{sys.argv[1]}/holder", os.O_CREAT | os.O_EXCL))
                time.sleep(0.0005)
                os.unlink(f"{sys.argv[1]}/holder")
            held += 1
        except RunError as error:
            assert "in use by another process" in str(error), error
            refused += 1
    print(held, refused)
"""


def test_of_many_processes_one_holds_the_folder_at_a_time(tmp_path):
    """Each sets the run of the one before it aside: the name stands for ever another folder."""
    program = textwrap.dedent(HELD_BY_MANY)
    words = [sys.executable, "-c", program, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(words, env=environment, **pipes) for _ in range(4)]
    shown = [process.communicate(timeout=60) for process in started]
    assert [errors for _, errors in shown] == [""] * 4
    held, refused = np.sum([list(map(int, out.split())) for out, _ in shown], axis=0)
    assert held > 10 and refused > 10


def test_while_a_run_is_read_it_can_be_trained_but_not_set_aside(folder):
    save(folder, 10)
    with folder.held() as check_in_place, RunFolder(folder.path).held():
        prepare(folder.path)
        with pytest.raises(RunError, match="in use by another process"):
            prepare(folder.path, new=True)
        check_in_place()
        folder.path.rename(folder.path.with_name("elsewhere"))
        with pytest.raises(RunError, match="was moved while it was read"):
            check_in_place()
        prepare(folder.path)
        with pytest.raises(RunError, match="was moved while it was read"):
            check_in_place()
    prepare(folder.path, new=True)


def test_reading_a_run_waits_for_nobody_and_wants_something_to_read(folder, tmp_path):
    with folder.lock(), folder.held():
        pass
    with pytest.raises(RunError, match="no checkpoint yet; train it first"):
        RunFolder(tmp_path / "nosuch").held().__enter__()


WRITER = """
    import sys, time
    from support.files import atomic_write
    with atomic_write(sys.argv[1]) as temporary:
        temporary.write_text("half")
        print(temporary, flush=True)
        time.sleep(60)
"""


def test_unfinished_files_of_living_processes_are_left_alone(folder):
    words = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder.file("sampled.png"))]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        unfinished = Path(writer.stdout.readline().strip())
        prepare(folder.path)
        assert unfinished.read_text() == "half"
        writer.kill()
    prepare(folder.path)
    assert not unfinished.exists()


@pytest.mark.parametrize("name", ["events", "progress", "checkpoints"])
def test_files_in_the_place_of_folders_are_refused_at_the_start(folder, name):
    if folder.file(name).is_dir():
        folder.file(name).rmdir()
    folder.file(name).write_text("mine")
    before = snapshot(folder.path)
    with pytest.raises(RunError, match=f"{name} is no folder: move it elsewhere"):
        prepare(folder.path)
    assert snapshot(folder.path) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["losses.csv", "samples.png", "metrics.csv", "checkpoints/step-000000020.npz"]
)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_folders_and_fifos_in_the_place_of_files_are_refused_at_the_start(folder, name, make):
    make(folder.file(name))
    with pytest.raises(RunError, match=f"{name} is no ordinary file: move it elsewhere"):
        prepare(folder.path)
    if name == "losses.csv":
        with pytest.raises(UserError, match="no ordinary file"):
            folder.losses()


@pytest.mark.timeout(20)
def test_a_fifo_is_no_configuration(folder):
    folder.file("config.json").unlink()
    os.mkfifo(folder.file("config.json"))
    with pytest.raises(RunError, match=r"no readable config\.json \(\S+ is no ordinary file\)"):
        folder.configuration()
    for new in (False, True):
        with pytest.raises(RunError, match="is no run folder"):
            prepare(folder.path, new=new)


def test_the_working_folder_cannot_be_set_aside_by_a_dot(folder, monkeypatch):
    monkeypatch.chdir(folder.path)
    with pytest.raises(RunError, match=r"--run_dir=\.: give the folder's own name"):
        prepare(".", new=True)
    prepare(".")


def test_a_file_that_may_not_grow_is_told_apart_from_a_full_disk(folder):
    def run():
        with folder.prepared(configuration(), new=False, log=pytest.fail):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with pytest.raises(RunError, match=r"file too large: .* no checkpoint yet; raise `ulimit -f`"):
        run()


def test_batches_larger_than_the_data_are_refused_by_name():
    assert configuration(batch_size=90).overrides == {"batch_size": 90}
    with pytest.raises(UserError, match="--batch_size=91: wanted at most 90,"):
        configuration(batch_size=91)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_last_good_checkpoint(folder, number):
    def run():
        with folder.prepared(configuration(), new=False, log=pytest.fail):
            raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=r"disk full: .* there is no checkpoint yet; free"):
        run()
    folder.save_checkpoint(1500, state(1))
    with pytest.raises(RunError, match=r"last good checkpoint is at step 1,500; .* the same com"):
        run()


def test_other_trouble_in_a_run_keeps_its_own_error(folder):
    with (
        pytest.raises(OSError, match="Input/output"),
        folder.prepared(configuration(), new=False, log=pytest.fail),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


# Checkpoints.


def save(folder, *steps):
    for step in steps:
        folder.save_checkpoint(step, state(step))


def loaded(folder):
    """-> (step, lines said about damage); the state must be the step's own, dtypes included."""
    said = []
    step, read = folder.load_checkpoint(said.append)
    for name, values in state(step).items():
        assert read[name].dtype == np.asarray(values).dtype
        np.testing.assert_array_equal(read[name], values)
    assert len(read) == len(state(step))
    return step, said


def test_the_last_few_checkpoints_are_kept_and_the_newest_is_read(folder):
    assert folder.load_checkpoint(pytest.fail) is None
    save(folder, 5, 10, 15, 20, 1_000_000_000)
    assert sorted(os.listdir(folder.file("checkpoints"))) == [
        "step-000000015.npz",
        "step-000000020.npz",
        "step-1000000000.npz",
    ]
    assert loaded(folder) == (1_000_000_000, [])


def test_a_named_checkpoint_is_apart(folder):
    save(folder, 5)
    folder.save_checkpoint(3, state(3), "best")
    save(folder, 10, 15, 20)
    step, read = folder.load_named_checkpoint("best")
    assert step == 3
    np.testing.assert_array_equal(read["g_optimizer/updates"], 3)
    assert loaded(folder) == (20, [])
    with pytest.raises(RunError, match=r"--checkpoint=nosuch: .* but best, step-000000010, step-"):
        folder.load_named_checkpoint("nosuch")
    folder.file("checkpoints/best.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"--checkpoint=best: \S+/best\.npz is damaged"):
        folder.load_named_checkpoint("best")


def test_the_same_state_gives_the_same_bytes(folder, tmp_path):
    save(folder, 5)
    first = folder.file("checkpoints/step-000000005.npz").read_bytes()
    os.utime(folder.file("checkpoints/step-000000005.npz"), (0, 0))
    save(folder, 5)
    assert folder.file("checkpoints/step-000000005.npz").read_bytes() == first


def truncated(content):
    return content[: len(content) // 2]


def one_bit_flipped(content):
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = [truncated, one_bit_flipped, lambda _: b"", lambda _: b"not a zip", lambda c: c[:-1]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, damage):
    save(folder, 10, 20, 30)
    paths = sorted(folder.file("checkpoints").iterdir())
    for count, expected in [(1, 20), (2, 10)]:
        paths[-count].write_bytes(damage(paths[-count].read_bytes()))
        step, said = loaded(folder)
        assert step == expected
        assert len(said) == count
        assert f"{paths[-1]} is damaged" in said[0] and "the one before" in said[0]
        assert all("\n" not in line for line in said)
    paths[0].write_bytes(damage(paths[0].read_bytes()))
    with pytest.raises(RunError, match="none of its checkpoints is whole") as error:
        folder.load_checkpoint(lambda line: None)
    assert "--new" in message(error) and str(folder.path) in message(error)


@pytest.mark.filterwarnings("error")
def test_no_flipped_bit_anywhere_passes_for_a_whole_checkpoint(folder):
    """In each byte in turn: found, or of no consequence as a time stamp's."""
    save(folder, 10, 20)
    path = folder.file("checkpoints/step-000000020.npz")
    whole, found = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found += loaded(folder)[0] == 10
    assert found > 0.7 * len(whole)


def test_a_checkpoint_runs_no_code(folder):
    save(folder, 10)
    path = folder.file("checkpoints/step-000000020.npz")
    np.savez(path, step=np.int64(20), weights=np.array([{"an": "object"}], object))
    with pytest.raises(
        RunError, match=r"'weights\.npy' is of type object, wanted numbers"
    ) as error:
        read_checkpoint(path)
    assert "pickle" not in message(error)
    assert loaded(folder)[0] == 10


def npy(header, content=b"", version=b"\x01\x00"):
    """The bytes of an .npy file with any header."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + content


def header(shape, descr="<f4"):
    return repr({"descr": descr, "fortran_order": False, "shape": shape}) + "\n"


def hostile(path, members, **settings):
    """Writes a zip of {name: bytes} beside a good step and number of variables."""
    whole = {name: io.BytesIO() for name in ("step", "variables")}
    for name, value in (("step", 20), ("variables", len(members.keys() - whole.keys()))):
        np.save(whole[name], np.int64(value))
    members = {**{name: file.getvalue() for name, file in whole.items()}, **members}
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


HOSTILE = {
    "step is an array": ({"step": saved(np.arange(3))}, "step is int64 \\[3\\], wanted an integer"),
    "step is a float": ({"step": saved(np.float64(20))}, "step is float64"),
    "step is below 0": ({"step": saved(np.int64(-1))}, "wanted an integer from 0 up"),
    "step is huge": (
        {"step": saved(np.uint64(2**64 - 1))},
        "is of step 18,446,744,073,709,551,615",
    ),
    "a step of another name": ({"step": saved(np.int64(19))}, "is of step 19, not what its name"),
    "variables is an array": ({"variables": saved(np.ones([2, 2], int))}, "variables is int64"),
    "a huge shape": ({"w": npy(header((10**6, 10**6)))}, "'w.npy': 0 bytes, wanted those of"),
    "a shape beyond any integer": ({"w": npy(header((10**300,)))}, "'w.npy': 0 bytes, wanted"),
    "negative sides": ({"w": npy(header((-2, -2)), b"0" * 16)}, "is damaged"),
    "a shape of words": ({"w": npy(header(("a",)))}, "is damaged"),
    "a header that is code": ({"w": npy("__import__('os').abort()")}, "is damaged"),
    "a deep header": ({"w": npy("(" * 60_000)}, "is damaged"),
    "a header of signs": ({"w": npy("-" * 60_000 + "1")}, "is damaged"),
    "no array": ({"w": b"no array"}, "is damaged"),
    "of version 3": ({"w": npy(header((1,)), b"0000", b"\x03\x00")}, "wanted version 1.0"),
    "text": ({"w": saved(np.array(["a"]))}, "'w.npy' is of type <U1, wanted numbers"),
    "an object": ({"w": saved(np.array([{}], object))}, "'w.npy' is of type object"),
    "NaN": ({"w": saved(np.float32([1, np.nan]))}, "'w.npy' holds NaN or infinity"),
    "infinity": ({"w": saved(np.float32([-np.inf]))}, "'w.npy' holds NaN or infinity"),
    "a name that commands a terminal": ({"\x1b[2J": b""}, "is damaged"),
    "a name that is a path": ({"../../w": saved(np.array(["a"]))}, "'../../w.npy' is of type"),
}


@pytest.mark.parametrize(("members", "told"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_checkpoint_falls_back_to_the_one_before(folder, members, told):
    save(folder, 10)
    hostile(folder.file("checkpoints/step-000000020.npz"), members)
    step, (line,) = loaded(folder)
    assert step == 10
    assert re.search(told, line)
    assert line.isprintable()
    assert "allow_pickle" not in line and "unsafe" not in line


def test_a_checkpoint_that_unpacks_to_more_is_refused_before_it_does(folder):
    """20 MB of zeros in 20 kB; and one member that the zip lists many times."""
    save(folder, 10)
    path = folder.file("checkpoints/step-000000020.npz")
    zeros = saved(np.zeros(5_000_000, np.float32))
    hostile(path, {"w": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 30_000
    step, (line,) = loaded(folder)
    assert (step, "it is compressed, which checkpoints are not" in line) == (10, True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", zeros)
        archive.filelist *= 5
    step, (line,) = loaded(folder)
    assert (step, "its parts are larger than the whole" in line) == (10, True)


def be_npy(path):
    path.write_bytes(saved(np.arange(3)))


def be_npy_list(path):
    path.write_bytes(npy(header((2,)), b"01234567"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, be_npy, be_npy_list, Path.mkdir])
def test_what_is_no_checkpoint_file_falls_back_and_is_left_alone(folder, make):
    save(folder, 10)
    path = folder.file("checkpoints/step-000000020.npz")
    make(path)
    step, (line,) = loaded(folder)
    assert step == 10
    assert f"{path} is damaged (" in line
    save(folder, 11, 12, 13, 14)
    assert path.exists()
    assert [number for number, _ in folder._checkpoints()] == [12, 13, 14, 20]


def test_names_that_are_no_step_are_no_checkpoints_of_steps(folder):
    for name in ("step-zzz", "step-1", "step-", "step--00000001", "step-000000020.old"):
        folder.file(f"checkpoints/{name}.npz").write_bytes(b"mine")
    assert folder.last_checkpoint() == "there is no checkpoint yet"
    assert folder.load_checkpoint(pytest.fail) is None
    save(folder, 10, 20, 30, 40)
    assert loaded(folder) == (40, [])
    assert len(list(folder.file("checkpoints").iterdir())) == 8
    with pytest.raises(RunError, match=r"--checkpoint=step-zzz: \S+ is damaged"):
        folder.load_named_checkpoint("step-zzz")


def test_damaged_later_checkpoints_do_not_push_out_new_ones(folder):
    for step in (999_999_997, 999_999_998, 999_999_999):
        folder.file(f"checkpoints/step-{step}.npz").write_bytes(b"damaged")
    save(folder, 10)
    step, said = loaded(folder)
    assert (step, len(said)) == (10, 3)


def test_a_named_checkpoint_is_no_path(folder):
    save(folder, 10)
    for name in ("../checkpoints/step-000000010", str(folder.file("checkpoints/best")), "", "a/"):
        with pytest.raises(RunError, match=r"wanted the name of a file in|has no such one"):
            folder.load_named_checkpoint(name)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(folder, tmp_path):
    save(folder, 10)
    os.symlink(folder.file("checkpoints/step-000000020.npz"), folder.file("checkpoints/loop.npz"))
    os.symlink("step-000000020.npz", folder.file("checkpoints/step-000000020.npz"))
    with pytest.raises(OSError, match="symbolic links"):
        folder.load_checkpoint(pytest.fail)


def test_arrays_of_any_layout_and_type_come_back(folder):
    rng = np.random.default_rng(0)
    whole = {
        "by/columns": np.asfortranarray(rng.standard_normal([3, 4, 5]).astype(np.float32)),
        "strided": rng.standard_normal([6, 4])[::2, 1:],
        "bool": np.array([True, False]),
        "scalar": np.float32(1.5),
        "empty": np.zeros([0, 3], np.float16),
        "large": np.uint64(2**64 - 1),
    }
    folder.save_checkpoint(20, whole)
    step, read = folder.load_checkpoint(pytest.fail)
    assert step == 20
    for name, values in whole.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values, strict=True)


def test_a_digest_tells_states_apart():
    first = {"a": np.float32([1, 2]), "b": np.int64(3)}
    assert digest(first) == digest(dict(reversed(first.items())))
    others = [
        {"a": np.float32([1, 2.0000002]), "b": np.int64(3)},
        {"a": np.float32([[1, 2]]), "b": np.int64(3)},
        {"a": np.float64([1, 2]), "b": np.int64(3)},
        {"a": np.float32([1, 2]), "c": np.int64(3)},
        {"a": np.float32([1, 2])},
        {"a": np.float32([1, 0]), "b": np.int64(3)},
    ]
    assert len({digest(each) for each in [first, *others]}) == 7


KILLED_WHILE_SAVING = """
    import os, random, signal, sys, time
    import numpy as np
    from training.run_folder import RunFolder

    folder, step, rng = RunFolder(sys.argv[1]), 1, random.Random(int(sys.argv[2]))
    began = time.monotonic()
    folder.save_checkpoint(step, {"w": np.full([300_000], step, np.float32)})
    usual = time.monotonic() - began
    for _ in range(120):
        child = os.fork()
        while not child:
            step += 1
            folder.save_checkpoint(step, {"w": np.full([300_000], step, np.float32)})
        time.sleep(rng.uniform(0.2, 4) * usual)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = folder.load_checkpoint(sys.exit)
        if found:
            assert found[0] >= step and (found[1]["w"] == found[0]).all()
            step = found[0]
    print(step)
"""


def test_killed_at_any_instant_of_saving_the_newest_checkpoint_is_whole(folder):
    program = textwrap.dedent(KILLED_WHILE_SAVING)
    words = [sys.executable, "-c", program, str(folder.path), str(os.getpid())]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert int(done.stdout) > 3  # it did save
    prepare(folder.path)
    assert all(path.match("step-*.npz") for path in folder.file("checkpoints").iterdir())


# Tables.


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "losses.csv", ["step", "d_loss", "g_loss"])


ROWS = [(1, 0.1, 1 / 3), (2, np.float32(0.1), 12345678.0), (3, 1e-30, -2.5)]


def lines(tmp_path):
    return (tmp_path / "losses.csv").read_text().splitlines()


def test_a_table_holds_a_header_and_a_row_each(tmp_path, table):
    assert table.open(0) == []
    table.append(ROWS)
    table.flush()
    assert lines(tmp_path)[0] == "step,d_loss,g_loss"
    assert [row.split(",")[0] for row in lines(tmp_path)[1:]] == ["1", "2", "3"]
    table.close()


def test_float32_survives_a_table_to_the_bit(tmp_path, table):
    values = np.random.default_rng(0).integers(0, 0x7F80_0000, 2000, np.uint32).view(np.float32)
    table.open(0)
    table.append([(i + 1, float(a), float(b)) for i, (a, b) in enumerate(values.reshape(-1, 2))])
    table.close()
    read = np.array([row[1:] for row in table.open(10**9)], np.float32)
    np.testing.assert_array_equal(read.ravel().view(np.uint32), values.view(np.uint32))
    table.close()


def test_a_table_is_cut_back_to_where_the_run_stands(tmp_path, table):
    table.open(0)
    table.append(ROWS)
    table.close()
    whole = (tmp_path / "losses.csv").read_bytes()
    kept = table.open(2)
    assert [row[0] for row in kept] == [1, 2]
    table.append(ROWS[2:])
    table.close()
    assert (tmp_path / "losses.csv").read_bytes() == whole


@pytest.mark.parametrize("tail", ["4,0.25", "4,", "4", "4,0.5,0.5,0.5", "x,1,1", "\x00\x00\x00"])
def test_a_last_line_cut_short_is_dropped(tmp_path, table, tail):
    table.open(0)
    table.append(ROWS)
    table.close()
    whole = (tmp_path / "losses.csv").read_bytes()
    with open(tmp_path / "losses.csv", "a") as file:
        file.write(tail)
    table.open(10)
    table.close()
    assert (tmp_path / "losses.csv").read_bytes() == whole


def written(tmp_path, rows=30):
    """A losses.csv of that many rows -> its path and its lines."""
    path = tmp_path / "losses.csv"
    path.write_text("step,d_loss,g_loss\n" + "".join(f"{n},0.5,{n}\n" for n in range(1, rows + 1)))
    return path, path.read_text().splitlines(keepends=True)


DAMAGED_LINES = [
    ('7,"0.5,7\n', "wanted a step and 2 finite numbers"),
    ("7,nan,7\n", "wanted a step and 2 finite numbers"),
    ("7,0.5,-inf\n", "wanted a step and 2 finite numbers"),
    ("7,0.5\n", "wanted a step and 2 finite numbers"),
    ("7,0.5,7,7\n", "wanted a step and 2 finite numbers"),
    ("7.0,0.5,7\n", "wanted a step and 2 finite numbers"),
    (f"{10**400},0.5,7\n", "it comes after step 6"),
    ("\n", "wanted a step and 2 finite numbers"),
    ("\x1b[2J\n", "wanted a step and 2 finite numbers"),
    ("8,0.5,7\n", "it comes after step 6"),
    ("6,0.5,7\n", "it comes after step 6"),
    ("-7,0.5,7\n", "it comes after step 6"),
    ("", "it comes after step 6"),  # the line is not there
]


@pytest.mark.parametrize(("line", "fault"), DAMAGED_LINES)
def test_a_damaged_row_is_named_and_nothing_is_cut(tmp_path, line, fault):
    path, rows = written(tmp_path)
    path.write_text("".join([*rows[:7], line, *rows[8:]]))
    before = snapshot(tmp_path)
    table = Table(path, ["step", "d_loss", "g_loss"], every=1)
    for read in (table.read, lambda: table.open(20)):
        with pytest.raises(
            RunError, match=rf"losses\.csv is damaged in line 8, .*: {fault}; "
        ) as error:
            read()
        assert "correct it by hand, or move the file elsewhere" in message(error)
        assert message(error).isprintable()
        assert len(message(error)) < 400
    assert snapshot(tmp_path) == before


def test_what_follows_the_last_row_needed_may_be_anything(tmp_path):
    path, rows = written(tmp_path)
    for last, tail in [(5, '7,"\n'), (5, "6,nan,1\n"), (5, "\x00\x00"), (0, ""), (30, "")]:
        path.write_text("".join([*rows[: last + 1], tail, *rows[last + 2 :]]))
        table = Table(path, ["step", "d_loss", "g_loss"], every=1)
        assert [row[0] for row in table.open(last)] == list(range(1, last + 1))
        table.close()
        assert path.read_text() == "".join(rows[: last + 1])


def test_rows_that_are_missing_at_the_end_are_told(tmp_path):
    path, rows = written(tmp_path)
    path.write_text("".join([*rows[:20], "20,0."]))
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match=r"ends at step 19, but the run is at step 30: correct it"):
        Table(path, ["step", "d_loss", "g_loss"], every=1).open(30)
    assert snapshot(tmp_path) == before


def test_a_table_that_was_moved_away_begins_where_the_run_stands(tmp_path):
    path = tmp_path / "losses.csv"
    for first in (21, 31):
        table = Table(path, ["step", "d_loss", "g_loss"], every=1)
        assert len(table.open(first - 1)) == first - 21
        table.append([(step, 0.5, 1) for step in range(first, first + 10)])
        table.close()
    assert len(Table(path, ["step", "d_loss", "g_loss"], every=1).read()) == 20


def test_a_table_of_scores_has_rows_where_there_were_scores(tmp_path, table):
    path = tmp_path / "losses.csv"
    path.write_text("step,d_loss,g_loss\n100,1,1\n200,1,1\n250,1,1\n")
    assert [row[0] for row in table.open(260)] == [100, 200, 250]
    table.close()
    path.write_text("step,d_loss,g_loss\n100,1,1\n90,1,1\n")
    with pytest.raises(RunError, match="line 3, '90,1,1': it comes after step 100"):
        table.open(260)


@pytest.mark.parametrize(
    "content", [os.urandom(3000) + b"\n", b"<html>\n", b"step,d_loss\n1,2\n", b"1,2,3\n2,3,4\n"]
)
def test_a_table_of_something_else_is_refused(tmp_path, table, content):
    path = tmp_path / "losses.csv"
    path.write_bytes(content)
    with pytest.raises(
        RunError, match=r"losses\.csv is damaged in line 1, .*wanted step,d_loss,g_"
    ):
        table.open(100)
    assert path.read_bytes() == content


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path, table):
    (tmp_path / "losses.csv").write_bytes(b"step,d_loss,g_loss\r\n1,0.5,2\r\n2,1E-3,2\r\n")
    assert table.read() == [[1, 0.5, 2], [2, 0.001, 2]]


def test_bfloat16_is_refused_where_it_would_do_nothing(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="goes with dcgan, upsampling_cnn, pretrained_cnn"):
        training.configuration.check_precision("bfloat16", recipes.get("minimal"))
    for content in (None, "flags : fpu avx512f avx512_vnni\n"):
        path = tmp_path / f"cpuinfo-{content is None}"
        if content:
            path.write_text(content)
        monkeypatch.setattr(training.configuration, "_CPU_INFO", path)
        with pytest.raises(UserError, match="this CPU has neither AVX512-BF16 nor AMX"):
            training.configuration.check_precision("bfloat16", recipes.get("dcgan"))
