"""Corpora and models so small that a training step takes milliseconds."""

import importlib
import multiprocessing
import os
import pickle
import tempfile
import traceback
from pathlib import Path

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML

from imlkd_brain.files import SUMS
from imlkd_brain.models.export import TrainedModel, export_inference_folder
from imlkd_brain.settings import resolve_base
from speechbrain.dataio.encoder import CategoricalEncoder

ROOT = Path(__file__).resolve().parents[1]
HPARAMS = ROOT / "hparams" / "minivox"
RATE = 16000
TRAIN_SPEAKERS = ["anna", "bert", "cleo", "dora"]
DEV_SPEAKERS = ["emil", "fred"]


def small_model(dim=8, width=8):
    """Overrides of a YAML's student or teacher, ECAPA of a few channels."""
    return {
        "n_mels": 20,
        "lin_neurons": dim,
        "embedding_model": {
            "channels": [width] * 4 + [3 * width],
            "attention_channels": 8,
            "se_channels": 8,
        },
    }


def load_yaml(name, overrides, folder=HPARAMS):
    """A training YAML's objects, its base and overrides taken in."""
    return _read(load_hyperpyyaml, name, overrides, folder)


def resolved_yaml(name, overrides, folder=HPARAMS):
    """The text that a training leaves as ``hyperparams.yaml``."""
    return _read(resolve_references, name, overrides, folder).getvalue()


def _read(reader, name, overrides, folder):
    base, changes = resolve_base(str(folder / f"{name}.yaml"))
    changes = YAML().load(changes) or {}
    recursive_update(changes, overrides)
    with open(base, encoding="utf-8") as stream:
        return reader(stream, changes)


def write_wav(path, seconds, pitch, seed, rate=RATE, channels=1):
    """A buzz of a given pitch in noise, returned as str."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(round(seconds * rate))) / rate
    buzz = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).normal(size=len(time))
    samples = 0.1 * buzz + 0.05 * noise
    soundfile.write(
        path, np.stack([samples] * channels, axis=1), rate, "PCM_16"
    )
    return str(path)


def write_corpus(folder):
    """Train and dev CSVs, wavs and dev trials; 8 and 6 utterances."""
    splits = {"train": (TRAIN_SPEAKERS, 2), "dev": (DEV_SPEAKERS, 3)}
    pitches = iter(range(90, 1000, 45))
    for split, (speakers, n_utterances) in splits.items():
        rows = ["ID,duration,wav,start,stop,spk_id"]
        for speaker in speakers:
            pitch = next(pitches)
            for i in range(n_utterances):
                seconds = 0.55 + 0.1 * i
                path = folder / "wav" / speaker / f"s{i}" / "1.wav"
                write_wav(path, seconds, pitch + 3 * i, i)
                stop = int(round(seconds * RATE))
                rows.append(
                    f"{speaker}--s{i}--1,{seconds},{path},0,{stop},{speaker}"
                )
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    names = [f"{s}/s{i}/1.wav" for s in DEV_SPEAKERS for i in range(3)]
    trials = [
        f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    (folder / "dev.txt").write_text("\n".join(trials) + "\n")
    return folder


def write_model(folder, speakers=TRAIN_SPEAKERS, dim=8, seed=0, **overrides):
    """An untrained model with used BatchNorm statistics, exported."""
    folder = Path(folder)
    overrides = {
        "data_folder": "none",
        "output_folder": str(folder),
        **small_model(dim),
        **overrides,
    }
    folder.mkdir(parents=True, exist_ok=True)
    resolved = folder / "hyperparams.yaml"
    resolved.write_text(resolved_yaml("train_teacher", overrides))
    hparams = load_yaml("train_teacher", overrides)
    encoder = CategoricalEncoder()
    for speaker in speakers:
        encoder.add_label(speaker)
    torch.manual_seed(seed)
    model = hparams["embedding_model"]
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.train()
    for _ in range(3):
        model(torch.randn(4, 40, hparams["n_mels"]))
    model.eval()
    classifier = hparams["classifier"](out_neurons=len(speakers))
    inference = export_inference_folder(
        folder / "inference",
        resolved,
        TrainedModel(model, classifier, encoder),
    )
    # Tests change what is in it.
    (inference / SUMS).unlink()
    return inference


def in_processes(n, folder, function):
    """What ``function()`` returns in each of n gloo processes, by rank."""
    # DDP needs it, and each forked process would read it from disk anew.
    importlib.import_module("torch._dynamo")
    context = multiprocessing.get_context("fork")
    # One for each group of processes: they would take another's file for theirs.
    folder = tempfile.mkdtemp(prefix="meet", dir=folder)
    pipes, processes = [], []
    for rank in range(n):
        pipe, end = context.Pipe(duplex=False)
        process = context.Process(
            target=_as_rank, args=(rank, n, folder, function, end)
        )
        process.start()
        end.close()
        pipes.append(pipe)
        processes.append(process)
    try:
        results = [pickle.loads(pipe.recv_bytes()) for pipe in pipes]
    finally:
        for process in processes:
            # One that failed leaves the others waiting for it.
            process.join(5)
            process.kill()
    failed = [r for r in results if isinstance(r, Exception)]
    if failed:
        raise failed[0]
    return results


def _as_rank(rank, n, folder, function, end):
    """Run a function as torchrun would; send what it returns or raises."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n))
    # A forked process cannot use the threads of its parent.
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=n
        )
        result = function()
    except Exception:
        # Whatever it is, the parent raises it: a process has no test report.
        result = RuntimeError(f"rank {rank}: {traceback.format_exc()}")
    end.send_bytes(pickle.dumps(result))
    # What was inherited from the parent is not this process's to tidy up,
    # and DDP would wait there for seconds.
    os._exit(0)
