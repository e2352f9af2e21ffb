"""What many trainings score, and what may be said about their differences.

A *run* is one fold and seed: one teacher, and each method's student on the
same data order, chunks, augmentation and initialisation. Speakers are few and
seeds matter, so methods are only compared within runs, and intervals come
from resampling the runs and, within each, its test speakers.

Authors: IML-KD contributors
"""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from imlkd_brain import plots
from imlkd_brain.brain import STATS_FILE
from imlkd_brain.errors import UserError
from imlkd_brain.metrics import EER, bootstrap_over_speakers, normalised_min_dcf
from imlkd_brain.reports import ALL, POOLED
from imlkd_brain.teacher import load_speaker_model
from imlkd_brain.verification import (
    EmbeddingStore,
    Scorer,
    crop_name,
    embed_utterances,
    locate_trials,
    model_size,
    read_trials,
)

TEACHER = "teacher"
MEAN = "mean"  # of the EERs of the durations, beside POOLED


def run_folder(output_folder, pair, run):
    """Return the folder of one fold and seed of a pair.

    Example
    -------
    >>> run_folder("out", "small", {"fold": 0, "seed": 1}).as_posix()
    'out/runs/small/fold0_seed1'
    """
    name = f"fold{run['fold']}_seed{run['seed']}"
    return Path(output_folder, "runs", pair, name)


def duration_name(seconds):
    """Return ``full`` for None, else the seconds, as in ``2s``.

    Example
    -------
    >>> duration_name(None), duration_name(1.5)
    ('full', '1.5s')
    """
    return "full" if seconds is None else f"{seconds:g}s"


def score_run(folder, methods, trials, data_folder, durations, seed, device):
    """Score every model of a run on one trial list.

    Scores are kept beside the model (``scores-<list>.npz``), so that only new
    models are scored when a comparison grows.

    Arguments
    ---------
    folder : Path
        The run's folder, with one training output folder for each method.
    methods : list of str
        Names of the sub-folders.
    trials : str or Path
        The list.
    data_folder : str
        The corpus.
    durations : list of float or None
        Seconds of test speech, None for the whole utterance. The enrolment
        side is always whole.
    seed : int
        Seed of the crops.
    device : str
        Where to embed.

    Returns
    -------
    scores : dict
        ``{method: {duration name: (P,) float32 tensor}}``.
    located : imlkd_brain.verification.LocatedTrials
        The list, for labels and speakers.
    """
    located = locate_trials(read_trials(trials), data_folder)
    # By what is in the list: a corpus built anew has others by its name.
    listed = hashlib.sha256(Path(trials).read_bytes()).hexdigest()[:16]
    scores = {}
    for method in methods:
        kept = folder / method / f"scores-{listed}.npz"
        model = load_speaker_model(folder / method, device)
        wanted = {
            duration_name(d): f"{model.key} {crop_name(d, seed)}"
            for d in durations
        }
        found = dict(np.load(kept)) if kept.is_file() else {}
        for seconds in durations:
            name = duration_name(seconds)
            if str(found.get(f"{name} key", "")) == wanted[name]:
                continue
            scorer = Scorer(model, _embedder(folder / method, seed))
            found[name] = scorer.score(located, seconds)[0].numpy()
            found[f"{name} key"] = np.array(wanted[name])
        building = kept.with_name("scores-building.npz")
        np.savez(building, **found)
        os.replace(building, kept)
        scores[method] = {
            name: torch.from_numpy(found[name]) for name in wanted
        }
    return scores, located


def _embedder(folder, seed):
    """Embed with a store that lies beside the model."""

    def embed(model, paths, seconds):
        store = EmbeddingStore(
            folder / "embeddings", model.key, crop_name(seconds, seed)
        )
        return embed_utterances(model, paths, store, seconds, seed)

    return embed


