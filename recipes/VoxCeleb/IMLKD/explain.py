#!/usr/bin/env python3
"""Recipe to see where speaker models look, and to measure whether it is true.

Saliency maps of a teacher and its students, judged by deletion and insertion
and by parameter randomisation, and compared: does a student look where its
teacher looks, at full length and at 3, 2 and 1 s?

To run this recipe, do the following:
> python explain.py hparams/minivox/explain.yaml --data_folder data/minivox
or, on any folder of wav files (<speaker>/*.wav, or *.wav):
> python explain.py hparams/minivox/explain.yaml --wav_folder my_wavs

The results folder then holds results.json, the CSVs and the figures. What was
computed is kept in its save folder: the same command again goes on from there.

Authors: IML-KD contributors
"""

import copy
import csv
import datetime
import hashlib
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchaudio
from tqdm import tqdm

import speechbrain as sb
from imlkd_brain import saliency
from imlkd_brain.dataio import load_hyperparameters
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.teacher import load_speaker_model
from imlkd_brain.verification import read_trials
from speechbrain.dataio import audio_io
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

TEACHER = "teacher"
SHUFFLED = "shuffled"  # the control of the comparison of models
SHORTEST = 0.2  # seconds; below, an ECAPA-TDNN has too few frames to pad


@dataclass
class Utterance:
    """One wav file and its speaker."""

    key: str
    path: str
    speaker: str


@dataclass
class Task:
    """Utterances to explain, and the score that is explained.

    ``verification``: the cosine against the enrolment ``enrolments[own[i]]``;
    an enrolment whose key ends in ``#halves`` is the utterance itself.
    ``identification``: the cosine of the true speaker in the classifier.
    """

    name: str
    utterances: list
    enrolments: list = field(default_factory=list)
    own: list = field(default_factory=list)
    trials: list = field(default_factory=list)  # (enrolment, test, is target)


# ------------------------------------------------------- models, utterances


def load_models(sources, device):
    """The models by name, the teacher first; a source of null is left out."""
    sources = {name: source for name, source in sources.items() if source}
    if TEACHER not in sources:
        raise UserError(
            f"models: there is no `{TEACHER}`; name the model that the others "
            f"are compared with, as in `{{{TEACHER}: results/.../1986}}`."
        )
    models = {}
    for name in sorted(sources, key=lambda name: name != TEACHER):
        try:
            models[name] = load_speaker_model(sources[name], device)
        except UserError as error:
            raise UserError(f"models: {name}: {error}") from error
    rates = {model.sample_rate for model in models.values()}
    if len(rates) > 1:
        raise UserError(
            f"models: sampling rates differ ({sorted(rates)} Hz); their maps "
            "cannot be compared, explain them one by one."
        )
    return models


def add_shuffled_control(models, seed):
    """The last student with shuffled parameters: it has learnt nothing.

    All maps of one utterance have its loud bins in common. What this network
    shares with the teacher is no fidelity, only what a student shares beyond.
    """
    student = list(models.values())[-1]
    control = copy.deepcopy(student)
    saliency.shuffle_parameters(control, seeded(seed, SHUFFLED))
    control.key = f"{student.key} {SHUFFLED} {seed}"
    models[SHUFFLED] = control


