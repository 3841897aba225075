"""The benchmarks: tables of known outcomes, and small runs."""

import json

import pytest
from assembly import main

from benchmarks import quality, report, speed
from evaluation import metrics
from models import recipes
from support.errors import UserError

MISSING = speed.Contestant("missing", "no_such_peer", {})


def test_numbers_have_three_digits_and_spreads_their_range():
    numbers = [report.number(value) for value in (0.9584, 12.34, 999, 999.7, 1234.5)]
    assert numbers == ["0.958", "12.3", "999", "1,000", "1,234"]
    assert report.spread([1, 2, 6]) == "3 [1, 6]" and report.spread([2, 2]) == "2"
    assert report.spread([1, 2, 6], max) == "6 [1, 6]"
    table = report.table([["", "a"], ["long", "1 [2]"]])
    assert table.splitlines() == ["|      |     a |", "| ---- | ----: |", "| long | 1 [2] |"]


@pytest.mark.slow
def test_a_race_of_processes_that_train_the_same_networks(monkeypatch):
    monkeypatch.setattr(speed, "_TURN_SECONDS", 0.02)
    contestants, notes = [speed._STEP, MISSING, speed._LITERAL], []
    racers, unavailable = speed.run_race("leaky_mlp", 64, contestants, 2, notes.append)
    assert "no_such_peer" in unavailable["missing"] and len(notes) == 3 + 2 * 2
    for racer in racers:
        assert racer.parameters == (114_064, 100_609)
        assert len(racer.microseconds) == 2 and racer.start > 0
    ours, literal = racers
    ours.microseconds, literal.microseconds = [1.0, 2.0], [3.0, 4.0]
    text = speed.section("leaky_mlp", 64, racers, unavailable)
    cells = _cells(text)[literal.contestant.label]
    assert cells[:2] == ["3.5 [3, 4]", "2.5 [2, 3]"]
    assert "Unavailable: missing (" in text


def test_a_race_without_this_project_says_why():
    with pytest.raises(UserError, match=r"minimal, missing: .*no_such_peer"):
        speed.run_race("minimal", 16, [MISSING], 1)


def _outcome(distance, precision=0.5, **scores):
    plain = dict.fromkeys(metrics.LABELS, 1.0) | {"histogram": [0.2, *[0.1] * 7, 0.05, 0.05]}
    plain["reference_scores"] = {"real": dict(plain) | {"frechet_distance": 2.0}}
    plain |= {"steps": 10, "training_seconds": 2.0, "command_seconds": None}
    return plain | {"frechet_distance": distance, "precision": precision} | scores


def _cells(text):
    rows = [line.strip("|").split("|") for line in text.splitlines()]
    return {label.strip(): [cell.strip() for cell in cells] for label, *cells in rows}


def test_quality_tables_show_means_ranges_and_reference_scores():
    labels = {"label_accuracy": 0.99, "real_label_accuracy": 0.995}
    labels |= {"label_accuracies": {"0": 0.98, "1": 1.0}, "trained_on_samples_accuracy": 0.97}
    labels |= {"label_frechet_distances": {"0": 3.0, "1": 7.0}}
    labels |= {"real_label_frechet_distances": {"0": 2.0, "1": 1.0}}
    columns = {"a": [_outcome(8.0), _outcome(10.0)], "b": [_outcome(8.0, **labels)]}
    cells = _cells(quality.table(columns))
    for row, expected in {
        "": ["a", "b", "real"],
        "Fréchet distance": ["9 [8, 10]", "8", "2"],
        "rarest class": ["5 %"] * 3,
        "most frequent class": ["20 %"] * 3,
        "taken for the label asked for": ["", "99 %", "99.5 %"],
        "the worst label": ["", "98 %", ""],
        "greatest Fréchet distance within a label": ["", "7", "2"],
        "accuracy after training on samples alone": ["", "97 %", ""],
        "steps": ["10", "10", ""],
    }.items():
        assert cells[row] == expected
    assert "seconds of the whole command" not in cells
    assert "the worst label" not in quality.table({"a": columns["a"]})


def test_the_verdict_names_differences_above_the_spread_of_the_seeds():
    base = [_outcome(5, 0.5), _outcome(6, 0.6), _outcome(7, 0.7)]
    far = [_outcome(9, 0.4), _outcome(10, 0.5), _outcome(11, 0.8)]
    sharp = [_outcome(5, 0.8), _outcome(6, 0.8), _outcome(6, 0.8)]
    head, _, first, second = quality.verdict({"a": base, "far": far, "sharp": sharp}).splitlines()
    assert "sharp has the smallest Fréchet distance, within the range of a. Compared with a" in head
    assert "10% of cases" in head and "1 beyond the range of" in quality.verdict(
        {"a": base, "b": [_outcome(8.0)] * 3}
    )
    worse = "worse: Fréchet distance (10 instead of 6, 2 beyond the range)"
    assert first == f"- far is {worse}; within the range of the seeds: precision, recall."
    assert "sharp is better: precision (0.8 instead of 0.6, 0.1 beyond the range); within" in second
    assert "none" in quality.verdict({"a": base[:1], "b": far[:1]})


