"""Draws widths.png of widths.csv: how good a network of each width is, over the time it takes.

    pip install matplotlib && python3 models/studies/widths.py

widths.csv holds `host-trainer evaluate --json` of every run of widths.md. Times are those of
edge-runtime/BENCHMARKS.md (257x257 px, one thread, AMD EPYC, Zen 5), of the network alone.
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

FRAME_MS = {128: 57.3, 64: 17.0, 32: 5.6, 16: 2.3}
STYLE = {"VGG-19": ("C0", "o"), "VGG-19, 10,500 iterations": ("C0", "*"),
         "built-in features": ("C2", "s"), "imitates width 128": ("C1", "^")}
FIGURES = {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "image_auroc": "image AUROC"}

here = Path(__file__).parent
runs = defaultdict(lambda: defaultdict(list))
for row in csv.DictReader((here / "widths.csv").open()):
    learns_by = row["learns_by"] + (", 10,500 iterations" if row["iterations"] == "10500" else "")
    runs[row["data"]][learns_by].append(row)

figure, axes = plt.subplots(len(runs), len(FIGURES), figsize=(11, 6.2), sharex=True)
for line, (data, kinds) in zip(axes, runs.items()):
    for axis, (key, title) in zip(line, FIGURES.items()):
        for learns_by, rows in kinds.items():
            colour, marker = STYLE[learns_by]
            values = defaultdict(list)
            for row in rows:
                values[FRAME_MS[int(row["width"])]].append(float(row[key]))
            for ms, of in values.items():
                axis.plot([ms] * len(of), of, marker, color=colour, alpha=0.45, markersize=5)
            means = sorted((ms, sum(of) / len(of)) for ms, of in values.items())
            axis.plot(*zip(*means), "-" + marker, color=colour, label=learns_by, markersize=8)
        axis.set_title(f"{data}: {title}", fontsize=10)
        axis.set_xscale("log")
        axis.set_xticks(list(FRAME_MS.values()), [f"{ms:g} ms\nwidth {width}" for width, ms in FRAME_MS.items()])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
axes[0][0].legend(fontsize=8, loc="lower right")
figure.tight_layout()
figure.savefig(here / "widths.png", dpi=90)
