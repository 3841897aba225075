"""The flags of `python main.py`: what they are called, what they mean, which modes take them.

They stand in the groups and the order in which --help shows them. Those of a recipe's
hyper-parameters follow from the recipe's fields. Importing this imports no TensorFlow.
"""

import functools
import itertools
import sys
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

import input_data
from models import hyperparameters, recipes
from support import errors
from support.errors import UserError
from training import job
from training.group import TIMEOUT

FLAGS = flags.FLAGS
MODES = {
    "train": "trains a recipe, or a class of your own, into a folder under runs/",
    "evaluate": "scores a run: Fréchet distance, classes covered, precision, recall; a report",
    "sample": "draws samples of a run, or a walk through its latent space",
    "export": "makes files of a run for use elsewhere: SavedModel, ONNX, NumPy",
    "explore": "makes one HTML file that runs the generator in a browser",
    "compare": "puts the samples and scores of several runs side by side",
}
_INTRODUCTION = """\
Trains small GANs on MNIST, scores them and shows what they generate.

  python main.py --nlatent=10 --num_steps=50000            train the article's minimal GAN
  python main.py --mode=evaluate --run_dir=runs/minimal    score it
  python main.py --recipe=stable_cnn --help                help with that recipe's defaults
  python main.py --mode=sample --help                      the flags of one mode"""
_EXAMPLES = {
    "train": "--recipe=stable_cnn",
    "evaluate": "--run_dir=runs/minimal",
    "sample": "--run_dir=runs/minimal --out=samples.png",
    "export": "--run_dir=runs/minimal --out=generator",
    "explore": "--run_dir=runs/minimal --out=page.html",
    "compare": "--run_dirs=runs/minimal,runs/stable_cnn",
}
# Of flags that are easily taken for something else.
_MEANINGS = {"digit": "--digit picks what is trained on; --labels draws one kind"}
# What a shell makes of a variable that is not set, as in --gan="$UNSET".
_EMPTY = ("", [""])
_WIDTH, _INDENT = 100, 26
_MANY = 10**9

TRAIN = ("train",)
ONE_RUN = ("evaluate", "sample", "export", "explore")


class Flag(NamedTuple):
    """One flag of the command line.

    shown: as it is typed; note: its range and default; modes: those that take it; define: what
    registers it.
    """

    name: str
    shown: str
    meaning: str
    note: str
    modes: tuple
    define: Callable


