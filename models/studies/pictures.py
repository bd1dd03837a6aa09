"""The pictures of a model's card.

    pictures.py examples MAPS DATA BRIGHTEST MARKED OUT.jpg
    pictures.py marks MAPS GROUPS BRIGHTEST OUT.jpg

MAPS is what `host-trainer evaluate --maps MAPS` wrote. *examples*: of each kind, and of good images, the one whose score is the median:
image, anomaly map (black at 0, brightest from BRIGHTEST on), what lies above MARKED in red, ground truth (DATA: the data set). *marks*:
the eight good images with the highest scores, one of each group of GROUPS (`file,group`, as `train --groups` takes them), and their maps.

Needs numpy, pillow and matplotlib.
"""
import csv
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

LONGEST_PX, GAP_PX, TITLE_PX, MOST = 200, 6, 64, 8


def frames(maps):
    return json.loads((maps / "frames.json").read_text())


def loaded(maps, frame):
    """An image and its map, as large as the image."""
    image = Image.open(frame["image"]).convert("L")
    return image, Image.open(maps / frame["map"]).resize(image.size, Image.BILINEAR)


def coloured(scores, brightest):
    values = np.clip(np.asarray(scores) / brightest, 0, 1)
    return Image.fromarray((matplotlib.colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8))


def examples(maps, data, brightest, marked, out):
    shown = frames(maps)
    kinds = sorted({frame["kind"] for frame in shown} - {"good"}) + ["good"]
    rows = []
    for kind in kinds:
        ranked = sorted((frame for frame in shown if frame["kind"] == kind), key=lambda frame: frame["score"])
        frame = ranked[len(ranked) // 2]
        image, scores = loaded(maps, frame)
        over = np.array(image.convert("RGB"))
        over[np.asarray(scores) > marked] = (230, 20, 20)
        truths = list((data / "ground_truth" / kind).glob(Path(frame["image"]).stem + "_mask.*"))
        truth = Image.open(truths[0]).convert("L") if truths else Image.new("L", image.size)
        rows.append((kind, [image, coloured(scores, brightest), Image.fromarray(over), truth]))
    scaled = lambda image: [max(1, round(side * LONGEST_PX / max(image.size))) for side in image.size]
    heights = [scaled(images[0])[1] + GAP_PX for _, images in rows]
    sheet = Image.new("RGB", (TITLE_PX + 4 * (LONGEST_PX + GAP_PX), sum(heights) + GAP_PX), "gainsboro")
    top = GAP_PX
    for (kind, images), height in zip(rows, heights):
        ImageDraw.Draw(sheet).text((4, top + height // 2 - 8), kind, fill="black")
        for column, image in enumerate(images):
            width, _ = size = scaled(image)
            left = TITLE_PX + column * (LONGEST_PX + GAP_PX) + (LONGEST_PX - width) // 2
            sheet.paste(image.convert("RGB").resize(size, Image.LANCZOS), (left, top))
        top += height
    sheet.save(out, quality=88)


def marks(maps, groups, brightest, out):
    with open(groups, newline="") as file:
        group_of = {Path(row["file"]).name: row["group"] for row in csv.DictReader(file)}
    good = [frame for frame in frames(maps) if frame["kind"] == "good"]
    chosen = {}
    for frame in sorted(good, key=lambda frame: -frame["score"]):
        name = Path(frame["image"]).name
        chosen.setdefault(group_of.get(name, name), frame)
    side, pairs = 150, [loaded(maps, frame) for frame in list(chosen.values())[:MOST]]
    sheet = Image.new("RGB", (len(pairs) * (side + 4) - 4, 2 * side + 4), "white")
    for column, (image, scores) in enumerate(pairs):
        for row, shown in enumerate([image, coloured(scores, brightest)]):
            sheet.paste(shown.convert("RGB").resize((side, side), Image.LANCZOS), (column * (side + 4), row * (side + 4)))
    sheet.save(out, quality=88)
    print("scores", ", ".join(f"{frame['score']:.1f}" for frame in list(chosen.values())[:MOST]))


def main():
    match sys.argv[1:]:
        case ["examples", maps, data, brightest, marked, out]:
            examples(Path(maps), Path(data), float(brightest), float(marked), out)
        case ["marks", maps, groups, brightest, out]:
            marks(Path(maps), groups, float(brightest), out)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
