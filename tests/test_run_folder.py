"""Run folders without TensorFlow: tables, checkpoints, damage, locks, refusals."""

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import training.configuration
from errors import UserError
from input_data import DataSet
from models import recipes
from training.configuration import Configuration
from training.run_folder import RunError, RunFolder, Table, read_checkpoint

ROOT = Path(training.configuration.__file__).parent.parent
DATA = DataSet(np.arange(90 * 784, dtype=np.uint32).astype(np.uint8).reshape(90, 784), [0] * 90)


def configuration(seed=0, engine="auto", precision="float32", data=DATA, **numbers):
    recipe = recipes.override(recipes.get("minimal"), **numbers)
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
    with RunFolder(path).prepared(wanted or configuration(), new=new, say=said.append):
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
    named = configuration(seed=3, nlatent=2, learning_rate=2e-4, separate=True).folder_name()
    assert named.startswith("minimal-")
    assert set(named.split("-")[1:3]) < {"nlatent=2", "learning_rate=0.0002", "separate=True"}
    assert named.endswith("-seed=3")


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
        ({"separate": True}, ["--separate is False there and True here"]),
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


def test_a_run_keeps_its_numbers_when_the_recipe_of_its_name_changes(folder, monkeypatch):
    save(folder, 5)
    changed = dataclasses.replace(recipes.get("minimal"), learning_rate=0.5, drops=(3, 8))
    monkeypatch.setitem(recipes.RECIPES, "minimal", changed)
    assert folder.configuration().full_recipe().learning_rate == 1e-3
    with pytest.raises(UserError) as error:
        prepare(folder.path)
    assert "--learning_rate is 0.001 there and 0.5 here" in message(error)
    assert "--drops is none there and 3,8 here" in message(error)


def test_two_holders_of_one_folder(folder):
    with RunFolder(folder.path).lock():
        before = snapshot(folder.path)
        for new in (False, True):
            with pytest.raises(RunError, match="in use by another process") as error:
                prepare(folder.path, new=new)
            assert str(folder.path) in message(error)
        assert snapshot(folder.path) == before
    prepare(folder.path)


def test_batches_larger_than_the_data_are_refused_by_name():
    assert configuration(batch_size=90).overrides == {"batch_size": 90}
    with pytest.raises(UserError, match="--batch_size=91: wanted at most 90,"):
        configuration(batch_size=91)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_last_good_checkpoint(folder, number):
    def run():
        with folder.prepared(configuration(), new=False, say=pytest.fail):
            raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=r"disk full: .* there is no checkpoint yet; free"):
        run()
    folder.save_checkpoint(1500, state(1))
    with pytest.raises(RunError, match=r"last good checkpoint is at step 1,500; .* the same com"):
        run()


def test_other_trouble_in_a_run_keeps_its_own_error(folder):
    with (
        pytest.raises(OSError, match="Input/output"),
        folder.prepared(configuration(), new=False, say=pytest.fail),
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
    with pytest.raises(RunError, match="--checkpoint=best: it is damaged"):
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
    with pytest.raises(ValueError, match="pickle"):
        read_checkpoint(path)
    assert loaded(folder)[0] == 10


KILLED_WHILE_SAVING = """
    import os, random, signal, sys, time
    import numpy as np
    from training.run_folder import RunFolder

    folder, step, rng = RunFolder(sys.argv[1]), 0, random.Random(int(sys.argv[2]))
    for _ in range(120):
        child = os.fork()
        while not child:
            step += 1
            folder.save_checkpoint(step, {"w": np.full([300_000], step, np.float32)})
        time.sleep(rng.uniform(0.003, 0.02))
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


def test_a_table_that_is_no_text_is_begun_again(tmp_path, table):
    (tmp_path / "losses.csv").write_bytes(os.urandom(3000) + b"\x00" * 100)
    assert table.open(100) == []
    table.close()
    assert lines(tmp_path) == ["step,d_loss,g_loss"]


def test_bfloat16_is_refused_where_it_would_do_nothing(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="goes with the recipes that have convolutions"):
        training.configuration.check_precision("bfloat16", recipes.get("minimal"))
    for content in (None, "flags : fpu avx512f avx512_vnni\n"):
        path = tmp_path / f"cpuinfo-{content is None}"
        if content:
            path.write_text(content)
        monkeypatch.setattr(training.configuration, "_CPU_INFO", path)
        with pytest.raises(UserError, match="this CPU has neither AVX512-BF16 nor AMX"):
            training.configuration.check_precision("bfloat16", recipes.get("dcgan"))