def _text(value):
    """A default -> as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _number(name, default, low, high, meaning, modes, *, unset=None):
    """A whole number; unset: what holds where it is not given, in words."""
    note = f"{low} to {high}, default {default if unset is None else unset}"
    define = functools.partial(flags.DEFINE_integer, name, default, meaning, low, high)
    return Flag(name, f"--{name}=N", meaning, note, modes, define)


def _choice(name, default, choices, meaning, modes, unset=None):
    """unset: what None stands for in the place of a default."""
    define = functools.partial(flags.DEFINE_enum, name, default, list(choices), meaning)
    return Flag(name, f"--{name}=NAME", meaning, f"default {unset or default}", modes, define)


def _switch(name, default, meaning, modes):
    define = functools.partial(flags.DEFINE_boolean, name, default, meaning)
    return Flag(name, f"--[no]{name}", meaning, f"default {_text(default)}", modes, define)


def _words(name, value, meaning, modes, unset, define=flags.DEFINE_string):
    """Text, or several; value: what stands for it in the help; unset: as for `_number`."""
    define = functools.partial(define, name, None, meaning)
    return Flag(name, f"--{name}={value}", meaning, f"default {unset}", modes, define)


_WHAT = [
    _choice("mode", "train", MODES, "what to do, see above", tuple(MODES)),
    _choice(
        "recipe", "minimal", recipes.RECIPES,
        f"which GAN to train: {', '.join(recipes.RECIPES)}", TRAIN,
    ),
]  # fmt: skip
_RUN = [
    _words(
        "run_dir", "DIR", "folder of the run", (*TRAIN, *ONE_RUN),
        "for train: runs/RECIPE and what differs from the recipe",
    ),
    _switch("new", False, "start afresh; a run in run_dir is kept, renamed", TRAIN),
    _number(
        "seed", 0, 0, job.HIGHEST_SEED, "weights, batches, latents and samples follow from it",
        ("train", "evaluate", "sample", "compare"),
    ),
    _choice(
        "dataset", None, input_data.DATASETS,
        f"which images: {', '.join(input_data.DATASETS)}", ("train", "evaluate"), "mnist",
    ),
    _words(
        "data_dir", "DIR",
        "folder of four IDX files of images of 28 x 28 pixels; missing files of --dataset are "
        "downloaded into it",
        ("train", "evaluate"), "MNIST_data beside main.py, or data/DATASET",
    ),
]  # fmt: skip
_WHILE_TRAINING = [
    _number("image_every", 0, 0, _MANY, "steps between pictures, 0 for none", TRAIN),
    _number("eval_every", 0, 0, _MANY, "steps between scores, 0 for none", TRAIN),
    _number(
        "checkpoint_every", None, 1, _MANY, "steps between checkpoints", TRAIN,
        unset="5000, with convolutions 100",
    ),
    _switch("events", True, "write TensorBoard events", TRAIN),
]  # fmt: skip
_NETWORKS_AND_ENGINES = [
    _words(
        "gan", "FILE.py:CLASS",
        "your class, written like models/gan.py, in the place of the recipe's; every command that "
        "opens its run needs this flag again",
        tuple(MODES), "the recipe's", flags.DEFINE_multi_string,
    ),
    _choice(
        "engine", "auto", job.ENGINES,
        "fused, a block of steps in one call, compiled by XLA where that is faster; step, a call "
        "for each update; auto, the faster one, but step for a class of your own", TRAIN,
    ),
    _choice(
        "precision", "float32", job.PRECISIONS,
        "numbers that convolutions multiply: float32, or bfloat16 on a CPU with AVX512-BF16 or AMX",
        TRAIN,
    ),
    _number(
        "group_timeout", TIMEOUT, 1, _MANY,
        "seconds to wait for all processes of TF_CONFIG; a step may take as long plus 20 times the "
        "longest so far", TRAIN,
    ),
    _switch("summary", False, "print the networks' layers and parameters, and end", TRAIN),
]  # fmt: skip
_USE = [
    _words(
        "out", "PATH",
        "what to write: .png or .npz, of a walk also .gif or .webp; for export a folder, for "
        "explore .html, for compare .png",
        ("sample", "export", "explore", "compare"),
        "in the run's folder, for compare comparison.png",
    ),
    _number(
        "num_samples", None, 1, 10**6, "samples to draw", ("evaluate", "sample"),
        unset="10000 to score, 100 to show",
    ),
    _words(
        "labels", "3,7", "labels to draw in turn, of a run with --conditional", ("sample",),
        "all ten", flags.DEFINE_list,
    ),
    _number(
        "interpolate", None, 2, 1000, "walk through this many draws", ("sample",), unset="no walk"
    ),
    Flag(
        "truncation", "--truncation=X",
        "draw each coordinate of a normal z from [-X, X] alone (Brock et al. 2019)",
        "0.01 to 100, default none", ("sample",),
        functools.partial(flags.DEFINE_float, "truncation", None, "greatest latent", 0.01, 100),
    ),
    _words(
        "checkpoint", "NAME", "use checkpoints/NAME.npz, such as best", ONE_RUN, "the last step's"
    ),
    _switch("raw", False, "use G's weights themselves, not their average", ONE_RUN),
    _words(
        "run_dirs", "DIR,DIR", "folders of the runs to compare", ("compare",), "none",
        flags.DEFINE_list,
    ),
]  # fmt: skip


def groups(recipe="minimal"):
    """-> {title: [Flag]} in the order of --help, hyper-parameters with a recipe's numbers."""
    fields = _hyperparameters(recipe)
    return {
        "Everyday": [*_WHAT, *fields.pop(hyperparameters.EVERYDAY), *_RUN],
        **{f"Hyper-parameters: {title.lower()}": found for title, found in fields.items()},
        "While it trains": _WHILE_TRAINING,
        "Classes, engines, several processes": _NETWORKS_AND_ENGINES,
        "Other modes (named before each flag)": _USE,
    }


_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
    tuple[int, ...]: flags.DEFINE_multi_integer,
}
_VALUES = {int: "=N", float: "=X", str: "=NAME", tuple[int, ...]: "=N"}


