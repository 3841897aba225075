"""What a check is, and how a list of them is run on one class."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from grading.candidate import short
from grading.messages import printable
from grading.model_proxy import Bench
from grading.process import Raised, Stopped
from support.errors import UserError

NOT_REACHED = "not reached"
NO_ANSWER = "The class gave no answer when it was asked about this"


class Wrong(Exception):
    """Raised by a check with what it saw, in a few words."""


def expect(holds, seen):
    """Raises `Wrong` unless the condition holds."""
    if not holds:
        raise Wrong(seen)


@dataclass(frozen=True)
class Check:
    """One property of the class, asked of a model as its constructor left it.

    `sentence` tells the student what is wrong and where to think, without the answer.
    A `gate` is a property without which the checks after it would only repeat its failure; what a
    check `needs` are names of those without which it would say something wrong. `bare`: whether it
    is asked of an object whose constructor was not called: never, always, or behind a shut gate.
    """

    name: str
    question: Callable
    sentence: str
    gate: bool = False
    needs: tuple = ()
    bare: str = "never"
    sizes: dict = field(default_factory=dict)

    def __call__(self, bench):
        """None if the property holds, else the sentence with what was seen, in one line."""
        always = self.bare == "always"
        return self._asked(bench.bare() if always else bench.model_proxy(**self.sizes))

    def without_constructor(self, bench):
        """The same of an object that was never built; `NOT_REACHED` if it misses what that does."""
        verdict = self._asked(bench.bare())
        missed = verdict and re.search(r"\((Attribute|NotImplemented)Error\b", verdict)
        return NOT_REACHED if missed else verdict

    def _asked(self, opened):
        try:
            with opened as model_proxy:
                self.question(model_proxy)
        except (Wrong, Raised) as seen:
            return f"{self.sentence} ({printable(seen)})."
        except Stopped as seen:
            return f"{self.sentence if self.gate else NO_ANSWER} ({printable(seen)})."
        except UserError:
            raise
        # What comes from the class may be anything at all, and whatever that leads to is a finding.
        except Exception as error:
            return f"{self.sentence} ({printable(short(error))})."
        return None


def check(sentence, gate=False, needs=(), bare="never", **sizes):
    """Turns a function of a `Specimen` into a `Check` of its name; the constructor gets `sizes`."""

    def wrap(question):
        return Check(question.__name__, question, sentence, gate, needs, bare, sizes)

    return wrap


def checks_in(module):
    """The checks of a module, in the order in which it defines them."""
    return [value for value in vars(module).values() if isinstance(value, Check)]


class Gradebook:
    """Verdicts on one class: name of a check -> None (passed), a sentence, or `NOT_REACHED`."""

    def __init__(self, process, path, class_name):
        self._bench = Bench(process, path, class_name)
        self.verdicts = {}
        self._closed = False

    def mark(self, check):
        """Runs a check, unless one that it depends on failed, and returns its verdict."""
        verdict = self.verdicts[check.name] = self._verdict(check)
        self._closed = self._closed or bool(check.gate and verdict)
        return verdict

    def _verdict(self, check):
        if self._bench.out_of_time or any(self.verdicts.get(name) for name in check.needs):
            return NOT_REACHED
        if not self._closed:
            return check(self._bench)
        behind = check.bare == "behind a gate"
        return check.without_constructor(self._bench) if behind else NOT_REACHED

    def num_parameters(self):
        """`{network: how many numbers it trains}`, or None if the class does not tell."""
        try:
            with self._bench.model_proxy() as model_proxy:
                return model_proxy.num_parameters()
        except (Raised, Stopped):
            return None


def failures(verdicts):
    """Name -> sentence of the checks that failed."""
    return {n: v for n, v in verdicts.items() if v not in (None, NOT_REACHED)}


def summary(verdicts):
    """`"12 of 40 checks passed"`, and how many were not reached if any."""
    seen = list(verdicts.values())
    text = f"{seen.count(None)} of {len(seen)} checks passed"
    unreached = seen.count(NOT_REACHED)
    return f"{text}, {unreached} not reached" if unreached else text


def grade(process, path, class_name, checks):
    """Runs checks in order and returns the `Gradebook`."""
    gradebook = Gradebook(process, path, class_name)
    for each in checks:
        gradebook.mark(each)
    return gradebook
