"""From utterances and models to the tables and figures of ``explain.py``.

What :mod:`imlkd_brain.saliency` does to tensors is done here to the utterances
of a task, for every model: :func:`compute_maps`, :func:`compute_curves` and
:func:`compute_sanity` give plain dicts of tensors, which the script keeps on
disk; the ``_table`` functions turn them into rows with confidence intervals,
the ``draw_`` functions into figures. ``hparams`` is the dict of the YAML.

Authors: IML-KD contributors
"""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cache

import soundfile
import torch
import torchaudio

from imlkd_brain import saliency
from imlkd_brain.errors import UserError
from imlkd_brain.features import seconds_to_samples
from imlkd_brain.metrics import bootstrap_counts
from imlkd_brain.verification import check_samples

TEACHER = "teacher"
SHUFFLED = "shuffled"  # the control of the comparison of models


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
    doubt: str = ""  # why speakers are not known: then there are no intervals


def seeded(*names):
    """A CPU generator that depends on the names alone."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


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


def seconds_of(path):
    """Duration of an audio file, from its header."""
    try:
        return soundfile.info(path).duration
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error


def read_waveform(path, sample_rate):
    """Samples (N,) of a file, mixed to mono and resampled where needed."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error
    check_samples(samples, path)
    signal = torch.from_numpy(samples).mean(1)
    if rate != sample_rate:
        signal = torchaudio.functional.resample(signal, rate, sample_rate)
    return signal


def crop(signal, duration, sample_rate, grid):
    """The middle ``duration`` seconds and where they start.

    They start at a multiple of ``grid`` samples, the hop of the features, so
    that their frames are those of the whole utterance.

    Crops of one utterance are nested: the second seen at 1 s is the same that
    is seen, with more around it, at 2 s, at 3 s and at full length.
    """
    if duration == "full":
        return signal, 0.0
    n_samples = seconds_to_samples(duration, sample_rate)
    start = (len(signal) - n_samples) // 2 // grid * grid
    return signal[start : start + n_samples], start / sample_rate


@torch.no_grad()
def features_of(task, model, duration, device):
    """Features (T, F) of each utterance, on the CPU, and its place in time."""
    feats, places = [], []
    for utterance in task.utterances:
        signal = read_waveform(utterance.path, model.sample_rate)
        piece, start = crop(
            signal, duration, model.sample_rate, model.hop_samples
        )
        feats.append(model.features(piece[None].to(device))[0].cpu())
        places.append((start, start + len(piece) / model.sample_rate))
    return feats, places


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
def enrol(task, model, embed, device):
    """Embeddings (E, D) of the enrolments of a task.

    An utterance that has to enrol itself is enrolled with the mean of its
    halves: against itself its score would be at its maximum, 1, where every
    gradient is zero.
    """
    if not task.enrolments:
        return None
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


def score_of(task, model, embed, enrolled, device):
    """The score of a task and the column of each of its utterances.

    ``enrolled``, (E, D), are the embeddings of the task's enrolments.
    """
    if task.name == "identification":
        rows = {speaker: row for row, speaker in enumerate(model.speakers)}
        columns = [rows[u.speaker] for u in task.utterances]

        def score(feats):
            return model.classify(embed(feats))
    else:
        columns = task.own
        score = saliency.enrolment_score(embed, enrolled)
    return score, torch.tensor(columns, device=device)


# ---------------------------------------------------------------- maps, curves, sanity


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
        return saliency.identification_curves(
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

        enrolled = enrol(part, model, embed, device)
        score, target = score_of(part, model, embed, enrolled, device)
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


# ---------------------------------------------------------------- tables


class Speakers:
    """The speakers of a task and their bootstrap replicates.

    Every quantity of a task is measured on the same replicates, so that
    differences are paired. Where the speakers are not known the ends of all
    intervals are NaN.
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
        self.counts = bootstrap_counts(
            len(names),
            hparams["n_bootstrap"],
            seeded(hparams["seed"], "bootstrap", task.name),
        )
        self.confidence = hparams["confidence"]
        self.known = not task.doubt and len(names) > 1
        if task.trials:
            trials = torch.tensor(task.trials)
            self.labels = trials[:, 2].bool()
            first = self.counts[:, self.of_enrolment[trials[:, 0]]]
            second = self.counts[:, self.of_utterance[trials[:, 1]]]
            # A target trial has one speaker, a nontarget trial two.
            weights = torch.where(self.labels, second, first * second)
            whole = torch.ones(1, len(trials), dtype=weights.dtype)
            self.trial_weights = torch.cat((whole, weights)).float()

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
        if not self.known:
            replicates = torch.full_like(replicates, torch.nan)
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
        if len(chosen.unique()) < 2:
            # One speaker drawn again and again spreads over nothing.
            replicates = torch.full_like(replicates, torch.nan)
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


# ---------------------------------------------------------------- figures


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
    duration = (hparams["curve_durations"] or hparams["durations"])[0]
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
    quantity = "rank correlation with the intact network's map"
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        steps = list(dict.fromkeys(row["shuffled_down_to"] for row in own))
        series = {
            method: tuple(
                [row[end] for row in own if row["method"] == method]
                for end in ("mean", "low", "high")
            )
            for method in dict.fromkeys(row["method"] for row in own)
        }
        figure = saliency.plot_intervals(
            {quantity: series},
            steps,
            f"sanity, {name}: parameters shuffled from the output (left) "
            "down to the layer named",
            {quantity: 0.0},
        )
        saliency.save_figure(
            figure, folder / f"sanity_{name}", hparams["figure_formats"]
        )
