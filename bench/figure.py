# SPDX-License-Identifier: MIT
"""What a benchmark says: one row of the table."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Optional


@dataclasses.dataclass
class Figure:
    """One row. Bars are upper ones unless better is "higher"."""
    name: str
    value: float
    unit: str
    spread: float = 0.0
    bar: Optional[float] = None
    better: str = "lower"

    @property
    def holds(self) -> Optional[bool]:
        if self.bar is None:
            return None
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar

    def row(self) -> str:
        sign = "<=" if self.better == "lower" else ">="
        bar = "" if self.bar is None else f"{sign} {self.bar:g}"
        verdict = {None: "", True: "holds", False: "MISSED"}[self.holds]
        spread = f"± {self.spread:.3g}" if self.spread else ""
        return f"{self.name:46} {self.value:10.4g} {spread:10} {self.unit:14} {bar:9} {verdict}"


def figure(name: str, values: list[float], unit: str, **more: Any) -> Figure:
    """The median of several measurements, and between which of them half lie; of few, all."""
    spread = max(values) - min(values)
    if len(values) > 3:
        low, _, high = statistics.quantiles(values, n=4)
        spread = high - low
    return Figure(name, statistics.median(values), unit, spread, **more)
