"""The grading kit passes correct classes, names mistakes, and cannot be fooled."""

import collections
import csv
import json
import re
import signal
import sys
import time
import zipfile
from pathlib import Path

import processes
import pytest

from grading import marks, submissions
from grading.checks import NOT_REACHED, all_checks, failures, grade, summary
from grading.model_proxy import Source
from grading.process import Process
from support.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "tests" / "grading_examples"
CORRECT = (EXAMPLES / "correct.py").read_text(encoding="utf-8")
STARTER = (ROOT / "docs" / "starter" / "gan.py").read_text(encoding="utf-8")
CHECKS = all_checks()
BY_NAME = {check.name: check for check in CHECKS}
FIRST = [BY_NAME["imports"], BY_NAME["builds"]]


Mutant = collections.namedtuple("Mutant", "name sign checks source")


def read_mutants():
    """Reads the wrong Gans of mutants.txt, made by replacing a piece of correct.py."""
    _, *entries = (EXAMPLES / "mutants.txt").read_text(encoding="utf-8").split("\n# ")
    for entry in entries:
        title, *lines = entry.splitlines()
        name, sign, checks = re.fullmatch(r"(\w+) ?([:=]) (.*)", title).groups()
        old, new = ("\n".join(x[2:] for x in lines if x.startswith(start)) for start in "-+")
        assert CORRECT.count(old) == 1, title
        yield Mutant(name, sign, checks.split(", "), CORRECT.replace(old, new))


MUTANTS = list(read_mutants())
BY_MUTANT = {mutant.name: mutant for mutant in MUTANTS}
FIRST_LINE = "        self._ndims = ndims\n"  # of the constructor
SAMPLES_LINE = "        return self.session.run(self.x_hat"


@pytest.fixture(scope="module")
def process():
    """One for the whole module: TensorFlow is imported once."""
    process = Process(check_seconds=60)
    yield process
    process.end()


@pytest.fixture
def limited():
    """A function that returns a process with these limits."""
    started = []

    def start(**limits):
        started.append(Process(**limits))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def verdicts(tmp_path_factory, process):
    """A function that writes a file and returns its verdicts."""

    def run(source, checks=CHECKS, process=process):
        path = tmp_path_factory.mktemp("student") / "student.py"
        path.write_text(source, encoding="utf-8")
        return grade(process, Source(path, "Gan", path.parent), checks)

    return run


def in_constructor(code):
    """Returns correct.py with these lines at the beginning of its constructor."""
    lines = "".join(f"        {line}\n" for line in code.splitlines())
    return CORRECT.replace(FIRST_LINE, FIRST_LINE + lines)


# What the checks find.


