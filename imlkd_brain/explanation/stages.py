"""The stages of ``explain.py``: maps, curves and sanity checks.

Each stage gives plain dicts of tensors and keeps them on disk. ``hparams`` is
the dict of the YAML.

Authors: IML-KD contributors
"""

import hashlib
import os
from functools import cache

import torch
from tqdm import tqdm

from imlkd_brain.data.crops import duration_name
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import saliency_map
from imlkd_brain.explanation.perturbation import (
    empty_input,
    identification_curves,
    importance_ranks,
    perturbation_outputs,
)
from imlkd_brain.explanation.sanity import compute_sanity
from imlkd_brain.explanation.tasks import (
    SHUFFLED,
    equal_lengths,
    features_of,
    score_of,
    seeded,
)
from imlkd_brain.files import cached


def content_of(path):
    """A hash of a file's bytes, read once while the file stays as it is.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        BLAKE2b, hexadecimal: of a few dozen utterances in a few milliseconds.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        state = os.stat(path)
        times = state.st_size, state.st_mtime_ns, state.st_ctime_ns
        return _content_of(str(path), times)
    except OSError as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error


@cache
def _content_of(path, times):
    """The hash of a file as it is at these times."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def compute_maps(
    task, name, model, enrolled, duration, hparams, device, progress
):
    """All maps of one model for one task at one duration."""
    feats, places = features_of(task, model, duration, device)
    score, target = score_of(
        task, model, model.embed_features, enrolled, device
    )
    n_items = len(feats)
    maps = {method: [None] * n_items for method in hparams["methods"]}
    gap = torch.full((n_items,), torch.nan)
    clean, empty = torch.zeros(n_items), torch.zeros(n_items)
    generator = seeded(hparams["seed"], name, task.name, duration)
    for indices in equal_lengths(feats, hparams["batch_frames"]):
        batch = torch.stack([feats[i] for i in indices]).to(device)
        columns = target[indices]
        with torch.no_grad():
            for values, inputs in (
                (clean, batch),
                (empty, torch.zeros_like(batch)),
            ):
                scores = score(inputs).gather(1, columns[:, None])[:, 0]
                values[indices] = scores.cpu()
        for method, options in hparams["methods"].items():
            attribution, gaps = saliency_map(
                method,
                score,
                batch,
                columns,
                model=model,
                options=options,
                batch_frames=hparams["batch_frames"],
                generator=generator,
            )
            for place, index in enumerate(indices):
                maps[method][index] = attribution[place].cpu()
            if gaps is not None:
                gap[indices] = gaps.cpu()
        progress.update(len(indices))
    return {
        "feats": feats,
        "places": places,
        "maps": maps,
        "gap": gap,
        "clean": clean,
        "empty": empty,
    }


def baselines_differ(feats, kind):
    """Whether a baseline is another one than ``zero`` for these features."""
    if kind != "band_mean":
        return kind != "zero"
    return any(
        float(item.mean(0).abs().max()) > 1e-3 * float(item.std())
        for item in feats
    )


def compute_curves(task, model, enrolled, kept, method, hparams, device):
    """Deletion and insertion of one method; values per utterance and level.

    Returns
    -------
    curves : dict
        From ``unit/direction/baseline/metric`` to (utterances, levels), and
        for the metric ``trials`` to (trials, levels).
    """
    feats, maps = kept["feats"], kept["maps"][method]
    levels = torch.linspace(0, 1, hparams["n_levels"])
    generator = seeded(hparams["seed"], "ties")
    outputs = {}
    for indices in equal_lengths(feats, hparams["batch_frames"]):
        batch = torch.stack([feats[i] for i in indices]).to(device)
        attribution = torch.stack([maps[i] for i in indices]).to(device)
        for unit in hparams["units"]:
            ranks = importance_ranks(attribution, unit, generator)
            for direction in ("deletion", "insertion"):
                for kind in hparams[f"{direction}_baselines"]:
                    if kind != "zero" and not baselines_differ(feats, kind):
                        continue
                    baseline = empty_input(batch, kind, hparams["blur_sigma"])
                    embeddings = perturbation_outputs(
                        model.embed_features,
                        batch,
                        ranks,
                        levels,
                        baseline,
                        insertion=direction == "insertion",
                        batch_frames=hparams["batch_frames"],
                    )
                    place = outputs.setdefault(
                        f"{unit}/{direction}/{kind}",
                        embeddings.new_zeros(len(feats), *embeddings.shape[1:]),
                    )
                    place[indices] = embeddings
    curves = {}
    for condition, embeddings in outputs.items():
        for metric, values in task_metrics(
            task, model, enrolled, embeddings, hparams, device
        ).items():
            curves[f"{condition}/{metric}"] = values.cpu()
    return curves


