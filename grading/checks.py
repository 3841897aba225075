"""The definition of a check, and the run of all checks on one class."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from grading.model_proxy import ModelProxy
from grading.process import Raised, Stopped
from support.errors import UserError, one_line

NOT_REACHED = "not reached"
NO_ANSWER = "The class gave no answer when it was asked about this"
# When the model of a check is an object of the class whose constructor was not called.
NEVER, ALWAYS, BEHIND_A_GATE = "never", "always", "if a gate before it failed"


class Wrong(Exception):
    """Raised by a check with what it found, in a few words."""


class Unclear(Exception):
    """Raised by a check that cannot judge because of what another check reports."""


def expect(holds, found):
    """Checks that a condition holds.

    Raises:
      Wrong: If it does not.
    """
    if not holds:
        raise Wrong(found)


@dataclass(frozen=True)
class Check:
    """A property of a class, asked of a model as its constructor left it.

    Attributes:
      question: A function of a `ModelProxy` that raises `Wrong` if the property does not hold. Its
        docstring is what the student reads: what is wrong and where to think, without the answer.
      gate: Whether the checks after it would only repeat its failure.
      needs: Names of checks without which this one would say something wrong.
      without_constructor: NEVER, ALWAYS or BEHIND_A_GATE.
      sizes: Arguments of the constructor.
    """

    question: Callable
    gate: bool
    needs: tuple
    without_constructor: str
    sizes: dict

    @property
    def name(self) -> str:
        """The check's name in the marks."""
        return self.question.__name__

    @property
    def sentence(self) -> str:
        """The docstring in one line, without the last full stop."""
        return " ".join((self.question.__doc__ or "").split()).removesuffix(".")


def check(gate=False, needs=(), without_constructor=NEVER, **sizes):
    """Makes a `Check` of a function; a decorator with the arguments of the class."""
    return lambda question: Check(question, gate, needs, without_constructor, sizes)


def all_checks():
    """Returns every check of the kit, in the order in which they are run: gates first."""
    # They import this module.
    from grading import losses, networks, structure, updates

    modules = (structure, losses, networks, updates)
    return [value for module in modules for value in vars(module).values() if type(value) is Check]


class Gradebook:
    """Verdicts on one class.

    They are `{name of a check: None (passed), a sentence, or NOT_REACHED}`.
    """

    def __init__(self, process, source):
        self.verdicts = {}
        self._process = process
        self._source = source
        self._gate_failed = False

    def mark(self, check):
        """Runs a check, unless one that it depends on failed, and returns its verdict."""
        behind = self._gate_failed
        if any(self.verdicts.get(name) for name in check.needs) or (
            behind and check.without_constructor != BEHIND_A_GATE
        ):
            verdict = NOT_REACHED
        else:
            verdict = self._ask(check, behind or check.without_constructor == ALWAYS)
            # What the constructor would have prepared, or what is still to be written.
            if behind and verdict and re.search(r"\((Attribute|NotImplemented)Error\b", verdict):
                verdict = NOT_REACHED
        self.verdicts[check.name] = verdict
        self._gate_failed = behind or bool(check.gate and verdict)
        return verdict

    def _ask(self, check, without_constructor):
        """Returns None if the property holds, else a sentence, or NOT_REACHED."""
        sentence = check.sentence
        try:
            self._process.begin_check(self._source.folder)
            gan = ModelProxy(self._process, self._source)
            gan.begin([], None if without_constructor else check.sizes)
            check.question(gan)
        except Unclear:
            return NOT_REACHED
        except (Wrong, Raised) as error:
            found = error
        except Stopped as error:
            found = error
            sentence = sentence if check.gate else NO_ANSWER
        except UserError:
            raise
        # The answers may be anything, and an error in judging them is a finding as well.
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        else:
            return None
        return f"{sentence} ({one_line(found)})."


def grade(process, source, checks):
    """Runs checks in order on a `Source`; returns their verdicts by name."""
    book = Gradebook(process, source)
    for each in checks:
        book.mark(each)
    return book.verdicts


def failures(verdicts):
    """Returns the sentences of the checks that failed, by name."""
    return {name: text for name, text in verdicts.items() if text not in (None, NOT_REACHED)}


def summary(verdicts):
    """Returns `12 of 40 checks passed`, and how many were not reached if any."""
    results = list(verdicts.values())
    text = f"{results.count(None)} of {len(results)} checks passed"
    unreached = results.count(NOT_REACHED)
    return f"{text}, {unreached} not reached" if unreached else text
