"""Options: dataclass fields that are also command-line flags.

They have help, bounds and validation.
"""

import dataclasses
import types
import typing

from support.errors import UserError


def option(
    default,
    group,
    text,
    *,
    bounds=None,
    positive=False,
    choices=None,
    modes=("train",),
    value=None,
    unset=None,
):
    """Returns a dataclass field that is also a command-line flag.

    Args:
      default: Value of the flag if it is not given.
      group: Heading under which --help shows it.
      text: Its help, a noun phrase or imperative.
      bounds: Smallest and largest valid value.
      positive: Whether the lower bound itself, 0, is excluded.
      choices: The valid values, if they can be listed.
      modes: Values of --mode with which the flag is valid.
      value: Placeholder shown in --help, such as `DIR`.
      unset: Meaning of None, for --help.
    """
    metadata = {
        "group": group,
        "help": text,
        "bounds": bounds,
        "positive": positive,
        "choices": choices,
        "modes": modes,
        "value": value,
        "unset": unset,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_value(field: dataclasses.Field, value) -> None:
    """Checks that `value` has the type and bounds of an `option` field.

    Raises:
      UserError: If it does not.
    """
    kind, is_tuple = value_type(field)
    if value is None and type(None) in typing.get_args(field.type):
        return
    values = value if is_tuple else [value]
    if isinstance(values, (tuple, list)) and all(
        _is_valid(each, kind, field.metadata) for each in values
    ):
        return
    raise UserError(f"--{field.name} must be {describe_values(field)}, got {value}")


def value_type(field: dataclasses.Field) -> tuple[type, bool]:
    """Returns the type of a field's value, and whether the value is a tuple.

    Of a tuple, it is the type of the values in it.
    """
    kind: typing.Any = field.type
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    is_tuple = typing.get_origin(kind) is tuple
    return (typing.get_args(kind)[0] if is_tuple else kind), is_tuple


def describe_values(field: dataclasses.Field) -> str:
    """Returns a field's valid values as text, such as `an integer from 0 to 9`."""
    kind, _ = value_type(field)
    if field.metadata["choices"] is not None:
        return f"one of {', '.join(field.metadata['choices'])}"
    if kind in (bool, str):
        return "True or False" if kind is bool else "text"
    noun = "an integer" if kind is int else "a number"
    if field.metadata["bounds"] is None:
        return noun
    low, high = field.metadata["bounds"]
    if field.metadata["positive"]:
        return f"{noun} above {low} and at most {high:.12g}"
    return f"{noun} from {low} to {high:.12g}"


def bounds_text(field: dataclasses.Field) -> str:
    """Returns a field's bounds, such as `0 to 9` or `above 0 to 1`.

    The text is empty if it has none.
    """
    if field.metadata["bounds"] is None:
        return ""
    low, high = field.metadata["bounds"]
    return f"{'above ' if field.metadata['positive'] else ''}{low} to {high:.12g}"


def _is_valid(value, kind, limits):
    types_of_kind = (int, float) if kind is float else kind
    if not isinstance(value, types_of_kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if limits["choices"] is not None:
        return value in limits["choices"]
    if limits["bounds"] is None:
        return True
    low, high = limits["bounds"]
    # Comparisons with NaN are false.
    return (low < value if limits["positive"] else low <= value) and value <= high