def collect_runs(hparams, trials_of, device):
    """Score all runs of a comparison.

    Arguments
    ---------
    hparams : dict
        ``pairs``, ``runs``, ``methods``, ``durations``, ``test_folder``,
        ``output_folder``, ``crop_seed``, ``bootstrap_samples``.
    trials_of : callable
        ``trials_of(run)`` gives the run's trial list.
    device : str
        Where to embed.

    Returns
    -------
    rows : pandas.DataFrame
        One row for each pair, run, method, duration and group of speakers
        (``all`` or a pack), with ``eer`` and ``min_dcf`` in percent and as
        normalised cost at a prior of 0.01. The duration ``pooled`` is all of
        them under one threshold.
    replicates : dict
        ``{(pair, run index, method, duration): (samples,) tensor}``, EER on
        resampled speakers, on the same draws for all methods.
    """
    rows, replicates = [], {}
    methods = [TEACHER, *hparams["methods"]]
    work = [
        (pair, i, run)
        for pair in hparams["pairs"]
        for i, run in enumerate(hparams["runs"])
    ]
    for pair, i, run in tqdm(work, desc="scoring", dynamic_ncols=True):
        scores, located = score_run(
            run_folder(hparams["output_folder"], pair, run),
            methods,
            trials_of(run),
            hparams["test_folder"],
            hparams["durations"],
            hparams["crop_seed"],
            device,
        )
        labels = located.trials.labels
        enrol, test, groups = _speakers(located)
        masks = {
            group: torch.tensor([group in (ALL, g) for g in groups])
            for group in (ALL, *sorted(set(groups)))
        }
        n_durations = len(hparams["durations"])
        for method, by_duration in scores.items():
            pooled = torch.cat(list(by_duration.values()))
            for duration, values in {**by_duration, POOLED: pooled}.items():
                repeats = n_durations if duration == POOLED else 1
                truth = labels.repeat(repeats)
                for group, mask in masks.items():
                    chosen = mask.repeat(repeats)
                    targets = values[chosen & truth]
                    nontargets = values[chosen & ~truth]
                    if not len(targets) or not len(nontargets):
                        continue
                    cost = normalised_min_dcf(targets, nontargets, (0.01,))
                    rows.append(
                        {
                            "pair": pair,
                            "fold": run["fold"],
                            "seed": run["seed"],
                            "method": method,
                            "duration": duration,
                            "group": group,
                            "trials": int(chosen.sum()),
                            "eer": 100 * EER(targets, nontargets)[0],
                            "min_dcf": cost[0.01][0],
                        }
                    )
                replicates[pair, i, method, duration] = 100 * _kept_bootstrap(
                    run_folder(hparams["output_folder"], pair, run) / method,
                    (
                        values,
                        truth,
                        enrol.repeat(repeats),
                        test.repeat(repeats),
                    ),
                    samples=hparams["bootstrap_samples"],
                    seed=hparams["crop_seed"],
                )
    return pd.DataFrame(rows), replicates


def _kept_bootstrap(folder, trials, samples, seed):
    """EER on resampled speakers, kept beside the model under its input's name.

    A comparison that grows is reported again and again, and this is what its
    report takes its time for.
    """
    digest = hashlib.sha256(f"{samples} {seed}".encode())
    for part in trials:
        digest.update(part.numpy().tobytes())
    kept = folder / "bootstrap" / f"{digest.hexdigest()[:24]}.npy"
    if not kept.is_file():
        draws = bootstrap_over_speakers(*trials, samples=samples, seed=seed)
        kept.parent.mkdir(exist_ok=True)
        building = kept.with_suffix(".building.npy")
        np.save(building, draws["eer"].numpy())
        os.replace(building, kept)
    return torch.from_numpy(np.load(kept))


def _speakers(located):
    """Speaker indices of both sides of each trial, and each trial's pack."""
    index = {speaker: i for i, speaker in enumerate(located.speakers)}
    sides = []
    for side, names in enumerate(
        (located.enrol_speakers, located.test_speakers)
    ):
        of_row = torch.tensor([index[name] for name in names])
        sides.append(of_row[located.pairs[:, side]])
    packs = [located.speakers[i].split("-")[0] for i in sides[0].tolist()]
    return *sides, packs


def summarise(rows):
    """Mean and standard deviation over runs of each method and duration.

    Arguments
    ---------
    rows : pandas.DataFrame
        See :func:`collect_runs`.

    Returns
    -------
    summary : pandas.DataFrame
        Indexed by pair, group, method; columns (figure, duration, statistic)
        with figure ``eer`` or ``min_dcf``, and a duration ``mean`` that is the
        mean over the durations of each run, ``pooled`` not among them.

    Example
    -------
    >>> rows = pd.DataFrame(
    ...     {"pair": "p", "fold": 0, "seed": [1, 2], "method": "m",
    ...      "duration": "full", "group": "all", "eer": [1.0, 3.0],
    ...      "min_dcf": [0.1, 0.3]}
    ... )
    >>> summarise(rows).loc[("p", "all", "m"), ("eer", "mean", "mean")].item()
    2.0
    """
    run = ["pair", "group", "method", "fold", "seed"]
    means = rows[rows["duration"] != POOLED]
    means = means.groupby(run, sort=False)[["eer", "min_dcf"]].mean()
    means = means.reset_index().assign(duration=MEAN)
    table = pd.concat([rows, means])
    table = table.groupby(["pair", "group", "method", "duration"], sort=False)
    table = table[["eer", "min_dcf"]].agg(["mean", "std"]).unstack("duration")
    return table.reorder_levels([0, 2, 1], axis=1)


