"""What a check is, and how a list of them is run on one class."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .candidate import short
from .specimen import Bench

NOT_REACHED = "not reached"


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
    A `gate` is a property without which the checks after it would only repeat its failure.
    """

    name: str
    question: Callable
    sentence: str
    gate: bool = False
    sizes: dict = field(default_factory=dict)

    def __call__(self, bench):
        """None if the property holds, else the sentence with what was seen, in one line."""
        try:
            with bench.specimen(**self.sizes) as specimen:
                self.question(specimen)
        except Wrong as wrong:
            return f"{self.sentence} ({wrong})."
        # The class under examination may raise anything at all, and that is a finding.
        except Exception as error:
            return f"{self.sentence} ({short(error)})."
        return None


def check(sentence, gate=False, **sizes):
    """Turns a function of a `Specimen` into a `Check` of its name; the constructor gets `sizes`."""

    def wrap(question):
        return Check(question.__name__, question, sentence, gate, sizes)

    return wrap


def checks_in(module):
    """The checks of a module, in the order in which it defines them."""
    return [value for value in vars(module).values() if isinstance(value, Check)]


class Gradebook:
    """Verdicts on one class: name of a check -> None (passed), a sentence, or `NOT_REACHED`."""

    def __init__(self, gan_class):
        self._bench = Bench(gan_class)
        self.verdicts = {}
        self._closed = False

    def mark(self, check):
        """Runs a check, unless a gate before it stayed shut, and returns its verdict."""
        verdict = NOT_REACHED if self._closed else check(self._bench)
        self._closed = self._closed or bool(check.gate and verdict)
        self.verdicts[check.name] = verdict
        return verdict

    def close(self):
        """Lets go of the last model; the verdicts stay."""
        self._bench.close()

    def failures(self):
        """Name -> sentence of the checks that failed."""
        return {n: v for n, v in self.verdicts.items() if v not in (None, NOT_REACHED)}

    def summary(self):
        """`"12 of 40 checks passed"`, and how many were not reached if any."""
        verdicts = list(self.verdicts.values())
        text = f"{verdicts.count(None)} of {len(verdicts)} checks passed"
        unreached = verdicts.count(NOT_REACHED)
        return f"{text}, {unreached} not reached" if unreached else text


def grade(gan_class, checks):
    """Runs checks in order and returns the `Gradebook`."""
    gradebook = Gradebook(gan_class)
    for each in checks:
        gradebook.mark(each)
    gradebook.close()
    return gradebook