def _hyperparameters(recipe):
    """The name of a recipe -> {group: [Flag]} of all fields that a flag may set."""
    values = hyperparameters.values_of(recipes.get(recipe))
    found = {}
    for field in hyperparameters.overridable():
        flag = _hyperparameter(field, values[field.name])
        found.setdefault(field.metadata["group"], []).append(flag)
    return found


def _hyperparameter(field, value):
    """A recipe's field and its value there -> Flag; it is left unset, for each recipe has its own.

    Bounds are checked with the recipe, see `hyperparameters.override`.
    """
    (kind,) = [each for each in _DEFINE if field.type in (each, each | None)]
    shown = f"--[no]{field.name}" if kind is bool else f"--{field.name}{_VALUES[kind]}"
    meaning = field.metadata["help"]
    bounds = hyperparameters.bounds_text(field)
    note = ", ".join(filter(None, [bounds, f"default {_text(value)}"]))
    define = functools.partial(_DEFINE[kind], field.name, None, meaning)
    return Flag(field.name, shown, meaning, note, TRAIN, define)


def define_flags():
    """Registers every flag, and --help."""
    for found in groups().values():
        for flag in found:
            flag.define()
    flags.DEFINE_boolean("help", False, "show the flags, of one --mode or of all", short_name="h")


def parse(argv):
    """argv -> its positional words; --help, or a wrong flag in one line, ends the program."""
    try:
        rest = FLAGS(argv)
    except (flags.Error, ValueError) as error:
        fail(f"{error}. See python main.py --help")
    if FLAGS.help:
        print(help_text(FLAGS.mode if FLAGS["mode"].present else None, FLAGS.recipe))
        sys.exit(0)
    if len(rest) > 1:
        fail(f"{rest[1]}: no such argument, every option is a flag. See python main.py --help")
    return rest


def fail(message, code=1):
    """Ends the program with one line and an exit code."""
    print(f"main.py: {errors.one_line(message)}", file=sys.stderr)
    sys.exit(code)


def check_taken(mode):
    """UserError for a flag that was given but is empty or means nothing in this mode."""
    for flag in sorted(itertools.chain(*groups().values())):
        if FLAGS[flag.name].present and FLAGS[flag.name].value in _EMPTY:
            raise UserError(f"--{flag.name}= is empty: give it a value, or leave it out")
        if FLAGS[flag.name].present and mode not in flag.modes:
            meaning = f": {_MEANINGS[flag.name]}" if flag.name in _MEANINGS else ""
            raise UserError(
                f"--{flag.name} goes with --mode={' or '.join(flag.modes)}, not {mode}{meaning}"
            )


def help_text(mode=None, recipe="minimal"):
    """-> what --help prints: the flags of one mode, or None for all of them."""
    parts = [_INTRODUCTION, _modes_text()] if mode is None else [_mode_text(mode)]
    for title, found in groups(recipe).items():
        entries = [_entry(flag, mode) for flag in found if _is_shown(flag, mode)]
        if entries:
            parts.append("\n".join([_heading(title, recipe, mode), *entries]))
    return "\n\n".join(parts)


def _is_shown(flag, mode):
    return mode is None or (mode in flag.modes and flag.name != "mode")


def _modes_text():
    return "\n".join(["Modes", *(f"  {name:<10}{text}" for name, text in MODES.items())])


def _mode_text(mode):
    command = f"python main.py --mode={mode} {_EXAMPLES[mode]}"
    return f"--mode={mode} {MODES[mode]}.\n\n  {command}"


def _heading(title, recipe, mode):
    if title.startswith("Hyper"):
        return f"{title} (defaults: {recipe}'s)"
    return title if mode is None else title.split(",")[0].replace("Other modes", "What to write")


def _entry(flag, mode):
    """A flag -> its lines, the modes that take it first where that is not plain."""
    told = mode or "train" in flag.modes
    modes = "" if told else f"{', '.join(flag.modes)}: "
    wrapped = textwrap.wrap(f"{modes}{flag.meaning} [{flag.note}]", _WIDTH - _INDENT)
    return "\n".join(
        f"{start:<{_INDENT}}{line}"
        for start, line in itertools.zip_longest([f"  {flag.shown}"], wrapped, fillvalue="")
    )
