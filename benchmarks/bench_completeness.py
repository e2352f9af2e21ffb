"""How far each quadrature rule is from the integral, by a trained teacher.

Two tables, published on README.md beside this file: the
mean of |gap| / |f(x) - f(x')| for every rule and number of steps, and the rank
correlation of the time profile (the map summed over frequency, which is what
`time_gate` uses) with that of 64 Gauss-Legendre nodes.

    python benchmarks/bench_completeness.py [TEACHER_FOLDER DATA_FOLDER]

Without arguments it takes those of `python demo.py --train_teacher`.
"""

import sys
from pathlib import Path

import torch
from page import about, publish, sentence
from scipy.stats import spearmanr

from imlkd_brain.data.audio import read_audio
from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.models.folder import load_speaker_model

RULES = ("right", "midpoint", "gauss_legendre", "stochastic")
STEPS = (1, 2, 4, 8, 16)
UTTERANCES = 64
SECONDS = 2
RECIPE = Path(__file__).parents[1] / "recipes" / "VoxCeleb" / "IMLKD"
DEMO = (RECIPE / "results/minivox/teacher/1986", RECIPE / "data/minivox")
REFERENCE = {"rule": "gauss_legendre", "n_steps": 64}


def read_batch(model, data_folder):
    """Two seconds of utterances of training speakers, and their classes."""
    paths = []
    for speaker in model.speakers:
        found = sorted(Path(data_folder, "wav", speaker).rglob("*.wav"))
        paths += [(path, speaker) for path in found[:2]]
    step = max(1, len(paths) // UTTERANCES)
    chosen = paths[::step][:UTTERANCES]
    n_samples = SECONDS * model.sample_rate
    wavs = torch.stack(
        [read_audio(str(path), 0, n_samples) for path, _ in chosen]
    )
    targets = [model.speakers.index(speaker) for _, speaker in chosen]
    return model.features(wavs), torch.tensor(targets)


def profile(attribution):
    """What `time_gate` weighs the frames by."""
    return attribution.abs().sum(-1)


def main():
    teacher, data_folder = sys.argv[1:] or DEMO
    model = load_speaker_model(teacher)
    feats, targets = read_batch(model, data_folder)

    def attribute(**how):
        return integrated_gradients(
            model.cosines,
            feats,
            targets,
            internal_batch_size=64,
            generator=torch.Generator().manual_seed(0),
            **how,
        )

    with torch.no_grad():
        ends = [
            model.cosines(x).gather(1, targets[:, None]).squeeze(1)
            for x in (feats, torch.zeros_like(feats))
        ]
    rise = (ends[0] - ends[1]).abs()
    truth = profile(attribute(**REFERENCE)[0])
    gaps, ranks = {}, {}
    for rule in RULES:
        for n_steps in STEPS:
            attribution, gap = attribute(rule=rule, n_steps=n_steps)
            gaps[rule, n_steps] = float((gap.abs() / rise).mean())
            ranks[rule, n_steps] = sum(
                spearmanr(a, b).statistic
                for a, b in zip(profile(attribution), truth, strict=True)
            ) / len(feats)
    header = "| rule | " + " | ".join(f"m = {m}" for m in STEPS) + " |"
    lines = [
        "## Completeness of the attribution by rule and steps",
        "",
        f"{sentence(about())} {len(feats)} utterances of training speakers, "
        f"{SECONDS} s, teacher of {len(model.speakers)} classes; "
        f"f(x) - f(x') is {float(rise.mean()):.2f} in the mean. A step is one "
        "forward and one backward pass of the teacher. `python "
        "benchmarks/bench_completeness.py` (after `python demo.py --train_teacher`)",
    ]
    for title, values in (
        ("Mean of |gap| / |f(x) - f(x')|", gaps),
        ("Rank correlation of the time profile with 64 nodes", ranks),
    ):
        lines += ["", title, "", header, "|---|" + "---|" * len(STEPS)]
        for rule in RULES:
            cells = " | ".join(f"{values[rule, m]:.3f}" for m in STEPS)
            lines.append(f"| {rule} | {cells} |")
    publish("bench_completeness", lines)


if __name__ == "__main__":
    main()
