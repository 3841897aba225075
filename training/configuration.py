"""What a run is: all that decides its weights and tables, to the last byte on one machine."""

import dataclasses
import importlib.metadata
import json
import os
import zlib
from pathlib import Path

import numpy as np

from models import custom_class, hyperparameters, recipes
from support.errors import UserError

# A run may be continued further than it was first meant to go.
_EXTENDABLE = "num_steps"
_FLAGS = ("recipe", "seed", "engine", "precision")
_PACKAGES = ("tensorflow", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")
_ALL = tuple(range(10))


@dataclasses.dataclass(frozen=True)
class Configuration:
    """recipe: its name; overrides: {name: value} where it differs from the recipe of that name.

    data: checksum of what is trained on; versions: {package: version} and the number of processor
    cores, for the record.
    hyperparameters: all of them, so that a run stays what it is when the recipe of that name
    changes. gan: `FILE.py:CLASS` of a class of one's own, gan_sha256: of that file; else None.
    dataset: the name of a known data set, else None. classes: of a conditional run, those labels of
    0 to 9 that occur. workers: processes that train together.
    """

    recipe: str
    overrides: dict
    seed: int
    engine: str
    precision: str
    data: str
    versions: dict
    hyperparameters: dict = dataclasses.field(default_factory=dict)
    gan: str | None = None
    gan_sha256: str | None = None
    dataset: str | None = "mnist"
    classes: tuple = _ALL
    workers: int = 1

    @classmethod
    def of(cls, name, recipe, seed, engine, precision, data, gan=None, dataset="mnist", workers=1):
        """The configuration of a run of a recipe on a DataSet.

        gan: `FILE.py:CLASS` of a class of one's own, or None. dataset: the name of a known data
        set, or None. workers: the processes that train together.

        UserError for batches larger than the data, which would show images twice, and for a
        precision that the CPU or the recipe has no use for.
        """
        check_precision(precision, recipe)
        if recipe.batch_size > data.num_examples:
            raise UserError(
                f"--batch_size={recipe.batch_size}: wanted at most {data.num_examples}, the number "
                "of images to train on"
            )
        if recipe.pretraining and recipe.pretraining_batch > data.num_examples:
            raise UserError(
                f"--pretraining_batch={recipe.pretraining_batch}: wanted at most "
                f"{data.num_examples}, the number of images to train on"
            )
        versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
        # Sums that are shared out among other numbers of cores end in other last bits.
        versions["processor cores"] = str(cores())
        checksum = _checksum(data, recipe)
        classes = tuple(np.unique(data.file_labels).tolist()) if recipe.conditional else _ALL
        overrides = recipes.difference(name, recipe)
        sha256 = custom_class.parse(gan)[2] if gan else None
        return cls(
            name,
            overrides,
            seed,
            engine,
            precision,
            checksum,
            versions,
            hyperparameters.values_of(recipe),
            gan,
            sha256,
            dataset,
            classes,
            workers=workers,
        )

    @classmethod
    def from_json(cls, text):
        """Raises ValueError, TypeError or KeyError for what `to_json` did not write."""
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("wanted an object")
        known = {field.name for field in hyperparameters.overridable()}
        odd = content.keys() - {field.name for field in dataclasses.fields(cls)}
        odd |= {*content["hyperparameters"], *content["overrides"]} - known if not odd else set()
        if odd:
            raise ValueError(f"written by another version of this project: {sorted(odd)[0]}")
        configuration = cls(**content)
        values = hyperparameters.values_of(configuration.full_recipe())
        versions, classes = dict(configuration.versions), tuple(configuration.classes)
        if not classes or not set(classes) <= set(_ALL):
            raise ValueError(f"classes {classes}, wanted some of 0 to 9")
        return dataclasses.replace(
            configuration, hyperparameters=values, versions=versions, classes=classes
        )

    def to_json(self):
        """-> text for config.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def full_recipe(self):
        """-> the Recipe with the run's hyper-parameters."""
        values = {**self.overrides, **self.hyperparameters}
        return hyperparameters.override(recipes.get(self.recipe), **values)

    def folder_name(self):
        """`minimal`, `minimal-seed=1-batch_size=64`, ...: the recipe and what overrides it."""
        values = {name: v for name, v in self.overrides.items() if name != _EXTENDABLE}
        if self.seed:
            values["seed"] = self.seed
        parts = [f"{name}={_shown(value)}" for name, value in values.items()]
        return "-".join([*self._data_name(), *self._class_name(), self.recipe, *parts])

    def extended_to(self, wanted):
        """-> the wanted configuration with the larger number of steps of the two."""
        longer = max(self, wanted, key=lambda each: each.full_recipe().num_steps)
        return dataclasses.replace(
            wanted, overrides=longer.overrides, hyperparameters=longer.hyperparameters
        )

    def check_continued_by(self, wanted, path, log):
        """UserError naming what differs, both values and the ways out, unless it is the same run.

        Other versions of the packages are only said, since their results may still be the same.
        """
        here, there = wanted._facts(), self._facts()
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
        if wanted.full_recipe().lr_cooldown and self._steps() != wanted._steps():
            log(
                f"Note: the rates fall at the end of all steps, which were {self._steps():,} and "
                f"are {wanted._steps():,} now."
            )
        if self.workers != wanted.workers:
            log(
                f"Note: the run began with {self.workers} workers and goes on with "
                f"{wanted.workers}; the bytes may differ from an unbroken run's."
            )
        for package, version in wanted.versions.items():
            if self.versions.get(package) != version:
                log(
                    f"Note: the run began with {package} {self.versions.get(package)} and goes on "
                    f"with {version}; the bytes may differ from an unbroken run's."
                )

    def check_class(self, gan):
        """-> the CustomClass that made the run, or None where it is a recipe's own.

        gan: `FILE.py:CLASS` or None. UserError where it is not the run's.
        """
        if gan and not self.gan:
            raise UserError(f"--gan={gan}: the run is of the recipe {self.recipe}, leave --gan out")
        if self.gan and not gan:
            raise UserError(
                f"the run was trained with a class of its own: add --gan={self.gan} (no code is "
                "loaded from a run folder)"
            )
        if gan and _class_name(gan) != _class_name(self.gan):
            raise UserError(
                f"--gan={gan} is another class than the run's: wanted {_class_name(self.gan)}"
            )
        if gan and custom_class.parse(gan)[2] != self.gan_sha256:
            raise UserError(
                f"--gan={gan} is not what the run was trained with: the file's SHA-256 differs; "
                "bring that version back, or train the new one in another --run_dir"
            )
        return custom_class.load(gan) if gan else None

    def check_data(self, data, path):
        """UserError unless a DataSet holds the images that the run was trained on."""
        seen = _checksum(data, self.full_recipe())
        if seen != self.data:
            raise UserError(
                f"--data_dir={path} holds other images ({seen}) than the run was trained on "
                f"({self.data}): {self._way_to_data()}"
            )

    def facts(self):
        """-> {name: text} of what has to be the same in all processes that train together."""
        facts = {
            **self._facts(),
            "--num_steps": self._steps(),
            "the number of workers": self.workers,
        }
        versions = {name: self.versions[name] for name in _PACKAGES}
        return {name: str(value) for name, value in {**facts, **versions}.items()}

    def _steps(self):
        return self.full_recipe().num_steps

    def _way_to_data(self):
        named = f"give --dataset={self.dataset}, or " if self.dataset else ""
        return f"{named}name the folder of those"

    def _data_name(self):
        """-> [] for MNIST, else what tells the data set from others."""
        if self.dataset == "mnist":
            return []
        return [self.dataset or f"data={self.data.removeprefix('crc32:')}"]

    def _class_name(self):
        """-> [`file.CLASS`] for a class of one's own, else []."""
        if not self.gan:
            return []
        path, _, name = self.gan.rpartition(":")
        return [f"{Path(path).stem}.{name}"]

    def _facts(self):
        values = {f"--{k}": v for k, v in self.hyperparameters.items() if k != _EXTENDABLE}
        named = {f"--{name}": getattr(self, name) for name in _FLAGS}
        data = {"the checksum of the images (--data_dir)": self.data}
        own = {
            "the class of --gan": self.gan and _class_name(self.gan),
            "the class's file (--gan) has SHA-256, which": self.gan_sha256,
        }
        return {**named, **data, **own, **values}


def cores():
    """-> the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checksum(data, recipe):
    """Of the images, and of the labels where they are learnt."""
    images = zlib.crc32(data.pixels)
    return f"crc32:{zlib.crc32(data.file_labels, images) if recipe.conditional else images:08x}"


def check_precision(precision, recipe):
    """UserError for bfloat16 where the CPU or the recipe has no use for it."""
    if precision == "float32":
        return
    if not recipe.convolutional:
        able = [name for name, each in recipes.RECIPES.items() if each.convolutional]
        raise UserError(
            f"--precision=bfloat16 goes with {', '.join(able)}: XLA compiles the other recipes in "
            "float32"
        )
    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.exists() else set()
    if not flags & {"avx512_bf16", "amx_bf16"}:
        raise UserError(
            "--precision=bfloat16: this CPU has neither AVX512-BF16 nor AMX, with which alone it "
            "is faster; leave it at float32"
        )


def _class_name(gan):
    """`FILE.py:CLASS` -> CLASS."""
    return gan.rpartition(":")[2]


def _shown(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "unset" if value is None else value
