"""The options of a run, and its configuration, which is config.json.

To add an option, add a field here and use it. Hyperparameters, which change what is learned, are
fields of `models.recipes.Recipe`. Importing this module does not import TensorFlow.
"""

import dataclasses
import importlib.metadata
import json
import os
import zlib
from pathlib import Path

import numpy as np

from models import custom_class, recipes
from models.recipes import EVERYDAY, check_value, option
from support.data_sets import DATASETS, NUM_CLASSES, known
from support.errors import RunError, UserError

WHILE_TRAINING = "While it trains"
ENGINES = "Classes and engines"
ONE_RUN = ("evaluate", "sample", "export", "explore")
_MANY = 10**9
_CPU_INFO = Path("/proc/cpuinfo")
FORMAT = 2  # of run folders; 1 had networks.json and no format number
_ALL_CLASSES = tuple(range(NUM_CLASSES))
_PACKAGES = ("tensorflow", "numpy")
# A run can be extended: its number of steps is not part of what it is.
_EXTENDABLE = "num_steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run, besides the recipe and its hyperparameters.

    Raises:
      UserError: For a value of another type or out of bounds.
    """

    run_dir: str | None = option(
        None,
        EVERYDAY,
        "folder of the run",
        modes=("train", *ONE_RUN),
        value="DIR",
        unset="for train: runs/RECIPE and what differs from the recipe",
    )
    new: bool = option(False, EVERYDAY, "start a new run; an existing one in run_dir is renamed")
    seed: int = option(
        0,
        EVERYDAY,
        "random seed of weights, batches, latents and samples",
        bounds=(0, 2**31 - 1),
        modes=("train", "evaluate", "sample", "compare"),
    )
    dataset: str | None = option(
        None,
        EVERYDAY,
        f"images to train on: {', '.join(DATASETS)}",
        choices=DATASETS,
        modes=("train", "evaluate"),
        unset="mnist",
    )
    data_dir: str | None = option(
        None,
        EVERYDAY,
        "folder of images, of folders of images by class, of .npy arrays or of four IDX files; or "
        "an .npz or .csv file. An explicit --dataset is downloaded into an empty folder",
        modes=("train", "evaluate"),
        value="DIR",
        unset="MNIST_data next to main.py, or data/DATASET",
    )
    invert: bool = option(False, EVERYDAY, "exchange black and white, for dark ink on white")
    image_every: int | None = option(
        None,
        WHILE_TRAINING,
        "steps between the frames of training.gif; 0 for none",
        bounds=(0, _MANY),
        unset="some twenty frames at growing distances",
    )
    checkpoint_every: int | None = option(
        None,
        WHILE_TRAINING,
        "steps between checkpoints",
        bounds=(1, _MANY),
        unset="5000; 100 with TensorFlow's convolutions, as in dcgan",
    )
    events: bool = option(
        True,
        WHILE_TRAINING,
        "write TensorBoard events; see them with `pip install tensorboard` and "
        "`tensorboard --logdir=runs`",
    )
    gan: str | None = option(
        None,
        ENGINES,
        "custom class, written like models/gan.py, that replaces the recipe's; every command that "
        "opens its run needs this flag too; compare takes several, separated by commas",
        modes=("train", *ONE_RUN, "compare"),
        value="FILE.py:CLASS",
        unset="the recipe's",
    )
    engine: str = option(
        "auto",
        ENGINES,
        "fused, many steps per call, compiled by XLA where that is faster; step, one call per "
        "update; auto, the faster one, but step for a custom class",
        choices=("auto", "fused", "step"),
    )
    precision: str = option(
        "float32",
        ENGINES,
        "number format of convolutions: float32, or bfloat16 on a CPU with AVX512-BF16 or AMX",
        choices=("float32", "bfloat16"),
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name))

    @property
    def own_train_ops(self) -> bool:
        """Whether a custom class's own train ops train it."""
        return self.gan is not None and self.engine != "fused"


