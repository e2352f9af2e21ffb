"""What many trainings score, and what may be said about their differences.

A *run* is one fold and seed: one teacher, and each method's student on the
same data order, chunks, augmentation and initialisation. Speakers are few and
seeds matter, so methods are only compared within runs, and intervals
(:mod:`imlkd_brain.differences`) come from the spread of the folds and a
bootstrap over the test speakers that they share.

``python -m imlkd_brain.comparison FOLDER...`` writes the tables and figures of
finished reports anew from their ``runs.csv``, ``curves.csv`` and
``results.json``.

Authors: IML-KD contributors
"""

import argparse
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
from imlkd_brain.differences import (
    as_text,
    correct_family,
    relative_difference,
    sharing,
    speaker_covariance,
    units_of,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.metrics import EER, bootstrap_over_speakers, normalised_min_dcf
from imlkd_brain.reports import ALL, POOLED
from imlkd_brain.teacher import load_speaker_model
from imlkd_brain.verification import (
    EmbeddingStore,
    Scorer,
    audio_state,
    check_held_out,
    crop_name,
    embed_utterances,
    locate_trials,
    model_size,
    read_trials,
    training_speakers,
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


def locate_known(trials, data_folder):
    """Find the audio of a list whose speakers are known.

    Arguments
    ---------
    trials : str or Path
        The list.
    data_folder : str or Path
        Where the audio is.

    Returns
    -------
    imlkd_brain.verification.LocatedTrials
        The list with files and speakers.

    Raises
    ------
    UserError
        If the speakers are not known: all intervals are over speakers.
    """
    located = locate_trials(read_trials(trials), data_folder)
    if located.doubt:
        raise UserError(
            f"{trials}: its speakers are not known ({located.doubt}), and the "
            "intervals of a comparison are over speakers; put the files into "
            "speakers' folders, or Kaldi's utt2spk into the data folder."
        )
    return located


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
    located = locate_known(trials, data_folder)
    # By what is in the list: a corpus built anew has others by its name.
    listed = hashlib.sha256(Path(trials).read_bytes()).hexdigest()[:16]
    audio = audio_state(located)
    scores = {}
    for method in methods:
        kept = folder / method / f"scores-{listed}.npz"
        model = load_speaker_model(folder / method, device)
        check_held_out(
            located,
            training_speakers({method: model}),
            way_out="with `test_trials` or other folds in the YAML",
        )
        wanted = {
            duration_name(d): f"{model.key} {crop_name(d, seed)} {audio}"
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
        resampled speakers, on the same draws for all methods, and for all
        runs that share test speakers.
    speakers : list of frozenset
        The test speakers of each run.
    """
    rows, replicates = [], {}
    methods = [TEACHER, *hparams["methods"]]
    speakers, indices = _speakers_of_runs(hparams, trials_of)
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
        enrol, test, groups = _speakers(located, indices[i])
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
    return pd.DataFrame(rows), replicates, speakers


def _speakers_of_runs(hparams, trials_of):
    """Test speakers of each run, and numbers for them, {speaker: number}.

    Runs that share speakers number them alike, so that the same draw of
    speakers is a draw of the same speakers.
    """
    lists = [str(trials_of(run)) for run in hparams["runs"]]
    found = {
        path: locate_trials(read_trials(path), hparams["test_folder"]).speakers
        for path in dict.fromkeys(lists)
    }
    names = [list(found[path]) for path in lists]
    speakers = [frozenset(own) for own in names]
    groups = sharing(speakers)
    indices = []
    for group in groups:
        members = dict.fromkeys(
            name
            for own, g in zip(names, groups, strict=True)
            if g == group
            for name in own
        )
        indices.append({name: i for i, name in enumerate(members)})
    return speakers, indices


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


def _speakers(located, index):
    """Speaker numbers of both sides of each trial, and each trial's pack."""
    sides = []
    for side, names in enumerate(
        (located.enrol_speakers, located.test_speakers)
    ):
        of_row = torch.tensor([index[name] for name in names])
        sides.append(of_row[located.pairs[:, side]])
    names = list(index)
    packs = [names[i].split("-")[0] for i in sides[0].tolist()]
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
    rows, pair, methods, baselines, duration=MEAN, covariance=None
):
    """Relative differences of methods' EERs to those of the baselines.

    Arguments
    ---------
    rows : pandas.DataFrame
        See :func:`collect_runs`.
    pair : str
        Which (teacher, student) pair.
    methods, baselines : sequence of str
        What is compared with what; a method is not compared with itself.
    duration : str
        Name of a duration, ``pooled``, or ``mean`` for the mean of the
        durations' EERs in each run.
    covariance : dict, optional
        From :func:`speaker_covariances`. Without it test speakers that folds
        share are taken as given.

    Returns
    -------
    differences : list of dict
        ``method``, ``baseline``, ``duration``, what
        :func:`imlkd_brain.differences.relative_difference` says, and
        ``p_holm``, corrected for the number of comparisons in the list.
    """
    chosen = (rows["pair"] == pair) & (rows["group"] == ALL)
    chosen &= (
        rows["duration"] != POOLED
        if duration == MEAN
        else rows["duration"] == duration
    )
    eers = rows[chosen].pivot_table(
        index=["fold", "seed"], columns="method", values="eer"
    )
    folds = eers.index.get_level_values("fold").tolist()
    differences = []
    for method in methods:
        for baseline in baselines:
            if method == baseline:
                continue
            shared = {}
            if covariance is not None:
                places = [
                    covariance["methods"].index(m) for m in (method, baseline)
                ]
                shared = {
                    "covariance": np.array(covariance["covariance"])[
                        np.ix_(places, places)
                    ],
                    "degrees": covariance["degrees"],
                }
            found = relative_difference(
                eers[method], eers[baseline], folds, **shared
            )
            differences.append(
                {
                    "method": method,
                    "baseline": baseline,
                    "duration": duration,
                    **found,
                }
            )
    return correct_family(differences)


def speaker_covariances(replicates, speakers, folds):
    """What test speakers that folds share bring to the methods' mean EERs.

    Arguments
    ---------
    replicates, speakers
        See :func:`collect_runs`.
    folds : list
        The fold of each run.

    Returns
    -------
    covariances : list of dict
        For each pair, and for the mean of the durations and the pooled EER:
        ``pair``, ``duration``, ``methods``, ``covariance`` and ``degrees`` of
        :func:`imlkd_brain.differences.speaker_covariance`. Left out where
        there are too few speakers to tell.
    """
    covariances = []
    for pair in dict.fromkeys(key[0] for key in replicates):
        methods, durations = (
            list(dict.fromkeys(key[i] for key in replicates if key[0] == pair))
            for i in (2, 3)
        )
        single = [d for d in durations if d != POOLED]
        for name, averaged in ((MEAN, single), (POOLED, [POOLED])):
            values = [
                [
                    torch.stack(
                        [replicates[pair, i, method, d] for d in averaged]
                    ).mean(0)
                    for method in methods
                ]
                for i in range(len(folds))
            ]
            values = torch.stack([torch.stack(run) for run in values]).numpy()
            found, degrees = speaker_covariance(values, folds, speakers)
            if found is not None:
                covariances.append(
                    {
                        "pair": pair,
                        "duration": name,
                        "methods": methods,
                        "covariance": found.tolist(),
                        "degrees": degrees,
                    }
                )
    return covariances


def what_intervals_cover(folds, speakers_known):
    """What an interval of a report allows for, in words.

    Arguments
    ---------
    folds : list
        The fold of each run.
    speakers_known : bool
        Whether there is a bootstrap over the test speakers.

    Returns
    -------
    str
        The end of a sentence on 95 % intervals.

    Example
    -------
    >>> what_intervals_cover([0], False)
    'none, as there is one run'
    """
    if len(units_of(folds)) == 1:
        if speakers_known:
            return "over test speakers, not over trainings, as there is one run"
        return "none, as there is one run"
    units = "folds and their trainings"
    if len(set(folds)) == 1:
        units = "trainings of one fold"
    if speakers_known:
        return f"over {units} and over test speakers"
    return f"over {units}, and over test speakers where each fold has its own"


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


def write_report(hparams, rows, replicates, speakers, curves, about):
    """Write what a comparison found: tables, JSON and figures.

    Arguments
    ---------
    hparams : dict
        ``report_folder``, ``pairs``, ``methods``, ``runs``, ``baselines``,
        ``durations``, ``plots``, and ``output_folder`` for the models' sizes.
    rows, replicates, speakers
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
    methods = [TEACHER, *hparams["methods"]]
    folds = [run["fold"] for run in hparams["runs"]]
    results = {
        **about,
        "runs": hparams["runs"],
        "baselines": list(hparams["baselines"]),
        "sizes": _sizes(hparams, methods),
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
        "speakers": speaker_covariances(replicates, speakers, folds),
    }
    return _write_differences(folder, rows, curves, results, hparams["plots"])


def rewrite_report(folder, figures=None):
    """Write a report's differences, tables and figures anew.

    Arguments
    ---------
    folder : str or Path
        A report folder, with ``runs.csv``, ``curves.csv`` and
        ``results.json``.
    figures : str or Path, optional
        Where to draw its figures; if not given, there are none.

    Returns
    -------
    text : str
        The tables, in Markdown, as written to ``table.md``.

    Raises
    ------
    UserError
        If one of the files is missing.
    """
    folder = Path(folder)
    for name in ("runs.csv", "curves.csv", "results.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: no such file; a report folder of compare.py "
                "is expected."
            )
    results = json.loads((folder / "results.json").read_text("utf-8"))
    if "baselines" not in results:
        # Older reports: a method's differences name all but itself.
        named = {}
        for d in results["differences"]:
            others = named.setdefault(d["method"], [])
            others += [d["baseline"]] * (d["baseline"] not in others)
        results["baselines"] = max(reversed(named.values()), key=len)
    return _write_differences(
        folder,
        pd.read_csv(folder / "runs.csv"),
        pd.read_csv(folder / "curves.csv"),
        results,
        figures is not None,
        figures,
    )


def _write_differences(folder, rows, curves, results, plot, figures=None):
    """Write differences, tables and figures of results; returns the tables."""
    baselines = results["baselines"]
    covariances = {
        (found["pair"], found["duration"]): found
        for found in results.get("speakers", [])
    }
    folds = [run["fold"] for run in results["runs"]]
    # As it was found: runs.csv has six digits of what it is the mean of.
    summary = pd.DataFrame(results["summary"])
    summary = summary.set_index(
        ["pair", "group", "method", "figure", "duration"]
    )[["mean", "std"]].astype(float)
    summary = summary.unstack(["figure", "duration"])
    summary = summary.reorder_levels([1, 2, 0], axis=1).sort_index(axis=1)
    differences = []
    parts = []
    pairs = list(dict.fromkeys(rows["pair"]))
    for pair in pairs:
        own = rows[rows["pair"] == pair]
        methods = list(dict.fromkeys(own["method"]))
        durations = list(dict.fromkeys(own["duration"]))
        columns = [*(d for d in durations if d != POOLED), MEAN, POOLED]
        sizes = results["sizes"][pair]
        parts.append(_table(summary, pair, methods, columns, sizes))
        for duration in (MEAN, POOLED):
            covariance = covariances.get((pair, duration))
            found = relative_differences(
                rows,
                pair,
                [method for method in methods if method != TEACHER],
                baselines,
                duration,
                covariance,
            )
            covered = what_intervals_cover(folds, covariance is not None)
            parts.append(_difference_table(found, baselines, covered))
            differences += [
                {"pair": pair, **difference, "interval": covered}
                for difference in found
            ]
        parts.append(_group_table(summary, pair, methods))
        if plot:
            _draw(
                Path(figures or folder),
                f"_{pair}" if len(pairs) > 1 else "",
                methods,
                baselines,
                own,
                [d for d in differences if d["pair"] == pair],
                curves[curves["pair"] == pair],
            )
    text = "\n\n".join(parts) + "\n"
    results = {**results, "differences": differences}
    write_whole(folder / "results.json", json.dumps(results, indent=1))
    write_whole(folder / "table.md", text)
    return text


def _draw(folder, end, methods, baselines, rows, differences, curves):
    """The figures of one pair; ``end`` is what their names end with."""
    folder.mkdir(parents=True, exist_ok=True)
    plots.training_curves(folder / f"curves{end}.png", curves)
    overall = rows["group"] == ALL
    plots.method_dots(folder / f"methods{end}.png", rows[overall], methods)
    pooled = [d for d in differences if d["duration"] == POOLED]
    if pooled:
        words = f"95 % intervals {pooled[0]['interval']}"
        if pooled[0]["p_value"] is None:
            words = "no intervals, as there is one run"
        plots.difference_intervals(
            folder / f"differences{end}.png",
            pooled,
            [method for method in methods if method != TEACHER],
            baselines,
            f"Relative difference of the pooled EER\n{words}",
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


def _difference_table(differences, baselines, covered):
    """Relative differences to each baseline, in Markdown."""
    which = {MEAN: "the mean of the durations' EERs", POOLED: "the pooled EER"}
    duration = differences[0]["duration"] if differences else POOLED
    found = {(d["method"], d["baseline"]): d for d in differences}
    compared = {frozenset(names) for names in found}
    lines = [
        f"Relative difference of {which[duration]} in % (95 % interval, p, p "
        f"with Holm's correction for {len(compared)} comparisons), intervals: "
        f"{covered}; negative is better",
        "",
        "| method | " + " | ".join(f"to {b}" for b in baselines) + " |",
        "|---|" + "---|" * len(baselines),
    ]
    for method in dict.fromkeys(d["method"] for d in differences):
        cells = [as_text(found.get((method, b))) for b in baselines]
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


def main(arguments=None):
    """Parse the command line and write reports anew."""
    parser = argparse.ArgumentParser(
        prog="python -m imlkd_brain.comparison",
        description="Write results.json and table.md of finished reports of "
        "compare.py anew from their runs.csv, curves.csv and results.json.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--figures",
        metavar="FOLDER",
        help="draw the figures, too, in a folder of each report's name here",
    )
    given = parser.parse_args(arguments)
    if given.figures:
        plots.require_matplotlib()
    for folder in given.folders:
        figures = given.figures and Path(given.figures, Path(folder).name)
        rewrite_report(folder, figures)
        print(folder)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
