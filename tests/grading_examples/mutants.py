"""The wrong Gans of mutants.txt, made by replacing a piece of correct.py."""

from dataclasses import dataclass
from pathlib import Path

CORRECT = Path(__file__).with_name("correct.py")


@dataclass(frozen=True)
class Mutant:
    """The source of a wrong class, and the name of the check that must find the mistake."""

    name: str
    check: str
    source: str


def read_mutants():
    """Reads mutants.txt, whose pieces must be in correct.py exactly once."""
    correct = CORRECT.read_text(encoding="utf-8")
    _, *entries = CORRECT.with_name("mutants.txt").read_text(encoding="utf-8").split("\n# ")
    for entry in entries:
        title, *lines = entry.splitlines()
        old, new = ("\n".join(x[2:] for x in lines if x.startswith(sign)) for sign in "-+")
        if correct.count(old) != 1:
            raise ValueError(f"{title}: found {correct.count(old)} times in correct.py: {old}")
        yield Mutant(*title.split(": "), correct.replace(old, new))


MUTANTS = list(read_mutants())
