"""Splits the files of a corpus into train and dev.

Authors: IML-KD contributors
"""

import random
from collections import defaultdict

from imlkd_brain.data.sources import speakers_of_pairs
from imlkd_brain.data.speakers import speaker_of
from imlkd_brain.errors import UserError
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def split_files(files, trials, dev_share, by_speaker, seed, dev_asked):
    """Split files into train and dev.

    Arguments
    ---------
    files : dict
        Key to path, sorted by key.
    trials : tuple of list
        Test and dev trials, see :func:`imlkd_brain.data.sources.read_pairs`.
        Their speakers are in neither part.
    dev_share : float
        Share of dev; not used if there are dev trials.
    by_speaker : bool
        If True, dev takes whole speakers; if False, a session of each.
    seed : int
        Of the choice.
    dev_asked : bool
        If True, an empty dev part is refused where its share is above zero.

    Returns
    -------
    train, dev : dict
        Key to path, sorted by key. ``dev`` is empty if there are dev trials.
    """
    tested, developed = map(speakers_of_pairs, trials)
    if tested & developed:
        logger.warning(
            f"{len(tested & developed)} speakers, such as "
            f"{min(tested & developed)}, are in the dev trials and in the "
            "verification trials: what is chosen on dev is chosen on test."
        )
    speakers = defaultdict(list)
    for key in files:
        speaker = speaker_of(key)
        if speaker not in tested | developed:
            speakers[speaker].append(key)
    if not speakers:
        raise UserError(
            "every speaker of data_folder is in the trial lists, so none is "
            "left to train on; check data_folder and the lists."
        )
    held_out = set()
    if dev_share > 0 and not developed:
        if by_speaker:
            names = list(speakers)
            random.Random(seed).shuffle(names)
            wanted = min(round(dev_share * len(names)), len(names) - 1)
            for speaker in names[:wanted]:
                held_out.update(speakers[speaker])
        else:
            held_out = _dev_sessions(speakers, dev_share, seed)
            if dev_asked and not held_out:
                raise UserError(
                    "split_ratio: dev takes a session of each speaker that "
                    f"has two or more and all {len(speakers)} speakers have "
                    "one; give dev trials of speakers that are not to train "
                    "(`--valid_trials`), or name the sessions of a speaker in "
                    "wav/<speaker>/<session>/."
                )
    used = sorted(key for keys in speakers.values() for key in keys)
    train = {key: files[key] for key in used if key not in held_out}
    dev = {key: files[key] for key in used if key in held_out}
    return train, dev


def _dev_sessions(speakers, dev_share, seed):
    """Choose one session of each speaker that has two or more.

    Utterances of one session share room, microphone and day. With some of them
    in training, dev would tell how well the recording is known.

    Arguments
    ---------
    speakers : dict
        Speaker to the keys of its utterances.
    dev_share : float
        Of a speaker's sessions, the one is taken whose share of the speaker's
        utterances is nearest to this.
    seed : int
        Decides between sessions that are equally near, for each speaker on its
        own, so that another speaker in the corpus does not change the choice.

    Returns
    -------
    held_out : set of str
        The keys of the chosen sessions.
    """
    held_out, single = set(), 0
    for speaker, keys in speakers.items():
        sessions = defaultdict(list)
        for key in keys:
            sessions[key.split("/")[1]].append(key)
        if len(sessions) < 2:
            single += 1
            continue
        names = sorted(sessions)
        random.Random(f"{seed} {speaker}").shuffle(names)
        wanted = dev_share * len(keys)
        held_out.update(
            min(
                (sessions[name] for name in names),
                key=lambda session: abs(len(session) - wanted),
            )
        )
    share = len(held_out) / sum(len(keys) for keys in speakers.values())
    message = (
        f"dev: one session of each of {len(speakers) - single} speakers, "
        f"{100 * share:.1f} % of the files ({100 * dev_share:.1f} % are the "
        f"share in split_ratio); {single} speakers have one session, which "
        "trains."
    )
    # With few sessions a speaker, one of them is much of the training data.
    if share > 2 * dev_share:
        logger.warning(
            f"{message} With dev trials (valid_trials) only their speakers "
            "would be lost to training."
        )
    else:
        logger.info(message)
    return held_out