def relative_differences(
    replicates,
    rows,
    pair,
    method,
    baseline,
    duration=MEAN,
    folds=None,
    seed=0,
):
    """Relative difference of two methods' EER, with a paired bootstrap.

    Folds are drawn with replacement, within each drawn fold as many of its
    runs as it has, and of each the replicate on resampled speakers, the same
    draws for both methods. Runs of a fold share its training speakers, so
    that they are not drawn as if they were of different folds.

    Arguments
    ---------
    replicates : dict
        See :func:`collect_runs`.
    rows : pandas.DataFrame
        See :func:`collect_runs`.
    pair : str
        Which (teacher, student) pair.
    method, baseline : str
        What is compared with what.
    duration : str
        Name of a duration, ``pooled``, or ``mean`` for the mean of the
        durations' EERs in each run.
    folds : list, optional
        The fold of each run; if not given, each run is a fold of its own.
    seed : int
        Seed of the draws.

    Returns
    -------
    result : dict
        ``method``, ``baseline``, ``duration``, ``relative`` (negative is better
        than the baseline), ``low`` and ``high`` of the 95 % interval, all in
        percent, and the two-sided ``p_value``.
    """
    runs = sorted({key[1] for key in replicates if key[0] == pair})
    durations = {key[3] for key in replicates if key[0] == pair}
    if duration == MEAN:
        durations = sorted(durations - {POOLED})
    else:
        durations = [duration]

    def per_run(name):
        return torch.stack(
            [
                torch.stack(
                    [replicates[pair, i, name, d] for d in durations]
                ).mean(0)
                for i in runs
            ]
        )

    ours, theirs = per_run(method), per_run(baseline)
    draws = _drawn_runs(folds or runs, ours.shape[1], seed)
    columns = torch.arange(ours.shape[1])
    ours, theirs = (
        torch.stack([x[run, columns] * share for run, share in draws]).sum(0)
        for x in (ours, theirs)
    )
    relative = 100 * (ours / theirs - 1)
    relative = relative[~relative.isnan()]
    overall = rows[(rows["group"] == ALL) & (rows["pair"] == pair)]
    overall = overall[overall["duration"].isin(durations)]
    overall = overall.groupby("method")["eer"].mean()
    low, high = np.percentile(relative.numpy(), [2.5, 97.5])
    tail = min((relative >= 0).double().mean(), (relative <= 0).double().mean())
    return {
        "method": method,
        "baseline": baseline,
        "duration": duration,
        "relative": float(100 * (overall[method] / overall[baseline] - 1)),
        "low": float(low),
        "high": float(high),
        # A bootstrap cannot show less than one in its number of draws.
        "p_value": float(min(1.0, max(2 * tail, 1 / len(relative)))),
    }


def _drawn_runs(folds, samples, seed):
    """Draw folds, then runs of them: pairs of run and share, (samples,) each.

    The shares of a sample sum to one.
    """
    generator = torch.Generator().manual_seed(seed)
    members = [
        torch.tensor([i for i, fold in enumerate(folds) if fold == one])
        for one in sorted(set(folds))
    ]
    sizes = torch.tensor([len(runs) for runs in members])
    table = torch.nn.utils.rnn.pad_sequence(members, batch_first=True)
    drawn = torch.randint(
        len(members), (len(members), samples), generator=generator
    )
    total = sizes[drawn].sum(0)
    draws = []
    for fold in drawn:
        for nth in range(int(sizes.max())):
            place = torch.rand(samples, generator=generator) * sizes[fold]
            share = (nth < sizes[fold]).double() / total
            draws.append((table[fold, place.long()], share))
    return draws


