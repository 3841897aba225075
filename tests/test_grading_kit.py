"""The grading kit itself: it passes every correct class and names every mistake."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from grading import candidate
from grading.checks import NOT_REACHED, Gradebook, expect, grade
from grading.contract import CHECKS
from grading.specimen import Bench
from grading_examples.mutants import MUTANTS

pytest_plugins = ["pytester"]

tf1 = tf.compat.v1
TESTS = Path(__file__).resolve().parent
EXAMPLES = TESTS / "grading_examples"
BY_NAME = {check.name: check for check in CHECKS}
HALVED = next(mutant for mutant in MUTANTS if mutant.name == "d_loss_halved")


def graded(path, class_name="Gan"):
    """The constructor that the kit would call; the file is not run before the first call."""
    return lambda *args, **sizes: candidate.load(path, class_name)(*args, **sizes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("students")


def written(folder, name, source):
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def command_lines(folder):
    """Runs of the true command line, started first because they take as long as all the rest."""
    halved = written(folder, "halved", HALVED.source())
    runs = {
        "correct": ["tests/grading", f"--gan={EXAMPLES / 'correct.py'}:Gan"],
        "reference": [
            "tests/grading",
            "--gan=tests/grading_examples/reference_variables.py:Adversaries",
        ],
        "halved": ["tests/grading", f"--gan={halved}:Gan", "-k", "d_loss_"],
    }
    started = {name: pytest_process(*arguments) for name, arguments in runs.items()}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def pytest_process(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=TESTS.parent, **output)


def ended(process):
    """(exit code, output) of a run."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_every_check_has_a_mutant_that_fails_it():
    assert {mutant.check for mutant in MUTANTS} == set(BY_NAME)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fails_the_check_meant_for_it(mutant, folder):
    path = written(folder, mutant.name, mutant.source())
    check = BY_NAME[mutant.check]
    builds = [] if check is BY_NAME["builds"] else [BY_NAME["builds"]]
    book = grade(graded(path), [*builds, check])
    assert list(book.failures()) == [mutant.check]
    sentence = book.failures()[mutant.check]
    assert sentence.startswith(check.sentence)
    assert sentence.endswith(").") and "\n" not in sentence


@pytest.mark.slow
def test_raw_variables_pass():
    book = grade(graded(EXAMPLES / "raw_variables.py"), CHECKS)
    assert book.failures() == {}
    assert book.summary() == f"{len(CHECKS)} of {len(CHECKS)} checks passed"


def test_sentences_differ_and_hold_no_code():
    sentences = [check.sentence for check in CHECKS]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert len(sentence) < 250 and not sentence.endswith(".")
        assert not any(code in sentence for code in ("tf.", "reduce_", "log(", "_like", "`"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("\n\nx = nmae\n\nclass Gan: pass", "NameError: name 'nmae' is not defined, line 3 of"),
        ("class Gan\n", "SyntaxError: expected ':'"),
        ("class Gan: pass\n\nraise SystemExit(0)", "ImportError: the file ends the program"),
        ("class Gan:\n    def __init__(self):\n        1 / 0", "division by zero, line 3 of"),
    ],
)
def test_a_class_that_cannot_be_built_takes_one_sentence(tmp_path, source, told):
    path = written(tmp_path, "broken", source)
    book = grade(graded(path), CHECKS)
    assert list(book.failures()) == ["builds"]
    assert told in book.failures()["builds"]
    assert book.summary() == f"0 of {len(CHECKS)} checks passed, {len(CHECKS) - 1} not reached"


def test_a_failure_while_the_graph_runs_names_the_students_line(folder):
    source = (EXAMPLES / "correct.py").read_text(encoding="utf-8")
    line = "return self.session.run(self.x_hat, {self.z_placeholder: z_np})"
    broken = source.replace(line, "return self.session.run(tf.reshape(self.d_loss, [7]))")
    assert broken != source
    path = written(folder, "runs_into_a_wall", broken)
    sentence = BY_NAME["samples_are_x_hat"](Bench(graded(path)))
    number = 1 + broken[: broken.index("[7]")].count("\n")
    assert f"line {number} of runs_into_a_wall.py" in sentence