def check_precision(precision: str) -> None:
    """Checks that the CPU has the number format.

    Raises:
      UserError: If it has not.
    """
    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.exists() else set()
    if precision == "bfloat16" and not flags & {"avx512_bf16", "amx_bf16"}:
        raise UserError(
            "--precision=bfloat16 requires a CPU with AVX512-BF16 or AMX; use float32 on this one"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that a run's weights and tables follow from: config.json.

    On one machine they follow from it to the last byte.

    Attributes:
      recipe: Name of the recipe.
      overrides: {name: value} where the run differs from the recipe.
      hyperparameters: All of them, so that later changes of the defaults do not change the run.
      seed, engine, precision: As in `RunOptions`.
      data: Checksum of the images (and of the labels if they are learned).
      dataset: Name of a known data set, or None.
      invert: As in `RunOptions`.
      class_names: Names of the labels of an unknown data set.
      classes: Labels that a conditional run learned.
      gan, gan_sha256: `FILE.py:CLASS` of a custom class and the file's SHA-256, or None.
      workers: Processes that train together.
      versions: {package: version} and the number of processor cores, for the record.
    """

    recipe: str
    hyperparameters: dict
    overrides: dict
    seed: int
    engine: str
    precision: str
    data: str
    dataset: str | None
    invert: bool = False
    class_names: tuple = ()
    classes: tuple = _ALL_CLASSES
    gan: str | None = None
    gan_sha256: str | None = None
    workers: int = 1
    versions: dict = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, recipe_name, recipe, options, data, info, workers=1):
        """Returns the configuration of a run.

        Args:
          recipe_name: The recipe's name.
          recipe: The `Recipe` with its overrides.
          options: `RunOptions`.
          data: The `DataSet` to train on.
          info: Its `DataSetInfo`.
          workers: Number of processes that train together.

        Raises:
          UserError: If batches are larger than the data or cannot be divided, or it lacks labels.
        """
        labels = tuple(np.unique(data.file_labels).tolist())
        if recipe.conditional and len(labels) < 2 and recipe.digit is None:
            raise UserError(
                "--conditional requires images of at least two labels; put them into one folder "
                "per class, or omit it"
            )
        divisors = {"batch_size": 2 * workers if recipe.half_batches else workers}
        if recipe.pretraining:
            divisors["pretraining_batch"] = workers
        for name, divisor in divisors.items():
            size = getattr(recipe, name)
            if size > data.num_examples:
                raise UserError(
                    f"--{name} must be at most {data.num_examples}, the number of training "
                    f"images, got {size}"
                )
            if size % divisor:
                raise UserError(
                    f"--{name} must be a multiple of {divisor} with {workers} processes, got {size}"
                )
        values, standard = recipes.values_of(recipe), recipes.values_of(recipes.get(recipe_name))
        versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
        # Sums over other numbers of cores differ in the last bits.
        versions["number of processor cores"] = str(len(processor_cores()))
        return cls(
            recipe=recipe_name,
            hyperparameters=values,
            overrides={k: value for k, value in values.items() if value != standard[k]},
            seed=options.seed,
            engine=options.engine,
            precision=options.precision,
            data=_checksum(data, recipe),
            dataset=info.name,
            invert=options.invert,
            class_names=() if info.name else info.class_names,
            classes=labels if recipe.conditional else _ALL_CLASSES,
            gan=options.gan,
            gan_sha256=custom_class.parse(options.gan)[2] if options.gan else None,
            workers=workers,
            versions=versions,
        )

    @classmethod
    def from_json(cls, text):
        """Returns the configuration in the text of a config.json.

        Raises:
          UserError, ValueError, TypeError, KeyError: If the text is not a configuration.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or "hyperparameters" not in content:
            raise ValueError("expected the configuration of a run")
        if content.get("format") != FORMAT:
            raise UserError(
                f"its format is {content.get('format', 1)}, expected {FORMAT}: another version of "
                "this project made it"
            )
        configuration = cls(**content)
        # With tuples where JSON has lists, and with hyperparameters that are newer than the run.
        values = recipes.values_of(configuration.full_recipe())
        return dataclasses.replace(
            configuration,
            hyperparameters=values,
            overrides={name: values[name] for name in configuration.overrides},
            classes=tuple(configuration.classes),
            class_names=tuple(configuration.class_names),
        )

    def full_recipe(self):
        """Returns the `Recipe` with the run's hyperparameters."""
        return recipes.override(recipes.get(self.recipe), **self.hyperparameters)

    def label_names(self):
        """Returns the names of the labels from 0 to 9."""
        return self.class_names or known(self.dataset).class_names

    def folder_name(self):
        """Returns the default folder's name, such as `minimal-seed=1-batch_size=64`."""
        parts = []
        if self.dataset != "mnist":
            parts.append(self.dataset or f"data={self.data.removeprefix('crc32:')}")
        if self.gan:
            parts.append(f"{Path(self.gan.rpartition(':')[0]).stem}.{_class_name(self.gan)}")
        values = {name: v for name, v in self.overrides.items() if name != _EXTENDABLE}
        if self.engine != "auto":
            values["engine"] = self.engine
        if self.precision != "float32":
            values["precision"] = self.precision
        if self.seed:
            values["seed"] = self.seed
        return "-".join([*parts, self.recipe, *(f"{k}={_text(v)}" for k, v in values.items())])

    def resumed_by(self, other, step, path, log):
        """Returns the configuration with which `other` resumes this run.

        Its number of steps may differ. Other package versions are only logged, because their
        results may be the same; the run keeps those with which it began. A run without a
        checkpoint starts again, with those of now.

        Raises:
          RunError: If `other` is a different run than that in `path`.
        """
        old, new = self.facts(), other.facts()
        differing = [
            f"{name} was {old[name]}, now {new[name]}"
            for name in new
            if old[name] != new[name] and name not in (f"--{_EXTENDABLE}", *_PACKAGES)
        ]
        if differing:
            raise RunError(
                f"{path} contains a different run; use the same flags, another --run_dir, or "
                f"--new, which renames the existing run: {'; '.join(differing)}"
            )
        if not step:
            return other
        steps, new_steps = (each.hyperparameters[_EXTENDABLE] for each in (self, other))
        if other.hyperparameters["lr_cooldown"] and steps != new_steps:
            log(
                f"Note: --lr_cooldown counts back from the last step; --num_steps was {steps:,} "
                f"and is now {new_steps:,}."
            )
        before = {"the number of processes": self.workers, **self.versions}
        for name, now in {"the number of processes": other.workers, **other.versions}.items():
            if before.get(name) != now:
                log(
                    f"Note: {name} was {before.get(name)} when the run began and is {now} now; the "
                    "run may not be bit-identical to an uninterrupted one."
                )
        if new_steps <= step:
            return self
        return dataclasses.replace(other, versions=self.versions, workers=self.workers)

    def check_class(self, gan):
        """Loads the custom class that made the run.

        Args:
          gan: `FILE.py:CLASS` from the command line, or None.

        Returns:
          The class, or None if the run is a recipe's own.

        Raises:
          UserError: If it is not the class of the run, or its file has changed.
        """
        if gan and not self.gan:
            raise UserError(
                f"--gan is not valid here: the run was trained with the recipe {self.recipe}"
            )
        if self.gan and not gan:
            raise UserError(
                f"the run was trained with a custom class: add --gan={self.gan} (no code is loaded "
                "from a run folder)"
            )
        if gan and _class_name(gan) != _class_name(self.gan):
            raise UserError(f"--gan must name the class {_class_name(self.gan)}, got {gan}")
        if gan and custom_class.parse(gan)[2] != self.gan_sha256:
            raise UserError(
                f"--gan={gan} is not the file that the run was trained with (its SHA-256 differs); "
                "restore that version, or train the new one in another --run_dir"
            )
        return custom_class.load(gan) if gan else None

    def check_data(self, data, path):
        """Checks that a `DataSet` has the images that the run was trained on.

        Raises:
          UserError: If it has not.
        """
        found = _checksum(data, self.full_recipe())
        if found != self.data:
            named = f"use --dataset={self.dataset}, or " if self.dataset else ""
            raise UserError(
                f"{path} does not contain the images that the run was trained on; {named}set "
                f"--data_dir to their folder (checksum {found}, expected {self.data})"
            )

    def facts(self):
        """Returns {name: text} of what all processes of a run must have in common."""
        names = ("recipe", "seed", "engine", "precision", "invert")
        flags = {name: getattr(self, name) for name in names} | self.hyperparameters
        facts = {
            **{f"--{name}": value for name, value in flags.items()},
            "the class (--gan)": self.gan and _class_name(self.gan),
            "the checksum of the images (--data_dir)": self.data,
            "the SHA-256 of the class file (--gan)": self.gan_sha256 and self.gan_sha256[:12],
            **{package: self.versions.get(package) for package in _PACKAGES},
        }
        return {name: _text(value) for name, value in facts.items()}


def processor_cores() -> set[int]:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _checksum(data, recipe):
    checksum = zlib.crc32(data.pixels)
    if recipe.conditional:
        checksum = zlib.crc32(data.file_labels, checksum)
    return f"crc32:{checksum:08x}"


def _class_name(gan):
    return gan.rpartition(":")[2]


def _text(value):
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)
