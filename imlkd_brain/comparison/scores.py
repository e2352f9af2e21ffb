"""Scores the trained models of all runs and collects their error rates.

Authors: IML-KD contributors
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from imlkd_brain.comparison.plan import TEACHER, run_folder
from imlkd_brain.data.crops import POOLED, crop_name, duration_name
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.trial_audio import locate_known, locate_trials
from imlkd_brain.data.trials import ALL, read_trials
from imlkd_brain.files import in_place_of
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
)
from imlkd_brain.metrics.error_rates import EER, normalised_min_dcf
from imlkd_brain.metrics.intervals import sharing
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.verification.embeddings import (
    EmbeddingStore,
    audio_state,
    embed_utterances,
)
from imlkd_brain.verification.scorer import Scorer


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
    located : imlkd_brain.data.trial_audio.LocatedTrials
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
        # numpy adds a suffix to a path, but not to a stream.
        with in_place_of(kept) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **found)
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
    digest = hashlib.sha256(f"{samples} {seed} exact ties".encode())
    for part in trials:
        digest.update(part.numpy().tobytes())
    kept = folder / "bootstrap" / f"{digest.hexdigest()[:24]}.npy"
    if not kept.is_file():
        speakers = 1 + max(int(side.max()) for side in trials[2:])
        counts = bootstrap_counts(
            speakers, samples, torch.Generator().manual_seed(seed)
        )
        eer, _ = bootstrap_over_speakers(*trials, counts)
        kept.parent.mkdir(exist_ok=True)
        with in_place_of(kept) as temporary, open(temporary, "wb") as stream:
            np.save(stream, eer.numpy())
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
