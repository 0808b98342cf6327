# SPDX-License-Identifier: MIT
"""Ways in which a monitor tells nonsense: each takes what a command returns, and makes something
else of it. To be given to Monitor.distort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

UNSET = (1 << 64) - 1  # what QEMU tells for a statistic that the guest has not sent


def _each_number(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _each_number(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_number(item, change) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return change(value)
    return value


def negative_sizes(value: Any) -> Any:
    """All numbers are below zero."""
    return _each_number(value, lambda number: -1 - abs(number))


def maximal_numbers(value: Any) -> Any:
    """All numbers are 2^64-1."""
    return _each_number(value, lambda _: UNSET)


def enormous_numbers(value: Any) -> Any:
    """All numbers are larger than any integer of 64 bits."""
    return _each_number(value, lambda number: 10 ** 30 + number)


def fractions(value: Any) -> Any:
    """All numbers have a fraction."""
    return _each_number(value, lambda number: number + 0.5)


def numbers_as_text(value: Any) -> Any:
    """All numbers are strings."""
    return _each_number(value, str)


def wrong_types(value: Any) -> Any:
    """Objects are arrays, arrays are objects, and the rest is something else, too."""
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, list):
        return {str(i): wrong_types(item) for i, item in enumerate(value)}
    return {"an": "object"} if isinstance(value, (int, str)) else 17


def nulls(value: Any) -> Any:
    """Whatever it is, it is null."""
    del value
    return None


def empty(value: Any) -> Any:
    """Objects and arrays with nothing in them."""
    return type(value)() if isinstance(value, (dict, list)) else value


DISTORTIONS = (negative_sizes, maximal_numbers, enormous_numbers, fractions, numbers_as_text,
               wrong_types, nulls, empty)
