"""The class's leaderboard: ranks, remarks, and names and files that students choose."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import input_data
from grading import leaderboard
from grading.leaderboard import NUM_SAMPLES, Failed, Row

ROOT = Path(__file__).resolve().parent.parent
SCORES = {"frechet_distance": 40.0, "classes_covered": 9, "memorised_share": 0.01}
REAL = {"frechet_distance": 2.47, "classes_covered": 10, "memorised_share": 0.044}
HOSTILE = "<script>alert('$x$')</script>"


def row(name, distance, **changes):
    samples = np.full([NUM_SAMPLES, 784], 0.5, np.float32)
    scores = {**SCORES, "frechet_distance": distance}
    parameters = {"generator": 1000, "discriminator": 234}
    values = {"parameters": parameters, "step": 1500, "scores": scores, "samples": samples}
    return Row(name, **{**values, "reference": REAL, **changes})


@pytest.fixture
def rows():
    copies = row("copies", 1.0, reason="97% of the samples are copies of training images")
    broken = Row("broken", {"generator": 1, "discriminator": 1}, reason="ended by SIGABRT")
    return sorted([broken, row("b", 50.0), copies, row(HOSTILE, 30.0)], key=lambda r: r.order)


def test_copies_and_failures_have_no_place(rows):
    assert [each.name for each in rows] == [HOSTILE, "b", "copies", "broken"]
    heading, *lines = leaderboard.table(rows).splitlines()
    assert heading.split() == [word for word in leaderboard.HEADINGS if word]
    assert [line.split()[0] for line in lines] == ["1", "2", "-", "-", "real"]
    assert lines[0].split()[-2:] == ["1,234", "1,500"]
    assert lines[2].endswith("97% of the samples are copies of training images")
    assert "2.47" in lines[4]


def test_the_page_escapes_names_and_asks_nobody(rows, tmp_path):
    leaderboard.write(tmp_path / "board", rows, seed=7, seconds=60)
    page = (tmp_path / "board" / "leaderboard.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,iVBOR") == 3 and "seed 7" in page
    assert "default-src 'none'" in page and "http:" not in page and "https:" not in page
    content = json.loads((tmp_path / "board" / "leaderboard.json").read_text(encoding="utf-8"))
    assert content["seed"] == 7
    assert [each["student"] for each in content["rows"]] == [each.name for each in rows]
    assert (tmp_path / "board" / "samples.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "[" * 10_000, json.dumps({**SCORES, "step": "1"}),
        json.dumps({**SCORES, "step": 1, "frechet_distance": float("nan")}),
    ],
)  # fmt: skip
def test_scores_that_are_none_are_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(Failed):
        leaderboard._metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros([NUM_SAMPLES, 784])},
        {"images": np.zeros([3, 784])},
        {"images": np.zeros([NUM_SAMPLES, 10**6])},
        {"images": np.array([{}] * NUM_SAMPLES)},
    ],
)
def test_samples_that_are_none_are_refused(tmp_path, arrays):
    np.savez_compressed(tmp_path / "samples.npz", **arrays)
    with pytest.raises(Failed):
        leaderboard._samples(tmp_path / "samples.npz")


def test_what_a_command_told_last_is_safe_to_show(tmp_path):
    with open(tmp_path / "told", "wb+") as file:
        file.write(b"x" * 10_000 + b"\n\x1b[31mmain.py: \xff no such thing\n\n")
        assert leaderboard._last_line(file) == "?[31mmain.py: \ufffd no such thing"


@pytest.mark.slow
def test_a_class_is_trained_scored_and_ranked(tmp_path):
    data = ROOT / "MNIST_data"
    if not input_data.is_mnist(input_data.read_data_sets(data, validation_size=0).train.pixels):
        pytest.skip("no MNIST here")
    students = tmp_path / "students"
    students.mkdir()
    (students / "ann.py").write_text((ROOT / "tests/grading_examples/correct.py").read_text())
    (students / "bob.py").write_text("class Gan: pass")
    waits = "if __import__('os').path.exists('main.py'):\n    __import__('time').sleep(10**6)\n"
    (students / "eve.py").write_text(waits + (students / "ann.py").read_text())
    command = [sys.executable, "-m", "grading", students, f"--out={tmp_path / 'marks'}"]
    ended = subprocess.run(
        [*command, "--train=25", "--seed=5"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    board = json.loads((tmp_path / "marks" / "leaderboard" / "leaderboard.json").read_text())
    ann, eve = board["rows"]
    assert (eve["student"], eve["reason"]) == ("eve", "made no step in 25 s")
    assert (ann["student"], ann["reason"], board["seed"]) == ("ann", "", 5)
    assert ann["step"] > 100 and ann["frechet_distance"] > 10
    assert "real test images" in ended.stdout
