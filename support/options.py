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
      choices: The valid values, if they can be listed.
      modes: Values of --mode with which the flag is valid.
      value: Placeholder shown in --help, such as `DIR`.
      unset: Meaning of None, for --help.
    """
    metadata = {
        "group": group,
        "help": text,
        "bounds": bounds,
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
    if value is None and type(None) in typing.get_args(field.type):
        return
    kind, is_tuple = value_type(field)
    values = value if is_tuple else [value]
    if not isinstance(values, (tuple, list)) or not all(
        _is_valid(each, kind, field.metadata) for each in values
    ):
        raise UserError(f"--{field.name} must be {describe_values(field)}, got {value}")


def _is_valid(value, kind, limits):
    types_of_kind = (int, float) if kind is float else kind
    if not isinstance(value, types_of_kind) or isinstance(value, bool) != (kind is bool):
        return False
    if limits["choices"] is not None:
        return value in limits["choices"]
    low, high = limits["bounds"] or (value, value)
    return low <= value <= high  # False for NaN


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
    if field.metadata["choices"] is not None:
        return f"one of {', '.join(field.metadata['choices'])}"
    nouns = {bool: "True or False", str: "text", int: "an integer", float: "a number"}
    bounds = bounds_text(field)
    return nouns[value_type(field)[0]] + (f" from {bounds}" if bounds else "")


def bounds_text(field: dataclasses.Field) -> str:
    """Returns a field's bounds, such as `0 to 9`, or an empty text if it has none."""
    if field.metadata["bounds"] is None:
        return ""
    low, high = field.metadata["bounds"]
    return f"{low:.12g} to {high:.12g}"
