"""The grading kit itself: it passes every correct class, names every mistake, and is not fooled."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from grading_examples.mutants import MUTANTS

from grading import candidate, marks, messages, submissions
from grading.checks import NOT_REACHED, failures, grade, summary
from grading.contract import CHECKS
from grading.marking import mark
from grading.model_proxy import Bench
from grading.process import Limits, Process, Raised, isolation
from support.errors import UserError

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "tests" / "grading_examples"
CORRECT = (EXAMPLES / "correct.py").read_text(encoding="utf-8")
BY_NAME = {check.name: check for check in CHECKS}
IMPORTS, BUILDS = BY_NAME["imports"], BY_NAME["builds"]
HALVED = next(mutant for mutant in MUTANTS if mutant.name == "d_loss_halved")
FIRST_LINE = "        self._ndims = ndims\n"  # of the constructor


@pytest.fixture(scope="module")
def process():
    """One for the whole module: TensorFlow is imported once."""
    process = Process(Limits())
    yield process
    process.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("students")


def written(folder, name, source):
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def in_constructor(code):
    """correct.py with these lines at the beginning of its constructor."""
    lines = "".join(f"        {line}\n" for line in code.splitlines())
    return CORRECT.replace(FIRST_LINE, FIRST_LINE + lines)


def test_every_check_has_a_mutant_that_fails_it():
    assert {mutant.check for mutant in MUTANTS} == set(BY_NAME)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fails_the_check_meant_for_it(mutant, folder, process):
    path = written(folder, mutant.name, mutant.source())
    check = BY_NAME[mutant.check]
    before = [each for each in (IMPORTS, BUILDS) if CHECKS.index(each) < CHECKS.index(check)]
    found = failures(grade(process, path, "Gan", [*before, check]).verdicts)
    assert list(found) == [mutant.check]
    sentence = found[mutant.check]
    assert sentence.startswith(check.sentence)
    assert sentence.endswith(").") and "\n" not in sentence


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param("raw_variables.py", marks=pytest.mark.slow),
        pytest.param("reference_variables.py:Adversaries", marks=pytest.mark.slow),
    ],
)
def test_a_correct_class_passes(process, spec):
    book = grade(process, *candidate.parse(spec, EXAMPLES), CHECKS)
    assert failures(book.verdicts) == {}
    assert summary(book.verdicts) == f"{len(CHECKS)} of {len(CHECKS)} checks passed"


def test_sentences_differ_and_hold_no_code():
    sentences = [check.sentence for check in CHECKS]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert len(sentence) < 250 and not sentence.endswith(".")
        assert not any(code in sentence for code in ("tf.", "reduce_", "log(", "_like", "`"))


@pytest.mark.parametrize(
    ("source", "check", "told"),
    [
        ("\n\nx = nmae\n\nclass Gan: pass", "imports", "'nmae' is not defined, line 3 of"),
        ("class Gan\n", "imports", "SyntaxError: expected ':'"),
        ("class Gan: pass\n\nraise SystemExit(0)", "imports", "the file ends the program"),
        ("import os\nos._exit(0)\nclass Gan: pass", "imports", "ended itself with exit code 0"),
        ("class Gan:\n    def __init__(self):\n        1 / 0", "builds", "by zero, line 3 of"),
        (
            "class Gan:\n    def __init__(self):\n        exit()",
            "builds",
            "SystemExit: None, line 3",
        ),
    ],
)
def test_a_class_that_cannot_be_built_takes_one_sentence(tmp_path, process, source, check, told):
    book = grade(process, written(tmp_path, "broken", source), "Gan", CHECKS)
    assert list(failures(book.verdicts)) == [check]
    assert told in book.verdicts[check]
    passed = CHECKS.index(BY_NAME[check])
    left = len(CHECKS) - passed - 1
    assert summary(book.verdicts) == (
        f"{passed} of {len(CHECKS)} checks passed, {left} not reached"
    )


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        ("tf1.layers.dense(x, 1)", "tf.layers are gone; in their place"),
        ("tf.placeholder(tf.float32, [None, 1])", "import tensorflow.compat.v1 as tf"),
        ("tf1.contrib.layers.fully_connected(x, 1)", "tf.contrib is gone"),
    ],
)
def test_what_tensorflow_no_longer_has_comes_with_what_to_use(tmp_path, process, layer, hint):
    path = written(tmp_path, "gone", CORRECT.replace('dense(x, 1, "logit")', layer))
    book = grade(process, path, "Gan", CHECKS)
    assert list(failures(book.verdicts)) == ["builds"]
    assert hint in book.verdicts["builds"]
    # The losses are marked all the same.
    assert book.verdicts["d_loss_has_the_articles_value"] is None


def test_losses_are_marked_before_the_rest_is_written(tmp_path, process):
    source = in_constructor("raise NotImplementedError").replace("cross_entropy(1.0, y) + ", "")
    book = grade(process, written(tmp_path, "half", source), "Gan", CHECKS)
    assert "d_loss_listens_to_both_kinds" in failures(book.verdicts)
    assert book.verdicts["g_loss_has_the_articles_value"] is None


def test_the_starter_file_tells_what_is_left_to_write(process):
    starter = ROOT / "docs" / "starter" / "gan.py"
    verdicts = grade(process, starter, "Gan", CHECKS).verdicts
    assert list(failures(verdicts)) == ["methods_are_written"]
    methods = ("_generator", "_discriminator", "_discriminator_loss", "_generator_loss")
    for method in (*methods, "generate_samples"):
        assert f"{method}, line " in verdicts["methods_are_written"]


LOSS = "tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.{}_like({}), logits={})"
STEPS = [
    {
        "_discriminator_loss": f"return tf.reduce_mean({LOSS.format('ones', 'y', 'y')}"
        f" + {LOSS.format('zeros', 'y_hat', 'y_hat')})",
        "_generator_loss": f"return tf.reduce_mean({LOSS.format('ones', 'y_hat', 'y_hat')})",
    },
    {
        "_generator": "with tf.variable_scope('generator', reuse=reuse):\n"
        "            return tf.sigmoid(dense(z, self._ndims, 'pixels'))",
        "_discriminator": "with tf.variable_scope('discriminator', reuse=reuse):\n"
        "            return dense(x, 1, 'logit')",
        "generate_samples": "return self.session.run(self.x_hat, {self.z_placeholder: z_np})",
    },
]


def filled(source, bodies):
    """The starter with these methods' bodies in the place of what they raise."""
    for name, body in bodies.items():
        before, after = source.split(f"    def {name}(")
        source = f"{before}    def {name}({after.replace('raise NotImplementedError', body, 1)}"
    return source


