"""One training step of host-trainer beside the same step in Python PyTorch 2.13.0, alternated, on the same threads.

    python host-trainer/benches/step_vs_pytorch.py target/debug/host-trainer [--threads 2] [--steps 8] [--rounds 3]

Needs a Python with torch==2.13.0 and safetensors. Paper settings: width 128, batch 64, VGG-11 to its third max-pool
(random weights: only the arithmetic counts). The Python side gets its batch for free; host-trainer's time includes
waiting for its workers. Prints seconds a step (medians over the rounds) and their ratio; the aim is at most 1.15.
"""
import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F


def network(width):
    def down(i, o):
        return nn.Conv2d(i, o, 3, 2, 1)

    def up(i, o):
        return nn.ConvTranspose2d(i, o, 3, 2, 1)

    layers = [down(3, width), down(width, 2 * width), down(2 * width, 4 * width)]
    layers += [up(4 * width, 2 * width), up(2 * width, width), up(width, 3)]
    return nn.Sequential(*[m for layer in layers[:-1] for m in (layer, nn.LeakyReLU(0.01))], layers[-1])


def features():
    def conv(i, o):
        return [nn.Conv2d(i, o, 3, 1, 1), nn.ReLU()]

    pool = nn.MaxPool2d(2)
    net = nn.Sequential(*conv(3, 64), pool, *conv(64, 128), pool, *conv(128, 256), *conv(256, 256), pool)
    return net.requires_grad_(False)


def pytorch(steps):
    net, extract = network(128), features()
    adam = torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    clean = torch.rand(64, 3, 65, 65) * 2 - 1
    noisy = (clean + 0.3 * torch.randn_like(clean)).clamp(-1, 1)

    def look(x):
        return extract(((x + 1) / 2 - mean) / deviation)

    def step():
        x = noisy + net(noisy)
        inside = x.clamp(-1, 1)
        repaired = inside + 0.01 * (x - inside)
        with torch.no_grad():
            wanted = look(clean)
        loss = F.mse_loss(look(repaired), wanted)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - started) / steps


def host_trainer(program, threads, steps, folder):
    """Seconds a step between the first checkpoint and the last, so that start-up does not count."""
    data, run = folder / "data", folder / f"run-{time.monotonic_ns()}"
    if not data.exists():
        subprocess.run([program, "synth", data, "--train", "4", "--test-good", "1", "--per-kind", "1"], check=True)
    base = [program, "train", "--data", data, "--run", run, "--device", "cpu", "--threads", str(threads)]

    def seconds():
        with open(run / "checkpoint.safetensors", "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return float(json.loads(file.read(length))["__metadata__"]["seconds"])

    subprocess.run([*base, "--iterations", "1"], check=True, capture_output=True)
    first = seconds()
    subprocess.run([*base, "--iterations", str(1 + steps), "--resume"], check=True, capture_output=True)
    return (seconds() - first) / steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            theirs.append(pytorch(options.steps))
            ours.append(host_trainer(options.program.resolve(), options.threads, options.steps, pathlib.Path(folder)))
            print(f"PyTorch {theirs[-1]:.3f} s, host-trainer {ours[-1]:.3f} s", flush=True)
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"medians: PyTorch {theirs:.3f} s a step, host-trainer {ours:.3f} s, ratio {ours / theirs:.2f}")


main()
