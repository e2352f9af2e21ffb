#!/usr/bin/env python3
"""Runs the benchmarks one after another.

To run it: python benchmarks/run.py [--gpu] [NAME ...]

Without names it runs all of them on the CPU, which takes more than an hour, or those
that a GPU changes on the GPU. One that fails, for want of the corpus or of other
people's models, does not stop the rest.

Authors: IML-KD contributors
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CPU = {
    "bench_training": (),
    "bench_step": (),
    "bench_attribution": (),
    "plan_paper_run": (),
    "bench_answers": (),
    "bench_verification": (),
    "bench_process": (),
    "bench_preparation": (),
    "bench_input": (),
    "bench_objectives": (),
    "bench_completeness": (),
    "bench_cost": (),
    "bench_rivals": (),
    "bench_intervals": ("comparison",),
    "bench_intervals_system": ("system",),
}
GPU = ("bench_training", "bench_step", "bench_attribution")


def main(argv):
    """Run what was asked for; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CPU))
    parser.add_argument("--gpu", action="store_true", help="on the GPU")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.names) - set(CPU))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}; see --help")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if given.gpu:
        environment["DEVICE"] = "cuda"
    failed = []
    for name in given.names or (GPU if given.gpu else CPU):
        script = "bench_intervals" if "intervals" in name else name
        command = [sys.executable, str(HERE / f"{script}.py"), *CPU[name]]
        print(f"> {name}", flush=True)
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    for name in failed:
        print(f"{name} failed; see above.", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
