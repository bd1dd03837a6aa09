"""Compares engines on the same graphs and frames, for `cargo xtask bench-inference`.

Usage: bench_inference.py ENGINE_SPEED SECONDS JSON NAME=ONNX...

NAME is the network's width; `-upsampled` after it means transposed layers of 5×5, `-int8` a
quantised network. The engines take turns on the same frame until SECONDS have passed, at least five
times. A row of the table has their medians.

ENGINE_SPEED is the example of the crate `scoring` that reads `COUNT HEIGHT WIDTH` and answers with
milliseconds. Our engine does more than the others in that time: it also sums the magnitudes of each
pixel's channels.
"""
import json
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy
import onnxruntime
import openvino

LAYERS = [(3, 1, 2), (1, 2, 4), (2, 4, 8), (4, 2, 8), (2, 1, 4), (1, 3, 2)]


def flops(width, upsampled, side_y, side_x):
    """Floating-point operations of one frame, two for each multiply-add.

    A layer has nine taps for each pixel of the smaller of its input and output (paper, IV-C), and
    25 where it upsamples.
    """
    total = 0
    channels = lambda factor, index: 3 if index in ((0, 0), (5, 1)) else factor * width
    for index, (inputs, outputs, step) in enumerate(LAYERS):
        pixels = ((side_y - 1) // step + 1) * ((side_x - 1) // step + 1)
        taps = 25 if upsampled and index >= 3 else 9
        total += 2 * taps * channels(inputs, (index, 0)) * channels(outputs, (index, 1)) * pixels
    return total


def frame(height, width, count=1):
    values = numpy.arange(count * 3 * height * width) * 7919 % 1021 / 510.0 - 1.0
    return values.astype(numpy.float32).reshape(count, 3, height, width)


def gemm_rate(threads):
    """The best GFLOP/s of numpy's matrix product.

    It runs in a process of its own, because numpy fixes its number of threads when it is loaded.
    """
    code = """
import numpy, time
a = numpy.random.rand(1024, 1024).astype("f"); b = numpy.random.rand(1024, 2048).astype("f")
best = 9.0
for _ in range(30):
    start = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - start)
print(2 * 1024 * 1024 * 2048 / best / 1e9)
"""
    fixed = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    environment = {**os.environ, **fixed}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    return float(output)


class Ours:
    def __init__(self, program, onnx, width, threads, kind):
        command = [program, onnx, str(width), str(threads), kind]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.loaded_ms = float(self.child.stdout.readline())

    def run(self, height, width, count):
        self.child.stdin.write(f"{count} {height} {width}\n")
        self.child.stdin.flush()
        return float(self.child.stdout.readline())

    def stop(self):
        self.child.stdin.close()
        self.child.wait()


class Onnxruntime:
    def __init__(self, onnx, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(onnx, options, providers=providers)
        self.name = self.session.get_inputs()[0].name

    def run(self, height, width, count):
        values = frame(height, width, count)
        start = time.perf_counter()
        self.session.run(None, {self.name: values})
        return (time.perf_counter() - start) * 1e3

    def stop(self):
        pass


class Openvino:
    def __init__(self, onnx, threads):
        self.onnx, self.threads, self.requests = onnx, threads, {}

    def run(self, height, width, count):
        if (height, width, count) not in self.requests:
            core = openvino.Core()
            model = core.read_model(self.onnx)
            model.reshape([count, 3, height, width])
            settings = {
                "INFERENCE_NUM_THREADS": self.threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            }
            compiled = core.compile_model(model, "CPU", settings)
            self.requests = {(height, width, count): compiled.create_infer_request()}
        values = frame(height, width, count)
        start = time.perf_counter()
        self.requests[height, width, count].infer({0: values})
        return (time.perf_counter() - start) * 1e3

    def stop(self):
        pass


def main():
    program, seconds, out, *graphs = sys.argv[1:]
    graphs = dict(graph.split("=", 1) for graph in graphs)
    rates = {threads: gemm_rate(threads) for threads in (1, 2)}
    rows = []
    times = ("ours ms", "stock", "batch", "ORT", "OpenVINO")
    columns = (*times, "GFLOP/s", "% of GEMM", "/ORT", "/OpenVINO")
    head = f"{'width':>17} {'frame':>12} {'threads':>7}"
    head += "".join(f"{name:>12}" for name in columns)
    gemm = f"{rates[1]:.0f} GFLOP/s on one thread, {rates[2]:.0f} on two"
    print(f"numpy's best GEMM: {gemm}\n\n{head}")
    for graph, onnx in graphs.items():
        width, *words = graph.split("-")
        width, upsampled = int(width), "upsampled" in words
        precision = "int8" if "int8" in words else ""
        # 65×65 is the paper's tile; a frame of 256×256 has 49 of them, overlapping by half.
        sizes = [(65, 65, 49), (257, 257, 1), (513, 513, 1), (1025, 1025, 1), (1081, 1921, 1)]
        # The gain from 8 bits depends little on the size, so the two largest are left out.
        for height, breadth, count in sizes[:3] if precision else sizes:
            for threads in (1, 2):
                batch = {}
                if count > 1:
                    batch = {"batch": Ours(program, onnx, width, threads, "batch")}
                engines = {
                    "ours": Ours(program, onnx, width, threads, "ours"),
                    "stock": Ours(program, onnx, width, threads, "stock"),
                    **batch,
                    "ort": Onnxruntime(onnx, threads),
                    "openvino": Openvino(onnx, threads),
                }
                taken = {name: [] for name in engines}
                for engine in engines.values():
                    engine.run(height, breadth, count)
                until = time.monotonic() + float(seconds)
                while time.monotonic() < until or len(taken["ours"]) < 5:
                    for name, engine in engines.items():
                        # The threads of the engine before go on spinning for a moment, on a core
                        # that this engine needs.
                        time.sleep(0.05)
                        taken[name].append(engine.run(height, breadth, count))
                for engine in engines.values():
                    engine.stop()
                ms = {name: statistics.median(values) for name, values in taken.items()}
                rate = count * flops(width, upsampled, height, breadth) / ms["ours"] / 1e6
                rows.append(
                    {
                        "width": width,
                        "upsampled": upsampled,
                        "precision": precision or "f32",
                        "height_px": height,
                        "width_px": breadth,
                        "tiles": count,
                        "threads": threads,
                        "ms": ms,
                        "gflops": rate,
                        "of_gemm": rate / rates[threads],
                        "loaded_ms": engines["ours"].loaded_ms,
                        "turns": len(taken["ours"]),
                    }
                )
                size = f"{count} x {height}²" if count > 1 else f"{breadth}x{height}"
                order = ("ours", "stock", "batch", "ort", "openvino")
                print(
                    f"{graph:>17} {size:>12} {threads:>7}"
                    + "".join(f"{ms.get(engine, ms['stock']):>12.2f}" for engine in order)
                    + f"{rate:>12.0f}{100 * rate / rates[threads]:>11.0f}%"
                    + f"{ms['ours'] / ms['ort']:>12.2f}{ms['ours'] / ms['openvino']:>12.2f}",
                    flush=True,
                )
    report = {
        "schema": 1,
        "machine": platform.machine(),
        "gemm_gflops": rates,
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
        "rows": rows,
    }
    with open(out, "w") as file:
        json.dump(report, file, indent=1)


main()
