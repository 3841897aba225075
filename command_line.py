"""The flags of `python main.py`, which follow from dataclasses, and its --help.

Flags of hyperparameters are the fields of `models.recipes.Recipe`, those of a run the fields of
`training.options.RunOptions`, and the rest the fields of `ModeOptions` here. Importing this module
does not import TensorFlow.
"""

import dataclasses
import itertools
import re
import sys
import textwrap
from pathlib import Path

from absl import flags

from models import recipes
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
from training.options import ENGINES, ONE_RUN, WHILE_TRAINING, RunOptions, meant

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
_GROUPS = (
    EVERYDAY,
    recipes.BATCHES,
    recipes.LEARNING_RATES,
    recipes.UPDATES,
    recipes.NETWORKS,
    WHILE_TRAINING,
    ENGINES,
    _OTHER_MODES,
)
_HELP = ("help", "/help", "/?")
_QUOTES = tuple("'\"\N{LEFT SINGLE QUOTATION MARK}\N{LEFT DOUBLE QUOTATION MARK}")
_DASHES = tuple("\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}")
# Flags that are easily taken for another one.
_CONFUSED = {"digit": "it selects the training images; --labels selects what is drawn"}
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
    summary: bool = option(False, ENGINES, "print the networks' layers and parameters, and exit")
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
        unset="all ten",
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
        bounds=(0.01, 100),
        modes=("sample",),
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
    define = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
        str: flags.DEFINE_string,
    }
    hyperparameters = {field.name for field in recipes.hyperparameters()}
    for name, field in FIELDS.items():
        kind, is_tuple = value_type(field)
        # Unset hyperparameters have the recipe's value.
        default = None if name in hyperparameters else field.default
        if name == "gan":  # several for --mode=compare
            flags.DEFINE_multi_string(name, None, field.metadata["help"])
        elif is_tuple and kind is int:
            flags.DEFINE_multi_integer(name, default, field.metadata["help"])
        elif is_tuple:
            flags.DEFINE_list(name, default, field.metadata["help"])
        else:
            define[kind](name, default, field.metadata["help"])
    FLAGS.set_gnu_getopt()  # flags may follow other arguments
    flags.DEFINE_boolean("help", False, "show the flags, of one --mode or of all", short_name="h")


def parse(argv):
    """Parses the command line; --help, or a wrong flag or value, ends the program."""
    _check_typing(argv[1:])
    try:
        rest = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        switches = [f"no{name}" for name, field in FIELDS.items() if value_type(field)[0] is bool]
        close = meant(error.flagname, [*FIELDS, "help", *switches])
        if error.flagname in MODES:
            close = f"mode={error.flagname}"
        hint = f"did you mean --{close}?" if close else "see python main.py --help"
        fail(f"--{error.flagname} is not a flag; {hint}")
    except (flags.Error, ValueError) as error:
        missing = re.match(r"Missing value for flag --(\w+)", str(error))
        if missing and missing[1] in FIELDS:
            fail(f"--{missing[1]} requires a value: {describe_values(FIELDS[missing[1]])}")
        illegal = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
        if illegal is None:
            fail(f"{error}; see python main.py --help")
        name, found = illegal[1], illegal[2] or "nothing"
        if name in ("h", "help"):
            fail("--help takes no value")
        if value_type(FIELDS[name])[0] is bool:
            fail(f"--{name}={found} is not valid; use --{name} or --no{name}")
        fail(f"--{name} must be {describe_values(FIELDS[name])}, got {found}")
    try:
        if FLAGS.help or set(rest) & set(_HELP):
            modes = [FLAGS.mode] if FLAGS["mode"].present else [w for w in rest if w in MODES]
            print(help_text(modes[0] if modes else None, FLAGS.recipe))
            sys.exit(0)
        if rest:
            hints = dict.fromkeys(_as_flag(word, argv) for word in rest)
            hint = f"use {' '.join(hints)}" if all(hints) else "see python main.py --help"
            words = f"argument{'s' * (len(rest) > 1)} {' '.join(rest)}"
            raise UserError(f"unexpected {words}: options start with --; {hint}")
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
                hint = f"; {_CONFUSED[name]}" if name in _CONFUSED else ""
                raise UserError(f"--{name} is only valid with --mode={valid}{hint}")
            if name != "gan":  # of which --mode=compare takes several
                check_value(field, flag.value)
    except UserError as error:
        fail(error)


def _check_typing(arguments):
    """Ends the program if a shell, or a copied text, changed the characters of a flag."""
    for word in arguments:
        value = word.partition("=")[2]
        if word.startswith(_DASHES):
            fail(f"{word} starts with a dash; type two hyphens, --")
        if word.startswith(_QUOTES) or value.startswith(_QUOTES) or re.search('"($| --)', value):
            fail(f'{word} contains a quote; use "double quotes", without a backslash at the end')
        if word in ("=", "\\", "^", "`"):
            fail(f"unexpected argument {word}; write --FLAG=VALUE without spaces, on one line")


def _as_flag(word, argv):
    """Returns how to type an argument that is not a flag, or None."""
    name, equals, _ = word.partition("=")
    if name in FIELDS and equals:
        return f"--{word}"
    for name, field in FIELDS.items():
        if word in (field.metadata["choices"] or ()):
            return f"--{name}={word}"
    before = argv[: argv.index(word)] if word in argv else [""]  # it may be in a --flagfile
    flag = next((each for each in reversed(before) if each.startswith("-")), "")
    field = FIELDS.get(flag.lstrip("-").partition("=")[0])
    kind, is_tuple = value_type(field) if field else (None, False)
    if is_tuple:
        return f'"--{field.name}=A,B", with double quotes and without spaces'
    if kind is bool and flag == before[-1]:
        return f"--{field.name} or --no{field.name}"
    if re.search(r"\.py(:\w+)?$", word):
        return f"--gan={word}"
    if Path(word).is_dir() or re.search(r"[/\\]", word):
        return f"--run_dir={word}"
    return None


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
    for group in _GROUPS:
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
            heading = "What to write"
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
    lines = textwrap.wrap(text, _WIDTH - _INDENT)
    starts = itertools.chain([f"  {typed}"], itertools.repeat(""))
    if len(typed) + 3 > _INDENT:
        lines.insert(0, "")
    return "\n".join(
        f"{start:<{_INDENT}}{line}".rstrip() for start, line in zip(starts, lines, strict=False)
    )
