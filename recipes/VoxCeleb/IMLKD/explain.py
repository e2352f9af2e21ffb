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
from pathlib import Path

import torch
from tqdm import tqdm

import speechbrain as sb
from imlkd_brain import explanation, saliency
from imlkd_brain.dataio import find_list, load_hyperparameters
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.explanation import (
    SHUFFLED,
    TEACHER,
    Task,
    Utterance,
    label,
    seconds_of,
    seeded,
)
from imlkd_brain.precision import set_tf32
from imlkd_brain.speakers import WAY_OUT, SpeakerNames, utterance_key
from imlkd_brain.teacher import load_speaker_model
from imlkd_brain.verification import (
    check_held_out,
    locate_trials,
    read_trials,
    training_speakers,
)
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

TABLES = ("areas", "curves", "fidelity", "context", "completeness", "sanity")

SHORTEST = 0.2  # seconds; below, an ECAPA-TDNN has too few frames to pad


# ------------------------------------------------------- models, utterances


def load_models(sources, device):
    """The models by name, the teacher first; a source of null is left out."""
    sources = {name: source for name, source in sources.items() if source}
    if TEACHER not in sources:
        raise UserError(
            f"models: there is no `{TEACHER}`; name the model that the others "
            f"are compared with, as in `{{{TEACHER}: results/.../1986}}`."
        )
    if SHUFFLED in sources:
        raise UserError(
            f"models: `{SHUFFLED}` is the name of the control; call the model "
            "something else."
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
    trials = read_trials(
        find_list(
            hparams["verification_file"],
            hparams["data_folder"],
            hparams["save_folder"],
        )
    )
    located = locate_trials(
        trials, hparams["data_folder"], speaker_map=hparams["speaker_map"]
    )
    check_learnt(located, models, hparams["allow_training_speakers"])
    known = known_utterances(located)
    listed = list(
        zip(trials.enrol, trials.test, trials.labels.tolist(), strict=True)
    )
    own = {}
    for enrol, test, is_target in listed:
        if is_target:
            own.setdefault(test, enrol)
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
            located.doubt,
        )
    ]
    speakers = common_speakers(models)
    if hparams["identification_csv"] is not None:
        pool = csv_utterances(hparams["identification_csv"], folder, speakers)
    else:
        pool = [
            Utterance(utterance_key(path), str(path), speaker)
            for speaker in speakers
            for place in (folder / "wav" / speaker, folder / speaker)
            for path in sorted(place.rglob("*.wav"))
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


def check_learnt(located, models, allow):
    """Refuse trials of speakers that a model or its teacher has learnt."""
    if located.doubt:
        logger.warning(located.warning)
    for reason in check_held_out(
        located,
        training_speakers(models),
        allow,
        "their maps and curves are not those of new speakers",
    ):
        logger.warning(f"{reason}; going on, as told.")


def known_utterances(located):
    """The utterances of a trial list by name, with files and speakers."""
    known, trials = {}, located.trials
    for side, (files, speakers) in enumerate(
        (
            ([own[0] for own in located.enrol_files], located.enrol_speakers),
            (located.test_files, located.test_speakers),
        )
    ):
        numbers = trials.pairs[:, side].tolist()
        rows = located.pairs[:, side].tolist()
        for number, row in dict(zip(numbers, rows, strict=True)).items():
            key = trials.utterances[number]
            # Without its speaker an utterance stands for itself.
            speaker = speakers[row] or key
            known[key] = Utterance(key, files[row], speaker)
    return known


def folder_tasks(hparams, models, shortest):
    """Any folder of wav files; the sub-folder names the speaker."""
    folder = Path(hparams["wav_folder"])
    speaker_of = SpeakerNames(folder, hparams["speaker_map"])
    utterances, alone = [], []
    for path in wav_files(folder, "wav_folder"):
        inside = path.relative_to(folder)
        key = str(inside.with_suffix(""))
        speaker = speaker_of(path)
        if speaker is None:
            # Nobody knows who else it is: it is compared with itself alone.
            alone.append(key)
            speaker = key
        utterances.append(Utterance(key, str(path), speaker))
        seconds = seconds_of(path)
        if seconds < shortest:
            raise UserError(
                f"{path}: lasts {seconds:.2f} s, the durations need "
                f"{shortest:g} s; remove the file or shorten the durations."
            )
    chosen = pick(utterances, hparams["n_verification"], 0, hparams["seed"])
    doubt = doubt_of_folder(utterances, alone)
    if doubt:
        logger.warning(
            f"{folder}: the speakers are not known ({doubt}), so there are no "
            f"intervals over speakers; {WAY_OUT}."
        )
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
            if utterance.key in alone or theirs[0].key in alone:
                continue
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
    tasks = [Task("verification", chosen, enrolments, own, trials, doubt)]
    speakers = common_speakers(models)
    pool = [u for u in utterances if u.speaker in speakers]
    if pool:
        picked = pick(pool, hparams["n_identification"], 0, hparams["seed"])
        tasks.append(Task("identification", picked))
    return tasks


def doubt_of_folder(utterances, alone):
    """Why the speakers of a folder are not known; empty where they are."""
    if alone:
        return (
            f"{len(alone)} of {len(utterances)} files lie in no speaker's "
            f"folder, such as {alone[0]}"
        )
    names = {utterance.speaker for utterance in utterances}
    if len(names) < 2:
        return f"all files have the same speaker, {min(names)}"
    return ""


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
        Utterance(utterance_key(wav), wav, speaker)
        for wav, speaker in sorted(wavs.items())
        if speaker in known
    ]