def seconds_of(path):
    """Duration of an audio file, from its header."""
    try:
        info = audio_io.info(path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error
    return info.num_frames / info.sample_rate


def read_waveform(path, sample_rate):
    """Samples (N,) of a file, mixed to mono and resampled where needed."""
    try:
        signal, rate = audio_io.load(path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error
    signal = signal.mean(0)
    if rate != sample_rate:
        signal = torchaudio.functional.resample(signal, rate, sample_rate)
    return signal


def wav_files(folder, what):
    """All wav files below a folder, in order."""
    paths = sorted(Path(folder).rglob("*.wav"))
    if not paths:
        raise UserError(
            f"{folder}: there are no wav files in this {what}; give a folder "
            "that holds <speaker>/*.wav or *.wav."
        )
    return paths


def pick(utterances, count, shortest, seed):
    """Choose utterances of at least ``shortest`` seconds, speaker by speaker.

    Each speaker gives one before any gives a second; the seed orders both the
    speakers and the utterances of a speaker.
    """
    generator = seeded(seed, "pick")
    by_speaker = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    queues = []
    for index in torch.randperm(len(by_speaker), generator=generator).tolist():
        own = list(by_speaker.values())[index]
        order = torch.randperm(len(own), generator=generator).tolist()
        queues.append([own[i] for i in order])
    picked = []
    while queues and len(picked) < count:
        for queue in list(queues):
            while queue and seconds_of(queue[0].path) < shortest:
                queue.pop(0)
            if not queue:
                queues.remove(queue)
            elif len(picked) < count:
                picked.append(queue.pop(0))
    if not picked:
        raise UserError(
            f"durations: none of the {len(utterances)} utterances lasts "
            f"{shortest:g} s; shorten the durations."
        )
    return sorted(picked, key=lambda utterance: utterance.key)


def corpus_tasks(hparams, models, shortest):
    """Held-out speakers of the trial list, training speakers of the corpus."""
    folder = Path(hparams["data_folder"])
    if not folder.is_dir():
        raise UserError(
            f"data_folder: {folder} does not exist; build the small corpus "
            f"with `python -m imlkd_brain.minivox --data_folder {folder}`, or "
            "give `--wav_folder` with a folder of wav files."
        )
    trials = read_trials(hparams["verification_file"])
    known = {
        key: Utterance(key, str(folder / "wav" / f"{key}.wav"), speaker_of(key))
        for key in trials.utterances
    }
    listed = list(
        zip(trials.enrol, trials.test, trials.labels.tolist(), strict=True)
    )
    own = {}
    for enrol, test, is_target in listed:
        if is_target:
            own.setdefault(test, enrol)
    missing = [u.path for u in known.values() if not os.path.isfile(u.path)]
    if missing:
        raise UserError(
            f"{hparams['verification_file']}: {len(missing)} utterances of "
            f"the list are not in {folder} (first: {missing[0]}); the list "
            "and data_folder do not belong together."
        )
    chosen = pick(
        [known[key] for key in own],
        hparams["n_verification"],
        shortest,
        hparams["seed"],
    )
    place = {utterance.key: i for i, utterance in enumerate(chosen)}
    listed = [trial for trial in listed if trial[1] in place]
    rows = {key: i for i, key in enumerate(dict.fromkeys(t[0] for t in listed))}
    tasks = [
        Task(
            "verification",
            chosen,
            [known[key] for key in rows],
            [rows[own[utterance.key]] for utterance in chosen],
            [(rows[enrol], place[test], t) for enrol, test, t in listed],
        )
    ]
    speakers = common_speakers(models)
    held_out = {u.speaker for u in known.values()} & set(speakers)
    if held_out:
        logger.warning(
            f"{len(held_out)} test speakers are training speakers of the "
            f"models (first: {min(held_out)}): they are not held out."
        )
    if hparams["identification_csv"] is not None:
        pool = csv_utterances(hparams["identification_csv"], folder, speakers)
    else:
        pool = [
            Utterance("/".join(path.parts[-3:])[:-4], str(path), speaker)
            for speaker in speakers
            for path in sorted((folder / "wav" / speaker).rglob("*.wav"))
        ]
    if pool:
        tasks.append(
            Task(
                "identification",
                pick(
                    pool, hparams["n_identification"], shortest, hparams["seed"]
                ),
            )
        )
    else:
        logger.warning(
            "no utterance of the models' training speakers is there: no "
            "posteriors and no identification."
        )
    return tasks


def folder_tasks(hparams, models, shortest):
    """Any folder of wav files; the sub-folder names the speaker."""
    folder = Path(hparams["wav_folder"])
    utterances = []
    for path in wav_files(folder, "wav_folder"):
        inside = path.relative_to(folder)
        # A file without a sub-folder is a speaker of its own.
        speaker = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        key = str(inside.with_suffix(""))
        utterances.append(Utterance(key, str(path), speaker))
        seconds = seconds_of(path)
        if seconds < shortest:
            raise UserError(
                f"{path}: lasts {seconds:.2f} s, the durations need "
                f"{shortest:g} s; remove the file or shorten the durations."
            )
    chosen = pick(utterances, hparams["n_verification"], 0, hparams["seed"])
    of_speaker = {}
    for utterance in utterances:
        of_speaker.setdefault(utterance.speaker, []).append(utterance)
    rows, own, trials = {}, [], []
    for i, utterance in enumerate(chosen):
        others = [
            u for u in of_speaker[utterance.speaker] if u is not utterance
        ]
        if others:
            row = rows.setdefault(others[0].key, len(rows))
            trials.append((row, i, True))
        else:
            row = rows.setdefault(f"{utterance.key}#halves", len(rows))
        own.append(row)
        for speaker, theirs in of_speaker.items():
            if speaker != utterance.speaker:
                row = rows.setdefault(theirs[0].key, len(rows))
                trials.append((row, i, False))
    by_key = {u.key: u for u in utterances}
    enrolments = [
        Utterance(key, by_key[plain].path, by_key[plain].speaker)
        for key, plain in ((key, key.removesuffix("#halves")) for key in rows)
    ]
    if len({is_target for _, _, is_target in trials}) < 2:
        trials = []
    tasks = [Task("verification", chosen, enrolments, own, trials)]
    speakers = common_speakers(models)
    pool = [u for u in utterances if u.speaker in speakers]
    if pool:
        picked = pick(pool, hparams["n_identification"], 0, hparams["seed"])
        tasks.append(Task("identification", picked))
    return tasks


def speaker_of(key):
    """The speaker in an utterance key ``speaker/session/file``."""
    return key.split("/")[0]


def common_speakers(models):
    """Training speakers that every model's classifier has, in order."""
    sets = [
        set(model.speakers) if model.classifier is not None else set()
        for model in models.values()
    ]
    return sorted(set.intersection(*sets))


def csv_utterances(path, folder, speakers):
    """Utterances of a CSV of ``prepare_voxceleb`` whose speaker is known."""
    try:
        rows = sb.dataio.dataio.load_data_csv(path, {"data_root": str(folder)})
    except FileNotFoundError as error:
        raise UserError(
            f"identification_csv: {path} does not exist; train first, or "
            "leave it null to take the speakers' folders of data_folder."
        ) from error
    known = set(speakers)
    wavs = {r["wav"]: r["spk_id"] for r in rows.values()}
    return [
        Utterance("/".join(Path(wav).parts[-3:])[:-4], wav, speaker)
        for wav, speaker in sorted(wavs.items())
        if speaker in known
    ]


# --------------------------------------------------- maps, curves, sanity


def seeded(*names):
    """A CPU generator that depends on the names alone."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def cached(folder, name, ingredients, compute):
    """What ``compute`` gives, kept in a file as long as nothing changes."""
    signature = hashlib.sha256(
        json.dumps(ingredients, sort_keys=True, default=str).encode()
    ).hexdigest()
    path = Path(folder) / f"{name}.pt"
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        if kept["signature"] == signature:
            return kept["data"]
    data = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save({"signature": signature, "data": data}, unfinished)
    unfinished.replace(path)
    return data


def crop(signal, duration, sample_rate):
    """The middle ``duration`` seconds and where they start, on whole 10 ms.

    Crops of one utterance are nested: the second seen at 1 s is the same that
    is seen, with more around it, at 2 s, at 3 s and at full length.
    """
    if duration == "full":
        return signal, 0.0
    n_samples = int(duration * sample_rate)
    grid = sample_rate // 100
    start = (len(signal) - n_samples) // 2 // grid * grid
    return signal[start : start + n_samples], start / sample_rate


@torch.no_grad()
def enrol(task, model, embed, device):
    """Embeddings (E, D) of the enrolments of a task.

    An utterance that has to enrol itself is enrolled with the mean of its
    halves: against itself its score would be at its maximum, 1, where every
    gradient is zero.
    """
    embeddings = []
    for utterance in task.enrolments:
        signal = read_waveform(utterance.path, model.sample_rate).to(device)
        parts = [signal]
        if utterance.key.endswith("#halves"):
            parts = signal.split(-(-len(signal) // 2))
        units = [
            torch.nn.functional.normalize(
                embed(model.features(p[None])), dim=-1
            )
            for p in parts
        ]
        embeddings.append(torch.cat(units).mean(0))
    return torch.stack(embeddings)


def score_of(task, model, embed, device):
    """The score of a task and the column of each of its utterances."""
    if task.name == "identification":
        rows = {speaker: row for row, speaker in enumerate(model.speakers)}
        columns = [rows[u.speaker] for u in task.utterances]
        score = saliency.speaker_score(
            lambda feats: model.classify(embed(feats))
        )
    else:
        columns = task.own
        score = saliency.enrolment_score(
            embed, enrol(task, model, embed, device)
        )
    return score, torch.tensor(columns, device=device)


def equal_lengths(feats, batch_frames):
    """Indices of features of one length, as many as may go together."""
    by_length = {}
    for index, item in enumerate(feats):
        by_length.setdefault(len(item), []).append(index)
    for length, indices in by_length.items():
        size = max(1, batch_frames // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


@torch.no_grad()
def features_of(task, model, duration, device):
    """Features (T, F) of each utterance, on the CPU, and its place in time."""
    feats, places = [], []
    for utterance in task.utterances:
        signal = read_waveform(utterance.path, model.sample_rate)
        piece, start = crop(signal, duration, model.sample_rate)
        feats.append(model.features(piece[None].to(device))[0].cpu())
        places.append((start, start + len(piece) / model.sample_rate))
    return feats, places


def compute_maps(task, name, model, duration, hparams, device, progress):
    """All maps of one model for one task at one duration."""
    feats, places = features_of(task, model, duration, device)
    score, target = score_of(task, model, model.embed_features, device)
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
            attribution, gaps = saliency.saliency_map(
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


def compute_curves(task, model, kept, method, hparams, device):
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
            ranks = saliency.importance_ranks(attribution, unit, generator)
            for direction in ("deletion", "insertion"):
                for kind in hparams[f"{direction}_baselines"]:
                    if kind != "zero" and not baselines_differ(feats, kind):
                        continue
                    baseline = saliency.empty_input(
                        batch, kind, hparams["blur_sigma"]
                    )
                    embeddings = saliency.perturbation_outputs(
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
            task, model, embeddings, hparams, device
        ).items():
            curves[f"{condition}/{metric}"] = values.cpu()
    return curves


@torch.no_grad()
def task_metrics(task, model, embeddings, hparams, device):
    """What the curves show, of embeddings (utterances, levels, D)."""
    if task.name == "identification":
        cosines = model.classify(embeddings.flatten(0, 1))
        cosines = cosines.view(*embeddings.shape[:2], -1)
        rows = {speaker: row for row, speaker in enumerate(model.speakers)}
        target = torch.tensor(
            [rows[u.speaker] for u in task.utterances], device=device
        )
        return saliency.identification_curves(
            cosines, target, hparams["posterior_scale"]
        )
    directions = torch.nn.functional.normalize(
        enrol(task, model, model.embed_features, device), dim=-1
    )
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


def compute_sanity(task, name, model, kept, hparams, device, progress):
    """How far maps change while the network is shuffled from the output down.

    Returns
    -------
    similarity : dict
        From ``method/step`` to the rank correlation of each utterance's map
        with the intact network's, shape (N,).
    """
    methods = {m: o for m, o in hparams["methods"].items() if m != "random"}
    generator = seeded(hparams["seed"], "shuffle", name)
    chosen = range(min(hparams["n_sanity"], len(task.utterances)))
    part = Task(
        task.name,
        [task.utterances[i] for i in chosen],
        [task.enrolments[task.own[i]] for i in chosen],
        list(chosen),
    )
    feats = [kept["feats"][i] for i in chosen]
    similarity = {}
    for step, network in saliency.parameter_cascade(
        model.embedding_model, generator
    ):
        # Grad-CAM finds its layer by the name it has in the whole model.
        holder = torch.nn.ModuleDict({"embedding_model": network})

        def embed(x, network=network):
            return network(x).squeeze(1)

        score, target = score_of(part, model, embed, device)
        for indices in equal_lengths(feats, hparams["batch_frames"]):
            batch = torch.stack([feats[i] for i in indices]).to(device)
            for method, options in methods.items():
                shuffled, _ = saliency.saliency_map(
                    method,
                    score,
                    batch,
                    target[indices],
                    model=holder,
                    options=options,
                    batch_frames=hparams["batch_frames"],
                )
                intact = torch.stack([kept["maps"][method][i] for i in indices])
                rho = saliency.rank_correlation(shuffled.cpu(), intact)
                place = similarity.setdefault(
                    f"{method}/{step}", torch.zeros(len(feats)).double()
                )
                place[indices] = rho
        progress.update(1)
    return similarity


# ------------------------------------------------------------- statistics


class Speakers:
    """The speakers of a task and their bootstrap replicates.

    Every quantity of a task is measured on the same replicates, so that
    differences are paired.
    """

    def __init__(self, task, hparams):
        everyone = [*task.utterances, *task.enrolments]
        names = sorted({utterance.speaker for utterance in everyone})
        index = {name: i for i, name in enumerate(names)}
        self.names = names
        self.of_utterance = torch.tensor(
            [index[u.speaker] for u in task.utterances]
        )
        self.of_enrolment = torch.tensor(
            [index[u.speaker] for u in task.enrolments], dtype=torch.long
        )
        self.counts = saliency.bootstrap_counts(
            len(names),
            hparams["n_bootstrap"],
            seeded(hparams["seed"], "bootstrap", task.name),
        )
        self.confidence = hparams["confidence"]
        if task.trials:
            trials = torch.tensor(task.trials)
            self.labels = trials[:, 2].bool()
            first = self.counts[:, self.of_enrolment[trials[:, 0]]]
            second = self.counts[:, self.of_utterance[trials[:, 1]]]
            # A target trial has one speaker, a nontarget trial two.
            weights = torch.where(self.labels, second, first * second)
            whole = torch.ones(1, len(trials), dtype=weights.dtype)
            self.trial_weights = torch.cat((whole, weights))

    def mean(self, values):
        """Mean (...) over utterances (N, ...) and its replicates (R, ...)."""
        return saliency.replicated_means(values, self.of_utterance, self.counts)

    def eer(self, scores):
        """EER (L,) of trial scores (K, L) and its replicates (R, L)."""
        rates = torch.stack(
            [
                saliency.weighted_eer(level, self.labels, self.trial_weights)
                for level in scores.unbind(1)
            ],
            dim=1,
        )
        return rates[0], rates[1:]

    def interval(self, replicates):
        """Ends of the confidence interval of replicates (R, ...)."""
        return saliency.interval(replicates, self.confidence)

    def row(self, mean, replicates, prefix=""):
        """A mean and its interval as entries of a table's row."""
        low, high = self.interval(replicates)
        return {
            f"{prefix}mean": float(mean),
            f"{prefix}low": float(low),
            f"{prefix}high": float(high),
        }


def curve_tables(task, duration, name, curves_of, hparams, speakers):
    """Curves and their areas, of all methods of one model.

    Returns
    -------
    areas, points : list of dict
        Rows of areas.csv and of curves.csv.
    panels : dict
        From (unit, baseline) to what ``plot_curves`` takes.
    """
    levels = torch.linspace(0, 1, hparams["n_levels"]).double()
    areas, points, panels, drawn = [], [], {}, {}
    # The random control first: the others are compared with it.
    for method in sorted(curves_of, key=lambda method: method != "random"):
        for condition, values in curves_of[method].items():
            unit, direction, kind, metric = condition.split("/")
            if metric == "trials":
                metric = "eer"
                mean, replicates = speakers.eer(values)
            else:
                mean, replicates = speakers.mean(values)
            low, high = speakers.interval(replicates)
            where = {
                "task": task.name,
                "duration": duration,
                "model": name,
                "method": method,
                "unit": unit,
                "direction": direction,
                "baseline": kind,
                "metric": metric,
            }
            area = saliency.area_under_curve(mean, levels)
            drawn[condition, method] = saliency.area_under_curve(
                replicates, levels
            )
            row = {**where, **speakers.row(area, drawn[condition, method])}
            if (condition, "random") in drawn and method != "random":
                control = next(
                    r
                    for r in areas
                    if r["method"] == "random"
                    and all(
                        r[k] == where[k]
                        for k in ("unit", "direction", "baseline", "metric")
                    )
                )
                row.update(
                    speakers.row(
                        area - control["mean"],
                        drawn[condition, method] - drawn[condition, "random"],
                        "less_random_",
                    )
                )
            areas.append(row)
            points += [
                {**where, "level": level, "mean": m, "low": lo, "high": hi}
                for level, m, lo, hi in zip(
                    levels.tolist(),
                    mean.tolist(),
                    low.tolist(),
                    high.tolist(),
                    strict=True,
                )
            ]
            place = panels.setdefault((unit, kind), {})
            place = place.setdefault(direction, {}).setdefault(metric, {})
            place[method] = (levels, mean, low, high)
    return areas, points, panels


AGREEMENT = ("rank_correlation", "top_overlap", "time_correlation")


def ranked(attribution, share):
    """What the comparison of a map (T, F) with others needs of it."""
    batch = attribution[None]
    return (
        saliency.average_ranks(batch.flatten(1)),
        saliency.top_share(batch, share, seeded("ties")),
        saliency.average_ranks(saliency.time_profile(batch)),
    )


def agreement(one, other):
    """Three numbers (:data:`AGREEMENT`) for how alike two ranked maps are."""
    if one[1].shape != other[1].shape:
        raise UserError(
            "models: their features differ (maps of "
            f"{tuple(one[1].shape[1:])} and {tuple(other[1].shape[1:])} "
            "frames and mel bands); maps of such models cannot be compared, "
            "explain them one by one."
        )
    return torch.stack(
        (
            saliency.correlation(one[0], other[0])[0],
            (one[1] & other[1]).sum() / one[1].sum().double(),
            saliency.correlation(one[2], other[2])[0],
        )
    )


def fidelity_table(task, maps, hparams, speakers):
    """How like the teacher's a student's maps are, per duration and method."""
    students = [name for name in maps if name != TEACHER]
    rows = []
    for method in hparams["methods"]:
        values = {}
        for duration in hparams["durations"]:
            ranks = {
                name: [
                    ranked(attribution, hparams["top_share"])
                    for attribution in maps[name][duration]["maps"][method]
                ]
                for name in maps
            }
            for student in students:
                pairs = zip(ranks[student], ranks[TEACHER], strict=True)
                values[student, duration] = torch.stack(
                    [agreement(one, other) for one, other in pairs]
                )
        for student in students:
            values[student, "all"] = torch.stack(
                [values[student, d] for d in hparams["durations"]]
            ).mean(0)
        drawn = {key: speakers.mean(value) for key, value in values.items()}
        for (student, duration), (mean, replicates) in drawn.items():
            row = {
                "task": task.name,
                "method": method,
                "student": student,
                "duration": duration,
            }
            reference = drawn.get((hparams["reference_student"], duration))
            for i, quantity in enumerate(AGREEMENT):
                prefix = f"{quantity}_"
                row.update(speakers.row(mean[i], replicates[:, i], prefix))
                if reference and student != hparams["reference_student"]:
                    row.update(
                        speakers.row(
                            mean[i] - reference[0][i],
                            replicates[:, i] - reference[1][:, i],
                            f"{prefix}less_reference_",
                        )
                    )
            rows.append(row)
    return rows


def context_table(task, maps, hparams, speakers):
    """How far a model's map of a crop is its full-length map of that crop."""
    rows = []
    if "full" not in hparams["durations"]:
        return rows
    for name, of_duration in maps.items():
        whole = of_duration["full"]
        for duration in hparams["durations"]:
            if duration == "full":
                continue
            part = of_duration[duration]
            for method in hparams["methods"]:
                values = []
                for i, short in enumerate(part["maps"][method]):
                    long = whole["maps"][method][i]
                    start, stop = whole["places"][i]
                    rate = (len(long) - 1) / (stop - start)
                    first = round(part["places"][i][0] * rate)
                    same = long[first : first + len(short)]
                    n_frames = min(len(same), len(short))
                    values.append(
                        saliency.rank_correlation(
                            short[None, :n_frames], same[None, :n_frames]
                        )[0]
                    )
                mean, replicates = speakers.mean(torch.stack(values))
                rows.append(
                    {
                        "task": task.name,
                        "model": name,
                        "method": method,
                        "duration": duration,
                        **speakers.row(mean, replicates),
                    }
                )
    return rows


def completeness_table(task, maps, speakers):
    """The completeness gap of Integrated Gradients, per model and duration."""
    rows = []
    for name, of_duration in maps.items():
        for duration, kept in of_duration.items():
            if kept["gap"].isnan().any():
                continue
            difference = (kept["clean"] - kept["empty"]).double()
            gap = kept["gap"].double()
            rows.append(
                {
                    "task": task.name,
                    "model": name,
                    "duration": duration,
                    "score": float(kept["clean"].mean()),
                    "score_of_baseline": float(kept["empty"].mean()),
                    "mean_absolute_gap": float(gap.abs().mean()),
                    "largest_absolute_gap": float(gap.abs().max()),
                    "relative_gap": float(
                        gap.abs().sum() / difference.abs().sum()
                    ),
                }
            )
    return rows


def sanity_table(task, name, similarity, speakers):
    """Rank correlation with the intact network's maps, step by step."""
    rows = []
    for key, values in similarity.items():
        method, step = key.split("/")
        chosen = speakers.of_utterance[: len(values)]
        mean, replicates = saliency.replicated_means(
            values, chosen, speakers.counts
        )
        rows.append(
            {
                "task": task.name,
                "model": name,
                "method": method,
                "shuffled_down_to": step,
                **speakers.row(mean, replicates),
            }
        )
    return rows


# ---------------------------------------------------------------- results


def write_atomically(path, text):
    """Write a text file, whole or not at all."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def write_csv(path, rows):
    """Write rows (dicts) as a CSV with the union of their columns."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = Path(path)
    unfinished = path.with_name(f".{path.name}")
    with open(unfinished, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)


def label(duration):
    """A duration for a table or a file name."""
    return duration if duration in ("full", "all") else f"{duration:g} s"


def band_centres(model, n_bands):
    """Centre frequencies of the mel bands in Hz."""
    fbanks = getattr(model.compute_features, "compute_fbanks", None)
    if fbanks is None:
        raise UserError(
            f"{model.source}: compute_features has no mel filterbank, so the "
            "figures have no frequency axis; use SpeechBrain's Fbank."
        )
    centres = fbanks.f_central.detach().cpu()
    if len(centres) != n_bands:
        raise UserError(
            f"{model.source}: {n_bands} features a frame, but {len(centres)} "
            "mel bands; maps need plain log-mel features."
        )
    return centres


def draw_maps(task, maps, models, hparams, folder):
    """Figures of one utterance: all durations, and all methods."""
    of_teacher = maps[TEACHER][hparams["durations"][0]]
    keys = [utterance.key for utterance in task.utterances]
    if hparams["figure_utterance"] in keys:
        index = keys.index(hparams["figure_utterance"])
    elif hparams["figure_utterance"] is None:
        # Neither the best nor the worst case: the median score.
        index = int(of_teacher["clean"].argsort()[(len(keys) - 1) // 2])
    else:
        return
    n_bands = of_teacher["feats"][0].shape[1]
    band_hz = band_centres(models[TEACHER], n_bands)
    what = {
        "verification": "score against an enrolment",
        "identification": "cosine of the true speaker",
    }[task.name]

    def column(duration, chosen):
        kept = maps[TEACHER][duration]
        start, stop = kept["places"][index]
        return {
            "label": label(duration),
            "start": start,
            "stop": stop,
            "log_mel": kept["feats"][index],
            "maps": chosen,
        }

    shown = [name for name in maps if name != SHUFFLED]
    for method in hparams["figure_methods"]:
        columns = [
            column(
                duration,
                {
                    name: maps[name][duration]["maps"][method][index]
                    for name in shown
                },
            )
            for duration in hparams["durations"]
        ]
        title = f"{method.replace('_', ' ')} of the {what}, {keys[index]}"
        saliency.save_figure(
            saliency.plot_maps(columns, band_hz, title),
            folder / f"maps_{task.name}_{method}_durations",
            hparams["figure_formats"],
        )
        saliency.save_figure(
            saliency.plot_maps(columns[:1], band_hz, title),
            folder / f"maps_{task.name}_{method}",
            hparams["figure_formats"],
        )
    duration = hparams["curve_durations"][0]
    for name in shown:
        chosen = {
            method.replace("_", " "): kept[index]
            for method, kept in maps[name][duration]["maps"].items()
        }
        saliency.save_figure(
            saliency.plot_maps(
                [column(duration, chosen)],
                band_hz,
                f"maps of {name}: {what}, {keys[index]}",
            ),
            folder / f"methods_{task.name}_{name}",
            hparams["figure_formats"],
        )


def draw_curves(panels_of, hparams, folder):
    """Curves of a model, identification beside verification, per unit."""
    for (duration, name), by_task in panels_of.items():
        conditions = dict.fromkeys(c for panels in by_task for c in panels)
        for unit, kind in conditions:
            merged = {}
            for panels in by_task:
                for direction, metrics in panels.get((unit, kind), {}).items():
                    merged.setdefault(direction, {}).update(metrics)
            # The first has the shaded interval, beside `random`.
            order = list(hparams["methods"])
            for metrics in merged.values():
                for metric, methods in metrics.items():
                    metrics[metric] = {
                        m: methods[m] for m in order if m in methods
                    }
            saliency.save_figure(
                saliency.plot_curves(
                    merged,
                    f"{name}, {label(duration)}: {unit} go (to {kind}) or "
                    f"come (into {kind})".replace("_", " "),
                ),
                folder
                / f"curves_{name}_{label(duration)}_{unit}_{kind}".replace(
                    " ", ""
                ),
                hparams["figure_formats"],
            )


def draw_fidelity(rows, hparams, folder):
    """Agreement of each student with the teacher, per duration."""
    titles = {
        "rank_correlation": "rank correlation",
        "top_overlap": f"overlap of top {100 * hparams['top_share']:g} %",
        "time_correlation": "rank correlation of time profiles",
    }
    durations = hparams["durations"]
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in hparams["figure_methods"]:
            chosen = {
                (row["student"], row["duration"]): row
                for row in rows
                if row["task"] == task and row["method"] == method
            }
            students = list(dict.fromkeys(student for student, _ in chosen))
            if not students:
                continue
            panels = {
                title: {
                    student: tuple(
                        [
                            chosen[student, d][f"{quantity}_{end}"]
                            for d in durations
                        ]
                        for end in ("mean", "low", "high")
                    )
                    for student in students
                }
                for quantity, title in titles.items()
            }
            chance = dict.fromkeys(titles.values(), 0.0)
            chance[titles["top_overlap"]] = hparams["top_share"]
            saliency.save_figure(
                saliency.plot_intervals(
                    panels,
                    [label(d) for d in durations],
                    f"{method.replace('_', ' ')} ({task}): students' maps "
                    "against the teacher's; grey: unrelated maps",
                    chance,
                ),
                folder / f"fidelity_{task}_{method}",
                hparams["figure_formats"],
            )


def draw_sanity(rows, hparams, folder):
    """Similarity to the intact network's maps along the cascade."""
    panels, steps = {}, []
    for row in rows:
        steps = [r["shuffled_down_to"] for r in rows if r["model"] == TEACHER]
        panels.setdefault(row["model"], {}).setdefault(
            row["method"], []
        ).append((row["mean"], row["low"], row["high"]))
    if not rows:
        return
    steps = list(dict.fromkeys(steps))
    for name, methods in panels.items():
        series = {
            method: tuple(map(list, zip(*values, strict=True)))
            for method, values in methods.items()
        }
        names = list(
            dict.fromkeys(
                r["shuffled_down_to"] for r in rows if r["model"] == name
            )
        )
        saliency.save_figure(
            saliency.plot_intervals(
                {"rank correlation with the intact network's map": series},
                names,
                f"sanity, {name}: parameters shuffled from the output "
                "(left) down to the layer named",
                {"rank correlation with the intact network's map": 0.0},
            ),
            folder / f"sanity_{name}",
            hparams["figure_formats"],
        )


def summary(results, hparams):
    """The two tables that are printed at the end."""
    method = next(iter(hparams["methods"]))
    lines = ["", f"Students' maps against the teacher's ({method})"]
    lines.append(
        f"{'task':15s}{'student':18s}{'duration':>9s}{'rank corr.':>24s}"
        f"{'top overlap':>12s}{'time corr.':>12s}"
    )
    for row in results["fidelity"]:
        if row["method"] == method:
            span = (
                f"{row['rank_correlation_mean']:.3f} "
                f"[{row['rank_correlation_low']:.3f}, "
                f"{row['rank_correlation_high']:.3f}]"
            )
            lines.append(
                f"{row['task']:15s}{row['student']:18s}"
                f"{label(row['duration']):>9s}{span:>24s}"
                f"{row['top_overlap_mean']:12.3f}"
                f"{row['time_correlation_mean']:12.3f}"
            )
    lines += ["", "Area under the teacher's curves over bins (baseline zero)"]
    lines.append(
        f"{'method':22s}{'metric':11s}{'deletion':>10s}{'insertion':>10s}"
    )
    areas = {
        (r["method"], r["metric"], r["direction"]): r["mean"]
        for r in results["areas"]
        if r["model"] == TEACHER
        and r["unit"] == hparams["units"][0]
        and r["baseline"] == "zero"
        and r["duration"] == hparams["curve_durations"][0]
    }
    for metric in ("posterior", "top1", "score", "eer"):
        for name in hparams["methods"]:
            pair = [
                areas.get((name, metric, direction), torch.nan)
                for direction in ("deletion", "insertion")
            ]
            if (name, metric, "deletion") in areas:
                lines.append(
                    f"{name:22s}{metric:11s}{pair[0]:10.3f}{pair[1]:10.3f}"
                )
    return "\n".join(lines)


# ------------------------------------------------------------------- main


def check_options(hparams):
    """Refuse what cannot be computed, before anything is."""
    durations = hparams["durations"]
    for duration in durations:
        number = isinstance(duration, int | float) and duration > 0
        if duration != "full" and not number:
            raise UserError(
                f"durations: `{duration}` is neither `full` nor a number of "
                "seconds above 0."
            )
    if not durations or not hparams["methods"]:
        raise UserError("durations, methods: give at least one of each.")
    for method in hparams["figure_methods"]:
        if method not in hparams["methods"]:
            raise UserError(
                f"figure_methods: `{method}` is not one of the methods."
            )
    for duration in hparams["curve_durations"]:
        if duration not in durations:
            raise UserError(
                f"curve_durations: {duration} is not one of the durations "
                f"{durations}."
            )
    for method in hparams["methods"]:
        if method not in saliency.METHODS:
            raise UserError(
                f"methods: `{method}` is none of the maps; known are "
                f"{', '.join(saliency.METHODS)}."
            )
    if hparams["n_levels"] < 2:
        raise UserError("n_levels: curves need at least 2 levels, 0 and 100 %.")
    for key, least in (("n_verification", 1), ("n_identification", 1)):
        if hparams[key] < least:
            raise UserError(f"{key}: give at least {least}.")


def main(argv):
    """Maps, curves, sanity checks, comparison, figures."""
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    check_options(hparams)
    device = run_opts.device or infer_device()

    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    if run_opts.debug:
        hparams.update(n_verification=2, n_identification=2, n_sanity=1)

    models = load_models(hparams["models"], device)
    for method, options in hparams["methods"].items():
        if method == "grad_cam":
            for model in models.values():
                saliency.find_layer(model, (options or {}).get("layer"))
    seconds = [d for d in hparams["durations"] if d != "full"]
    shortest = max([SHORTEST, *seconds])
    if hparams["wav_folder"] is not None:
        tasks = folder_tasks(hparams, models, shortest)
    else:
        tasks = corpus_tasks(hparams, models, shortest)
    for task in tasks:
        logger.info(
            f"{task.name}: {len(task.utterances)} utterances of "
            f"{len({u.speaker for u in task.utterances})} speakers, "
            f"{len(task.trials)} trials"
        )
    if hparams["shuffled_control"] and len(models) > 1:
        add_shuffled_control(models, hparams["seed"])
    results = explain(tasks, models, hparams, run_opts, device)
    results["command"] = " ".join(["python", "explain.py", *argv])
    write_results(results, Path(hparams["output_folder"]))
    print(summary(results, hparams))
    print(f"\n{'stage':28s}{'seconds':>9s}{'processor':>11s}")
    for stage, (elapsed, processor) in results["seconds"].items():
        print(f"{stage:28s}{elapsed:9.1f}{processor:11.1f}")
    logger.info(f"Results and figures: {hparams['output_folder']}")


def explain(tasks, models, hparams, run_opts, device):
    """All stages; the dict that becomes results.json and the CSVs."""
    figures = Path(hparams["output_folder"]) / "figures"
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "seed": hparams["seed"],
        "models": {
            name: {
                "source": model.source,
                "key": model.key,
                "parameters": sum(
                    p.numel() for p in model.embedding_model.parameters()
                ),
            }
            for name, model in models.items()
        },
        "options": {
            key: hparams[key]
            for key in (
                "durations",
                "curve_durations",
                "methods",
                "units",
                "n_levels",
                "deletion_baselines",
                "insertion_baselines",
                "blur_sigma",
                "posterior_scale",
                "top_share",
                "n_bootstrap",
                "confidence",
                "n_sanity",
            )
        },
        "utterances": {
            task.name: [utterance.key for utterance in task.utterances]
            for task in tasks
        },
        "trials": {task.name: len(task.trials) for task in tasks},
        "seconds": {},
    }
    tables = (
        "areas",
        "curves",
        "fidelity",
        "context",
        "completeness",
        "sanity",
    )
    results.update({table: [] for table in tables})
    clock = Clock(results["seconds"])
    panels_of, coincide = {}, set()
    for task in tasks:
        speakers = Speakers(task, hparams)
        maps = all_maps(task, models, hparams, run_opts, device)
        clock.lap(f"maps ({task.name})")
        for duration in hparams["curve_durations"]:
            curves = all_curves(
                task, duration, models, maps, hparams, run_opts, device
            )
            clock.lap(f"curves ({task.name})")
            feats = maps[TEACHER][duration]["feats"]
            if not baselines_differ(feats, "band_mean"):
                coincide.add(label(duration))
            for name, curves_of in curves.items():
                areas, points, panels = curve_tables(
                    task, duration, name, curves_of, hparams, speakers
                )
                results["areas"] += areas
                results["curves"] += points
                panels_of.setdefault((duration, name), []).append(panels)
        results["fidelity"] += fidelity_table(task, maps, hparams, speakers)
        results["context"] += context_table(task, maps, hparams, speakers)
        results["completeness"] += completeness_table(task, maps, speakers)
        clock.lap("statistics")
        if task.name == "verification" and hparams["n_sanity"] > 0:
            similarities = all_sanity(
                task, models, maps, hparams, run_opts, device
            )
            for name, similarity in similarities.items():
                results["sanity"] += sanity_table(
                    task, name, similarity, speakers
                )
            clock.lap("sanity")
        draw_maps(task, maps, models, hparams, figures)
        clock.lap("figures")
    results["band_mean_is_zero_at"] = sorted(coincide)
    if coincide:
        logger.info(
            "baseline band_mean coincides with zero (features are "
            f"mean-normalised over these frames) at: {', '.join(coincide)}"
        )
    draw_curves(panels_of, hparams, figures)
    draw_fidelity(results["fidelity"], hparams, figures)
    draw_sanity(results["sanity"], hparams, figures)
    clock.lap("figures")
    return results


class Clock:
    """Adds what has passed since the last lap to a stage.

    ``[elapsed, processor]`` seconds: they part where other programs run on
    the same cores.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.last = self.now()

    def now(self):
        """Seconds on the clock and of this process on its processors."""
        return time.perf_counter(), time.process_time()

    def lap(self, stage):
        """End a stage."""
        now = self.now()
        spent = self.seconds.setdefault(stage, [0.0, 0.0])
        for i in range(2):
            spent[i] = round(spent[i] + now[i] - self.last[i], 2)
        self.last = now


def identity(task, model, duration, hparams):
    """Everything that maps depend on: a kept file fits only if it is equal."""
    everyone = [*task.utterances, *task.enrolments]
    return [
        model.key,
        str(duration),
        [(u.key, os.path.getsize(u.path)) for u in everyone],
        [u.speaker for u in task.utterances],
        task.own,
        task.trials,
        list(hparams["methods"].items()),
        hparams["seed"],
    ]


def all_maps(task, models, hparams, run_opts, device):
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
                        task, name, model, duration, hparams, device, progress
                    )

                maps[name][duration] = cached(
                    hparams["save_folder"],
                    f"maps_{task.name}_{name}_{label(duration)}".replace(
                        " ", ""
                    ),
                    [name, *identity(task, model, duration, hparams)],
                    compute,
                )
                progress.update(before + len(task.utterances) - progress.n)
    return maps


def all_curves(task, duration, models, maps, hparams, run_opts, device):
    """Curves of every model and method, computed or read."""
    curves = {name: {} for name in models if name != SHUFFLED}
    options = [
        hparams[key]
        for key in (
            "units",
            "n_levels",
            "deletion_baselines",
            "insertion_baselines",
            "blur_sigma",
            "posterior_scale",
        )
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

        def compute(model=model, kept=kept, method=method):
            return compute_curves(task, model, kept, method, hparams, device)

        curves[name][method] = cached(
            hparams["save_folder"],
            f"curves_{task.name}_{name}_{label(duration)}_{method}".replace(
                " ", ""
            ),
            [name, *identity(task, model, duration, hparams), options],
            compute,
        )
    return curves


def all_sanity(task, models, maps, hparams, run_opts, device):
    """The parameter cascade of every model, computed or read."""
    similarities = {}
    duration = hparams["curve_durations"][0]
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


def write_results(results, folder):
    """results.json and one CSV a table."""
    for table in (
        "areas",
        "curves",
        "fidelity",
        "context",
        "completeness",
        "sanity",
    ):
        write_csv(folder / f"{table}.csv", results[table])
    # The points of the curves are in curves.csv only.
    kept = {key: value for key, value in results.items() if key != "curves"}
    text = json.dumps(without_nan(kept), indent=2, allow_nan=False)
    write_atomically(folder / "results.json", text + "\n")


def without_nan(value):
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
