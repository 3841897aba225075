"""A dataclass of a run's options; flags, help and validation follow from it.

To add an option, add a field here and use it. Hyperparameters, which change what is learned, are
fields of `models.recipes.Recipe`. Importing this module does not import TensorFlow.
"""

import dataclasses
from pathlib import Path

from input_data import DATASETS
from models.recipes import EVERYDAY, RECIPES, Recipe
from support.errors import UserError
from support.options import check_value, option

WHILE_TRAINING = "While it trains"
ENGINES = "Classes and engines"
ONE_RUN = ("evaluate", "sample", "export", "explore")
_MANY = 10**9
_CPU_INFO = Path("/proc/cpuinfo")


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
        "folder with four IDX files of 28 x 28 images; files of --dataset that are missing are "
        "downloaded into it",
        modes=("train", "evaluate"),
        value="DIR",
        unset="MNIST_data next to main.py, or data/DATASET",
    )
    image_every: int = option(
        0, WHILE_TRAINING, "steps between images of the progress; 0 for none", bounds=(0, _MANY)
    )
    checkpoint_every: int | None = option(
        None,
        WHILE_TRAINING,
        "steps between checkpoints",
        bounds=(1, _MANY),
        unset="5000, with convolutions 100",
    )
    events: bool = option(True, WHILE_TRAINING, "write TensorBoard events")
    gan: str | None = option(
        None,
        ENGINES,
        "custom class, written like models/gan.py, that replaces the recipe's; every command that "
        "opens its run needs this flag too",
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


def check_precision(precision: str, recipe: Recipe) -> None:
    """Checks that bfloat16 is of use to the recipe and the CPU.

    Raises:
      UserError: If it is not.
    """
    if precision == "float32":
        return
    if not recipe.convolutional:
        able = [name for name, each in RECIPES.items() if each.convolutional]
        raise UserError(
            f"--precision=bfloat16 is only valid with {', '.join(able)}: XLA compiles the other "
            "recipes in float32"
        )
    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.exists() else set()
    if not flags & {"avx512_bf16", "amx_bf16"}:
        raise UserError(
            "--precision=bfloat16 requires a CPU with AVX512-BF16 or AMX; use float32 on this one"
        )