def test_the_summary_has_the_best_set_first_and_real_images_last():
    one, two = [_outcome(9), _outcome(11)], [_outcome(3, classes_covered=2)]
    cells = _cells(quality.summary({"one": one, "two": two}))
    assert list(cells)[2:] == ["two", "one", "real"]
    assert cells["one"][:3] == ["1", "10 [9, 11]", "0.5"] and cells["real"][1] == "2"


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (speed.main, ["--recipes=other"], "--recipes must be some of minimal"),
        (quality.main, ["--steps=0"], "must be an integer of at least 1, got 0"),
        (quality.main, ["--runs=a: --new", "--table=labels"], "--table: not allowed with argument"),
        (quality.main, ["--only=other"], "--only must be some of minimal"),
        (quality.main, ["--runs=no colon"], "'NAME: --FLAG=VALUE ...'"),
        (quality.main, ["--runs=a: --prior='normal"], "No closing quotation"),
    ],
)
def test_wrong_flags_end_in_one_line(capsys, main, words, message):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_the_published_tables_have_valid_columns():
    for table in quality.TABLES.sections():
        sets = quality.parse([f"--table={table}"])["sets"]
        assert all(flags[0].startswith("--recipe=") for flags in sets.values())
    assert len(quality.parse(["--table=seconds"])["sets"]) == len(recipes.RECIPES) + 1
    for words, steps in ([], 9), (["--steps=5"], 5), (["--seconds=5"], None):
        losses = quality.parse(words, "losses", table="losses", steps=9)
        assert (losses["steps"], len(losses["sets"])) == (steps, 26)
    assert losses["command"] == "python -m benchmarks.losses --seconds=5"
    one = quality.parse(["--table=ablation", "--only=without R1", "--seconds=5"])
    assert list(one["sets"]) == ["without R1"] and one["out"].name == one["name"] == "ablation-5s"


def _kept(out, name):
    (record,) = (out / "runs").glob(f"{name}-0-*.json")
    return record.with_suffix(""), json.loads(record.read_text())


@pytest.mark.slow
def test_flags_are_compared_and_their_results_kept(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("from models.gan import Gan\n\n\nclass Mine(Gan): pass\n")
    out = tmp_path / "out"
    resumed = quality.Run("a", ("--recipe=minimal",), 6, None, 0, out / "runs").folder
    assert main("--num_steps=3", f"--run_dir={resumed}")[0] == 0
    runs = ["--runs=a: --recipe=minimal", f"--runs=b: --gan={tmp_path / 'mine.py'}:Mine"]
    options = [f"--out={out}", "--seeds=1", "--steps=6"]
    quality.main([*options, *runs])
    names = [f"quality-runs{end}" for end in ("-distances.png", ".md", ".png")]
    assert sorted(path.name for path in out.iterdir()) == [*names, "runs"]
    page = (out / "quality-runs.md").read_text(encoding="utf-8")
    shown = page.split("\n\n", 1)[1].split("\n\nAll scores:")[0]
    assert "| a " in shown and "Verdict: none" in shown and shown in capsys.readouterr().out
    (folder, first), (_, second) = (_kept(out, name) for name in "ab")
    assert folder == resumed
    assert first["steps"] == 6 and first["training_seconds"] is first["command_seconds"] is None
    assert second["command_seconds"] > second["training_seconds"] > 0


def test_wrong_recipe_names_the_run_and_makes_no_folder(tmp_path):
    with pytest.raises(SystemExit, match=r"quality: a: --recipe must be one of .*, got nosuch"):
        quality.main([f"--out={tmp_path / 'out'}", "--seeds=1", "--runs=a: --recipe=nosuch"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_that_fit_into_seconds(tmp_path):
    # Steps of some 10 ms: their rate is known after runs of 4, 32 and 256 steps.
    flags = "--prior='normal' --batch_size=128 --engine=step"
    quality.main([f"--out={tmp_path}", "--seeds=1", "--seconds=1", f"--runs=a: {flags}"])
    _, run = _kept(tmp_path, "a")
    assert run["steps"] > 20 and run["training_seconds"] > 0.1
