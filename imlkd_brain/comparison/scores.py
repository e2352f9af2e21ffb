"""Scores the trained models of all runs and collects their error rates.

Authors: IML-KD contributors
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from imlkd_brain.data.crops import POOLED, crop_name
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.trial_audio import locate_known
from imlkd_brain.data.trials import ALL
from imlkd_brain.files import in_place_of
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
)
from imlkd_brain.metrics.error_rates import EER, normalised_min_dcf
from imlkd_brain.metrics.intervals import sharing
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.scorer import Scorer
from imlkd_brain.verification.store import audio_state
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

PRIOR = 0.01  # of the minDCF


@dataclass(frozen=True)
class Scoring:
    """How the models of a comparison are scored.

    Arguments
    ---------
    data_folder : str or Path
        The corpus of the trials.
    durations : dict
        Seconds of test speech by name, see
        :func:`imlkd_brain.data.crops.read_durations`. None stands for the
        whole utterance. The enrolment side is always whole.
    seed : int
        Seed of the crops and of the bootstrap.
    bootstrap_samples : int
        Draws of the test speakers.
    device : str
        Where to embed.
    """

    data_folder: str
    durations: dict
    seed: int
    bootstrap_samples: int
    device: str = "cpu"


@dataclass(frozen=True)
class Draws:
    """EERs of one pair's runs on resampled test speakers.

    Methods share the draws, and so do runs that share test speakers.

    Arguments
    ---------
    pair : str
        Name of the pair.
    folds : list of int
        The fold of each run, (N,).
    speakers : list of frozenset
        The test speakers of each run, (N,).
    methods, durations : list of str
        Names of the M methods and the D durations; ``pooled`` is the last.
    eers : torch.Tensor
        In percent, (N, M, D, R), for R draws.
    """

    pair: str
    folds: list
    speakers: list
    methods: list
    durations: list
    eers: torch.Tensor


def score_run(run, methods, scoring):
    """Score the models of a run on its trial list.

    Scores are kept beside each model (``scores-<list>.npz``), so that only
    new models are scored when a comparison grows.

    Arguments
    ---------
    run : imlkd_brain.comparison.plan.Run
        The run.
    methods : list of str
        Names of its models.
    scoring : Scoring
        How to score.

    Returns
    -------
    scores : dict
        ``{method: {duration name: (P,) float32 tensor}}``.
    located : imlkd_brain.data.trial_audio.LocatedTrials
        The list, for labels and speakers.

    Raises
    ------
    UserError
        If a model has learnt a speaker of the list.
    """
    located = locate_known(run.scored_trials, scoring.data_folder)
    # By what is in the list: a corpus built anew has others by its name.
    content = Path(run.scored_trials).read_bytes()
    listed = hashlib.sha256(content).hexdigest()[:16]
    audio = audio_state(located, scoring.data_folder)
    scores = {}
    for method in methods:
        folder = run.folder / method
        model = load_speaker_model(run.source(method), scoring.device)
        check_held_out(
            located,
            training_speakers({method: model}),
            way_out="with `test_trials` or other folds in the YAML",
        )
        kept = folder / f"scores-{listed}.npz"
        found = _kept_scores(kept, len(located.pairs))
        for name, seconds in scoring.durations.items():
            key = f"{model.key} {crop_name(seconds, scoring.seed)} {audio}"
            if str(found.get(f"{name} key", "")) == key:
                continue
            embed = Embedder(
                run.embeddings(method), scoring.seed, scoring.data_folder
            )
            scorer = Scorer(model, embed)
            found[name] = scorer.score(located, seconds)[0].numpy()
            found[f"{name} key"] = np.array(key)
        folder.mkdir(parents=True, exist_ok=True)
        # numpy adds a suffix to a path, but not to a stream.
        with in_place_of(kept) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **found)
        scores[method] = {
            name: torch.from_numpy(found[name]) for name in scoring.durations
        }
    return scores, located


def collect_runs(runs, methods, scoring):
    """Score all runs of a comparison.

    Arguments
    ---------
    runs : list of imlkd_brain.comparison.plan.Run
        Their models are trained.
    methods : list of str
        Names of the models of each run.
    scoring : Scoring
        How to score.

    Returns
    -------
    rows : pandas.DataFrame
        One row for each run, method, duration and group of speakers (``all``
        or a pack), with ``eer`` (percent) and ``min_dcf`` (normalised cost at
        a prior of 0.01). The duration ``pooled`` is all durations under one
        threshold.
    draws : list of Draws
        One for each pair.
    """
    speakers, numbers = _speakers_of_runs(runs, scoring.data_folder)
    rows, replicates = [], []
    for run, own in zip(
        tqdm(runs, desc="scoring", dynamic_ncols=True), numbers, strict=True
    ):
        scores, located = score_run(run, methods, scoring)
        trials = _numbered_trials(located, own)
        replicates.append([])
        for method, by_duration in scores.items():
            pooled = torch.cat(list(by_duration.values()))
            draws = []
            for duration, values in {**by_duration, POOLED: pooled}.items():
                times = len(values) // len(trials.labels)
                rows += [
                    {
                        **run.columns,
                        "method": method,
                        "duration": duration,
                        **figures,
                    }
                    for figures in _error_rates(values, trials, times)
                ]
                repeated = (values, *trials.repeated(times))
                draws.append(
                    100
                    * _kept_bootstrap(run.folder / method, repeated, scoring)
                )
            replicates[-1].append(torch.stack(draws))
    return pd.DataFrame(rows), [
        Draws(
            pair=pair,
            folds=[runs[i].fold for i in of_pair],
            speakers=[speakers[i] for i in of_pair],
            methods=list(methods),
            durations=[*scoring.durations, POOLED],
            eers=torch.stack([torch.stack(replicates[i]) for i in of_pair]),
        )
        for pair in dict.fromkeys(run.pair for run in runs)
        for of_pair in [[i for i, run in enumerate(runs) if run.pair == pair]]
    ]


def _speakers_of_runs(runs, data_folder):
    """Test speakers of each run, and numbers for them, {speaker: number}.

    Runs that share speakers number them alike, so that the same draw of
    speakers is a draw of the same speakers.
    """
    found = {
        path: locate_known(path, data_folder).speakers
        for path in dict.fromkeys(run.scored_trials for run in runs)
    }
    names = [found[run.scored_trials] for run in runs]
    speakers = [frozenset(own) for own in names]
    groups = sharing(speakers)
    numbers = []
    for group in groups:
        members = dict.fromkeys(
            name
            for own, g in zip(names, groups, strict=True)
            if g == group
            for name in own
        )
        numbers.append({name: i for i, name in enumerate(members)})
    return speakers, numbers


@dataclass(frozen=True)
class _Trials:
    """Labels and numbered speakers of a list's trials, and who is in a group.

    Arguments
    ---------
    labels, enrol, test : torch.Tensor
        Label and number of both speakers of each trial, (P,).
    groups : dict
        Name to a mask of its trials, (P,).
    """

    labels: torch.Tensor
    enrol: torch.Tensor
    test: torch.Tensor
    groups: dict

    def repeated(self, times):
        """Labels and speakers of the trials of several durations."""
        parts = (self.labels, self.enrol, self.test)
        return [part.repeat(times) for part in parts]


def _numbered_trials(located, numbers):
    """Number both speakers of each trial, and group trials by their pack."""
    sides = []
    for side, names in enumerate(
        (located.enrol_speakers, located.test_speakers)
    ):
        of_row = torch.tensor([numbers[name] for name in names])
        sides.append(of_row[located.pairs[:, side]])
    names = list(numbers)
    packs = [names[i].split("-")[0] for i in sides[0].tolist()]
    groups = {
        group: torch.tensor([group in (ALL, pack) for pack in packs])
        for group in (ALL, *sorted(set(packs)))
    }
    return _Trials(located.trials.labels, *sides, groups)


def _error_rates(values, trials, times):
    """Error rates of each group of speakers that has both kinds of trials."""
    truth = trials.labels.repeat(times)
    for group, mask in trials.groups.items():
        chosen = mask.repeat(times)
        targets, nontargets = values[chosen & truth], values[chosen & ~truth]
        if not len(targets) or not len(nontargets):
            continue
        cost = normalised_min_dcf(targets, nontargets, (PRIOR,))
        yield {
            "group": group,
            "trials": int(chosen.sum()),
            "eer": 100 * EER(targets, nontargets)[0],
            "min_dcf": cost[PRIOR][0],
        }


def _kept_bootstrap(folder, trials, scoring):
    """EERs on resampled speakers, from a file beside the model if it has them.

    The file's name is a hash of the trials. Drawing takes most of a report's
    time, and a comparison that grows is reported many times.
    """
    samples, seed = scoring.bootstrap_samples, scoring.seed
    digest = hashlib.sha256(f"{samples} {seed} exact ties".encode())
    for part in trials:
        digest.update(part.numpy().tobytes())
    kept = folder / "bootstrap" / f"{digest.hexdigest()[:24]}.npz"
    eer = kept_numbers(kept, samples)
    if eer is None:
        speakers = 1 + max(int(side.max()) for side in trials[2:])
        counts = bootstrap_counts(
            speakers, samples, torch.Generator().manual_seed(seed)
        )
        eer = bootstrap_over_speakers(*trials, counts)[0].numpy()
        kept.parent.mkdir(exist_ok=True)
        with in_place_of(kept) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, eer=eer)
    return torch.from_numpy(eer)


def _kept_scores(path, n_trials):
    """Read the scores beside a model; a damaged file is as good as none."""
    if not os.path.lexists(path):
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = dict(arrays)
        for name, scores in found.items():
            if not name.endswith(" key") and scores.shape != (n_trials,):
                raise ValueError(f"{name} has {scores.shape} scores")
    except Exception as error:
        # A cut file raises one of many types, zipfile's and numpy's.
        logger.warning(
            f"{path}: these scores are damaged ({error}); computed anew."
        )
        return {}
    return found


def kept_numbers(path, n_samples):
    """Read resampled error rates; None if there are none, or no good ones."""
    if not os.path.lexists(path):
        return None
    try:
        # Members of an archive have checksums.
        with np.load(path, allow_pickle=False) as arrays:
            found = arrays["eer"]
        if found.shape[-1:] != (n_samples,):
            raise ValueError(f"{found.shape} numbers")
        if ((found < 0) | (found > 1)).any():
            raise ValueError("numbers beyond 0 and 1")
    except Exception as error:
        logger.warning(
            f"{path}: these resampled error rates are damaged ({error}); "
            "computed anew."
        )
        return None
    return found
