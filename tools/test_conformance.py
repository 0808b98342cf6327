# SPDX-License-Identifier: MIT
"""docs/conformance.md and docs/threats.md name tests: each must exist, and be one that is run; each
rule of the standard and each line of the threats must have its row.
"""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFORMANCE = ROOT / "docs" / "conformance.md"
THREATS = ROOT / "docs" / "threats.md"

ROW_ID = re.compile(r"[A-Z]+[0-9]+[a-z]?")
ONE_FILE = re.compile(r"([\w/]+\.(?:c|py)): (\w+(?:, \w+)*)")

# Rules of the balloon section of virtio 1.4 with one of the words MUST, SHOULD or MAY, by section
# and whom they bind; a rule for both sides stands once where the document says "both".
NORMATIVE = {
    ("Feature bits", "driver"): 3, ("Feature bits", "device"): 3,
    ("Device configuration layout", "driver"): 1, ("Device configuration layout", "device"): 1,
    ("Device operation", "driver"): 14, ("Device operation", "device"): 3,
    ("Memory statistics", "driver"): 8, ("Memory statistics", "device"): 3,
    ("Memory statistics", "both"): 1,
    ("Free page hinting", "driver"): 10, ("Free page hinting", "device"): 6,
    ("Free page hinting", "both"): 1,
    ("Page poison", "driver"): 3, ("Page poison", "device"): 1,
    ("Free page reporting", "driver"): 6, ("Free page reporting", "device"): 2,
}
WIRE = {"Feature bits of our own", "Configuration space", "Queue numbering", "Statistics entries",
        "Pulled statistics", "Pushed statistics", "Messages", "Hinting states",
        "Reporting and poison", "Ranges"}
WORDS = re.compile(r"\b(MUST|SHOULD|MAY)\b")
# "the same" refers to the row above, with its words.
SAME = re.compile(r"^the same$")
THREAT_LINES = range(1, 20)


@dataclass
class Row:
    section: str
    cells: list[str]

    @property
    def ident(self) -> str:
        return self.cells[0]

    def tests(self) -> list[tuple[str, str]]:
        """(file below tests/, name of the test), of the last cell."""
        found = []
        for part in self.cells[-1].split("; "):
            match = ONE_FILE.fullmatch(part)
            assert match, f"{self.ident}: cannot read '{part}'"
            found += [(match.group(1), name) for name in match.group(2).split(", ")]
        return found


@lru_cache(maxsize=None)
def read_rows(path: Path) -> list[Row]:
    rows, section = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if ROW_ID.fullmatch(cells[0]):
                rows.append(Row(section, cells))
            else:
                assert cells[0] == "Id" or set(cells[0]) <= set("- "), f"{path.name}: {line}"
    return rows


def names_of_c(text: str) -> set[str]:
    """Tests of a cmocka program: defined, and in its table, perhaps by a macro of the file."""
    defined = set(re.findall(r"^static void (\w+)\(void \*\*\w*\)", text, re.MULTILINE))
    macros = re.findall(r"^#define (\w+)\(\w+\)\s+cmocka_unit_test", text, re.MULTILINE)
    adders = "|".join(["cmocka_unit_test\\w*", *macros])
    listed = set(re.findall(rf"\b(?:{adders})\(\s*(\w+)", text))
    return defined & listed


def names_of_python(text: str) -> set[str]:
    """Tests that pytest collects: functions of the file itself, and no later one of that name."""
    names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    assert not [name for name, n in Counter(names).items() if n > 1], "defined twice"
    return {name for name in names if name.startswith("test_")}


def is_built(path: Path, text: str) -> bool:
    """Does the folder's meson.build make a test of the C file?"""
    return bool(re.search(rf"'{re.escape(path.stem)}(\.c)?'", text)) and "test(" in text


@lru_cache(maxsize=None)
def known_tests(file: str) -> set[str]:
    """What of a file is run; empty if the file is not."""
    path = ROOT / "tests" / file
    if not path.is_file() or not path.name.startswith("test_"):
        return set()
    if path.suffix == ".c":
        build = path.parent / "meson.build"
        if not build.is_file() or not is_built(path, build.read_text()):
            return set()
        return names_of_c(path.read_text())
    # The runner takes the folders right below tests/.
    return names_of_python(path.read_text()) if path.parent.parent == ROOT / "tests" else set()