def read_curves(output_folder, pairs, runs, methods):
    """Dev EER of every training, epoch by epoch.

    Returns
    -------
    curves : pandas.DataFrame
        Columns pair, fold, seed, method, epoch, updates, minutes, eer
        (percent, mean of the validation durations).

    Raises
    ------
    UserError
        If a training has left no statistics.
    """
    tables = []
    for pair in pairs:
        for run in runs:
            for method in methods:
                folder = run_folder(output_folder, pair, run) / method
                path = folder / STATS_FILE
                if not path.is_file():
                    raise UserError(
                        f"{path}: missing; delete {folder} and run again."
                    )
                stats = pd.read_csv(path)
                tables.append(
                    pd.DataFrame(
                        {
                            "pair": pair,
                            **run,
                            "method": method,
                            "epoch": stats["epoch"],
                            "updates": stats["updates"],
                            "minutes": stats["train seconds"].cumsum() / 60,
                            "eer": stats["valid EER"],
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True)


def write_report(hparams, rows, replicates, curves, about):
    """Write what a comparison found: tables, JSON and figures.

    Arguments
    ---------
    hparams : dict
        ``report_folder``, ``pairs``, ``methods``, ``runs``, ``baselines``,
        ``durations``, ``plots``, and ``output_folder`` for the models' sizes.
    rows, replicates
        See :func:`collect_runs`.
    curves : pandas.DataFrame
        See :func:`read_curves`.
    about : dict
        Date, machine and command, copied into the results.

    Returns
    -------
    text : str
        The tables, in Markdown, as written to ``table.md``.
    """
    folder = Path(hparams["report_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "runs.csv", index=False, float_format="%.6g")
    curves.to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    summary = summarise(rows)
    durations = [duration_name(d) for d in hparams["durations"]]
    methods = [TEACHER, *hparams["methods"]]
    sizes = _sizes(hparams, methods)
    differences = []
    parts = []
    for pair in hparams["pairs"]:
        differences += [
            {
                "pair": pair,
                **relative_differences(
                    replicates,
                    rows,
                    pair,
                    method,
                    baseline,
                    duration,
                    [run["fold"] for run in hparams["runs"]],
                ),
            }
            for duration in (MEAN, POOLED)
            for method in hparams["methods"]
            for baseline in hparams["baselines"]
            if method != baseline
        ]
        columns = [*durations, MEAN, POOLED]
        parts.append(_table(summary, pair, methods, columns, sizes[pair]))
        parts += [
            _difference_table(differences, pair, duration, hparams)
            for duration in (MEAN, POOLED)
        ]
        parts.append(_group_table(summary, pair, methods))
    text = "\n\n".join(parts) + "\n"
    results = {
        **about,
        "runs": hparams["runs"],
        "sizes": sizes,
        "summary": [
            {
                "pair": pair,
                "group": group,
                "method": method,
                "figure": figure,
                "duration": duration,
                "mean": values["mean"],
                # JSON has no NaN: one run has no spread.
                "std": None if math.isnan(values["std"]) else values["std"],
            }
            for (pair, group, method), row in summary.iterrows()
            for (figure, duration), values in row.groupby(level=[0, 1])
            for values in [values.droplevel([0, 1]).to_dict()]
        ],
        "differences": differences,
    }
    write_whole(folder / "results.json", json.dumps(results, indent=1))
    write_whole(folder / "table.md", text)
    if hparams["plots"]:
        for pair in hparams["pairs"]:
            _draw(folder, pair, hparams, methods, rows, differences, curves)
    return text


def _draw(folder, pair, hparams, methods, rows, differences, curves):
    """The figures of one pair; its name is theirs where there are several."""
    several = len(hparams["pairs"]) > 1
    end = f"_{pair}.png" if several else ".png"
    plots.training_curves(
        folder / f"curves{end}", curves[curves["pair"] == pair]
    )
    overall = (rows["pair"] == pair) & (rows["group"] == ALL)
    plots.method_dots(folder / f"methods{end}", rows[overall], methods)
    pooled = [
        d for d in differences if (d["pair"], d["duration"]) == (pair, POOLED)
    ]
    if pooled:
        plots.difference_intervals(
            folder / f"differences{end}",
            pooled,
            list(hparams["methods"]),
            hparams["baselines"],
            "Relative difference of the pooled EER, 95 % intervals",
        )


def _sizes(hparams, methods):
    """Parameters and MACs of each method's model, from the first run."""
    sizes = {}
    for pair in hparams["pairs"]:
        folder = run_folder(hparams["output_folder"], pair, hparams["runs"][0])
        sizes[pair] = {
            name: dict(
                zip(
                    ("parameters", "macs"),
                    model_size(load_speaker_model(folder / name)),
                    strict=True,
                )
            )
            for name in methods
        }
    return sizes


def _table(summary, pair, methods, durations, sizes):
    """EER and minDCF of each method and duration, in Markdown."""
    lines = [
        f"**{pair}**: EER in %, mean ± standard deviation over runs "
        "(mean: of the durations; pooled: all of them under one threshold; "
        "minDCF: normalised, prior 0.01, mean of the durations)",
        "",
        "| method | parameters | MACs (3 s) | "
        + " | ".join(durations)
        + " | minDCF |",
        "|---|---|---|" + "---|" * (len(durations) + 1),
    ]
    for method in methods:
        row = summary.loc[(pair, ALL, method)]
        cells = [
            _mean_and_spread(row["eer", d, "mean"], row["eer", d, "std"])
            for d in durations
        ]
        size = sizes[method]
        lines.append(
            f"| {method} | {size['parameters'] / 1e6:.3f} M "
            f"| {size['macs'] / 1e6:.1f} M | "
            + " | ".join(cells)
            + f" | {row['min_dcf', MEAN, 'mean']:.3f} |"
        )
    return "\n".join(lines)


def _mean_and_spread(mean, std):
    """``mean ± std``; the mean alone where one run has no spread.

    Example
    -------
    >>> _mean_and_spread(12.345, 1.0), _mean_and_spread(12.345, float("nan"))
    ('12.35 ± 1.00', '12.35')
    """
    return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.2f}"


def _difference_table(differences, pair, duration, hparams):
    """Relative differences to each baseline, in Markdown."""
    baselines = hparams["baselines"]
    which = {MEAN: "the mean of the durations' EERs", POOLED: "the pooled EER"}
    lines = [
        f"Relative difference of {which[duration]} in % (95 % interval, p), "
        "paired bootstrap over runs and test speakers; negative is better",
        "",
        "| method | " + " | ".join(f"to {b}" for b in baselines) + " |",
        "|---|" + "---|" * len(baselines),
    ]
    found = {
        (d["method"], d["baseline"]): d
        for d in differences
        if d["pair"] == pair and d["duration"] == duration
    }
    for method in hparams["methods"]:
        cells = []
        for baseline in baselines:
            d = found.get((method, baseline))
            cells.append(
                "-"
                if d is None
                else f"{d['relative']:+.1f} ({d['low']:+.1f} to "
                f"{d['high']:+.1f}, p={d['p_value']:.3f})"
            )
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _group_table(summary, pair, methods):
    """EER of each method and pack, mean over durations and runs."""
    groups = [
        group
        for group in summary.loc[pair].index.get_level_values(0).unique()
        if group != ALL
    ]
    lines = [
        "EER in % by pack, mean over durations and over the runs that test it",
        "",
        "| method | " + " | ".join(groups) + " |",
        "|---|" + "---|" * len(groups),
    ]
    for method in methods:
        cells = [
            f"{summary.loc[(pair, group, method)]['eer', MEAN, 'mean']:.2f}"
            for group in groups
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dev_table(curves):
    """Dev EER of each method at its last epoch, mean over runs, best first.

    The lowest of all epochs is beside it: on a dozen dev speakers it is often
    that of an epoch far from done.

    Arguments
    ---------
    curves : pandas.DataFrame
        See :func:`read_curves`.

    Returns
    -------
    table : pandas.DataFrame
        Columns pair, method, eer, std, lowest, minutes.
    """
    run = ["pair", "method", "fold", "seed"]
    ended = curves.groupby(run, sort=False).agg(
        eer=("eer", "last"), lowest=("eer", "min"), minutes=("minutes", "max")
    )
    table = ended.groupby(["pair", "method"], sort=False).agg(
        eer=("eer", "mean"),
        std=("eer", "std"),
        lowest=("lowest", "mean"),
        minutes=("minutes", "mean"),
    )
    return table.sort_values(["pair", "eer"]).reset_index()


def write_whole(path, text):
    """Write a text file, whole or not at all.

    Arguments
    ---------
    path : pathlib.Path
        Where to.
    text : str
        Its content, written as UTF-8.
    """
    building = path.with_name(path.name + ".tmp")
    building.write_text(text, encoding="utf-8")
    os.replace(building, path)
