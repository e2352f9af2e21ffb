#!/usr/bin/env python3
"""What a large teacher's answers cost, and an update with and without them.

To run it, after `python -m imlkd_brain.models.public campplus`:
> python benchmarks/bench_answers.py DATA_FOLDER

DATA_FOLDER is MiniVox or laid out alike. Teachers are CAM++ and an ECAPA-TDNN of
512 channels with random weights, which take the time that trained ones take. An
update is that of the real train_kd.py with MiniVox's student, on one thread.
Published on README.md beside this file.

Authors: IML-KD contributors
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from page import about, publish, sentence
from updates import RECIPE, teach, train

from imlkd_brain.distillation.answer_store import size
from imlkd_brain.distillation.teaching import ask
from imlkd_brain.training import load_training
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

ROUNDS = 2
UPDATES = 2
FIELDS = (
    ("chunk",),
    ("chunk", "integrated", "weights"),
    ("chunk", "segment", "integrated", "weights"),
)
ECAPA = """\
sample_rate: 16000
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [512, 512, 512, 512, 1536]
    lin_neurons: 192
"""


def write_ecapa(folder):
    """An ECAPA-TDNN of 512 channels that has learnt nothing."""
    folder.mkdir()
    torch.manual_seed(0)
    network = ECAPA_TDNN(
        80, channels=[512, 512, 512, 512, 1536], lin_neurons=192
    )
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    (folder / "hyperparams.yaml").write_text(ECAPA, encoding="utf-8")
    return folder


def walk(options, folder):
    """Store a chunk of each row; seconds and bytes a chunk, by fields."""
    argv = ["hparams/minivox/teach.yaml", *options, "--device=cpu"]
    argv += [f"--teacher_answers={folder}", "--noprogressbar"]
    argv += ["--answers_fields=[chunk, integrated, weights]"]
    teach.main(argv)
    _, hparams, run_opts, _ = load_training(argv)
    teach.check_before_teaching(hparams)
    store, chunks, guidance = teach.begin(hparams, run_opts)
    features, norm = hparams["compute_features"], hparams["mean_var_norm"]
    cost = {}
    batch = next(iter(make_dataloader(chunks, batch_size=32)))
    for fields in FIELDS:
        spent = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            ask(
                guidance,
                lambda wavs: norm(features(wavs), torch.ones(len(wavs))),
                batch,
                fields,
                seed=0,
            )
            spent.append((time.perf_counter() - begun) / 32)
        store.content["fields"] = list(fields)
        n_bytes = store.n_bytes(store.blocks(1)) / len(chunks)
        cost[fields] = statistics.median(spent), n_bytes
    return cost


def updates(options, folder, work):
    """Median seconds of an update without a teacher, with one, stored."""
    ways = {
        "scratch": ["--method=scratch"],
        "iml_kd, teacher asked": ["--method=iml_kd"],
        "iml_kd, answers stored": [
            "--method=iml_kd",
            f"--teacher_answers={folder}",
        ],
    }
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, more in ways.items():
            student = work / "student"
            more = [*options, *more, "--measure_interval=0"]
            seconds[name].append(train("iml_kd", student, UPDATES, *more))
            shutil.rmtree(student)
    return {name: statistics.median(some) for name, some in seconds.items()}


def main():
    """Measure, print, and keep the tables beside this file."""
    data = Path(sys.argv[1] if sys.argv[1:] else RECIPE / "data" / "minivox")
    data = data.resolve()
    os.chdir(RECIPE)
    torch.set_num_threads(1)
    lines = ["## A teacher's answers, stored once", ""]
    asked, trained = [], []
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        teachers = {
            "CAM++": "campplus",
            "ECAPA-TDNN 512": write_ecapa(work / "ecapa"),
        }
        for name, folder in teachers.items():
            options = [
                f"--data_folder={data}",
                f"--teacher_folder={folder}",
                "--teacher_classes=prototypes",
                "--speed_perturb=[1.0]",
                "--durations=[1.5]",
                "--answers_variants=1",
            ]
            answers = work / f"answers {name}"
            for fields, (spent, n_bytes) in walk(options, answers).items():
                asked.append(
                    f"| {name} | {', '.join(fields)} | {spent:.3f} | "
                    f"{n_bytes:,.0f} | {spent * 1e6 / 3600:,.0f} h, "
                    f"{size(n_bytes * 1e6)} |"
                )
            for way, spent in updates(options, answers, work).items():
                trained.append(f"| {name} | {way} | {spent:.3f} |")
    lines += [
        f"{sentence(about())} One thread, medians of {ROUNDS} rounds. Chunks of 2 s, "
        "segments of 1.5 s, one node of Integrated Gradients, half "
        f"precision. An update: batch 32, MiniVox's student, {UPDATES} updates "
        "a round. `python benchmarks/bench_answers.py`",
        "",
        "| teacher | fields | seconds a chunk | bytes a chunk | a million |",
        "|---|---|---|---|---|",
        *asked,
        "",
        "| teacher | update | seconds |",
        "|---|---|---|",
        *trained,
    ]
    publish("bench_answers", lines)


if __name__ == "__main__":
    main()
