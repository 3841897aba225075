"""The flags of `python main.py`, which follow from dataclasses, and its --help.

Flags of hyperparameters are the fields of `models.recipes.Recipe`, those of a run the fields of
`training.options.RunOptions`, and the rest the fields of `ModeOptions` here. Importing this module
does not import TensorFlow.
"""

import dataclasses
import re
import sys
import textwrap

from absl import flags

from models import priors, recipes
from models.recipes import (
    EVERYDAY,
    RECIPES,
    bounds_text,
    check_value,
    describe_values,
    option,
    value_type,
)
from support import errors
from support.errors import UserError
from training.options import ENGINES, ONE_RUN, WHILE_TRAINING, RunOptions

FLAGS = flags.FLAGS
MODES = {
    "train": "train a recipe, or a custom class, into a folder under runs/",
    "evaluate": "score a run: Fréchet distance, classes covered, precision, recall; a report",
    "sample": "draw samples of a run, or a walk through its latent space",
    "export": "make files of a run for use elsewhere: SavedModel, ONNX, NumPy",
    "explore": "make one HTML file that runs the generator in a browser",
    "compare": "put the samples and scores of several runs side by side",
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
_OTHER_MODES = "Other modes (named before each flag)"
_WIDTH, _INDENT = 100, 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModeOptions:
    """The flags that choose what to do, and those of the modes other than `train`."""

    mode: str = option("train", EVERYDAY, "what to do, see above", choices=MODES, modes=MODES)
    recipe: str = option(
        "minimal", EVERYDAY, f"GAN to train: {', '.join(RECIPES)}", choices=RECIPES
    )
    eval_every: int = option(
        0, WHILE_TRAINING, "steps between scores; 0 for none", bounds=(0, 10**9)
    )
    summary: bool = option(
        False, ENGINES, "print the networks' variables and their sizes, and exit"
    )
    out: str | None = option(
        None,
        _OTHER_MODES,
        "file to write: .png, .npz or a folder/ for a PNG of each image, for a walk also .gif or "
        ".webp; for export a folder, for explore .html, for compare .png",
        modes=("sample", "export", "explore", "compare"),
        value="PATH",
        unset="in the run's folder, for compare comparison.png",
    )
    num_samples: int | None = option(
        None,
        _OTHER_MODES,
        "samples to draw",
        bounds=(1, 10**6),
        modes=("evaluate", "sample"),
        unset="10000 to score, 100 to show",
    )
    labels: tuple[str, ...] | None = option(
        None,
        _OTHER_MODES,
        "labels to draw in turn, of a run with --conditional",
        modes=("sample",),
        value="3,7",
        unset="all in turn; for a walk the first",
    )
    interpolate: int | None = option(
        None,
        _OTHER_MODES,
        "walk through this many draws",
        bounds=(2, 1000),
        modes=("sample",),
        unset="no walk",
    )
    truncation: float | None = option(
        None,
        _OTHER_MODES,
        "draw each coordinate of a normal z only from [-X, X] (Brock et al. 2019)",
        bounds=(priors.SMALLEST_TRUNCATION, 100),
        modes=("evaluate", "sample"),
        unset="none",
    )
    checkpoint: str | None = option(
        None,
        _OTHER_MODES,
        "use checkpoints/NAME.npz, such as best",
        modes=ONE_RUN,
        unset="the last step's",
    )
    raw: bool = option(
        False, _OTHER_MODES, "use G's weights themselves, not their average", modes=ONE_RUN
    )
    run_dirs: tuple[str, ...] | None = option(
        None,
        _OTHER_MODES,
        "folders of the runs to compare",
        modes=("compare",),
        value="DIR,DIR",
        unset="none",
    )


_MODE, _RECIPE, *_OTHERS = dataclasses.fields(ModeOptions)
_OF_TRAINING = [*recipes.hyperparameters(), *dataclasses.fields(RunOptions)]
# {name: field} of all flags, in the order of --help within each group.
FIELDS = {field.name: field for field in [_MODE, _RECIPE, *_OF_TRAINING, *_OTHERS]}


def define_flags():
    """Registers every flag, and --help."""
    define = {  # by type and whether there may be several
        (int, False): flags.DEFINE_integer,
        (float, False): flags.DEFINE_float,
        (bool, False): flags.DEFINE_boolean,
        (str, False): flags.DEFINE_string,
        (int, True): flags.DEFINE_multi_integer,
        (str, True): flags.DEFINE_list,
    }
    hyperparameters = {field.name for field in recipes.hyperparameters()}
    for name, field in FIELDS.items():
        # Unset hyperparameters have the recipe's value.
        default = None if name in hyperparameters else field.default
        define[value_type(field)](name, default, field.metadata["help"])
    FLAGS.set_gnu_getopt()  # flags may follow other arguments
    flags.DEFINE_boolean("help", False, "show the flags, of one --mode or of all", short_name="h")


def parse(argv):
    """Parses the command line; --help, or a wrong flag or value, ends the program."""
    try:
        rest = FLAGS(argv)[1:]
    except (flags.Error, ValueError) as error:
        illegal = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
        if illegal and illegal[1] in FIELDS:
            name, found = illegal[1], illegal[2] or "nothing"
            fail(f"--{name} must be {describe_values(FIELDS[name])}, got {found}")
        fail(f"{str(error).rstrip(' ?')}; see python main.py --help")
    try:
        if FLAGS.help:
            print(help_text(FLAGS.mode if FLAGS["mode"].present else None, FLAGS.recipe))
            sys.exit(0)
        if rest:
            word = rest[0]
            flag = "mode" if word in MODES else "recipe" if word in RECIPES else None
            hint = f"use --{flag}={word}" if flag else "write --FLAG=VALUE without spaces"
            raise UserError(f"unexpected argument {word}; {hint}, see python main.py --help")
        check_value(FIELDS["mode"], FLAGS.mode)
        for name, field in sorted(FIELDS.items()):
            flag = FLAGS[name]
            if not flag.present:
                continue
            if flag.value in ("", [], [""]):
                raise UserError(f"--{name}= is empty: give it a value, or omit it")
            *modes, last_mode = field.metadata["modes"]
            if FLAGS.mode not in (*modes, last_mode):
                valid = f"{', '.join(modes)} or {last_mode}" if modes else last_mode
                raise UserError(f"--{name} is only valid with --mode={valid}")
            check_value(field, flag.value)
    except UserError as error:
        fail(error)


def fail(message):
    """Ends the program with one line and exit code 1."""
    print(f"main.py: {errors.one_line(message)}", file=sys.stderr)
    sys.exit(1)


def given(dataclass_fields):
    """Returns {name: value} of the flags of some fields that are not None."""
    values = {field.name: FLAGS[field.name].value for field in dataclass_fields}
    return {name: value for name, value in values.items() if value is not None}


def help_text(mode=None, recipe="minimal"):
    """Returns what --help prints, for one mode or for all of them."""
    defaults = recipes.values_of(recipes.get(recipe))
    if mode is None:
        modes = "\n".join(["Modes", *(f"  {name:<10}{text}" for name, text in MODES.items())])
        parts = [_INTRODUCTION, modes]
    else:
        check_value(FIELDS["mode"], mode)
        command = f"python main.py --mode={mode} {_EXAMPLES[mode]}"
        parts = [f"--mode={mode}: {MODES[mode]}.\n\n  {command}"]
    for group in dict.fromkeys(field.metadata["group"] for field in FIELDS.values()):
        entries = [
            _help_entry(field, defaults.get(name, field.default), mode)
            for name, field in FIELDS.items()
            if field.metadata["group"] == group
            and (mode is None or (mode in field.metadata["modes"] and name != "mode"))
        ]
        heading = group
        if group.startswith("Hyper"):
            heading = f"{group} (defaults: {recipe}'s)"
        elif group == _OTHER_MODES and mode is not None:
            heading = "What to score" if mode == "evaluate" else "What to write"
        if entries:
            parts.append("\n".join([heading, *entries]))
    return "\n\n".join(parts)


def _help_entry(field, default, mode):
    """Returns a flag's lines: how to type it, its help, its bounds and default."""
    kind, _ = value_type(field)
    metadata = field.metadata
    value = metadata["value"] or {int: "N", float: "X", str: "NAME", bool: None}[kind]
    typed = f"--[no]{field.name}" if kind is bool else f"--{field.name}={value}"
    if default is None:
        typed_default = metadata["unset"]
    elif kind is bool:
        typed_default = "on" if default else "off"
    elif isinstance(default, tuple):
        typed_default = ", ".join(map(str, default)) or "none"
    else:
        typed_default = f"{default:.12g}" if kind is float else default
    note = f"default {typed_default}"
    if bounds := bounds_text(field):
        note = f"{bounds}, {note}"
    text = f"{metadata['help']} [{note}]"
    if mode is None and "train" not in metadata["modes"]:
        text = f"{', '.join(metadata['modes'])}: {text}"
    start = f"  {typed} ".ljust(_INDENT)
    return textwrap.fill(text, _WIDTH, initial_indent=start, subsequent_indent=_INDENT * " ")