@pytest.mark.parametrize("line", ["from .correct_copy import Gan", "from correct_copy import Gan"])
def test_a_file_may_import_its_neighbours(folder, line):
    written(folder, "correct_copy", (EXAMPLES / "correct.py").read_text(encoding="utf-8"))
    path = written(folder, f"imports_{'dot' if '.' in line else 'plain'}", line)
    spec = f"{path.name}:Gan"
    assert candidate.parse(spec, folder) == (path, "Gan")
    assert candidate.load(path, "Gan").__name__ == "Gan"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("models/gan.py", "wanted path/to/file.py:Class"),
        ("Gan", "wanted path/to/file.py:Class"),
        (":Gan", "wanted path/to/file.py:Class"),
        ("nowhere.py:Gan", "no such file"),
        ("grading_examples/correct.py:Gam", "no class Gam in"),
        ("grading_examples/correct.py:Gan()", "wanted path/to/file.py:Class"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(spec, told):
    with pytest.raises(ValueError, match=told) as error:
        candidate.parse(spec, TESTS)
    assert str(error.value).startswith(f"--gan={spec}: ") and "\n" not in str(error.value)


def test_a_wrong_option_ends_the_command():
    code, output = ended(pytest_process("tests/grading", "--gan=nowhere.py:Gan"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert [line[:30] for line in output.splitlines() if line] == ["ERROR: --gan=nowhere.py:Gan: n"]


def test_each_check_finds_the_model_as_its_constructor_left_it():
    bench = Bench(graded(EXAMPLES / "correct.py"))
    with bench.specimen() as gan:
        first, batch = gan.model, gan.batch()
        before = first.session.run(tf1.global_variables())
        gan.shake("generator")
        gan.update("discriminator", 0.1, **batch)
    with bench.specimen() as gan:
        assert gan.model is first
        after = first.session.run(tf1.global_variables())
        np.testing.assert_array_equal(gan.images(16), batch["images"])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(RuntimeError), bench.specimen():
        raise RuntimeError
    with bench.specimen() as gan:
        assert gan.model is not first
    bench.close()


def test_no_session_outlives_a_class_that_fails_half_way():
    make = candidate.load(EXAMPLES / "correct.py", "Gan")

    def fails_after_opening(*args, **sizes):
        make(*args, **sizes)
        raise RuntimeError

    outer = tf1.get_default_session()
    bench = Bench(fails_after_opening)
    assert BY_NAME["builds"](bench)
    assert tf1.get_default_session() is outer


def test_a_shut_gate_keeps_the_rest_from_running():
    book = Gradebook(partial(expect, False, "never built"))
    verdicts = [book.mark(check) for check in CHECKS[:3]]
    assert "never built" in verdicts[0] and verdicts[1:] == [NOT_REACHED, NOT_REACHED]


@pytest.mark.parametrize("name", ["correct", "reference"])
def test_command_line_passes_a_correct_class(command_lines, name):
    code, output = ended(command_lines[name])
    assert f"\n{len(CHECKS)} of {len(CHECKS)} checks passed\n" in output, output
    assert code == 0


def test_command_line_tells_a_mistake_in_one_sentence(command_lines):
    code, output = ended(command_lines["halved"])
    assert code == pytest.ExitCode.TESTS_FAILED
    named = [check for check in CHECKS if "d_loss_" in check.name]
    assert f"\n{len(named) - 1} of {len(named)} checks passed\n" in output, output
    assert output.count(BY_NAME[HALVED.check].sentence) == 1
    assert "Traceback" not in output and "FAILURES" not in output and "FAILED" not in output


def test_a_run_of_the_whole_project_grades_its_own_class(pytester):
    others = f"--ignore-glob={TESTS}/test_*.py"
    result = pytester.runpytest_inprocess(TESTS, others, "-k", "default_sizes")
    result.stdout.fnmatch_lines(["1 of 1 checks passed"])
    assert result.ret == pytest.ExitCode.OK
