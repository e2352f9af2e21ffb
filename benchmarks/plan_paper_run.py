#!/usr/bin/env python3
"""Plans the paper's run: updates, GPU memory and hours of hparams/iml_kd.yaml.

To run it: python benchmarks/plan_paper_run.py

Nothing is measured. The networks of the YAML run on PyTorch's device `meta`, which
computes no numbers. Their operations, bytes, kernels and kept activations are
counted there, at the YAML's batch and durations.

Authors: IML-KD contributors
"""

import statistics
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from hyperpyyaml import load_hyperpyyaml
from page import about, publish, table
from updates import Operations

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.models.campplus import CAMPlusPlus
from imlkd_brain.models.folded import folded, without_idle_padding
from speechbrain.lobes.models.ECAPA_TDNN import Classifier

HPARAMS = Path(__file__).resolve().parents[1] / "hparams"
FRAMES = 100  # of a second

# NVIDIA's data sheet of the H100 SXM: dense, without sparsity.
BF16, FLOAT32, BANDWIDTH = 989e12, 67e12, 3.35e12
# Of these peaks, our assumption. PaLM's authors report 46 % for a large network
# of matrix products (Chowdhery et al., arXiv 2204.02311, section 4.1);
# one-dimensional convolutions of few channels reach less.
UTILISATION = 0.3
# A kernel from Python, started one after another; our assumption.
LAUNCH = 5e-6
GPUS_ALIKE = 0.9  # of eight times one GPU's speed; our assumption

# Speakers, utterances and hours. VoxCeleb1: Nagrani et al. 2017, dev. VoxCeleb2:
# Chung et al. 2018, dev.
CORPORA = {
    "VoxCeleb1": (1211, 148_642, 340.4),
    "VoxCeleb1+2": (1211 + 5994, 148_642 + 1_092_009, 340.4 + 2360.2),
}


def read_yaml(name):
    """A YAML of hparams/ with nothing to train on."""
    with open(HPARAMS / name, encoding="utf-8") as stream:
        return load_hyperpyyaml(stream, {"data_folder": "none"})


class Kept:
    """Bytes that a forward pass keeps for its backward pass."""

    def __init__(self):
        self.seen = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(
            self._pack, lambda tensor: tensor
        )

    def _pack(self, tensor):
        """Count each storage once."""
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            self.seen[storage._cdata] = storage
        return tensor

    @property
    def bytes(self):
        """What is kept."""
        return sum(storage.nbytes() for storage in self.seen.values())


class Count:
    """Operations, bytes, kernels and activations of a part of an update."""

    def __init__(self, flops=0, n_bytes=0, kernels=0, kept=0, peak=FLOAT32):
        self.flops, self.bytes, self.kernels = flops, n_bytes, kernels
        self.kept, self.peak = kept, peak

    @property
    def seconds(self):
        """On one H100: arithmetic or memory or the starts of kernels."""
        work = max(self.flops / self.peak, self.bytes / BANDWIDTH)
        return max(work / UTILISATION, self.kernels * LAUNCH)


def counted(call, peak):
    """Count what a call does."""
    kept = Kept()
    # The device `meta` has no autocast.
    plain = patch("torch.autocast", lambda *_, **__: nullcontext())
    with plain, kept.hooks, Operations() as operations:
        call()
    # Half precision moves half of what float32 moves.
    share = 0.5 if peak == BF16 else 1.0
    return Count(
        operations.flops,
        share * operations.bytes,
        sum(operations.kernels.values()),
        share * kept.bytes,
        peak,
    )


def on_meta(network):
    """A network without numbers."""
    return network.to("meta")


def student_pass(network, classifier, batch, frames):
    """Forward and backward pass of the student."""

    def call():
        """As in an update, without the losses."""
        feats = torch.empty(batch, frames, 80, device="meta")
        classifier(network(feats)).sum().backward()

    return counted(call, BF16)


def teacher_answer(network, batch, frames):
    """One forward pass of the teacher."""

    def call():
        """Without a gradient."""
        with torch.no_grad():
            network(torch.empty(batch, frames, 80, device="meta"))

    return counted(call, FLOAT32)


