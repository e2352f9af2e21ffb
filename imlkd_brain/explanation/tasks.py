"""What is explained: the models, the utterances and their enrolments.

Authors: IML-KD contributors
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

import speechbrain as sb
from imlkd_brain.data.audio import read_waveform, seconds_of
from imlkd_brain.data.crops import crop
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.speaker_maps import WAY_OUT, SpeakerNames
from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.data.trial_audio import find_list, locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import enrolment_score
from imlkd_brain.models.folder import load_speaker_model
from speechbrain.utils.logger import get_logger

TEACHER = "teacher"
SHUFFLED = "shuffled"  # the control of the comparison of models

logger = get_logger(__name__)


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
        score = enrolment_score(embed, enrolled)
    return score, torch.tensor(columns, device=device)


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
            f"with `python -m imlkd_brain.corpora.minivox --data_folder {folder}`, or "
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
