"""Fits a package to every surface of sets.toml without a flag, evaluates it, and prints a table.

Usage: benchmark.py --data FOLDER --out FOLDER [--program host-trainer] [--only NAME]… [--seed N]…
                    [--minutes N] [--features FILE] [--add NAME=FOLDER]…

--data is the folder of the data sets, --out takes packages and results. What is finished there is
not done again, so the same command goes on after an interruption; a run of `fit` goes on too. --add
takes any folder in MVTec AD's layout as one more surface. Each choice of `fit` is made on good
images alone: the figures of the table decide nothing.

Needs Python 3.11. The detectors beside it are measured by ../peers.py --json into the same folder.
"""
import argparse
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--program", default="host-trainer")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--minutes", type=int)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--add", action="append", default=[], metavar="NAME=FOLDER")
    return parser.parse_args()


def run(words, log):
    """Runs a command; its standard output, and the log of both."""
    words = [str(word) for word in words]
    with log.open("a") as file:
        file.write("$ " + " ".join(words) + "\n")
        file.flush()
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=file, text=True)
        file.write(done.stdout)
    if done.returncode:
        sys.exit(f"{words[0]} {words[1]} failed with {done.returncode}: see {log}")
    return done.stdout


def folder_of(name, job, options):
    """The data set's folder; a synthetic one is painted first."""
    if "texture" not in job:
        return options.data / job["data"]
    folder = options.out / "synth" / job["texture"]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        words = ["synth", folder, "--texture", job["texture"], "--train", 60]
        run([options.program, *words], options.out / f"{name}.log")
    return folder


def measure(name, job, seed, options):
    result = options.out / f"{name}-{seed}.json"
    if result.exists():
        return json.loads(result.read_text())
    data, log = folder_of(name, job, options), options.out / f"{name}-{seed}.log"
    package = options.out / f"{name}-{seed}.awr"
    words = ["fit", "--data", data, "--out", package, "--key", options.out / "signing.key", "--seed", seed]
    if options.minutes:
        words += ["--minutes", options.minutes]
    if options.features:
        words += ["--features", options.features]
    if "groups" in job:
        words += ["--groups", data / job["groups"]]
    started = time.monotonic()
    if not package.exists():
        run([options.program, *words], log)
    minutes = (time.monotonic() - started) / 60
    words = ["evaluate", "--json", "--package", package, "--data", data, "--out", options.out / f"{name}-{seed}-report"]
    found = json.loads(run([options.program, *words], log))
    found = {
        "set": name,
        "seed": seed,
        "fit_minutes": round(minutes, 1),
        "package_bytes": package.stat().st_size,
        "evaluation": found,
    }
    result.write_text(json.dumps(found, indent=1))
    return found


def figure(value):
    return "–" if value is None else f"{value:.3f}"


def row(found):
    total = found["evaluation"]
    percent = lambda rate: "–" if rate is None else f"{100 * rate['rate']:.0f} %"
    return (
        f"| {found['set']} | {found['seed']} | {figure(total['pixel_auroc'])} / {figure(total['aupro'])} / "
        f"{figure(total['image_auroc'])} | {percent(total['misses'])} | {percent(total['false_rejects'])} | "
        f"{found['package_bytes'] / 1e6:.1f} MB | {total['frame_ms']:.0f} ms | {found['fit_minutes']:.0f} min |"
    )


def main():
    options = arguments()
    jobs = tomllib.loads((HERE / "sets.toml").read_text())
    for more in options.add:
        name, _, folder = more.partition("=")
        jobs[name] = {"data": Path(folder).absolute()}
    unknown = set(options.only) - set(jobs)
    if unknown:
        sys.exit(f"expected one of {', '.join(jobs)}, found {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    found = [
        measure(name, job, seed, options)
        for name, job in jobs.items()
        if not options.only or name in options.only
        for seed in options.seed or [0]
    ]
    print("| surface | seed | pixel AUROC / AUPRO / image AUROC | missed | good ones rejected | package | frame | fit |")
    print("|---|---|---|---|---|---|---|---|")
    for each in found:
        print(row(each))
    for name in ["pixel_auroc", "aupro", "image_auroc"]:
        values = [each["evaluation"][name] for each in found]
        values = [value for value in values if value is not None]
        if values:
            print(f"{name}: mean {sum(values) / len(values):.3f}, worst {min(values):.3f}")


main()
