"""What a run is: all that decides its weights and tables, to the last byte on one machine."""

import dataclasses
import importlib.metadata
import json
import zlib
from pathlib import Path

from errors import UserError
from models import recipes

# A run may be continued further than it was first meant to go.
_EXTENDABLE = "num_steps"
_FLAGS = ("recipe", "seed", "engine", "precision")
_PACKAGES = ("tensorflow", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """recipe: its name; overrides: {number: value} where it differs from the recipe of that name.

    data: checksum of the training images; versions: {package: version}, for the record. numbers:
    all of them, so that a run stays what it is when the recipe of that name changes.
    """

    recipe: str
    overrides: dict
    seed: int
    engine: str
    precision: str
    data: str
    versions: dict
    numbers: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, name, recipe, seed, engine, precision, data):
        """The configuration of a run of a recipe on a DataSet.

        UserError for batches larger than the data, which would show images twice, and for a
        precision that the CPU or the recipe has no use for.
        """
        check_precision(precision, recipe)
        if recipe.batch_size > data.num_examples:
            raise UserError(
                f"--batch_size={recipe.batch_size}: wanted at most {data.num_examples}, the number "
                "of images to train on"
            )
        versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
        checksum = f"crc32:{zlib.crc32(data.pixels):08x}"
        overrides, numbers = recipes.difference(name, recipe), recipes.numbers(recipe)
        return cls(name, overrides, seed, engine, precision, checksum, versions, numbers)

    @classmethod
    def from_json(cls, text):
        """Raises ValueError, TypeError or KeyError for what `to_json` did not write."""
        configuration = cls(**json.loads(text))
        numbers = recipes.numbers(configuration.full_recipe())
        versions = dict(configuration.versions)
        return dataclasses.replace(configuration, numbers=numbers, versions=versions)

    def to_json(self):
        """-> text for config.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def full_recipe(self):
        """-> the Recipe with the run's numbers."""
        return recipes.override(recipes.get(self.recipe), **{**self.overrides, **self.numbers})

    def folder_name(self):
        """`minimal`, `minimal-seed=1-batch_size=64`, ...: the recipe and what overrides it."""
        values = {name: v for name, v in self.overrides.items() if name != _EXTENDABLE}
        if self.seed:
            values["seed"] = self.seed
        return "-".join([self.recipe, *(f"{name}={_shown(v)}" for name, v in values.items())])

    def extended_to(self, wanted):
        """-> the wanted configuration with the larger number of steps of the two."""
        longer = max(self, wanted, key=lambda each: each.full_recipe().num_steps)
        return dataclasses.replace(wanted, overrides=longer.overrides, numbers=longer.numbers)

    def check_continued_by(self, wanted, path, say):
        """UserError naming what differs, both values and the ways out, unless it is the same run.

        Other versions of the packages are only said, since their results may still be the same.
        """
        here, there = wanted._numbers(), self._numbers()
        differing = [
            f"{name} is {_shown(there[name])} there and {_shown(here[name])} here"
            for name in here
            if here[name] != there[name]
        ]
        if differing:
            raise UserError(
                f"--run_dir={path} holds another run: {', '.join(differing)}; use the same flags, "
                "name another --run_dir, or start afresh with --new (the folder is kept under "
                "another name)"
            )
        for package, version in wanted.versions.items():
            if self.versions.get(package) != version:
                say(
                    f"Note: the run began with {package} {self.versions.get(package)} and goes on "
                    f"with {version}; the bytes may differ from an unbroken run's."
                )

    def _numbers(self):
        numbers = {f"--{k}": v for k, v in self.numbers.items() if k != _EXTENDABLE}
        named = {f"--{name}": getattr(self, name) for name in _FLAGS}
        return {**named, "the checksum of the images (--data_dir)": self.data, **numbers}


def check_precision(precision, recipe):
    """UserError for bfloat16 where the CPU or the recipe has no use for it."""
    if precision == "float32":
        return
    if not recipe.convolutional:
        raise UserError(
            "--precision=bfloat16 goes with the recipes that have convolutions: XLA compiles the "
            "dense ones in float32"
        )
    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.exists() else set()
    if not flags & {"avx512_bf16", "amx_bf16"}:
        raise UserError(
            "--precision=bfloat16: this CPU has neither AVX512-BF16 nor AMX, with which alone it "
            "is faster; leave it at float32"
        )


def _shown(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "unset" if value is None else value