def test_the_starter_file_leads_to_a_class_that_passes(tmp_path, process):
    losses = filled((ROOT / "docs" / "starter" / "gan.py").read_text(encoding="utf-8"), STEPS[0])
    verdicts = grade(process, written(tmp_path, "losses", losses), "Gan", CHECKS).verdicts
    assert list(failures(verdicts)) == ["methods_are_written"]
    assert [n for n, v in verdicts.items() if v is None and "loss_" in n][:2] == [
        "d_loss_is_a_number", "g_loss_is_a_number"
    ]  # fmt: skip
    assert verdicts["g_loss_survives_sure_mistakes"] is None
    networks = filled(losses, STEPS[1])
    verdicts = grade(process, written(tmp_path, "networks", networks), "Gan", CHECKS).verdicts
    assert list(failures(verdicts)) == ["has_the_articles_names"]
    assert "(missing: d_optimizer, g_optimizer)" in verdicts["has_the_articles_names"]
    whole = networks
    for net in ("discriminator", "generator"):
        adam = "tf.train.AdamOptimizer(self.learning_rate_placeholder)"
        update = f"{adam}.minimize(self.{net[0]}_loss, var_list=tf.trainable_variables('{net}'))"
        whole = whole.replace(
            f"self.{net[0]}_optimizer = None", f"self.{net[0]}_optimizer = {update}"
        )
    verdicts = grade(process, written(tmp_path, "whole", whole), "Gan", CHECKS).verdicts
    assert not any(verdicts.values()), failures(verdicts)


def test_a_nan_loss_is_called_that_and_nothing_else(tmp_path, process):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "d_logarithms_of_logits")
    book = grade(process, written(tmp_path, "nan", mutant.source()), "Gan", CHECKS)
    assert list(failures(book.verdicts)) == ["d_loss_is_a_number"]


def test_a_shared_adam_is_called_that_and_nothing_else(tmp_path, process):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "one_adam_for_both")
    book = grade(process, written(tmp_path, "shared", mutant.source()), "Gan", CHECKS)
    assert list(failures(book.verdicts)) == ["each_network_has_its_own_adam"]


