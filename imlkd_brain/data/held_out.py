"""Refuses trials of speakers that a model was trained on.

Error rates on such trials are too low.

Authors: IML-KD contributors
"""

from imlkd_brain.data.speakers import doubt_about, plain_speakers, utterance_key
from imlkd_brain.data.trials import shorten
from imlkd_brain.errors import UserError
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def check_held_out(
    located,
    sources,
    allow=False,
    consequence="its error rates would be too low",
    way_out="or go on with --allow_training_speakers True",
):
    """Refuse to measure on speakers that something was learnt from.

    Arguments
    ---------
    located : LocatedTrials
        The list to be scored.
    sources : dict
        Speakers of each source, by a phrase such as ``the training data of
        the model teacher``.
    allow : bool
        If True, return the reasons; if False, raise the first one.
    consequence : str
        What is wrong with results on such a list, for the message.
    way_out : str
        What a user may do instead of taking other speakers.

    Returns
    -------
    list of str
        A sentence for each source that holds speakers of the list.

    Raises
    ------
    UserError
        If a source does and ``allow`` is false.
    """
    reasons = []
    for source, speakers in sources.items():
        speakers = {*speakers, *plain_speakers(speakers)}
        known = sorted(set(located.speakers) & speakers)
        if known:
            reasons.append(
                f"{located.trials.name}: {source} holds {len(known)} of its "
                f"{len(located.speakers)} speakers ({shorten(known)}), so "
                f"{consequence}"
            )
    if reasons and not allow:
        raise UserError(
            f"{reasons[0]}; use speakers that were held out, {way_out}."
        )
    return reasons


def training_speakers(models):
    """Return the speakers that models, teachers and initial weights learnt.

    Arguments
    ---------
    models : dict
        Models by name, as :class:`imlkd_brain.models.speaker_model.SpeakerModel`.

    Returns
    -------
    dict
        Speakers of each source, as :func:`check_held_out` takes them.
    """
    sources = {}
    for name, model in models.items():
        # A model without classes names all it learnt as others' speakers.
        if model.speakers or not model.teacher_speakers:
            sources[f"the training data of the model {name}"] = model.speakers
        if model.teacher_speakers:
            sources[
                "the training data of the teacher or initial weights, or the "
                f"unlabelled speech, of the model {name}"
            ] = model.teacher_speakers
    return sources


def check_dev_speakers(trials, valid_data, train_data, allow=False):
    """Refuse dev trials of speakers that are trained on.

    The error rate on such trials is too low, and the checkpoint it chooses is
    not the best one for new speakers. The speakers come from the annotations,
    so a skipped preparation and one of another list are found.

    Arguments
    ---------
    trials : imlkd_brain.data.trials.Trials or None
        Dev trials; None where there are none.
    valid_data, train_data : speechbrain.dataio.dataset.DynamicItemDataset
        The validation and the training set.
    allow : bool
        If True, warn; if False, raise.

    Raises
    ------
    UserError
        Naming the first speakers that are in both.
    """
    if trials is None:
        return
    speaker_of = {
        utterance_key(row["wav"]): row["spk_id"]
        for row in valid_data.data.values()
    }
    voices = [speaker_of[utterance] for utterance in trials.utterances]
    doubt = doubt_about(
        voices,
        voices,
        trials.pairs,
        trials.labels,
        lambda trial: f"on line {trials.lines[trial]}",
    )
    if doubt:
        logger.warning(
            f"{trials.path}: the speakers of the dev trials are not known by "
            f"the spk_id of the validation annotation ({doubt}), so nothing "
            "says that they are held out."
        )
    trained = {row["spk_id"] for row in train_data.data.values()}
    both = sorted(set(voices) & (trained | plain_speakers(trained)))
    if not both:
        return
    reason = (
        f"{trials.path}: {len(both)} of {len(set(voices))} speakers of the "
        f"dev trials are training speakers (first: {both[0]}), so the dev "
        "error rate would be too low"
    )
    if not allow:
        raise UserError(
            f"{reason}; give valid_trials of other speakers and prepare the "
            "data anew, or go on with --allow_training_speakers True."
        )
    logger.warning(f"{reason}; going on, as told.")
