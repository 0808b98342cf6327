#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Draws what a simulation found.

    plot.py RESULTS FOLDER

RESULTS is the file that the simulation wrote with --output.  Three pictures are made in FOLDER:
policies.png compares the sums, timeline.png shows memory and stalls over time, and guests.png how
the stall time is spread over guests.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display; before pyplot is imported
import matplotlib.pyplot as plt  # noqa: E402

Result = dict[str, Any]
GIB = 1 << 30
HOUR_S = 3600

# One colour for each policy in all pictures, told apart by those who see few colours too.
COLOURS = {"aerostat": "#0072b2", "proxmox": "#e69f00", "mom": "#d55e00",
           "mom-available": "#cc79a7", "static": "#7f7f7f"}


def colour(result: Result) -> str:
    return COLOURS.get(result["policy"], "black")


def draw_bars(axes: Any, results: list[Result], title: str, values: list[float]) -> None:
    names = [result["policy"] for result in results]
    bars = axes.bar(names, values, color=[colour(result) for result in results])
    axes.bar_label(bars, fmt="%.4g", fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.margins(y=0.15)


def plot_policies(results: list[Result], head: str, path: Path) -> None:
    figure, grid = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    figure.suptitle(head, fontsize=11)
    draw_bars(grid[0][0], results, "time that guests waited, guest hours",
              [result["stall-seconds"] / HOUR_S for result in results])
    draw_bars(grid[0][1], results, "OOM kills", [result["oom-kills"] for result in results])
    draw_bars(grid[1][0], results, "memory given to others, GiB hours",
              [result["given-byte-seconds"] / GIB / HOUR_S for result in results])
    draw_bars(grid[1][1], results, "moved, million pages",
              [result["moved-pages"] / 1e6 for result in results])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def series(result: Result, name: str, unit: float) -> list[float]:
    return [sample[name] / unit for sample in result["samples"]]


def plot_timeline(results: list[Result], data: Result, head: str, path: Path) -> None:
    figure, grid = plt.subplots(3, 1, figsize=(11, 9), sharex=True, layout="constrained")
    figure.suptitle(head, fontsize=11)
    grid[0].plot(series(results[0], "at-seconds", HOUR_S), series(results[0], "wanted", GIB),
                 color="black", linewidth=1, label="programs want")
    for result in results:
        hours = series(result, "at-seconds", HOUR_S)
        label = result["policy"]
        grid[0].plot(hours, series(result, "resident", GIB), color=colour(result), linewidth=1,
                     label=f"{label}: guests have")
        grid[1].plot(hours, series(result, "stall-seconds", 60 * data["guests"] / 100),
                     color=colour(result), linewidth=1, label=label)
        grid[2].plot(hours, series(result, "oom-kills", 1), color=colour(result), linewidth=1,
                     label=label)
    grid[0].axhline(data["host-memory"] / GIB, color="red", linewidth=1, linestyle=":",
                    label="the host has")
    grid[0].set_ylabel("GiB")
    grid[1].set_ylabel("waiting, % of all guests' time")
    grid[1].set_yscale("symlog", linthresh=0.01)
    grid[2].set_ylabel("OOM kills so far")
    grid[2].set_yscale("symlog", linthresh=10)
    grid[2].set_xlabel("hours")
    for axes in grid:
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper left")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_guests(results: list[Result], head: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.set_title(head, fontsize=11)
    for result in results:
        stalls = sorted(result["guest-stall-seconds"])
        parts = [100 * (index + 1) / len(stalls) for index in range(len(stalls))]
        axes.plot(parts, stalls, color=colour(result), label=result["policy"])
    axes.set_xlabel("% of guests waited so long or less")
    axes.set_ylabel("seconds waited by a guest")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    data = json.loads(options.results.read_text())
    results = data["results"]
    head = (f"{data['guests']} guests, {data['hours']} h, seed {data['seed']}, "
            f"{data['own-share']:.0%} with our driver")
    options.folder.mkdir(parents=True, exist_ok=True)
    plot_policies(results, head, options.folder / "policies.png")
    plot_timeline(results, data, head, options.folder / "timeline.png")
    plot_guests(results, head, options.folder / "guests.png")
    for name in ("policies.png", "timeline.png", "guests.png"):
        print(options.folder / name, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
