"""Good images with defects drawn into them, to choose settings by without looking at test images.

    drawings.py RUN OUT [EACH] [SEED]
    host-trainer evaluate --package PACKAGE --data OUT --json

RUN is a training run's folder: the good images that it held out (`run.json`) become OUT/test/good, grey and 256×256 px, and EACH (40 unless
said) of every kind below lie in MVTec AD's layout beside them, by SEED (1). Nothing is taken from the trainer's own drawings
(`host-trainer/src/segmentation/defect.rs`), which an segmentation network learns from: this program draws by other means (smoothed noise, lines drawn
four times as large and averaged), so that what is found here is more than what was learned by heart.

Needs numpy, scipy and pillow. 11 s for 16 kinds of 40.
"""
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, maximum_filter, sobel

SIDE, LINE_SCALE, STEP_PX = 256, 4, 3
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]
# A pixel is marked where it was changed by a grey value or more, or one so near was.
LEAST_CHANGE, NEAR_PX, LEAST_PIXELS = 1, 5, 6


def noise(rng, sigma_px):
    """Smooth noise of mean 0 and spread 1."""
    values = gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma_px, mode="wrap")
    return values / values.std()


def scaled(rng, low, high):
    """A number whose logarithm is evenly distributed."""
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def factor(rng, low, high):
    """A factor of that logarithm, either way."""
    by = rng.uniform(low, high)
    return np.exp(by if rng.random() < 0.5 else -by)


def turned(x, y, angle, stretch):
    """Coordinates around a place, along an axis and across it."""
    along = ((COLUMNS - x) * np.cos(angle) + (ROWS - y) * np.sin(angle)) * stretch
    across = ((ROWS - y) * np.cos(angle) - (COLUMNS - x) * np.sin(angle)) / stretch
    return along, across


def area(rng, low, high):
    """A soft mask over a share of the frame: a blot, one side of a line, or an ellipse."""
    share, form = scaled(rng, low, high), rng.integers(3)
    if form == 0:
        height = noise(rng, rng.uniform(18, 50))
    elif form == 1:
        angle = rng.uniform(0, 2 * np.pi)
        height = (COLUMNS - rng.uniform(0, SIDE)) * np.cos(angle) + (ROWS - rng.uniform(0, SIDE)) * np.sin(angle)
        height = height + 10 * noise(rng, 12)
    else:
        (x, y), angle = rng.uniform(0, SIDE, 2), rng.uniform(0, np.pi)
        stretch = np.exp(rng.uniform(-0.7, 0.7))
        height = -np.hypot(*turned(x, y, angle, stretch)) + 6 * noise(rng, 10)
    mask = height > np.quantile(height, 1 - share)
    return gaussian_filter(mask.astype(float), rng.uniform(0.7, 4))


def spot(rng, low_px, high_px, at=None):
    """A round or oval spot with a ragged edge."""
    radius = scaled(rng, low_px, high_px)
    y, x = at if at is not None else rng.uniform(0, SIDE, 2)
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.5, 0.5))
    along, across = turned(x, y, angle, stretch)
    inside = np.hypot(along, across) < radius + radius * 0.3 * noise(rng, max(1.5, radius / 2))
    return gaussian_filter(inside.astype(float), rng.uniform(0.6, 1.4))


def line(points, width_px):
    image = Image.new("L", (SIDE * LINE_SCALE, SIDE * LINE_SCALE))
    places = [(x * LINE_SCALE, y * LINE_SCALE) for x, y in points]
    ImageDraw.Draw(image).line(places, fill=255, width=max(1, round(width_px * LINE_SCALE)))
    return np.asarray(image.resize((SIDE, SIDE), Image.BOX)).astype(float) / 255


def grain(image):
    """The direction along which an image changes least."""
    x, y = sobel(image, 1), sobel(image, 0)
    return 0.5 * np.arctan2(2 * (x * y).mean(), (x * x - y * y).mean()) + np.pi / 2


def near_border(rng):
    """A place near the border and the direction inwards."""
    side, along, deep = rng.integers(4), rng.uniform(0, SIDE), rng.uniform(0, 10)
    far = SIDE - 1 - deep
    return [(along, deep, np.pi / 2), (along, far, -np.pi / 2), (deep, along, 0.0), (far, along, np.pi)][side]


def crack(rng, direction=None, start=None, longest_px=110, shortest_px=12):
    """A winding line, here and there fainter."""
    if start is None:
        x, y = rng.uniform(0, SIDE, 2)
        direction = rng.uniform(0, 2 * np.pi) if direction is None else direction
    else:
        x, y = start
    points, angle = [(x, y)], direction
    steps = int(scaled(rng, shortest_px, longest_px) / STEP_PX) + 2
    turn = rng.uniform(0.1, 0.5)
    for _ in range(steps):
        angle = direction + 0.7 * (angle - direction) + rng.normal(0, turn)
        x, y = x + STEP_PX * np.cos(angle), y + STEP_PX * np.sin(angle)
        points.append((x, y))
    mask = gaussian_filter(line(points, rng.uniform(0.8, 2.4)), rng.uniform(0.4, 0.8))
    return np.clip(mask * (1 + 0.35 * noise(rng, 9)), 0, 1)


def blend(image, other, mask):
    return image * (1 - mask) + other * mask


def darker(image, mask, rng, low=0.15, high=0.65):
    return image * (1 - mask * rng.uniform(low, high))


def brighter_or_darker(image, mask, rng, low, high):
    return blend(image, image * factor(rng, low, high), mask)


