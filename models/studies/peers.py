"""Other detectors on ImageNet features, to stand beside ours on the same split.

Usage: peers.py DATA WEIGHTS.safetensors [--size WIDTHxHEIGHT] [--json FILE]

DATA is a folder in MVTec AD's layout. WEIGHTS is one of

* VGG-16 for torchvision's normalisation (features.0 to features.14): conv2_2 and conv3_3,
* torchvision's VGG-11, or its vgg11_bn with the batch normalisation folded in (features.0 to
  features.8): the second and the fourth convolution,
* VGG-19 for Caffe's (conv1_1 to conv3_1): conv2_2 and conv3_1.

Images at --size (default 256x256). The shallower layer is averaged 2×2, so that both have 1/4 of the
image's size; each is divided by its mean and averaged over 3×3 places. Maps are enlarged to the
image's size and smoothed by 4 px. Prints pixel AUROC, AUPRO (to 30 % false positives) and image AUROC
(the map's maximum), in all and for each kind of defect.

* PaDiM-like: a Gaussian at every place, of 100 channels drawn at random (Defard et al. 2021).
* one Gaussian: the same for all places.
* PatchCore-like: distance to the nearest of 4,000 patches chosen by farthest-point sampling (Roth et
  al. 2022).

Needs numpy, scipy, scikit-learn, pillow, safetensors, onnx and onnxruntime.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter, label, uniform_filter
from sklearn.metrics import roc_auc_score

CHANNELS, CORE, DRAWN = 100, 4_000, 60_000
# Convolutions in order, "pool" between them; features are taken behind those in the second list.
VGG16 = (
    "features.0 features.2 pool features.5 features.7 pool features.10 features.12 features.14",
    "features.7 features.14",
)
VGG11 = "features.0 pool features.3 pool features.6 features.8", "features.3 features.8"
VGG19 = "conv1_1 conv1_2 pool conv2_1 conv2_2 pool conv3_1", "conv2_2 conv3_1"


def torchvision(pixels):
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return (pixels / 255 - mean) / deviation


def caffe(pixels):
    return pixels[:, :, ::-1] - np.array([103.939, 116.779, 123.68])


class Features:
    """An extractor as an ONNX graph."""

    def __init__(self, path, size):
        arrays = load_file(path)
        if "conv1_1.weight" in arrays:
            (plan, kept), self.normalise = VGG19, caffe
        elif "features.2.weight" in arrays:
            (plan, kept), self.normalise = VGG16, torchvision
        else:
            (plan, kept), self.normalise = VGG11, torchvision
        self.size, nodes, weights, last = size, [], [], "image"
        halving = {"kernel_shape": [2, 2], "strides": [2, 2]}
        for number, name in enumerate(plan.split()):
            if name == "pool":
                nodes.append(helper.make_node("MaxPool", [last], [f"pool{number}"], **halving))
                last = f"pool{number}"
                continue
            for what in ["weight", "bias"]:
                values = arrays[f"{name}.{what}"].astype("f")
                weights.append(numpy_helper.from_array(values, f"{name}.{what}"))
            inputs = [last, f"{name}.weight", f"{name}.bias"]
            nodes.append(helper.make_node("Conv", inputs, [f"{name}.sum"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"{name}.sum"], [name]))
            last = name
        shallow, deep = kept.split()
        nodes.append(helper.make_node("AveragePool", [shallow], ["shallow"], **halving))
        width, height = size
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        outputs = [value("shallow", None), value(deep, None)]
        graph = helper.make_graph(nodes, "vgg", [value("image", [1, 3, height, width])], outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        bytes_ = model.SerializeToString()
        self.session = onnxruntime.InferenceSession(bytes_, providers=["CPUExecutionProvider"])
        self.means = [1.0, 1.0]

    def layers(self, path):
        image = Image.open(path).convert("RGB").resize(self.size, Image.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32)
        image = self.normalise(pixels).transpose(2, 0, 1)[None].astype("f")
        return [layer[0] for layer in self.session.run(None, {"image": image})]

    def of(self, path):
        """Features of an image, places × channels."""
        layers = [layer / mean for layer, mean in zip(self.layers(path), self.means)]
        self.cells = layers[0].shape[1:]
        layers = [uniform_filter(layer, (0, 3, 3), mode="nearest") for layer in layers]
        return np.concatenate(layers).reshape(sum(map(len, layers)), -1).T.copy()


def files(root):
    train = sorted((root / "train" / "good").iterdir())
    test = []
    for kind in sorted(folder.name for folder in (root / "test").iterdir()):
        for image in sorted((root / "test" / kind).iterdir()):
            mask = root / "ground_truth" / kind / f"{image.stem}_mask.png"
            test.append((image, kind, mask if mask.exists() else None))
    return train, test


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


def report(name, maps, test, size):
    masks = [
        np.zeros(size[::-1], bool)
        if kind == "good"
        else None
        if mask is None
        else np.asarray(Image.open(mask).convert("L").resize(size, Image.NEAREST)) > 127
        for _, kind, mask in test
    ]
    kinds = np.array([kind for _, kind, _ in test])
    peaks = np.array([m.max() for m in maps])
    print(f"{name:15s} {'kind':10s} pixel AUROC  AUPRO  image AUROC")
    rows = {}
    for kind in ["all", *sorted(set(kinds) - {"good"})]:
        chosen = [i for i, k in enumerate(kinds) if kind == "all" or k in (kind, "good")]
        seen = [i for i in chosen if masks[i] is not None]
        m, k = [maps[i] for i in seen], [masks[i] for i in seen]
        pixel = roc_auc_score(np.concatenate([x.ravel() for x in k]), np.concatenate([x.ravel() for x in m]))
        image = roc_auc_score(kinds[chosen] != "good", peaks[chosen])
        rows[kind] = {"pixel_auroc": pixel, "aupro": aupro(m, k), "image_auroc": image}
        print(f"{'':15s} {kind:10s} {pixel:11.3f} {rows[kind]['aupro']:6.3f} {image:12.3f}", flush=True)
    return rows


def inverse_of(residuals):
    channels = residuals.shape[-1]
    covariance = residuals.T @ residuals / max(1, len(residuals) - 1)
    return np.linalg.inv(covariance + 0.01 * np.identity(channels, "f"))


def mahalanobis(x, mean, inverse):
    d = x - mean
    d = d[:, None, :] @ inverse @ d[:, :, None]
    return np.sqrt(np.maximum(d[:, 0, 0], 0))


def squared_distances(x, bank):
    products = (x * x).sum(1)[:, None] - 2 * x @ bank.T + (bank * bank).sum(1)
    return np.maximum(products, 0)


def core_set(drawn):
    core, nearest = [0], squared_distances(drawn, drawn[:1])[:, 0]
    while len(core) < min(CORE, len(drawn)):
        core.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, squared_distances(drawn, drawn[core[-1:]])[:, 0])
    return drawn[core]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = tuple(int(side) for side in options.size.split("x"))
    started = time.monotonic()
    train, test = files(options.data)
    features = Features(options.weights, size)
    features.means = np.mean([[layer.mean() for layer in features.layers(path)] for path in train[:50]], 0)
    rng = np.random.default_rng(0)
    chosen = None
    drawn_each = max(1, DRAWN // len(train))
    some, drawn = [], []
    for path in train:
        x = features.of(path)
        if chosen is None:
            chosen = rng.permutation(x.shape[1])[:CHANNELS]
        some.append(x[:, chosen].astype(np.float16))
        drawn.append(x[rng.permutation(len(x))[:drawn_each]])
    print(f"{len(train)} good images, {len(test)} to test, {options.size}", flush=True)

    places = np.stack(some)  # image, place, channel
    mean = places.mean(0, dtype=np.float32)
    inverse = np.stack([inverse_of(places[:, place].astype("f") - mean[place]) for place in range(len(mean))])
    whole_mean = mean.mean(0)
    residuals = places[rng.permutation(len(places))[:200]].reshape(-1, CHANNELS).astype("f") - whole_mean
    whole_inverse = inverse_of(residuals)[None]
    del places, some, residuals
    bank = core_set(np.concatenate(drawn))

    def enlarged(cells):
        height, width = features.cells
        cells = Image.fromarray(cells.astype("f").reshape(height, width))
        return gaussian_filter(np.asarray(cells.resize(size, Image.BILINEAR)), 4)

    found = {"PaDiM-like": [], "one Gaussian": [], "PatchCore-like": []}
    for path, _, _ in test:
        x = features.of(path)
        few = x[:, chosen]
        found["PaDiM-like"].append(enlarged(mahalanobis(few, mean, inverse)))
        found["one Gaussian"].append(enlarged(mahalanobis(few, whole_mean, whole_inverse)))
        found["PatchCore-like"].append(enlarged(np.sqrt(squared_distances(x, bank).min(1))))
    rows = {name: report(name, maps, test, size) for name, maps in found.items()}
    if options.json:
        described = {"data": options.data.name, "weights": options.weights.name, "size": options.size}
        described |= {"minutes": round((time.monotonic() - started) / 60, 1), "detectors": rows}
        options.json.write_text(json.dumps(described, indent=1))


main()