# ---------------------------------------------------------------- results


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
    if not results["areas"]:
        return "\n".join(lines)
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
        and r["duration"] == results["areas"][0]["duration"]
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
    set_tf32(hparams["allow_tf32"])
    # A method set to null is left out, as a model is.
    hparams["methods"] = {
        method: options
        for method, options in hparams["methods"].items()
        if options is not None
    }
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
                saliency.find_layer(model, options.get("layer"))
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
    chosen = hparams["figure_utterance"]
    keys = [u.key for task in tasks for u in task.utterances]
    if chosen is not None and chosen not in keys:
        raise UserError(
            f"figure_utterance: `{chosen}` is none of the utterances chosen "
            f"(such as {keys[0]}); take one of them, more of them "
            "(n_verification), or null."
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
            "durations": hparams["durations"],
            "curve_durations": hparams["curve_durations"],
            "methods": hparams["methods"],
            "units": hparams["units"],
            "n_levels": hparams["n_levels"],
            "deletion_baselines": hparams["deletion_baselines"],
            "insertion_baselines": hparams["insertion_baselines"],
            "blur_sigma": hparams["blur_sigma"],
            "posterior_scale": hparams["posterior_scale"],
            "top_share": hparams["top_share"],
            "reference_student": hparams["reference_student"],
            "n_bootstrap": hparams["n_bootstrap"],
            "confidence": hparams["confidence"],
            "n_sanity": hparams["n_sanity"],
            "batch_frames": hparams["batch_frames"],
            "allow_tf32": hparams["allow_tf32"],
        },
        "utterances": {
            task.name: [utterance.key for utterance in task.utterances]
            for task in tasks
        },
        "trials": {task.name: len(task.trials) for task in tasks},
        "speakers_not_known": {
            task.name: task.doubt for task in tasks if task.doubt
        },
        "seconds": {},
    }
    results.update({table: [] for table in TABLES})
    clock = Clock(results["seconds"])
    panels_of, coincide = {}, set()
    for task in tasks:
        speakers = explanation.Speakers(task, hparams)
        enrolled = {
            name: explanation.enrol(task, model, model.embed_features, device)
            for name, model in models.items()
        }
        clock.lap("enrolment")
        maps = all_maps(task, models, enrolled, hparams, run_opts, device)
        clock.lap(f"maps ({task.name})")
        for duration in hparams["curve_durations"]:
            curves = all_curves(
                task,
                duration,
                models,
                enrolled,
                maps,
                hparams,
                run_opts,
                device,
            )
            clock.lap(f"curves ({task.name})")
            feats = maps[TEACHER][duration]["feats"]
            if not explanation.baselines_differ(feats, "band_mean"):
                coincide.add(label(duration))
            for name, curves_of in curves.items():
                areas, points, panels = explanation.curve_tables(
                    task, duration, name, curves_of, hparams, speakers
                )
                results["areas"] += areas
                results["curves"] += points
                panels_of.setdefault((duration, name), []).append(panels)
        results["fidelity"] += explanation.fidelity_table(
            task, maps, hparams, speakers
        )
        results["context"] += explanation.context_table(
            task, maps, hparams, speakers
        )
        results["completeness"] += explanation.completeness_table(
            task, maps, speakers
        )
        clock.lap("statistics")
        if task.name == "verification" and hparams["n_sanity"] > 0:
            similarities = all_sanity(
                task, models, maps, hparams, run_opts, device
            )
            for name, similarity in similarities.items():
                results["sanity"] += explanation.sanity_table(
                    task, name, similarity, speakers
                )
            clock.lap("sanity")
        if hparams["figure_formats"]:
            explanation.draw_maps(task, maps, models, hparams, figures)
        clock.lap("figures")
    results["band_mean_is_zero_at"] = sorted(coincide)
    if coincide:
        logger.info(
            "baseline band_mean coincides with zero (features are "
            f"mean-normalised over these frames) at: {', '.join(coincide)}"
        )
    if hparams["figure_formats"]:
        explanation.draw_curves(panels_of, hparams, figures)
        explanation.draw_fidelity(results["fidelity"], hparams, figures)
        explanation.draw_sanity(results["sanity"], hparams, figures)
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
        [(u.key, explanation.content_of(u.path)) for u in everyone],
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
                    return explanation.compute_maps(
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
                    f"maps_{task.name}_{name}_{label(duration)}".replace(
                        " ", ""
                    ),
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
            return explanation.compute_curves(
                task, model, enrolled[name], kept, method, hparams, device
            )

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
                return explanation.compute_sanity(
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
    for table in TABLES:
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