def test_a_failure_while_the_graph_runs_names_the_students_line(folder, process):
    line = "return self.session.run(self.x_hat, {self.z_placeholder: z_np})"
    broken = CORRECT.replace(line, "return self.session.run(tf.reshape(self.d_loss, [7]))")
    assert broken != CORRECT
    path = written(folder, "runs_into_a_wall", broken)
    sentence = BY_NAME["samples_are_x_hat"](Bench(process, path, "Gan"))
    number = 1 + broken[: broken.index("[7]")].count("\n")
    assert f"line {number} of runs_into_a_wall.py" in sentence


@pytest.mark.parametrize("line", ["from .correct_copy import Gan", "from correct_copy import Gan"])
def test_a_file_may_import_its_neighbours(folder, process, line):
    written(folder, "correct_copy", CORRECT)
    path = written(folder, f"imports_{'dot' if '.' in line else 'plain'}", line)
    assert candidate.parse(f"{path.name}:Gan", folder) == (path, "Gan")
    assert IMPORTS(Bench(process, path, "Gan")) is None


def test_a_file_inside_the_project_does_not_find_the_solution():
    def folders(name):
        return candidate.neighbourhood(ROOT / name)

    assert folders("gan.py") == [str(ROOT.parent)]
    assert folders("students/gan.py") == [str(ROOT / "students")]
    assert folders("models/gan.py") == [str(ROOT / "models"), str(ROOT)]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("", "wanted path/to/file.py:Class"),
        ("nowhere.py", "no such file"),
        (":Gan", "wanted path/to/file.py:Class"),
        ("nowhere.py:Gan", "no such file"),
        ("grading_examples/correct.py:Gam", "no class Gam in"),
        ("grading_examples/correct.py:Gan()", "wanted path/to/file.py:Class"),
    ],
)
def test_a_wrong_class_is_told_in_one_line(spec, told):
    with pytest.raises(UserError, match=told) as error:
        candidate.parse(spec, EXAMPLES.parent)
    assert "\n" not in str(error.value)


# One class after another in one process.


