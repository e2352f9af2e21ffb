"""The threshold and calibration that a model folder carries.

``decision.json`` lies beside a model's checkpoints. ``verify.py`` writes it from
dev trials, see :mod:`imlkd_brain.verification.decisions`. It names the model by
its fingerprint, so that another model in the same folder does not decide by it.

Authors: IML-KD contributors
"""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, fields

from imlkd_brain.errors import UserError
from imlkd_brain.files import write_json
from imlkd_brain.models.features import has_statistics

DECISION_FILE = "decision.json"


@dataclass(frozen=True)
class Decision:
    """How scores of a model become a decision.

    Arguments
    ---------
    threshold : float
        Scores above it are of one speaker. It is the threshold at the EER of
        the dev trials.
    slope : float
        Of the calibration, above zero.
    offset : float
        Of the calibration: ``slope * score + offset`` is the natural
        logarithm of the likelihood ratio.
    eer : float
        On the dev trials.
    trials : int
        Number of dev trials.
    list : str
        Their list.
    duration : str
        Seconds of their test speech, or ``full``.
    fingerprint : str
        Of the model, see :func:`fingerprint`.

    Example
    -------
    >>> decision = Decision(0.5, 10.0, -5.0, 0.1, 100, "dev", "full", "")
    >>> decision.accepts(0.6), decision.accepts(0.5)
    (True, False)
    >>> decision.probability(0.5)
    0.5
    """

    threshold: float
    slope: float
    offset: float
    eer: float
    trials: int
    list: str
    duration: str
    fingerprint: str

    def accepts(self, score):
        """Whether a score is of one speaker."""
        return score > self.threshold

    def log_likelihood_ratio(self, score):
        """The natural logarithm of a score's likelihood ratio."""
        return self.slope * score + self.offset

    def probability(self, score, prior=0.5):
        """Probability that a score is of one speaker.

        Arguments
        ---------
        score : float
            The score.
        prior : float
            Share of pairs of one speaker where the model is used, between 0
            and 1.
        """
        odds = self.log_likelihood_ratio(score) + math.log(prior / (1 - prior))
        # The form that does not overflow.
        return 0.5 * (1.0 + math.tanh(0.5 * odds))


def fingerprint(model):
    """Hash what makes a model's embeddings: weights, statistics, rate.

    The classifier does not count, nor do the versions of the libraries, so a
    model keeps its fingerprint when it is exported again.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        On any device.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(str(model.sample_rate).encode())
    state = dict(model.embedding_model.state_dict())
    if has_statistics(model.mean_var_norm):
        state["glob_mean"] = model.mean_var_norm.glob_mean
        state["glob_std"] = model.mean_var_norm.glob_std
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_decision(folder, decision):
    """Write ``decision.json`` into a folder, whole or not at all.

    Arguments
    ---------
    folder : Path
        A model's inference folder.
    decision : Decision
        What to write.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    try:
        content = asdict(decision)
        write_json(folder / DECISION_FILE, {**content, "seal": _seal(content)})
    except PermissionError as error:
        raise UserError(
            f"{folder / DECISION_FILE}: cannot be written ({error.strerror}); "
            "make the folder writable, or copy the file there yourself from "
            "the folder of the verification."
        ) from None


def read_decision(folder, model):
    """Read the decision that a model folder carries.

    Arguments
    ---------
    folder : Path
        The inference folder that the model was loaded from.
    model : imlkd_brain.models.speaker_model.SpeakerModel
        The model.

    Returns
    -------
    Decision or None
        None where the folder has none.

    Raises
    ------
    UserError
        If the file is broken or of another model.
    """
    path = folder / DECISION_FILE
    if not os.path.lexists(path):
        return None
    again = (
        "write it anew with verify.py's `--decision_list` and "
        "`--store_decision True`, or delete it"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        decision = Decision(
            **{field.name: content[field.name] for field in fields(Decision)}
        )
        numbers = decision.threshold, decision.slope, decision.offset
        # Those of earlier versions have no seal.
        seal = _seal(asdict(decision))
        if content.get("seal", seal) != seal:
            raise ValueError("its content has changed since it was written")
        if not all(map(math.isfinite, numbers)) or decision.slope <= 0:
            raise ValueError("its numbers are not finite, or slope is not > 0")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable decision ({type(error).__name__}: "
            f"{error}); {again}."
        ) from error
    if decision.fingerprint != fingerprint(model):
        raise UserError(
            f"{path}: this threshold was measured with another model than the "
            f"one beside it; {again}."
        )
    return decision


def _seal(content):
    """A hash of the content, by which damage shows."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
