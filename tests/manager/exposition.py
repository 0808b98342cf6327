# SPDX-License-Identifier: MIT
"""Reading what Prometheus would: a strict parser of OpenMetrics text.

It has no leniency where Prometheus has some: order, types, suffixes, units, escapes, duplicates and
the end are looked at. Debian's python3-prometheus-client reads the same text in another test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_META = re.compile(rf"# (HELP|TYPE|UNIT) ({_NAME}) (.*)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_SUFFIXES = {"gauge": {""}, "counter": {"_total"}, "info": {"_info"},
             "histogram": {"_bucket", "_count", "_sum"}}
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class Sample:
    """One line: of the family, under this name."""

    family: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, key: str) -> str | None:
        return dict(self.labels).get(key)


@dataclass
class Figures:
    """All that one scrape has."""

    samples: list[Sample] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)  # by family

    def of(self, name: str, **labels: str) -> list[Sample]:
        """The samples of that name that have these labels."""
        return [sample for sample in self.samples if sample.name == name and
                all(sample.label(key) == value for key, value in labels.items())]

    def values(self, name: str, **labels: str) -> list[float]:
        return [sample.value for sample in self.of(name, **labels)]

    def value(self, name: str, **labels: str) -> float:
        """That of the only sample of that name with these labels; -1 if there is none, which no
        figure of ours can be."""
        found = self.values(name, **labels)
        assert len(found) <= 1, f"{name} {labels} is there {len(found)} times"
        return found[0] if found else -1.0


class Malformed(AssertionError):
    """The text is no OpenMetrics."""


def _check(holds: object, line: str, why: str) -> None:
    if not holds:
        raise Malformed(f"{why}: {line!r}")


def _labels(text: str, line: str) -> tuple[tuple[str, str], ...]:
    labels: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _LABEL.match(text, at)
        _check(match, line, "no label")
        assert match
        value = re.sub(r'\\[n"\\]', lambda m: _ESCAPES[m.group()], match.group(2))
        labels.append((match.group(1), value))
        at = match.end()
        _check(match.group(3) == "," or at == len(text), line, "something behind a label")
    _check(not text.endswith(","), line, "a comma at the end")
    _check(len({key for key, _ in labels}) == len(labels), line, "a label twice")
    return tuple(labels)


def parse(text: str) -> Figures:
    """Malformed, unless each line is as it should be."""
    lines = text.split("\n")
    _check(lines[-2:] == ["# EOF", ""], text[-40:], "no end")
    figures = Figures()
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    family, said = "", set()
    for line in lines[:-2]:
        meta = _META.fullmatch(line)
        if meta:
            word, name, rest = meta.groups()
            if name != family:
                _check(name not in figures.types, line, "a family in two places")
                _check(word == "HELP", line, "a family begins with HELP here")
                family, said = name, set()
            _check(word not in said and not (said & {"SAMPLE"}), line, "out of order")
            said.add(word)
            if word == "TYPE":
                _check(rest in _SUFFIXES, line, "unknown type")
                figures.types[name] = rest
            if word == "UNIT":
                _check(name.endswith(f"_{rest}"), line, "the unit is not in the name")
            continue
        _check(not line.startswith("#"), line, "a comment")
        match = _SAMPLE.fullmatch(line)
        _check(match, line, "no sample")
        assert match
        name = match.group(1)
        kind = figures.types.get(family)
        _check(kind and name.startswith(family), line, "outside of its family")
        _check(name.removeprefix(family) in _SUFFIXES[kind or ""], line, "wrong suffix")
        _check(_NUMBER.fullmatch(match.group(3)), line, "no number")
        labels = _labels(match.group(2) or "", line)
        key = (name, tuple(sorted(labels)))
        _check(key not in seen, line, "the same series again")
        seen.add(key)
        said.add("SAMPLE")
        figures.samples.append(Sample(family, name, labels, float(match.group(3))))
    return figures
