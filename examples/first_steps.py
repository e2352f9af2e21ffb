#!/usr/bin/env python3
"""First steps with a speaker model: embed, compare, look, decide.

Takes four recordings each of some speakers of a corpus, embeds them, draws the
cosines of all pairs as a picture and the embeddings as a 2-D map, and verifies
pairs with a threshold. It takes well under a minute. At the root:
> python -m imlkd_brain.corpora.minivox --data_folder data/minivox-tiny --tiny
> python examples/first_steps.py --data_folder data/minivox-tiny

Without --model it uses the model in the package; a folder of a training works
as well. Needs matplotlib (pip install ".[plots]").

Authors
    * IML-KD contributors
"""

import argparse
from pathlib import Path

import torch

from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.models.decision import read_decision
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model
from imlkd_brain.models.shipped import default_model
from imlkd_brain.verification.recordings import embed_recordings
from imlkd_brain.verification.scoring import unit_length


def choose_recordings(data_folder, speakers, per_speaker):
    "Recordings of the first speakers that have enough of them: {name: files}."
    chosen = {}
    for folder in sorted(Path(data_folder, "wav").glob("*")):
        files = sorted(folder.rglob("*.wav"))
        if len(files) >= per_speaker and len(chosen) < speakers:
            # Spread over the speaker's sessions
            step = len(files) // per_speaker
            chosen[folder.name] = files[::step][:per_speaker]
    if len(chosen) < 2:
        raise UserError(
            f"--data_folder {data_folder}: expected wav/<speaker>/.../*.wav "
            f"with {per_speaker} recordings each of at least two speakers; "
            "build a corpus with `python -m imlkd_brain.corpora.minivox "
            "--data_folder DIR --tiny`."
        )
    return chosen


def principal_components(embeddings, n_components=2):
    "Projects embeddings (N, D) on the directions of largest variance (N, 2)."
    centred = embeddings - embeddings.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:n_components].T


def draw_similarities(cosines, chosen, path):
    "The cosine of every pair as a picture; a block is a pair of speakers."
    import matplotlib.pyplot as plt

    per_speaker = len(cosines) // len(chosen)
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    picture = axes.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r")
    middles = [per_speaker * (i + 0.5) - 0.5 for i in range(len(chosen))]
    axes.set_xticks(middles, chosen, rotation=45, ha="right")
    axes.set_yticks(middles, chosen)
    axes.set_title("Cosine of each pair of recordings")
    figure.colorbar(picture, label="cosine")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_map(points, chosen, path):
    "The embeddings on their first two principal components."
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    groups = points.chunk(len(chosen))
    for (name, group), marker in zip(
        zip(chosen, groups, strict=True), "osD^v<>P*X" * 10, strict=False
    ):
        axes.scatter(*group.T, label=name, marker=marker)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    axes.set_title("Recordings of a speaker should lie together")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments=None):
    "Embeds, draws, and decides."
    parser = argparse.ArgumentParser(
        description="First steps: embed, compare, look, decide."
    )
    parser.add_argument(
        "--data_folder", required=True, help="a corpus with wav/<speaker>/"
    )
    parser.add_argument(
        "--model", help="a model's folder or name; the one in the package"
    )
    parser.add_argument("--speakers", type=int, default=6, help="6 if left out")
    parser.add_argument(
        "--out", default="results/first_steps", help="where the pictures go"
    )
    chosen = parser.parse_args(arguments)
    require_matplotlib()
    recordings = choose_recordings(chosen.data_folder, chosen.speakers, 4)
    folder = find_inference_folder(chosen.model or default_model())
    model = load_speaker_model(folder)

    # 1. An embedding for each recording, of any format and rate
    files = [file for four in recordings.values() for file in four]
    embedded, bad = embed_recordings(model, files)
    if bad:
        raise UserError(next(iter(bad.values())))
    embeddings = unit_length(torch.stack([one.embedding for one in embedded]))
    print(
        f"{len(files)} recordings, embeddings of {embeddings.shape[1]} numbers"
    )

    # 2. The cosine of unit-length embeddings is their product
    cosines = embeddings @ embeddings.T
    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    draw_similarities(cosines, recordings, out / "similarities.png")
    draw_map(principal_components(embeddings), recordings, out / "map.png")
    print(f"pictures: {out / 'similarities.png'}, {out / 'map.png'}")

    # 3. Verification: one speaker if the cosine is above a threshold
    speaker = torch.arange(len(recordings)).repeat_interleave(4)
    first, second = torch.triu_indices(len(files), len(files), offset=1)
    scores, same = cosines[first, second], speaker[first] == speaker[second]
    decision = read_decision(folder, model)
    if decision is not None:
        threshold = decision.threshold
        print(f"threshold {threshold:.3f}, from the model's dev trials")
    else:
        _, threshold = EER(scores[same], scores[~same])
        print(
            f"threshold {threshold:.3f}, fitted to these very pairs, as the "
            "model carries none: the errors below are too few"
        )
    for says, pairs in (
        ("one speaker ", scores[same] > threshold),
        ("two speakers", scores[~same] <= threshold),
    ):
        right = int(pairs.sum())
        print(f"pairs of {says}: {right} of {len(pairs)} decided rightly")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