@torch.no_grad()
def task_metrics(task, model, enrolled, embeddings, hparams, device):
    """What the curves show, of embeddings (utterances, levels, D)."""
    if task.name == "identification":
        cosines = model.classify(embeddings.flatten(0, 1))
        cosines = cosines.view(*embeddings.shape[:2], -1)
        rows = {speaker: row for row, speaker in enumerate(model.speakers)}
        target = torch.tensor(
            [rows[u.speaker] for u in task.utterances], device=device
        )
        return identification_curves(
            cosines, target, hparams["posterior_scale"]
        )
    directions = torch.nn.functional.normalize(enrolled, dim=-1)
    units = torch.nn.functional.normalize(embeddings, dim=-1)
    own = directions[task.own][:, None]
    # The cosine, brought to [0, 1] so that its area is.
    metrics = {"score": (1 + (units * own).sum(-1)) / 2}
    if task.trials:
        pairs = torch.tensor([t[:2] for t in task.trials], device=device)
        metrics["trials"] = torch.stack(
            [
                (directions[pairs[:, 0]] * units[:, level][pairs[:, 1]]).sum(-1)
                for level in range(units.shape[1])
            ],
            dim=1,
        )
    return metrics


def identity(task, model, duration, hparams):
    """Everything that maps depend on: a kept file fits only if it is equal."""
    everyone = [*task.utterances, *task.enrolments]
    return [
        model.key,
        str(duration),
        [(u.key, content_of(u.path)) for u in everyone],
        [u.speaker for u in task.utterances],
        task.own,
        task.trials,
        list(hparams["methods"].items()),
        hparams["seed"],
        hparams["allow_tf32"],
    ]


def all_maps(task, models, enrolled, hparams, run_opts, device):
    """Maps of every model at every duration, computed or read."""
    maps = {}
    total = len(models) * len(hparams["durations"]) * len(task.utterances)
    with tqdm(
        total=total,
        desc=f"maps, {task.name}",
        unit="utt",
        dynamic_ncols=True,
        disable=run_opts.noprogressbar,
    ) as progress:
        for name, model in models.items():
            maps[name] = {}
            for duration in hparams["durations"]:
                before = progress.n

                def compute(name=name, model=model, duration=duration):
                    return compute_maps(
                        task,
                        name,
                        model,
                        enrolled[name],
                        duration,
                        hparams,
                        device,
                        progress,
                    )

                maps[name][duration] = cached(
                    hparams["save_folder"],
                    f"maps_{task.name}_{name}_{duration_name(duration)}",
                    [name, *identity(task, model, duration, hparams)],
                    compute,
                )
                progress.update(before + len(task.utterances) - progress.n)
    return maps


def all_curves(
    task, duration, models, enrolled, maps, hparams, run_opts, device
):
    """Curves of every model and method, computed or read."""
    curves = {name: {} for name in models if name != SHUFFLED}
    options = [
        hparams["units"],
        hparams["n_levels"],
        hparams["deletion_baselines"],
        hparams["insertion_baselines"],
        hparams["blur_sigma"],
        hparams["posterior_scale"],
    ]
    jobs = [(name, method) for name in curves for method in hparams["methods"]]
    for name, method in tqdm(
        jobs,
        desc=f"curves, {task.name}",
        unit="method",
        dynamic_ncols=True,
        disable=run_opts.noprogressbar,
    ):
        model = models[name]
        kept = maps[name][duration]

        def compute(name=name, model=model, kept=kept, method=method):
            return compute_curves(
                task, model, enrolled[name], kept, method, hparams, device
            )

        curves[name][method] = cached(
            hparams["save_folder"],
            f"curves_{task.name}_{name}_{duration_name(duration)}_{method}",
            [name, *identity(task, model, duration, hparams), options],
            compute,
        )
    return curves


def all_sanity(task, models, maps, hparams, run_opts, device):
    """The parameter cascade of every model, computed or read."""
    similarities = {}
    duration = (hparams["curve_durations"] or hparams["durations"])[0]
    with tqdm(
        desc="sanity",
        unit="step",
        dynamic_ncols=True,
        disable=run_opts.noprogressbar,
    ) as progress:
        for name, model in models.items():
            if name == SHUFFLED:
                continue

            def compute(name=name, model=model):
                return compute_sanity(
                    task,
                    name,
                    model,
                    maps[name][duration],
                    hparams,
                    device,
                    progress,
                )

            similarities[name] = cached(
                hparams["save_folder"],
                f"sanity_{name}",
                [
                    name,
                    *identity(task, model, duration, hparams),
                    hparams["n_sanity"],
                ],
                compute,
            )
    return similarities
