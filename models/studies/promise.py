"""Is the promise of a calibrated threshold kept? Python 3, no other packages.

    edge-runtime score --json --package PACKAGE IMAGES... > scores.json    # good images that the package never saw
    python3 promise.py scores.json GROUPS.csv [SHARE]

In each of 20 random splits a share of the parts (half of them unless said) calibrates, and the others are inspected. The threshold is
the highest score of those that calibrate. Two things are promised of it at 95 %, as `host-trainer calibrate` states them: a bound on the
rate in the long run (Clopper and Pearson's for none of n rejected), and how many of so many parts as are inspected may be rejected (the
beta-binomial distribution's). A part is rejected when any of its images is; images of one part stay together (`file,group`). Last come
10,000 splits more, for what 20 cannot tell from chance.
"""
import csv
import json
import os
import random
import sys

scores, groups = sys.argv[1:3]
share = float(sys.argv[3]) if len(sys.argv) > 3 else 0.5
group_of = {os.path.basename(row["file"]): row["group"] for row in csv.DictReader(open(groups))}
parts = {}
for image in json.load(open(scores))["images"]:
    group = group_of[os.path.basename(image["image"])]
    parts[group] = max(parts.get(group, 0.0), image["score"])
calibrate = int(len(parts) * share)
inspect = len(parts) - calibrate
bound = 1 - 0.05 ** (1 / calibrate)


def of_a_lot(parts, lot):
    """The least x so that with probability 0.95 no more than x of the lot score above all of the parts."""
    # All orders of parts and lot are as likely: the highest is of the lot, and the next, and so on.
    more = 1.0
    for x in range(lot):
        more *= (lot - x) / (lot + parts - x)
        if more <= 0.05:
            return x
    return lot


lot = of_a_lot(calibrate, inspect)
rng = random.Random(0)


def split():
    order = sorted(parts)
    rng.shuffle(order)
    threshold = max(parts[part] for part in order[:calibrate])
    return sum(parts[part] > threshold for part in order[calibrate:])


def answer(kept):
    return "yes" if kept else "no"


print(f"{len(parts)} parts, {calibrate} to calibrate, {inspect} inspected: at most {bound:.1%} in the long run, {lot} of {inspect}\n")
print("| split | rejected | long run kept | lot kept |\n|---|---|---|---|")
kept = [0, 0]
for number in range(20):
    rejected = split()
    both = [rejected <= bound * inspect, rejected <= lot]
    kept = [sum(pair) for pair in zip(kept, both)]
    print(f"| {number + 1} | {rejected} of {inspect}, {rejected / inspect:.1%} | {answer(both[0])} | {answer(both[1])} |")
print(f"\nlong run kept in {kept[0]} of 20 splits, lot in {kept[1]}")
many = [split() for _ in range(10_000)]
shares = [sum(r <= limit for r in many) / len(many) for limit in (bound * inspect, lot)]
print(f"of 10,000 splits: {shares[0]:.1%} and {shares[1]:.1%}")
