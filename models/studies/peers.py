"""Other detectors on the same features and the same split, to stand beside the released packages.

Usage: peers.py DATA VGG.safetensors

DATA is a folder in MVTec AD's layout, VGG.safetensors the VGG-19 file that the packages were trained with (conv1_1 to conv3_1).
Images at 256×256; features of conv2_2 (averaged 2×2) and conv3_1, 384 channels at 64×64; maps enlarged to 256×256 and smoothed by
4 px. Prints pixel AUROC, AUPRO (to 30 % false positives) and image AUROC (the map's maximum), in all and for each kind of defect.

* PaDiM-like: a Gaussian at every place, of 100 channels drawn at random (Defard et al. 2021).
* one Gaussian: the same for all places.
* PatchCore-like: distance to the nearest of 4,000 patches chosen by farthest-point sampling (Roth et al. 2022).

Needs numpy, scipy, scikit-learn, pillow, safetensors and torch (for the convolutions and distances).
"""
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import roc_auc_score

SIDE, CELLS, CHANNELS, CORE, DRAWN = 256, 64, 100, 4_000, 60_000
MEAN = np.array([103.939, 116.779, 123.68], dtype=np.float32)[:, None, None]


def files(root):
    train = sorted((root / "train" / "good").iterdir())
    test = []
    for kind in sorted(folder.name for folder in (root / "test").iterdir()):
        for image in sorted((root / "test" / kind).iterdir()):
            mask = root / "ground_truth" / kind / f"{image.stem}_mask.png"
            test.append((image, kind, mask if mask.exists() else None))
    return train, test


class Features:
    def __init__(self, path):
        arrays = load_file(path)
        names = sorted({name.rsplit(".", 1)[0] for name in arrays}, key=str)
        self.layers = [
            (torch.from_numpy(arrays[f"{name}.weight"].astype("f")), torch.from_numpy(arrays[f"{name}.bias"].astype("f")))
            for name in names
        ]

    def of(self, path):
        pixels = np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.BILINEAR), dtype=np.float32)
        x = torch.from_numpy(pixels[:, :, ::-1].transpose(2, 0, 1) - MEAN)[None]
        kept = []
        with torch.no_grad():
            for index, (weight, bias) in enumerate(self.layers):
                if index in (2, 4):
                    x = torch.nn.functional.max_pool2d(x, 2)
                x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
                if index in (3, 4):
                    kept.append(x)
            kept[0] = torch.nn.functional.avg_pool2d(kept[0], 2)
            return torch.cat(kept, 1)[0].reshape(-1, CELLS * CELLS).T.contiguous()


def aupro(maps, masks, normal_limit=0.3):
    good = np.concatenate([m[~k] for m, k in zip(maps, masks)])
    regions = []
    for m, k in zip(maps, masks):
        parts, count = label(k, structure=np.ones((3, 3)))
        regions += [np.sort(m[parts == part]) for part in range(1, count + 1)]
    rates = np.linspace(0, normal_limit, 301)
    levels = np.quantile(good, 1 - rates)
    overlap = np.mean([1 - np.searchsorted(r, levels) / len(r) for r in regions], axis=0)
    return np.trapezoid(overlap, rates) / normal_limit


def report(name, maps, test):
    masks = [
        np.zeros((SIDE, SIDE), bool)
        if kind == "good"
        else None
        if mask is None
        else np.asarray(Image.open(mask).convert("L").resize((SIDE, SIDE), Image.NEAREST)) > 127
        for _, kind, mask in test
    ]
    kinds = np.array([kind for _, kind, _ in test])
    peaks = np.array([m.max() for m in maps])
    print(f"{name:15s} {'kind':10s} pixel AUROC  AUPRO  image AUROC")
    for kind in ["all", *sorted(set(kinds) - {"good"})]:
        chosen = [i for i, k in enumerate(kinds) if kind == "all" or k in (kind, "good")]
        seen = [i for i in chosen if masks[i] is not None]
        m, k = [maps[i] for i in seen], [masks[i] for i in seen]
        pixel = roc_auc_score(np.concatenate([x.ravel() for x in k]), np.concatenate([x.ravel() for x in m]))
        image = roc_auc_score(kinds[chosen] != "good", peaks[chosen])
        print(f"{'':15s} {kind:10s} {pixel:11.3f} {aupro(m, k):6.3f} {image:12.3f}", flush=True)


def enlarged(cells):
    cells = torch.as_tensor(cells, dtype=torch.float32).reshape(1, 1, CELLS, CELLS)
    big = torch.nn.functional.interpolate(cells, (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]
    return gaussian_filter(big.numpy(), 4)


def mahalanobis(x, mean, inverse):
    d = x - mean
    return torch.sqrt(torch.clamp(torch.einsum("nc,ncd,nd->n", d, inverse, d), min=0))


def main():
    root, weights = Path(sys.argv[1]), sys.argv[2]
    train, test = files(root)
    features = Features(weights)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(384, generator=generator)[:CHANNELS]
    drawn_each = max(1, DRAWN // len(train))
    some, drawn = [], []
    for path in train:
        x = features.of(path)
        some.append(x[:, chosen].half())
        drawn.append(x[torch.randperm(len(x), generator=generator)[:drawn_each]])
    print(f"{len(train)} good images, {len(test)} to test", flush=True)

    places = torch.stack(some).float()  # image, place, channel
    mean = places.mean(0)
    identity = torch.eye(CHANNELS)
    inverse = torch.empty(len(mean), CHANNELS, CHANNELS)
    for place in range(len(mean)):
        d = places[:, place] - mean[place]
        inverse[place] = torch.linalg.inv(d.T @ d / max(1, len(d) - 1) + 0.01 * identity)
    whole = places.reshape(-1, CHANNELS)
    whole_mean = whole.mean(0)
    total = torch.zeros(CHANNELS, CHANNELS)
    for part in whole.split(500_000):
        total += (part - whole_mean).T @ (part - whole_mean)
    whole_inverse = torch.linalg.inv(total / len(whole) + 0.01 * identity)[None]
    del places, whole, some

    drawn = torch.cat(drawn)
    core, nearest = [0], torch.cdist(drawn[:1], drawn)[0]
    while len(core) < min(CORE, len(drawn)):
        core.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (drawn - drawn[core[-1]]).square().sum(1).sqrt())
    bank = drawn[core]

    found = {"PaDiM-like": [], "one Gaussian": [], "PatchCore-like": []}
    for path, _, _ in test:
        x = features.of(path)
        few = x[:, chosen]
        found["PaDiM-like"].append(enlarged(mahalanobis(few, mean, inverse)))
        found["one Gaussian"].append(enlarged(mahalanobis(few, whole_mean, whole_inverse.expand(len(few), -1, -1))))
        found["PatchCore-like"].append(enlarged(torch.cdist(x, bank).min(1).values))
    for name, maps in found.items():
        report(name, maps, test)


main()
