# SPDX-License-Identifier: MIT
"""The tables of docs/benchmarks.md are what was measured, and nothing else in it changes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import benchmark_tables
from benchmark_tables import BEGIN, END


def a_figure(name: str, value: float, unit: str = "s", **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "spread": 0.0, "bar": None,
            "better": "lower", "holds": None, **more}


FIGURES = [
    a_figure("guest: inflate: QEMU", 1.4621, spread=0.0312),
    a_figure("guest: inflate: Aerostat", 0.37),
    a_figure("guest: inflate: QEMU / Aerostat", 3.951, "ratio", bar=2.0, better="higher",
             holds=True),
    a_figure("guest: back: Aerostat", 1023.7, "MiB", better="higher"),
    a_figure("something of our own", 3),
    a_figure("statistics: cost: QEMU / Aerostat", 0.5, "ratio", better="higher"),
]


@pytest.fixture
def files(tmp_path: pathlib.Path) -> list[str]:
    """Options that name files of this test."""
    (tmp_path / "b.json").write_text(json.dumps(FIGURES))
    (tmp_path / "b.about.json").write_text(json.dumps({"date": "one day", "QEMU": "11.1"}))
    (tmp_path / "d.md").write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    return [f"--json={tmp_path / 'b.json'}", f"--document={tmp_path / 'd.md'}"]


def test_each_figure_has_its_place(files: list[str], tmp_path: pathlib.Path) -> None:
    assert benchmark_tables.main(files) == 0
    text = (tmp_path / "d.md").read_text()
    assert "| | QEMU | Aerostat | QEMU / Aerostat |" in text
    assert "| inflate [s] | 1.46 ± 0.0312 | 0.37 | 3.95 (bar ≥ 2) |" in text
    assert "| back [MiB] |  | 1024 |  |" in text
    assert "- date: one day\n- QEMU: 11.1\n" in text
    assert "something of our own" not in text and "old" not in text
    assert text.startswith("# Before\n") and text.endswith("\nAfter\n")


def test_drawing_twice_changes_nothing(files: list[str], tmp_path: pathlib.Path) -> None:
    assert benchmark_tables.main(files) == 0
    once = (tmp_path / "d.md").read_text()
    assert benchmark_tables.main(files) == 0
    assert (tmp_path / "d.md").read_text() == once


def test_losses_are_told() -> None:
    lost = benchmark_tables.draw(FIGURES, {}).partition("## Where we lose")[2]
    assert lost.split("\n")[2:-1] == ["- statistics, cost: QEMU / Aerostat 0.5"]
    missed = [*FIGURES[:2], FIGURES[2] | {"value": 1.5, "holds": False}]
    lost = benchmark_tables.draw(missed, {}).partition("## Where we lose")[2]
    assert "inflate: QEMU / Aerostat 1.5 (bar ≥ 2, **missed**)" in lost
    assert "nowhere" in benchmark_tables.draw(FIGURES[:3], {})


def test_a_run_without_a_peer_is_refused(files: list[str], tmp_path: pathlib.Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    before = (tmp_path / "d.md").read_text()
    (tmp_path / "b.json").write_text(json.dumps(FIGURES[4:5]))
    assert benchmark_tables.main(files) == 1
    assert "--peer=qemu" in capsys.readouterr().err
    (tmp_path / "b.json").write_text("[")
    assert benchmark_tables.main(files) == 1
    assert (tmp_path / "d.md").read_text() == before


def test_a_document_without_markers_is_kept(files: list[str], tmp_path: pathlib.Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.md").write_text("mine")
    assert benchmark_tables.main(files) == 1
    assert "lacks the lines" in capsys.readouterr().err
    assert (tmp_path / "d.md").read_text() == "mine"


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (1234.5, "1234"), (99.96, "100"), (0.0123456, "0.0123"), (0.00004, "0.00004")])
def test_numbers(value: float, text: str) -> None:
    assert benchmark_tables.number(value) == text