def broken(image, mask, rng):
    """Another material shows."""
    level = np.exp(rng.uniform(-1.2, 0.6)) * (1 + 0.25 * noise(rng, rng.uniform(1, 8)))
    return blend(image, np.clip(image.mean() * level, 0, 255), mask * rng.uniform(0.6, 1))


# Each takes a good image, another one and a generator; gives the image with a defect, and the defect's mask.


def brightness(image, _, rng):
    mask = area(rng, 0.02, 0.3)
    return brighter_or_darker(image, mask, rng, 0.08, 0.35), mask


def contrast(image, _, rng):
    mask, base = area(rng, 0.02, 0.3), gaussian_filter(image, 6)
    return blend(image, base + (image - base) * factor(rng, 0.3, 0.8), mask), mask


def blur(image, _, rng):
    mask = area(rng, 0.02, 0.3)
    return blend(image, gaussian_filter(image, rng.uniform(0.7, 2.2)), mask), mask


def texture(image, other, rng):
    mask = area(rng, 0.02, 0.3)
    detail = (other - gaussian_filter(other, 6)) * image.mean() / max(other.mean(), 5)
    return blend(image, gaussian_filter(image, 6) + detail, mask), mask


def hole(image, _, rng):
    mask = spot(rng, 2, 8)
    return darker(image, mask, rng, 0.2, 0.75), mask


def any_crack(image, _, rng):
    mask = crack(rng)
    return darker(image, mask, rng), mask


def rough(image, _, rng):
    mask = spot(rng, 6, 30)
    return image + mask * noise(rng, rng.uniform(0.8, 3)) * image.mean() * rng.uniform(0.06, 0.3), mask


def scuff(image, _, rng):
    mask = spot(rng, 6, 35)
    return brighter_or_darker(image, mask, rng, 0.1, 0.4), mask


def paste(image, other, rng):
    mask = spot(rng, 5, 25)
    piece = np.roll(other, tuple(rng.integers(0, SIDE, 2)), (0, 1))
    piece = piece[::-1] if rng.random() < 0.5 else piece.T
    return blend(image, piece, mask * rng.uniform(0.5, 1)), mask


def smudge(image, _, rng):
    mask = area(rng, 0.003, 0.06)
    film = image.mean() * (1 + 0.3 * noise(rng, rng.uniform(1, 12)))
    return blend(image, film, mask * rng.uniform(0.2, 0.7)), mask


def scratch(image, _, rng):
    angle, (x, y), length = rng.uniform(0, np.pi), rng.uniform(0, SIDE, 2), scaled(rng, 15, 150)
    ends = [(x, y), (x + length * np.cos(angle), y + length * np.sin(angle))]
    mask = gaussian_filter(line(ends, rng.uniform(0.8, 3)), 0.6)
    return brighter_or_darker(image, mask, rng, 0.15, 0.6), mask


def broken_off(image, _, rng):
    side = rng.integers(4)
    deep = [ROWS, SIDE - 1 - ROWS, COLUMNS, SIDE - 1 - COLUMNS][side]
    along = [COLUMNS, COLUMNS, ROWS, ROWS][side]
    middle, width, depth = rng.uniform(0, SIDE), rng.uniform(8, 60), rng.uniform(6, 35)
    profile = depth * np.exp(-(((along - middle) / width) ** 2)) * (1 + 0.4 * noise(rng, 6))
    mask = gaussian_filter((deep < profile - 1.5).astype(float), 1)
    return broken(image, mask, rng), mask


def chip_at_border(image, _, rng):
    x, y, _ = near_border(rng)
    mask = spot(rng, 3, 13, (y, x))
    return broken(image, mask, rng), mask


def crack_at_border(image, _, rng):
    x, y, inwards = near_border(rng)
    mask = crack(rng, inwards + rng.uniform(-1, 1), (x, y), 70, 10)
    return darker(image, mask, rng), mask


def crack_along_grain(image, _, rng):
    mask = crack(rng, grain(image) + rng.uniform(-0.2, 0.2) + np.pi * rng.integers(2))
    return darker(image, mask, rng), mask


def crack_across_grain(image, _, rng):
    mask = crack(rng, grain(image) + np.pi / 2 + rng.uniform(-0.4, 0.4))
    return darker(image, mask, rng), mask


AREAS = [brightness, contrast, blur, texture]
DEFECTS = [hole, any_crack, rough, scuff, paste, smudge, scratch, broken_off]
HARD = [chip_at_border, crack_at_border, crack_along_grain, crack_across_grain]


def save(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    each, seed = (int(text) for text in sys.argv[3:5] + ["40", "1"][len(sys.argv[3:5]):])
    held_out = json.loads((run / "run.json").read_text())["held_out"]
    size = (SIDE, SIDE)
    images = [np.asarray(Image.open(path).convert("L").resize(size, Image.BILINEAR)).astype(float) for path in held_out]
    for index, image in enumerate(images):
        save(image, out / "test" / "good" / f"{index:03}.png")
    for number, draw in enumerate(AREAS + DEFECTS + HARD):
        done, tried = 0, 0
        while done < each:
            rng = np.random.default_rng([seed, number, tried])
            tried += 1
            image, other = (images[int(rng.integers(len(images)))] for _ in range(2))
            drawn, mask = draw(image, other, rng)
            drawn = np.clip(drawn, 0, 255).round()
            changed = maximum_filter(np.abs(drawn - image) >= LEAST_CHANGE, NEAR_PX)
            mask = (mask > 0.3) & changed
            if mask.sum() < LEAST_PIXELS:
                continue
            save(drawn, out / "test" / draw.__name__ / f"{done:03}.png")
            save(255 * mask, out / "ground_truth" / draw.__name__ / f"{done:03}_mask.png")
            done += 1


if __name__ == "__main__":
    main()