def missing(path: Path) -> list[str]:
    return [f"{row.ident}: {file}: {name}" for row in read_rows(path)
            for file, name in row.tests() if name not in known_tests(file)]


@pytest.mark.parametrize("path", [CONFORMANCE, THREATS], ids=lambda path: path.name)
def test_each_test_exists_and_is_run(path: Path) -> None:
    assert read_rows(path)
    assert missing(path) == []


def test_ids_are_unique() -> None:
    idents = Counter(row.ident for path in (CONFORMANCE, THREATS) for row in read_rows(path))
    assert [ident for ident, count in idents.items() if count > 1] == []


def test_rows_are_complete() -> None:
    for path, width in ((CONFORMANCE, 5), (THREATS, 4)):
        for row in read_rows(path):
            assert len(row.cells) == width, f"{row.ident}: {len(row.cells)} cells"
            assert all(row.cells), f"{row.ident}: an empty cell"
    for row in read_rows(CONFORMANCE):
        assert row.cells[2] in ("device", "driver", "both"), row.ident


def test_no_rule_of_the_standard_is_missing() -> None:
    counted: Counter[tuple[str, str]] = Counter()
    before = ""
    for row in read_rows(CONFORMANCE):
        rule = before if SAME.match(row.cells[1]) else row.cells[1]
        before = rule
        if row.section not in WIRE and WORDS.search(rule):
            counted[row.section, row.cells[2]] += 1
    assert counted == NORMATIVE


def test_every_section_of_the_wire_rules_has_rows() -> None:
    assert WIRE <= {row.section for row in read_rows(CONFORMANCE)}


def test_deviations_that_rows_speak_of_stand_at_the_end() -> None:
    text, end = CONFORMANCE.read_text().split("# Deviations\n")
    said = {int(number) for number in re.findall(r"deviation (\d+)", text)}
    there = [int(number) for number in re.findall(r"^(\d+)\. ", end, re.MULTILINE)]
    assert there == list(range(1, len(there) + 1)) and said <= set(there)


def test_every_line_of_the_threats_has_rows() -> None:
    lines = {int(re.findall(r"\d+", row.ident)[0]) for row in read_rows(THREATS)}
    assert lines == set(THREAT_LINES)


# The checks themselves.

C_PROGRAM = """
static void good(void **state)
static void bad(void **state)
static void helper(int i)
    cmocka_unit_test(good),    cmocka_unit_test_setup(elsewhere, f),
    cmocka_unit_test(helper),
#define TEST(f) cmocka_unit_test_setup(f, setup)
static void third(void **state)
    TEST(third), NO_TEST(bad),
"""


def test_a_c_test_is_defined_and_in_the_table() -> None:
    assert names_of_c(C_PROGRAM) == {"good", "third"}


def test_a_python_test_is_a_function_of_its_file() -> None:
    text = "def test_a():\n def test_b(): pass\ndef c(): pass\nclass D:\n def test_e(s): pass\n"
    assert names_of_python(text) == {"test_a"}
    with pytest.raises(AssertionError):
        names_of_python("def test_a(): pass\ndef test_a(): pass\n")


def test_a_file_that_is_not_built_counts_for_nothing() -> None:
    assert is_built(Path("test_x.c"), "foreach name : ['test_x']\n test(name)")
    assert not is_built(Path("test_x.c"), "foreach name : ['test_xy']\n test(name)")
    assert known_tests("unit/helpers.h") == set() and known_tests("unit/absent.c") == set()
    assert known_tests("protocol/balloon.py") == set()


@pytest.mark.parametrize("cell", ["", "unit/test_x.c", "unit/test_x.c:", "test_x", "a.c: b;",
                                  "unit/test_x.c: a, ", "unit/test_x.h: a"])
def test_a_cell_that_cannot_be_read_is_an_error(cell: str) -> None:
    with pytest.raises(AssertionError):
        Row("section", ["X1", cell]).tests()


def test_a_cell_may_name_several() -> None:
    row = Row("section", ["X1", "unit/test_a.c: b, c; protocol/test_d.py: test_e"])
    assert row.tests() == [("unit/test_a.c", "b"), ("unit/test_a.c", "c"),
                           ("protocol/test_d.py", "test_e")]
