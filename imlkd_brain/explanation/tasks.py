"""What is explained: utterances, their enrolments and trials.

Authors: IML-KD contributors
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch

import speechbrain as sb
from imlkd_brain.data.audio import seconds_of
from imlkd_brain.data.crops import read_durations
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.sources import TRAINED_SUFFIXES
from imlkd_brain.data.speaker_maps import WAY_OUT, SpeakerNames
from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trial_lists import find_list
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

SHORTEST = 0.2  # seconds; an ECAPA-TDNN cannot pad fewer frames


@dataclass
class Utterance:
    """One wav file and its speaker.

    Attributes
    ----------
    key : str
        Its name in trial lists and tables.
    path : str
        The file.
    speaker : str
        The name of the speaker.
    """

    key: str
    path: str
    speaker: str


@dataclass
class Task:
    """Utterances to explain.

    Attributes
    ----------
    name : str
        ``verification``: the score is the cosine against an enrolment;
        ``identification``: the cosine of the true speaker in the classifier.
    utterances : list of Utterance
        The utterances.
    enrolments : list of Utterance
        If a key ends in ``#halves``, the utterance is enrolled with the mean
        of its halves.
    own : list of int
        The enrolment of each utterance.
    trials : list of tuple
        (enrolment, utterance, is target) of each trial.
    doubt : str
        Why the speakers are not known. Then there are no intervals.
    """

    name: str
    utterances: list
    enrolments: list = field(default_factory=list)
    own: list = field(default_factory=list)
    trials: list = field(default_factory=list)
    doubt: str = ""

    def __str__(self):
        return (
            f"{self.name}: {len(self.utterances)} utterances of "
            f"{len({u.speaker for u in self.utterances})} speakers, "
            f"{len(self.trials)} trials"
        )


@dataclass
class Folder:
    """The utterances of a folder of wav files.

    Attributes
    ----------
    utterances : list of Utterance
        All of them.
    alone : list of str
        Keys of the utterances whose speaker is not known.
    """

    utterances: list
    alone: list

    @property
    def doubt(self):
        """Why the speakers are not known; empty if they are."""
        if self.alone:
            return (
                f"{len(self.alone)} of {len(self.utterances)} files lie in no "
                f"speaker's folder, such as {self.alone[0]}"
            )
        names = {utterance.speaker for utterance in self.utterances}
        if len(names) < 2:
            return f"all files have the same speaker, {min(names)}"
        return ""


def seeded(*names):
    """Make a CPU generator whose state depends on the names alone."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def shortest_seconds(durations):
    """Seconds that an utterance must last to be explained at all durations.

    Example
    -------
    >>> shortest_seconds(["full", 2, 1])
    2
    """
    seconds = read_durations(durations).values()
    return max(SHORTEST, *(second or 0 for second in seconds))


def find_trials(name, data_folder, save_folder, speaker_map=None):
    """Read a trial list and find its audio.

    Arguments
    ---------
    name : str
        A path, or the URL of an official list.
    data_folder : str
        The corpus.
    save_folder : str
        Where a downloaded list is kept.
    speaker_map : str
        A file that names the speakers, or None: folders name them.

    Returns
    -------
    located : imlkd_brain.data.trial_audio.LocatedTrials

    Raises
    ------
    UserError
        If the folder, the list or a file is missing.
    """
    if not Path(data_folder).is_dir():
        raise UserError(
            f"data_folder: {data_folder} does not exist; build the small "
            "corpus with `python -m imlkd_brain.corpora.minivox --data_folder "
            f"{data_folder}`, or give `--wav_folder` with a folder of wav "
            "files."
        )
    trials = read_trials(find_list(name, data_folder, save_folder))
    return locate_trials(trials, data_folder, speaker_map=speaker_map)


def check_learnt(located, models, allow):
    """Refuse trials of speakers that a model or its teacher has learnt.

    Arguments
    ---------
    located : imlkd_brain.data.trial_audio.LocatedTrials
        The trials.
    models : dict of str to SpeakerModel
        The models by name.
    allow : bool
        If True, warn only.
    """
    if located.doubt:
        logger.warning(located.warning)
    for reason in check_held_out(
        located,
        training_speakers(models),
        allow,
        "their maps and curves are not those of new speakers",
    ):
        logger.warning(f"{reason}; going on, as told.")


def trials_task(located, n_utterances, shortest, seed):
    """Choose test utterances of target trials, and their trials.

    Arguments
    ---------
    located : imlkd_brain.data.trial_audio.LocatedTrials
        The trials of held-out speakers.
    n_utterances : int
        How many test utterances.
    shortest : float
        Seconds that an utterance must last.
    seed : int
        Of the choice.

    Returns
    -------
    task : Task
        ``verification``. Each utterance is enrolled with the enrolment of its
        first target trial.
    """
    known = known_utterances(located)
    trials = located.trials
    listed = list(
        zip(trials.enrol, trials.test, trials.labels.tolist(), strict=True)
    )
    own = {}
    for enrol, test, is_target in listed:
        if is_target:
            own.setdefault(test, enrol)
    pool = [known[key] for key in own]
    chosen = pick(pool, n_utterances, shortest, seed)
    place = {utterance.key: i for i, utterance in enumerate(chosen)}
    listed = [trial for trial in listed if trial[1] in place]
    rows = {key: i for i, key in enumerate(dict.fromkeys(t[0] for t in listed))}
    return Task(
        "verification",
        chosen,
        [known[key] for key in rows],
        [rows[own[utterance.key]] for utterance in chosen],
        [(rows[enrol], place[test], t) for enrol, test, t in listed],
        located.doubt,
    )