def teacher_map(network, classifier, batch, frames, integrated):
    """The attribution of a batch."""
    feats = torch.empty(batch, frames, 80, device="meta")
    target = torch.empty(batch, dtype=torch.int64, device="meta")

    def call():
        """As the guidance asks for it."""
        integrated_gradients(
            lambda rows: classifier(network(rows)).squeeze(1),
            feats,
            target,
            with_gap=False,
            **integrated,
        )

    count = counted(call, FLOAT32)
    # Of what is kept only one pass is there at a time.
    rows = integrated["n_steps"] * batch
    limit = integrated["internal_batch_size"] or rows
    count.kept *= min(1.0, limit / rows)
    return count


def mean_of(counts):
    """The mean over durations, and the largest memory."""
    first = counts[0]
    return Count(
        statistics.mean(c.flops for c in counts),
        statistics.mean(c.bytes for c in counts),
        statistics.mean(c.kernels for c in counts),
        max(c.kept for c in counts),
        first.peak,
    )


def parts_of(corpus, public):
    """Counts of the parts of an update, and the optimiser's bytes."""
    hparams = read_yaml("iml_kd.yaml")
    teaching = read_yaml("train_teacher.yaml")
    speeds = len(hparams["speed_perturb"])
    n_classes = CORPORA[corpus][0] * (1 if public else speeds)
    batch = hparams["batch_size"]
    student = hparams["embedding_model"].train()
    without_idle_padding(student)
    student = on_meta(student)
    dim = hparams["lin_neurons"]
    classifier = on_meta(Classifier(dim, out_neurons=n_classes))
    teacher = CAMPlusPlus() if public else teaching["embedding_model"]
    teacher = on_meta(folded(teacher.eval().requires_grad_(False)))
    classes = on_meta(Classifier(dim, out_neurons=n_classes))
    classes.requires_grad_(False)
    integrated = {
        "rule": hparams["rule"],
        "n_steps": hparams["n_steps"],
        "internal_batch_size": hparams["internal_batch_size"],
    }
    whole = round(FRAMES * hparams["sentence_len"]) + 1
    lengths = [round(FRAMES * d) for d in hparams["durations"]]
    given = teacher, classes, batch
    parts = {
        "student on x": student_pass(student, classifier, batch, whole),
        "student on I(x_d)": mean_of(
            [student_pass(student, classifier, batch, n) for n in lengths]
        ),
        "teacher on x": teacher_answer(teacher, batch, whole),
        "teacher on I(x_d)": mean_of(
            [teacher_answer(teacher, batch, n) for n in lengths]
        ),
        "attribution": mean_of(
            [teacher_map(*given, n, integrated) for n in lengths]
        ),
        "attribution, one midpoint node": mean_of(
            [
                teacher_map(
                    *given,
                    n,
                    {**integrated, "rule": "midpoint", "n_steps": 1},
                )
                for n in lengths
            ]
        ),
    }
    weights = [*student.parameters(), *classifier.parameters()]
    # Weights, gradients and Adam's two moments; the teacher's weights.
    fixed = 4 * 4 * sum(p.numel() for p in weights)
    fixed += 4 * sum(p.numel() for p in teacher.parameters())
    return hparams, parts, fixed


METHODS = {
    "scratch": ("student on x",),
    "multi_level_kd": ("student on x", "teacher on x"),
    "iml_kd": (
        "student on x",
        "student on I(x_d)",
        "teacher on I(x_d)",
        "attribution",
    ),
    "iml_kd, `--rule midpoint --n_steps 1`": (
        "student on x",
        "student on I(x_d)",
        "teacher on I(x_d)",
        "attribution, one midpoint node",
    ),
    "iml_kd, answers stored": ("student on x", "student on I(x_d)"),
}


def chunks_of(corpus, hparams):
    """Training chunks of an epoch, speeds included."""
    _, utterances, hours = CORPORA[corpus]
    if hparams["random_segment"]:
        chunks = utterances
    else:
        # Whole chunks of each utterance: half of one is left over on average.
        chunks = hours * 3600 / hparams["sentence_len"] - utterances / 2
    return chunks * len(hparams["speed_perturb"])


