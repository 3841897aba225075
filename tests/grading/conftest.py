"""The command line of the grading kit: `--gan`, its errors, and the summary for teachers."""

from functools import partial

import pytest

from . import candidate

KIT = candidate.KIT
GRADEBOOK = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--gan", metavar="FILE:CLASS", help="the class to grade, models/gan.py:Gan")


def chosen(config):
    """(path, class name) to grade; ValueError if the option names none.

    pytest knows the option only if this folder is on its command line: a run of the whole project
    meets this file later, and grades the project's own class.
    """
    spec = config.getoption("gan", None)
    return candidate.parse(spec or candidate.DEFAULT, config.invocation_params.dir)


def pytest_sessionstart(session):
    try:
        chosen(session.config)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_finish(session):
    """When only the kit runs, its own summary replaces pytest's report of the failures."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and all(KIT in item.path.parents for item in session.items):
        session.config.option.tbstyle = "no"
        reporter.reportchars = ""


@pytest.fixture(scope="session")
def gradebook(request):
    """The verdicts of this session; the class is imported by the first check that builds it."""
    # TensorFlow takes seconds to import: a wrong `--gan` should not have to wait for it.
    from .checks import Gradebook

    path, class_name = chosen(request.config)
    book = request.config.stash[GRADEBOOK] = Gradebook(partial(build, path, class_name))
    yield book
    book.close()


def build(path, class_name, *args, **sizes):
    """The graded class's constructor; raises what the file or the constructor raises."""
    return candidate.load(path, class_name)(*args, **sizes)


def pytest_terminal_summary(terminalreporter, config):
    book = config.stash.get(GRADEBOOK, None)
    if book is None:
        return
    terminalreporter.section("grading")
    for name, sentence in book.failures().items():
        terminalreporter.line(f"{name}: {sentence}")
    terminalreporter.line(book.summary())