def test_every_check_has_a_mutant_and_a_sentence_without_code():
    assert {name for mutant in MUTANTS for name in mutant.checks} == set(BY_NAME)
    assert len(BY_MUTANT) == len(MUTANTS)
    sentences = " ".join(check.sentence for check in CHECKS)
    assert not any(code in sentences for code in ("tf.", "reduce_", "log(", "_like", "`"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fails_its_check(mutant, verdicts):
    check = BY_NAME[mutant.checks[0]]
    before = [each for each in FIRST if CHECKS.index(each) < CHECKS.index(check)]
    found = failures(verdicts(mutant.source, [*before, check]))
    assert list(found) == [check.name]
    assert found[check.name].startswith(f"{check.sentence} (")
    assert found[check.name].endswith(").") and "\n" not in found[check.name]


DENSE = CORRECT[CORRECT.index("    with tf1.variable_sc") : CORRECT.index("\n\n\ndef cross_ent")]
D_LOSS = "tf.reduce_mean(cross_entropy(1.0, y) + cross_entropy(0.0, y_hat))"
G_LOSS = "tf.reduce_mean(cross_entropy(1.0, y_hat))"
# As students write it for TensorFlow 1.
OLD = {"tf1 = tf.compat.v1\ntf1.disable_eager_execution()": "tf1 = tf"}
OTHER_STYLES = {
    "plain session": {
        "tf1.disable_eager_execution()\n": "",
        "InteractiveSession": "Session",
        ", use_resource=True": "",
    },
    "ported": {
        "disable_eager_execution()": "disable_v2_behavior()",
        "tf1.placeholder(tf.float32, [])": "tf1.placeholder(tf.float32)",
        "rate_placeholder)": "rate_placeholder, beta1=0.5)",
        "self.session.run(self.x_hat, ": "self.x_hat.eval(",
        "tf.sigmoid(dense(z,": "0.5 + 0.5 * tf.tanh(dense(tf.nn.leaky_relu(dense(z, 32, 'a')),",
    },
    "default names, and losses of [n]": {
        **OLD,
        DENSE: "    return tf.layers.dense(inputs, units)",
        D_LOSS: "tf.reduce_mean(tf.nn.softplus(-y[:, 0]) + tf.nn.softplus(tf.squeeze(y_hat)))",
        G_LOSS: "tf.reduce_mean(tf.reduce_mean(tf.nn.softplus(-y_hat), axis=1))",
    },
    "contrib, and sums over the batch": {
        **OLD,
        DENSE: "    return tf.contrib.layers.linear(inputs, units, scope=name)",
        D_LOSS: "tf.losses.sigmoid_cross_entropy(tf.ones_like(y), y)"
        " + tf.losses.sigmoid_cross_entropy(tf.zeros_like(y_hat), y_hat)",
        G_LOSS: "tf.div(tf.reduce_sum(tf.nn.softplus(-y_hat)), tf.to_float(tf.shape(y_hat)[0]))",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("style", OTHER_STYLES)
def test_correct_class_in_another_style_passes(verdicts, style):
    source = CORRECT
    for old, new in OTHER_STYLES[style].items():
        assert old in source
        source = source.replace(old, new)
    found = verdicts(source)
    assert failures(found) == {}
    assert summary(found) == f"{len(CHECKS)} of {len(CHECKS)} checks passed"


EXACT = [mutant for mutant in MUTANTS if mutant.sign == "="]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", EXACT, ids=lambda mutant: mutant.name)
def test_messages_do_not_contradict_each_other(verdicts, mutant):
    assert sorted(failures(verdicts(mutant.source))) == sorted(mutant.checks)


@pytest.mark.parametrize(
    ("source", "check", "message"),
    [
        ("\n\nx = nmae\n\nclass Gan: pass", "imports", "'nmae' is not defined, line 3 of"),
        ("class Gan\n", "imports", "SyntaxError: expected ':', line 1 of student.py"),
        ("class Gan: pass\n\nraise SystemExit(0)", "imports", "the file ends the program"),
        ("import os\nos._exit(0)\nclass Gan: pass", "imports", "ended itself with exit code 0"),
        ("class Gan:\n    def __init__(self):\n        1 / 0", "builds", "by zero, line 3 of"),
    ],
)
def test_class_that_cannot_be_built_gets_one_sentence(verdicts, source, check, message):
    found = verdicts(source)
    assert list(failures(found)) == [check]
    assert message in found[check]
    passed = CHECKS.index(BY_NAME[check])
    left = len(CHECKS) - passed - 1
    assert summary(found) == f"{passed} of {len(CHECKS)} checks passed, {left} not reached"


def test_error_while_the_graph_runs_names_the_students_line(verdicts):
    line = "return self.session.run(self.x_hat, {self.z_placeholder: z_np})"
    broken = CORRECT.replace(line, "return self.session.run(tf.reshape(self.d_loss, [7]))")
    found = verdicts(broken, [BY_NAME["samples_are_x_hat"]])
    number = 1 + broken[: broken.index("[7]")].count("\n")
    assert f"line {number} of student.py" in found["samples_are_x_hat"]


LOSSES = ("_discriminator_loss", "_generator_loss")
WRITTEN = (*LOSSES, "_generator", "_discriminator", "generate_samples")


def filled(source, *names):
    """Returns the starter with these methods of correct.py."""
    for name in names:
        method = re.search(rf"    def {name}\(.*?(?=\n\n|$)", CORRECT, re.DOTALL)[0].rstrip()
        before, after = source.split(f"    def {name}(")
        source = before + method + after.partition("raise NotImplementedError")[2]
    return source


def test_starter_file_leads_to_a_class_that_passes(verdicts):
    found = verdicts(STARTER)
    assert list(failures(found)) == ["methods_are_written"]
    for method in WRITTEN[:-1]:
        assert f"{method}, line " in found["methods_are_written"]
    helper = CORRECT[CORRECT.index("def cross_entropy(") : CORRECT.index("class Gan")]
    source = filled(f"{STARTER}\n\ntf1 = tf\n\n\n{helper}", *LOSSES)
    found = verdicts(source)
    assert list(failures(found)) == ["methods_are_written"]
    assert {found[name] for name in BY_NAME if "_loss_" in name} == {None}
    source = filled(source, *WRITTEN[2:])
    assert "(missing: d_optimizer, g_optimizer)" in verdicts(source)["has_the_articles_names"]
    for net in ("discriminator", "generator"):
        adam = "tf.train.AdamOptimizer(self.learning_rate_placeholder)"
        update = f"{adam}.minimize(self.{net[0]}_loss, var_list=tf.trainable_variables('{net}'))"
        source = source.replace(f"{net[0]}_optimizer = None", f"{net[0]}_optimizer = {update}")
    assert not any(verdicts(source).values())


# Classes that misbehave.

# Code in the constructor, and the message; none if nothing is wrong.
ODD_CONSTRUCTORS = {
    "crashes": ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "asks_for_100_gb": ("import numpy as np; np.ones(100 * 2**27)", "more memory than"),
    "hangs_up": ("import os; os.closerange(3, 100)", "ended itself|not an answer"),
    "prints_and_leaves_a_thread": (
        "import sys, threading, time\n"
        "for _ in range(1000): print('x' * 10000); print('y' * 10000, file=sys.stderr)\n"
        "threading.Thread(target=time.sleep, args=[10**6]).start()",
        "^$",
    ),
    "uses_contrib": ("tf1.contrib.layers", "only a file of TensorFlow 1"),
    "reads_the_environment": ("import os; os.environ['TEACHERS_SECRET']", "KeyError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_CONSTRUCTORS)
def test_odd_constructors_get_their_verdict(verdicts, monkeypatch, name):
    monkeypatch.setenv("TEACHERS_SECRET", "1")
    code, message = ODD_CONSTRUCTORS[name]
    found = verdicts(in_constructor(code), FIRST)
    assert found["imports"] is None
    assert re.search(message, found["builds"] or "")


def test_exit_handlers_and_patches_change_nothing(verdicts):
    patches = (
        "import atexit, os, numpy\natexit.register(os._exit, 0)\n"
        "numpy.allclose = lambda *a, **k: True\n"
    )
    found = verdicts(patches + BY_MUTANT["d_loss_halved"].source)
    assert list(failures(found)) == ["d_loss_has_the_articles_value"]


@pytest.mark.slow
@pytest.mark.parametrize("code", ["os.kill(os.getpid(), signal.SIGSTOP)", "os.fork()"])
def test_stopped_or_forked_process_ends_in_time(verdicts, limited, code):
    source = in_constructor(f"import os, signal, time; {code}; time.sleep(60)")
    began = time.monotonic()
    found = verdicts(source, FIRST, process=limited(check_seconds=4))
    assert "still running after 4 s" in found["builds"]
    assert time.monotonic() - began < 50


@pytest.mark.slow
def test_started_processes_end_with_the_class(verdicts, limited, tmp_path):
    argv = ["sh", "-c", f"sleep 4; touch {tmp_path / 'alive'}"]
    code = f"import subprocess; subprocess.Popen({argv})"
    process = limited()
    found = verdicts(in_constructor(code), FIRST, process=process)
    process.end()
    assert not any(found.values())
    time.sleep(5)
    assert not (tmp_path / "alive").exists()


@pytest.mark.slow
def test_too_little_memory_is_not_the_students_fault(verdicts, limited):
    with pytest.raises(UserError, match=r"cannot start; .*, or try a larger --memory_gb"):
        verdicts(CORRECT, process=limited(memory_gb=0.2))


@pytest.mark.slow
def test_endless_loop_is_ended_and_its_line_named(verdicts, limited):
    source = CORRECT.replace(SAMPLES_LINE, f"        while True:\n            pass\n{SAMPLES_LINE}")
    checks = [BY_NAME["samples_are_x_hat"], BY_NAME["d_loss_is_a_mean"]]
    found = verdicts(source, checks, process=limited(check_seconds=3))
    first = 1 + CORRECT[: CORRECT.index(SAMPLES_LINE)].count("\n")
    line = re.search(r"after 3 s, line (\d+) of student.py:", found["samples_are_x_hat"])
    assert int(line[1]) in (first, first + 1)
    assert found["d_loss_is_a_mean"] is None


# Submissions.

USES_HELPER = f"from helpers import helper\n{CORRECT}"
HELPER = "helper = 1\n"


def as_notebook(*cells):
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "x"}, *code]})


NOTEBOOK = as_notebook(
    "%matplotlib inline\n!pip install tensorflow\nx = !ls\nif x:\n    %time x = 1\n",
    "%%bash\necho {1..3} | sort",
    CORRECT,
    "import os\ndef later(): pass\nwhile True: train()\n",
)
SUBMISSIONS = {
    "file.py": {"": CORRECT},
    "folder": {"gan.py": USES_HELPER, "helpers.py": HELPER, "a.py": "Gan = 1"},
    "nested": {
        "work/models/gan.py": USES_HELPER.replace("helpers", "models.helpers"),
        "work/models/helpers.py": HELPER,
    },
    "archive.zip": {
        "x/models/gan.py": USES_HELPER.replace("helpers", ".helpers"),
        "x/models/helpers.py": HELPER,
    },
    "other_name": {"a.py": "x = 1", "b/net.py": CORRECT, "b/notes.txt": "x", ".git/c.py": CORRECT},
    "notebook.ipynb": {"": NOTEBOOK},
    "folder_with_notebook": {"week 3/gan.ipynb": NOTEBOOK, "week 3/plots.py": "x = 1"},
}


def write_submission(path, files):
    """Writes a file, whose name is empty, an archive, or the files of a folder."""
    if path.suffix == ".zip" and "" not in files:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    else:
        for name, text in files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_submission_is_found_and_runs(tmp_path, process, name):
    (tmp_path / "students").mkdir(exist_ok=True)
    write_submission(tmp_path / "students" / name, SUBMISSIONS[name])
    (found,) = submissions.find(str(tmp_path / "students"))
    assert found.name == Path(name).stem
    with found.opened() as source:
        assert not any(grade(process, source, FIRST).values())
    assert not source.path.exists()


UNMARKABLE = {
    "report.pdf": ({"": "%PDF"}, "not a .py file, notebook, .zip or folder"),
    "empty": ({"readme.md": "x"}, "no .py file or notebook"),
    "damaged.zip": ({"": "PK and nothing more"}, "not a zip file"),
    "huge.py": ({"": "#" * 2**24 + "\n"}, "larger than 16 MB"),
    "bomb.zip": ({f"{i}.py": " " * 2**20 for i in range(17)}, "larger than 16 MB"),
    "broken.ipynb": ({"": "{"}, "not a notebook"),
}


def test_submissions_of_one_name_are_listed_with_their_suffixes(tmp_path):
    files = ["Ann.ipynb", "ann.py", "bob.b.py", "cat/gan.py"]
    write_submission(tmp_path / "class", dict.fromkeys(files, ""))
    names = [each.name for each in submissions.find(str(tmp_path / "class"))]
    assert sorted(names) == ["Ann.ipynb", "ann.py", "bob.b.py", "cat"]


def test_archive_writes_only_into_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    names = ["../../escaped.py", f"{tmp_path}/absolute.py", "gan.py"]
    write_submission(tmp_path / "a.zip", dict.fromkeys(names, CORRECT))
    (found,) = submissions.find(str(tmp_path / "a.zip"))
    with found.opened() as source:
        assert source.path == source.folder / "gan.py"
        outside = [p for p in tmp_path.rglob("*.py") if not p.is_relative_to(source.folder)]
        assert outside == []


def test_file_in_the_project_does_not_find_the_solution(limited):
    with submissions.Submission("x", EXAMPLES / "correct.py", "Gan").opened() as source:
        source.path.write_text(in_constructor("from models import layers"), encoding="utf-8")
        assert "No module named" in grade(limited(), source, FIRST)["builds"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("correct.py:Gan()", "expected FILE.py:CLASS"),
        ("empty", "nothing to mark"),
        ("class", "expected one submission, found 2 in class"),
    ],
)
def test_wrong_file_or_folder_is_reported_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_submission(tmp_path / "class", {"ann.py": "", "bob.py": ""})
    (tmp_path / "correct.py").write_text(CORRECT, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        submissions.find_one(text)
    assert "\n" not in str(error.value)


# The marks.


VERDICTS = {"imports": None, "builds": "It fails (at <b>1</b>).", "losses": NOT_REACHED}


def test_results_are_as_gradescope_reads_them_and_no_name_is_a_formula(tmp_path):
    found = [marks.Mark("=cmd()", "+x.py", VERDICTS, 3.25), marks.Mark("bob", "b.py", VERDICTS, 1)]
    marks.write_student(tmp_path, found[1])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["output"] == "1 of 3 checks passed, 1 not reached"
    assert [t["score"] for t in results["tests"]] == [1, 0, 0]
    assert [t["status"] for t in results["tests"]] == ["passed", "failed", "failed"]
    assert results["tests"][1]["output"] == "It fails (at <b>1</b>)."
    marks.write_csv(tmp_path / "marks.csv", found)
    with open(tmp_path / "marks.csv", newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["student"], first["file"]) == ("'=cmd()", "'+x.py")
    assert (second["student"], second["passed"], second["failed"]) == ("bob", "1", "builds")


# The commands.


def command(module, *arguments):
    return processes.Process(ROOT, sys.executable, "-m", module, *arguments)


def ended(process):
    """Returns the exit code and the output of a command."""
    code, stdout, stderr = process.end()
    return code, stdout + stderr


@pytest.mark.slow
def test_class_is_marked_whatever_one_student_does(tmp_path):
    halved, students = BY_MUTANT["d_loss_halved"], tmp_path / "students"
    out = students / "marks"
    out.mkdir(parents=True)
    greedy = in_constructor(ODD_CONSTRUCTORS["asks_for_100_gb"][0])
    files = {"correct.py": CORRECT, "halved.py": halved.source, "greedy.py": greedy}
    write_submission(students, files)
    for name, (content, _) in UNMARKABLE.items():
        write_submission(students / name, content)
    code, output = ended(command("grading", students, f"--out={out}"))
    assert code == 1 and "Traceback" not in output
    with open(out / "marks.csv", newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*files, *UNMARKABLE}
    assert rows["correct.py"]["passed"] == str(len(CHECKS))
    for name, (_, reason) in UNMARKABLE.items():
        assert reason in rows[name]["reason"] and reason in output
    sentences = {"greedy": "more memory", "halved": BY_NAME[halved.checks[0]].sentence}
    for name, sentence in sentences.items():
        page = (out / name / "feedback.txt").read_text(encoding="utf-8")
        assert sentence in " ".join(page.split()) and "reduce_mean" not in page


@pytest.mark.slow
def test_exit_codes_of_the_command(tmp_path):
    one = command("grading", EXAMPLES / "correct.py", f"--out={tmp_path}")
    for arguments in (["nowhere.py"], [""], ["models/gan.py", "--jobs=0"], []):
        assert ended(command("grading", *arguments))[0] == 4
    code, output = ended(one)
    assert code == 0, output
    # One file's results are where an autograder looks for them.
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"feedback.txt", "results.json", "marks.csv"}


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_its_classes(tmp_path, monkeypatch):
    write_submission(tmp_path / "students", {"loops.py": "while True: pass\nclass Gan: pass"})
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    process = command("grading", tmp_path / "students")
    time.sleep(4)
    process.send(signal.SIGINT)
    code, output = ended(process)
    assert code == 130 and "Traceback" not in output
    assert not list((tmp_path / "scratch").iterdir())


def test_wrong_option_ends_pytest():
    arguments = ["-p", "no:cacheprovider", "tests/grading", "--gan=nowhere.py:Gan"]
    code, output = ended(command("pytest", *arguments))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert ["nowhere.py does not exist" in line for line in output.splitlines() if line] == [True]


@pytest.mark.slow
def test_pytest_reports_a_mistake_in_one_sentence(tmp_path):
    halved = BY_MUTANT["d_loss_halved"]
    source = halved.source.replace("class Gan", "class Halved")
    (tmp_path / "halved.py").write_text(source, encoding="utf-8")
    arguments = ["tests/grading", f"--gan={tmp_path / 'halved.py'}:Halved", "-k", "d_loss_"]
    code, output = ended(command("pytest", "-p", "no:cacheprovider", *arguments))
    assert code == pytest.ExitCode.TESTS_FAILED
    asked = [check for check in CHECKS if "d_loss_" in check.name]
    assert f"\n{len(asked) - 1} of {len(asked)} checks passed\n" in output, output
    assert output.count(BY_NAME[halved.checks[0]].sentence) == 1
    assert not any(word in output for word in ("Traceback", "FAILURES", "FAILED"))