def known_utterances(located):
    """Return the utterances of located trials by name."""
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


def read_folder(folder, speaker_map, shortest):
    """Find the utterances of a folder of wav files.

    Arguments
    ---------
    folder : str
        Holds ``<speaker>/*.wav`` or ``*.wav``.
    speaker_map : str
        A file that names the speakers, or None: sub-folders name them.
    shortest : float
        Seconds that each file must last.

    Returns
    -------
    folder : Folder
        Its utterances. One without a speaker stands for its own speaker.

    Raises
    ------
    UserError
        If there are no files or a file is too short.
    """
    root = Path(folder)
    speaker_of = SpeakerNames(root, speaker_map)
    found = Folder([], [])
    for path in wav_files(root):
        key = str(path.relative_to(root).with_suffix(""))
        speaker = speaker_of(path)
        if speaker is None:
            found.alone.append(key)
            speaker = key
        found.utterances.append(Utterance(key, str(path), speaker))
        seconds = seconds_of(path)
        if seconds < shortest:
            raise UserError(
                f"{path}: lasts {seconds:.2f} s, the durations need "
                f"{shortest:g} s; remove the file or shorten the durations."
            )
    if found.doubt:
        logger.warning(
            f"{folder}: the speakers are not known ({found.doubt}), so there "
            f"are no intervals over speakers; {WAY_OUT}."
        )
    return found


def audio_below(folder):
    """All WAV and FLAC files below a folder, in order."""
    return sorted(
        path
        for suffix in TRAINED_SUFFIXES
        for path in Path(folder).rglob(f"*{suffix}")
    )


def wav_files(folder):
    """Find all WAV and FLAC files below a folder, in order."""
    paths = audio_below(folder)
    if not paths:
        raise UserError(
            f"{folder}: there are no wav files in this wav_folder, nor .flac; give "
            "a folder that holds <speaker>/*.wav or *.wav."
        )
    return paths


def folder_task(folder, n_utterances, seed):
    """Choose utterances of a folder, and make trials of them.

    Each utterance is tried against its own enrolment and the first utterance
    of every other speaker. An utterance whose speaker is not known is in no
    trial.

    Arguments
    ---------
    folder : Folder
        The utterances.
    n_utterances : int
        How many of them.
    seed : int
        Of the choice.

    Returns
    -------
    task : Task
        ``verification``.
    """
    chosen = pick(folder.utterances, n_utterances, 0, seed)
    of_speaker, by_key = {}, {}
    for utterance in folder.utterances:
        of_speaker.setdefault(utterance.speaker, []).append(utterance)
        by_key[utterance.key] = utterance
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
            if utterance.key in folder.alone or theirs[0].key in folder.alone:
                continue
            if speaker != utterance.speaker:
                row = rows.setdefault(theirs[0].key, len(rows))
                trials.append((row, i, False))
    enrolments = [
        Utterance(key, by_key[plain].path, by_key[plain].speaker)
        for key, plain in ((key, key.removesuffix("#halves")) for key in rows)
    ]
    if len({is_target for _, _, is_target in trials}) < 2:
        trials = []
    return Task("verification", chosen, enrolments, own, trials, folder.doubt)


def identification_task(pool, n_utterances, shortest, seed):
    """Choose utterances of training speakers; see :func:`pick`."""
    chosen = pick(pool, n_utterances, shortest, seed)
    return Task("identification", chosen)


def training_utterances(data_folder, speakers, annotation=None):
    """Find utterances of training speakers.

    Arguments
    ---------
    data_folder : str
        The corpus.
    speakers : list of str
        The training speakers.
    annotation : str
        A CSV of prepare_voxceleb, or None for the speakers' folders.

    Returns
    -------
    utterances : list of Utterance
    """
    folder = Path(data_folder)
    if annotation is not None:
        utterances = csv_utterances(annotation, folder, speakers)
    else:
        utterances = [
            Utterance(utterance_key(path, [folder]), str(path), speaker)
            for speaker in speakers
            for place in (folder / "wav" / speaker, folder / speaker)
            for path in audio_below(place)
        ]
    if not utterances:
        logger.warning(
            "There is no utterance of the models' training speakers, so there "
            "are no posteriors and no identification."
        )
    return utterances


def common_speakers(models):
    """List the training speakers that every classifier has, in order."""
    sets = [
        set(model.speakers) if model.classifier is not None else set()
        for model in models.values()
    ]
    return sorted(set.intersection(*sets))


def check_figure_utterance(key, tasks):
    """Refuse an utterance to draw that was not chosen.

    Arguments
    ---------
    key : str or None
        Of the utterance.
    tasks : list of Task
        With the utterances that were chosen.
    """
    keys = [u.key for task in tasks for u in task.utterances]
    if key is not None and key not in keys:
        raise UserError(
            f"figure_utterance: `{key}` is none of the utterances chosen "
            f"(such as {keys[0]}); take one of them, more of them "
            "(n_verification), or null."
        )


def csv_utterances(path, folder, speakers):
    """Read the utterances of these speakers from a CSV of prepare_voxceleb."""
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


def pick(utterances, count, shortest, seed):
    """Choose utterances of at least ``shortest`` seconds, speaker by speaker.

    Every speaker gives one utterance before any speaker gives a second. The
    seed orders the speakers and the utterances of each speaker.
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
            f"durations: none of the {len(utterances)} utterances, the first is "
            f"{utterances[0].path}, lasts {shortest:g} s; shorten the durations, "
            "or give longer recordings."
        )
    return sorted(picked, key=lambda utterance: utterance.key)