def plan(corpus, public):
    """Rows of the table of one corpus and teacher."""
    hparams, parts, fixed = parts_of(corpus, public)
    chunks = chunks_of(corpus, hparams)
    updates = int(hparams["number_of_epochs"] * chunks // hparams["batch_size"])
    rows = []
    base = sum(parts[part].seconds for part in METHODS["multi_level_kd"])
    for method, names in METHODS.items():
        used = [parts[name] for name in names]
        students = [parts[name].kept for name in names if "student" in name]
        teachers = [parts[name].kept for name in names if "student" not in name]
        # The attribution ends before the student sees I(x_d).
        memory = fixed + max(
            sum(students), students[0] + max(teachers, default=0)
        )
        seconds = sum(part.seconds for part in used)
        hours = updates * seconds / 3600
        rows.append(
            [
                method,
                f"{sum(p.flops for p in used) / 1e12:.2f}",
                f"{1e3 * seconds:.0f}",
                f"{seconds / base:.1f}",
                f"{memory / 2**30:.1f}",
                f"{updates:,}",
                f"{hours:.1f}",
                f"{updates // 8:,}",
                f"{hours / 8 / GPUS_ALIKE:.1f}",
            ]
        )
    walks = []
    for attribution in ("attribution", "attribution, one midpoint node"):
        names = ("teacher on x", "teacher on I(x_d)", attribution)
        seconds = sum(parts[name].seconds for name in names)
        walks.append(chunks / hparams["batch_size"] * seconds / 3600)
    walk = (
        f"To store answers to one chunk of each of the {chunks / 1e6:.1f} million "
        f"rows, with the weights of frames, takes {walks[0]:.1f} hours on one GPU, "
        f"{walks[1]:.1f} with one midpoint node."
    )
    return rows, parts, walk


def main():
    """Count and publish."""
    columns = ["method", "TFLOP an update", "ms an update", "to multi-level KD"]
    columns += ["GPU memory (GiB)", "updates, 1 GPU", "hours, 1 GPU"]
    columns += ["updates, 8 GPUs", "hours, 8 GPUs"]
    facts = about()
    lines = [
        "## The paper's run, planned",
        "",
        f"{facts['date']}; counted, not measured: no GPU was there. The networks "
        "of `hparams/iml_kd.yaml` and its batch of 96 on each GPU run on PyTorch's "
        "device `meta`. An H100 is taken at "
        f"{UTILISATION:.0%} of its data sheet (989 TFLOP/s in bf16 for the "
        "student, 67 TFLOP/s in float32 for the teacher, 3.35 TB/s), and at "
        f"{1e6 * LAUNCH:.0f} µs a kernel at least; that share is our assumption, "
        "below the 46 % of a large network of matrix products (Chowdhery et al., "
        f"arXiv 2204.02311). Eight GPUs are taken at {GPUS_ALIKE:.0%} of eight "
        "times one. Reading, augmentation and losses are not in it. Memory is "
        "weights, gradients, Adam and activations kept at once; PyTorch's own "
        "blocks come on top. `python benchmarks/plan_paper_run.py`",
    ]
    data = {}
    for corpus, public, teacher in (
        ("VoxCeleb1", False, "the YAML's ECAPA-TDNN of 512 channels"),
        ("VoxCeleb1+2", True, "CAM++, a public teacher, with prototypes"),
    ):
        rows, parts, walk = plan(corpus, public)
        lines += ["", f"{corpus}, taught by {teacher}.", ""]
        lines += [*table(columns, rows), "", walk]
        data[corpus] = {
            "rows": rows,
            "parts": {
                name: {
                    "flops": part.flops,
                    "bytes": part.bytes,
                    "kernels": part.kernels,
                    "kept_bytes": part.kept,
                    "seconds": part.seconds,
                }
                for name, part in parts.items()
            },
        }
    publish("plan_paper_run", lines, facts, plans=data)


if __name__ == "__main__":
    main()
