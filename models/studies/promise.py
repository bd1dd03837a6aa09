"""Is the promise of a calibrated threshold kept? Python 3, no other packages.

    edge-runtime score --json --package PACKAGE IMAGES... > scores.json    # good images that the package never saw
    python3 promise.py scores.json GROUPS.csv

In each of 20 random splits half of the parts calibrate (threshold: their highest score; bound: Clopper and Pearson's at 95 %
for none of n rejected, as `host-trainer calibrate` states it), and the other half is inspected. A part is rejected when any of
its images is; images of one part stay together (`file,group`).
"""
import csv
import json
import os
import random
import sys

scores, groups = sys.argv[1:]
group_of = {os.path.basename(row["file"]): row["group"] for row in csv.DictReader(open(groups))}
parts = {}
for image in json.load(open(scores))["images"]:
    group = group_of[os.path.basename(image["image"])]
    parts[group] = max(parts.get(group, 0.0), image["score"])
rng = random.Random(0)
kept = 0
print(f"{len(parts)} parts\n\n| split | parts to calibrate | bound | parts inspected | rejected | kept |\n|---|---|---|---|---|---|")
for split in range(20):
    order = sorted(parts)
    rng.shuffle(order)
    half = len(order) // 2
    threshold = max(parts[part] for part in order[:half])
    rest = order[half:]
    rejected = sum(parts[part] > threshold for part in rest) / len(rest)
    bound = 1 - 0.05 ** (1 / half)
    kept += rejected <= bound
    print(f"| {split + 1} | {half} | {bound:.1%} | {len(rest)} | {rejected:.1%} | {'yes' if rejected <= bound else 'no'} |")
print(f"\nkept in {kept} of 20 splits")