def test_each_check_finds_the_model_as_its_constructor_left_it(process):
    bench = Bench(process, EXAMPLES / "correct.py", "Gan")
    with bench.model_proxy() as gan:
        batch = gan.batch()
        before = gan.run("x_hat", "d_loss", "image_logits", **batch)
        gan.randomize_weights("generator")
        gan.update("discriminator", 0.1, **batch)
        changed = gan.run("x_hat", "d_loss", "image_logits", **batch)
    with bench.model_proxy() as gan:
        np.testing.assert_array_equal(gan.batch()["images"], batch["images"])
        after = gan.run("x_hat", "d_loss", "image_logits", **batch)
    for one, other, between in zip(before, after, changed, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(one, between)


def test_updates_report_the_largest_change_of_each_variable(process):
    with Bench(process, EXAMPLES / "correct.py", "Gan").model_proxy() as gan:
        assert gan.num_parameters() == {"generator": 2 * 784 + 784, "discriminator": 784 + 1}
        changes = gan.update("generator", 0.25, **gan.batch())
    assert changes["discriminator"] == [0, 0]
    np.testing.assert_allclose(changes["generator"], [0.25, 0.25], rtol=1e-3)


def test_what_the_class_raises_arrives_as_one_line(tmp_path, process):
    path = written(tmp_path, "rude", in_constructor(r"raise ValueError('\x1b[31m red\nand more')"))
    with pytest.raises(Raised) as error, Bench(process, path, "Gan").model_proxy():
        pass
    assert str(error.value).startswith("ValueError: ?[31m red, line ")


# A class that fights back.

ATTACKS = {
    "skips": ("import pytest; pytest.skip()", "Skipped"),
    "exits": ("import os; os._exit(0)", "ended itself with exit code 0"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "asks_for_100_gb": ("import numpy as np; np.ones(100 * 2**27)", "more memory than"),
    "hangs_up": ("import os; os.closerange(3, 100)", "ended itself|in the place of an answer"),
    "chats": (
        "import os\nfor fd in range(3, 30):\n    try: os.write(fd, b'[' * 9999 + b'\\n')\n"
        "    except OSError: pass",
        "in the place of an answer",
    ),
    "answers_by_itself": (
        "import os\nfor fd in range(3, 30):\n"
        '    try: os.write(fd, b\'{"token": "", "value": null}\\n\')\n'
        "    except OSError: pass",
        "answered what was not asked",
    ),
    "imports_the_solution": ("import models.gan", "No module named 'models'"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass(tmp_path, process, name):
    code, told = ATTACKS[name]
    book = grade(process, written(tmp_path, name, in_constructor(code)), "Gan", [IMPORTS, BUILDS])
    assert book.verdicts["imports"] is None
    assert re.search(told, book.verdicts["builds"] or "passed")


def test_patching_the_kit_changes_nothing(tmp_path, process):
    patches = (
        "import grading.checks, grading.model_proxy, numpy\n"
        "grading.checks.Check.__call__ = lambda *a: None\n"
        "grading.model_proxy.Specimen.d_loss_at = None\n"
        "numpy.allclose = lambda *a, **k: True\n"
        "import atexit, os\natexit.register(os._exit, 0)\n"
    )
    path = written(tmp_path, "patches", patches + HALVED.source())
    book = grade(process, path, "Gan", CHECKS)
    assert HALVED.check in failures(book.verdicts)


def test_output_and_threads_without_end_do_no_harm(tmp_path, process):
    code = (
        "import sys, threading, time\n"
        "for _ in range(1000): print('x' * 10000); print('y' * 10000, file=sys.stderr)\n"
        "threading.Thread(target=time.sleep, args=[10**6]).start()"
    )
    path = written(tmp_path, "floods", in_constructor(code))
    assert not any(grade(process, path, "Gan", [IMPORTS, BUILDS]).verdicts.values())


def test_the_teachers_environment_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_A_TEACHER", "1")
    code = "import os; assert 'SECRET_OF_A_TEACHER' not in os.environ"
    own = Process(Limits())
    book = grade(own, written(tmp_path, "looks", in_constructor(code)), "Gan", [IMPORTS, BUILDS])
    own.end()
    assert not any(book.verdicts.values())


def test_what_is_wrong_here_is_not_the_students_fault(tmp_path):
    process = Process(Limits(memory_gb=0.2))
    with pytest.raises(UserError, match=r"cannot start: .* does it need more than --memory_gb=0.2"):
        grade(process, written(tmp_path, "correct", CORRECT), "Gan", CHECKS)
    process.end()


@pytest.mark.slow
def test_an_endless_loop_is_ended_and_its_line_named(tmp_path):
    line = "        return self.session.run(self.x_hat"
    source = CORRECT.replace(line, f"        while True:\n            pass\n{line}")
    path = written(tmp_path, "loops", source)
    process = Process(Limits(check_seconds=3, file_seconds=60))
    checks = [BY_NAME[name] for name in ("samples_are_x_hat", "d_loss_is_a_mean")]
    verdicts = grade(process, path, "Gan", checks).verdicts
    process.end()
    first = 1 + CORRECT[: CORRECT.index(line)].count("\n")
    told = re.search(r"after 3 s, line (\d+) of loops.py:", verdicts["samples_are_x_hat"])
    assert int(told[1]) in (first, first + 1)
    assert verdicts["d_loss_is_a_mean"] is None


@pytest.mark.slow
def test_nothing_is_asked_when_the_time_for_a_file_is_over(tmp_path):
    source = CORRECT.replace("class Gan:", "while True:\n    pass\n\n\nclass Gan:")
    process = Process(Limits(check_seconds=3, file_seconds=2))
    verdicts = grade(process, written(tmp_path, "hangs", source), "Gan", CHECKS).verdicts
    process.end()
    assert "the 2 s that a file has" in verdicts["imports"]
    assert list(verdicts.values()).count(NOT_REACHED) == len(CHECKS) - 1


@pytest.mark.slow
def test_what_a_class_starts_ends_with_it(tmp_path):
    mark_of_it = f"sleep 86{os.getpid()}"
    code = f"import subprocess; subprocess.Popen({['setsid', *mark_of_it.split()]})"
    process = Process(Limits())
    grade(process, written(tmp_path, "daemon", in_constructor(code)), "Gan", [IMPORTS, BUILDS])
    process.end()
    if not isolation():
        pytest.skip("no process namespaces here")
    time.sleep(0.2)
    assert mark_of_it not in _command_lines()


def _command_lines():
    texts = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue
    return texts


def test_a_class_has_no_network(tmp_path, process):
    if not isolation():
        pytest.skip("no network namespaces here")
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    path = written(tmp_path, "calls_home", in_constructor(code))
    book = grade(process, path, "Gan", [IMPORTS, BUILDS])
    assert "Network is unreachable" in book.verdicts["builds"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"dtype": "|O", "shape": [1], "data": "AAAAAAAAAAA="}',
        b'{"dtype": "<f4", "shape": [99999999999], "data": ""}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"nothing",
    ],
)
def test_what_is_no_message_is_refused(line):
    mine, theirs = messages.pair()
    theirs.sendall(line + b"\n")
    with pytest.raises(messages.Broken), mine, theirs:
        messages.Channel(mine).receive(5)


def test_arrays_arrive_as_they_were_sent():
    mine, theirs = messages.pair()
    arrays = [np.float32([[1, np.nan], [np.inf, -0.0]]), np.arange(3), np.array(2.5), np.zeros(0)]
    with mine, theirs:
        messages.Channel(theirs).send({"values": [*arrays, None, "text"]})
        *received, none, text = messages.Channel(mine).receive(5)["values"]
    for one, other in zip(arrays, received, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype and one.shape == other.shape
    assert none is None and text == "text"


# A class of students.


def test_a_folder_has_a_submission_for_each_file_and_folder(tmp_path):
    for name in ("ann.py", "bob/net.py", "bob/gan.py", "cat/mine.py", "cat/a.py", ".git/x.py",
                 "__pycache__/y.py", "notes.txt", "empty/readme.md", "marks/z.py"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("class Gan: pass" if path.stem in ("ann", "gan", "mine") else "x = 1")
    (tmp_path / "dan.py").symlink_to(tmp_path / "notes.txt")
    found = submissions.find(str(tmp_path), leave_out=tmp_path / "marks")
    assert [(s.name, s.path.name) for s in found] == [
        ("ann", "ann.py"), ("bob", "gan.py"), ("cat", "mine.py"), ("dan", "dan.py")
    ]  # fmt: skip
    with found[3].opened() as linked:
        assert linked.name == "dan.py" and linked.read_text() == "x = 1"
    with found[0].opened() as alone, found[1].opened() as together:
        assert [file.name for file in alone.parent.iterdir()] == ["ann.py"]
        assert sorted(file.name for file in together.parent.iterdir()) == ["gan.py", "net.py"]
    assert not alone.exists()


@pytest.mark.slow
def test_a_crowd_of_processes_ends_with_a_sentence(tmp_path):
    path = tmp_path / "forks.py"
    path.write_text(
        "import os, time\n"
        "for _ in range(60):\n    if not os.fork():\n        time.sleep(1000)\ntime.sleep(1000)\n"
        "class Gan: pass"
    )
    (student,) = submissions.find(str(path))
    found = mark(student, Limits(processes=30))
    assert "more than 30 processes at a time" in found.failures["imports"]
    assert found.seconds < 60
    sleeping = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _runs(p, b"grading.worker")]
    assert len(sleeping) < 30


def _runs(cmdline, word):
    try:
        return word in cmdline.read_bytes()
    except OSError:
        return False


def test_a_file_that_is_too_large_gets_a_sentence(tmp_path):
    path = tmp_path / "huge.py"
    path.write_text("#" * 2**20 + "\n")
    (student,) = submissions.find(str(tmp_path))
    found = mark(student, Limits())
    assert found.failures == {"imports": "The file cannot be read (larger than 1 MB)."}
    assert found.passed == 0


@pytest.mark.parametrize("text", ["", "empty/", "empty/:Gan()"])
def test_nothing_to_mark_is_refused(tmp_path, text, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        submissions.find(text)


VERDICTS = {"imports": None, "builds": "It fails (at <b>1</b>).", "losses": NOT_REACHED}


def test_results_are_as_gradescope_reads_them():
    results = marks.gradescope(marks.Mark("ann", "ann.py", VERDICTS, 3.2))
    assert json.loads(json.dumps(results)) == results
    assert results["output"] == "1 of 3 checks passed, 1 not reached"
    assert [test["score"] for test in results["tests"]] == [1, 0, 0]
    assert {test["max_score"] for test in results["tests"]} == {1}
    assert {test["status"] for test in results["tests"]} == {"passed", "failed"}
    assert results["tests"][1]["output"] == "It fails (at <b>1</b>)."


def test_a_name_is_no_formula_in_the_table_of_marks(tmp_path):
    found = [marks.Mark("=cmd()", "+x.py", VERDICTS, 3.25), marks.Mark("bob", "b.py", VERDICTS, 1)]
    marks.write_csv(tmp_path / "marks.csv", found)
    with open(tmp_path / "marks.csv", newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["student"], first["file"]) == ("'=cmd()", "'+x.py")
    assert (second["student"], second["passed"], second["failed"]) == ("bob", "1", "builds")


# The commands.


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """The command on a class, run once: (exit code, output, folder of marks)."""
    top = tmp_path_factory.mktemp("classroom")
    (top / "students").mkdir()
    written(top / "students", "correct", CORRECT)
    written(top / "students", "halved", HALVED.source())
    written(top / "students", "loops", "while True:\n    pass\n\n\nclass Gan:\n    pass\n")
    written(top / "students", "greedy", in_constructor(ATTACKS["asks_for_100_gb"][0]))
    code, output = ended(
        command("grading", top / "students", f"--out={top / 'marks'}", "--check_seconds=4")
    )
    return code, output, top / "marks"


def command(module, *arguments):
    argv = [sys.executable, "-m", module, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(argv, cwd=ROOT, **pipes)


def ended(process):
    """(exit code, output) of a run."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.mark.slow
def test_a_class_is_marked_whatever_one_of_them_does(classroom):
    code, output, folder = classroom
    assert code == 1
    assert "Traceback" not in output
    total = len(CHECKS)
    with open(folder / "marks.csv", newline="", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["correct", "greedy", "halved", "loops"]
    assert rows["correct"]["passed"] == str(total) and rows["correct"]["failed"] == ""
    assert rows["loops"]["passed"] == "0"
    assert "more memory" in (folder / "greedy" / "feedback.txt").read_text().replace("\n   ", " ")
    page = " ".join((folder / "loops" / "feedback.txt").read_text().split())
    assert re.search(r"still running after 4 s, line [12] of loops.py: an endless loop\?", page)


@pytest.mark.slow
def test_each_student_gets_a_page_and_results(classroom):
    _, _, folder = classroom
    page = " ".join((folder / "halved" / "feedback.txt").read_text().split())
    assert BY_NAME[HALVED.check].sentence in page
    assert "reduce_mean" not in page and "pytest" not in page
    results = json.loads((folder / "correct" / "results.json").read_text())
    assert sum(test["score"] for test in results["tests"]) == len(CHECKS)


@pytest.mark.slow
def test_exit_codes_of_the_command(tmp_path):
    one = command("grading", EXAMPLES / "correct.py", f"--out={tmp_path}")
    assert ended(command("grading", "nowhere.py"))[0] == 4
    assert ended(command("grading", ""))[0] == 4
    assert ended(command("grading", "models/gan.py", "--jobs=0"))[0] == 4
    code, output = ended(one)
    assert code == 0, output
    # One file's results lie where an autograder looks for them.
    assert {path.name for path in tmp_path.iterdir()} == {
        "feedback.txt", "results.json", "marks.csv"
    }  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_its_classes(tmp_path, monkeypatch):
    written(tmp_path, "loops", f"while True: pass  # {tmp_path}\nclass Gan: pass")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    process = command("grading", tmp_path)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    code, output = ended(process)
    assert code == 130 and "Traceback" not in output
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("option", "code", "told"),
    [
        ("--gan=", pytest.ExitCode.USAGE_ERROR, "wanted path/to/file.py:Class"),
        ("--gan=nowhere.py:Gan", pytest.ExitCode.USAGE_ERROR, "no such file"),
    ],
)
def test_a_wrong_option_ends_pytest(option, code, told):
    found, output = ended(command("pytest", "-p", "no:cacheprovider", "tests/grading", option))
    assert found == code
    assert [told in line for line in output.splitlines() if line] == [True]


@pytest.mark.slow
def test_pytest_tells_a_mistake_in_one_sentence(folder):
    halved = written(folder, "halved", HALVED.source())
    arguments = ["tests/grading", f"--gan={halved}:Gan", "-k", "d_loss_"]
    code, output = ended(command("pytest", "-p", "no:cacheprovider", *arguments))
    assert code == pytest.ExitCode.TESTS_FAILED
    named = [check for check in CHECKS if "d_loss_" in check.name]
    assert f"\n{len(named) - 1} of {len(named)} checks passed\n" in output, output
    assert output.count(BY_NAME[HALVED.check].sentence) == 1
    assert "Traceback" not in output and "FAILURES" not in output and "FAILED" not in output


def test_a_run_of_the_whole_project_grades_its_own_class(pytester):
    others = f"--ignore-glob={ROOT}/tests/test_*.py"
    result = pytester.runpytest_inprocess(ROOT / "tests", others, "-k", "default_sizes")
    result.stdout.fnmatch_lines(["1 of 1 checks passed"])
    assert result.ret == pytest.ExitCode.OK
