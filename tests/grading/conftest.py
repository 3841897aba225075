"""The grading kit as `python -m pytest tests/grading --gan=FILE.py:Gan`."""

from pathlib import Path

import pytest

from grading import submissions
from grading.checks import Gradebook, failures, summary
from grading.process import Process
from support.errors import UserError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GRADEBOOK = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--gan", metavar="FILE:CLASS", help="the class to grade, models/gan.py:Gan")


def chosen(config):
    """Returns the Submission to grade; raises UserError if the option names none.

    pytest knows the option only if this folder is on its command line: a run of all tests loads
    this file later, and grades the project's own class.
    """
    spec = config.getoption("gan", None)
    return submissions.find_one(str(ROOT / "models" / "gan.py") if spec is None else spec)


def pytest_sessionstart(session):
    try:
        chosen(session.config)
    except UserError as error:
        raise pytest.UsageError(f"--gan: {error}") from None


def pytest_collection_finish(session):
    """When only the kit runs, its own summary replaces pytest's report of the failures."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and all(HERE in item.path.parents for item in session.items):
        session.config.option.tbstyle = "no"
        reporter.reportchars = ""


@pytest.fixture(scope="session")
def gradebook(request):
    """The verdicts of this session; the class runs in a child process."""
    process, submission = Process(), chosen(request.config)
    with submission.opened() as source:
        book = Gradebook(process, source)
        request.config.stash[GRADEBOOK] = book
        yield book
        process.end()


def pytest_terminal_summary(terminalreporter, config):
    book = config.stash.get(GRADEBOOK, None)
    if book is None:
        return
    terminalreporter.section("grading")
    for name, sentence in failures(book.verdicts).items():
        terminalreporter.line(f"{name}: {sentence}")
    terminalreporter.line(summary(book.verdicts))
