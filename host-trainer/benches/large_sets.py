"""Makes the two sets of BENCHMARKS.md's section Large sets: good frames of one surface, no two alike.

    python host-trainer/benches/large_sets.py FOLDER [--small 10000] [--large 200]

Needs numpy and Pillow. FOLDER gets small/train/good (grey JPEGs of 1024x1024, 1.1 GB) and large/train/good (colour
JPEGs of 5472x3648, 0.5 GB). A frame is a window of one random texture at a random place, brighter or darker, with
noise that a thousandth of its pixels get.
"""
import argparse
import pathlib

import numpy as np
from PIL import Image, ImageFilter


def texture(width, height, channels, rng):
    """A brushed surface: noise, smoothed far along rows and little across."""
    noise = rng.integers(0, 256, (height, width // 16, channels), dtype=np.uint8)
    image = Image.fromarray(noise.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1.5))) // 4 + 80


def make(folder, count, width, height, channels, rng):
    folder.mkdir(parents=True, exist_ok=True)
    spare = 256
    whole = texture(width + spare, height + spare, channels, rng)
    for index in range(count):
        left, top = rng.integers(0, spare, 2)
        frame = whole[top : top + height, left : left + width] + np.uint8(rng.integers(0, 16))
        flat = frame.reshape(-1)
        flat[rng.integers(0, flat.size, flat.size // 1000)] += np.uint8(20)
        Image.fromarray(frame).save(folder / f"{index:05}.jpg", quality=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=200)
    arguments = parser.parse_args()
    rng = np.random.default_rng(31)
    make(arguments.folder / "small/train/good", arguments.small, 1024, 1024, 1, rng)
    make(arguments.folder / "large/train/good", arguments.large, 5472, 3648, 3, rng)


if __name__ == "__main__":
    main()
