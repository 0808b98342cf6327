#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Draws the tables of docs/benchmarks.md from what `./run bench --peer=qemu` has measured.

    tools/benchmark_tables.py [--json=build/bench.json] [--document=docs/benchmarks.md] [--print]

A figure's name has three pieces, "SECTION: ROW: COLUMN"; others are left alone. What stands in the
document between the two marker lines is replaced, the rest is kept. Exit status: 0 done, 1 failed,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN = "<!-- drawn by tools/benchmark_tables.py: do not edit from here -->"
END = "<!-- to here -->"
SINGULAR_UNITS = ("ratio",)  # a column of these says so itself

Figure = dict[str, Any]


class Failed(Exception):
    """What there is cannot be drawn; the text says why."""


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if size >= 0.001 else f"{value:.6f}".rstrip("0")


def cell(figure: Figure) -> str:
    text = number(figure["value"])
    if figure["spread"]:
        text += f" ± {number(figure['spread'])}"
    if figure["bar"] is not None:
        sign = "≥" if figure["better"] == "higher" else "≤"
        verdict = "" if figure["holds"] else ", **missed**"
        text += f" (bar {sign} {number(figure['bar'])}{verdict})"
    return text


def split(figures: list[Figure]) -> dict[str, dict[str, dict[str, Figure]]]:
    """Figures by section, row and column, each in the order of their first appearance."""
    sections: dict[str, dict[str, dict[str, Figure]]] = {}
    for figure in figures:
        pieces = figure["name"].split(": ")
        if len(pieces) == 3:
            section, row, column = pieces
            sections.setdefault(section, {}).setdefault(row, {})[column] = figure
    if not sections:
        raise Failed("no figure of a comparison: ./run bench --peer=qemu measures them")
    return sections


def table(rows: dict[str, dict[str, Figure]]) -> list[str]:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row, cells in rows.items():
        units = dict.fromkeys(figure["unit"] for figure in cells.values()
                              if figure["unit"] not in SINGULAR_UNITS)
        label = f"{row} [{', '.join(units)}]" if units else row
        texts = [cell(cells[column]) if column in cells else "" for column in columns]
        lines.append(f"| {label} | {' | '.join(texts)} |")
    return lines


def losses(sections: dict[str, dict[str, dict[str, Figure]]]) -> list[str]:
    """Every ratio that speaks for the other side, and every bar that was missed."""
    lines = []
    for section, rows in sections.items():
        for row, cells in rows.items():
            for column, figure in cells.items():
                is_ratio = figure["unit"] == "ratio"
                worse = is_ratio and (figure["value"] < 1) == (figure["better"] == "higher")
                if figure["holds"] is False or (worse and figure["value"] != 1):
                    lines.append(f"- {section}, {row}: {column} {cell(figure)}")
    return lines


def draw(figures: list[Figure], about: dict[str, str]) -> str:
    """What stands between the markers."""
    sections = split(figures)
    lines = ["", *(f"- {name}: {value}" for name, value in about.items()), ""]
    for section, rows in sections.items():
        lines += [f"## {section[0].upper()}{section[1:]}", "", *table(rows), ""]
    lines += ["## Where we lose", ""]
    lines += losses(sections) or ["In this run nowhere: every ratio above is on our side."]
    return "\n".join(lines) + "\n"


def insert(document: str, drawn: str) -> str:
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Failed(f"the document lacks the lines '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{drawn}\n{END}{after}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--document", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--print", action="store_true", help="to standard output instead")
    args = parser.parse_args(arguments)
    try:
        figures = json.loads(args.json.read_text(encoding="utf-8"))
        about = json.loads(args.json.with_suffix(".about.json").read_text(encoding="utf-8"))
        drawn = draw(figures, about)
        if args.print:
            print(drawn, end="")
        else:
            args.document.write_text(insert(args.document.read_text(encoding="utf-8"), drawn),
                                     encoding="utf-8")
    except (OSError, ValueError, Failed) as error:
        print(f"benchmark_tables: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
