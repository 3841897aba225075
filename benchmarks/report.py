"""Parts of both benchmarks' reports: the machine, numbers and Markdown tables."""

import importlib.metadata
import importlib.util
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

from training.options import processor_cores

_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("numpy", "tensorflow", "keras", "torch", "jax")


def machine() -> str:
    """Returns a sentence about the processor, its cores, and versions."""
    cpu = platform.processor()
    for line in _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []:
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    installed = [name for name in _PACKAGES if importlib.util.find_spec(name)]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in installed]
    cores, python = len(processor_cores()), platform.python_version()
    return f"Machine: {cpu}, {cores} cores; Python {python}, {', '.join(versions)}."


def table(rows: list[list[str]]) -> str:
    """Returns an aligned Markdown table; all columns but the first are flush right."""
    header, *rows = rows
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]
    rules = ["-" * (width - 1) for width in widths]
    lines = []
    for row in [header, [f"{rules[0]}-", *(f"{rule}:" for rule in rules[1:])], *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Formats a number with three digits, or all of its integer part.

    For example, 0.123, 12.3 or 1,234.
    """
    return f"{value:,.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def spread(values: list[float], middle: Callable = statistics.mean) -> str:
    """Returns the text `middle [lowest, highest]` of some numbers."""
    texts = [number(value) for value in (middle(values), min(values), max(values))]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} [{texts[1]}, {texts[2]}]"
