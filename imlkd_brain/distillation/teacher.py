"""A frozen teacher, and its classes in the order of the student's.

Authors: IML-KD contributors
"""

from torch.nn.functional import normalize

from imlkd_brain.data.speakers import PERTURBED
from imlkd_brain.distillation.front_end import FrontEnd
from imlkd_brain.errors import UserError
from imlkd_brain.models.features import other_features
from imlkd_brain.models.folded import folded
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.speaker_model import SpeakerModel
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class Teacher(SpeakerModel):
    """A :class:`SpeakerModel` whose classes are those of the student.

    Arguments
    ---------
    model : SpeakerModel
        The trained model.
    speakers : list of str
        The student's training speakers, in the student's order.
    prototypes : torch.Tensor, optional
        (speakers, dim). Rows that stand in for the teacher's classifier, for
        students whose speakers the teacher never saw. Without them the rows
        of the teacher's own classifier are selected by name.

    Raises
    ------
    UserError
        If a speaker is missing from the teacher's classifier and there are no
        prototypes.
    """

    def __init__(self, model, speakers, prototypes=None):
        super().__init__(
            model.compute_features,
            model.mean_var_norm,
            model.embedding_model,
            model.classifier,
            model.speakers,
            model.sample_rate,
            model.source,
            model.teacher_speakers,
        )
        if prototypes is None:
            if self.classifier is None:
                raise UserError(
                    f"{self.source}: this model has no classifier of cosines "
                    "with named speakers to teach classes with; give `--teacher_classes "
                    "prototypes` to use mean teacher embeddings as classes."
                )
            rows = class_rows(self, speakers)
            weight = self.classifier.weight[rows]
            self.layers = getattr(self.classifier, "blocks", ())
        else:
            # Means of embeddings: a classifier's own layers do not apply.
            weight = prototypes
            self.layers = ()
        self.register_buffer("rows", normalize(weight.detach().float(), dim=-1))
        # Set where its features are not the student's.
        self.front_end = None
        # What it answers depends on the classes as well.
        self.model_key = model.key
        self.key = self._fingerprint()
        # After the key, which is of the weights that were trained.
        self.embedding_model = folded(self.embedding_model)

    def classify(self, embeddings):
        """Return cosines (batch, student speakers) of embeddings (batch, dim)."""
        for layer in self.layers:
            embeddings = layer(embeddings)
        return normalize(embeddings, dim=-1) @ self.rows.to(embeddings).T


def class_rows(model, speakers):
    """Return the rows of ``model``'s classifier for ``speakers``.

    Arguments
    ---------
    model : SpeakerModel
        A model with a classifier and named speakers.
    speakers : list of str
        Names to find.

    Returns
    -------
    rows : list of int

    Raises
    ------
    UserError
        Naming the first speakers the model does not know.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> class_rows(SimpleNamespace(speakers=["a", "b"], source=""), ["b"])
    [1]
    """
    index = {speaker: row for row, speaker in enumerate(model.speakers)}
    missing = [speaker for speaker in speakers if speaker not in index]
    if missing and all(map(PERTURBED.search, missing)):
        raise UserError(
            f"{model.source}: the teacher has no classes for speakers at "
            f"another speed (first: {', '.join(missing[:3])}); give "
            "`--speed_perturb '[1.0]'`, or `--teacher_classes prototypes`."
        )
    if missing:
        raise UserError(
            f"{model.source}: the teacher has no class for {len(missing)} of "
            f"the {len(speakers)} training speakers (first: "
            f"{', '.join(missing[:3])}); train a teacher on these speakers, "
            "or give `--teacher_classes prototypes` to use mean teacher "
            "embeddings as classes."
        )
    return [index[speaker] for speaker in speakers]


def front_end_of(teacher, compute_features, mean_var_norm, sample_rate):
    """The front end of a teacher with other features than the student's.

    Arguments
    ---------
    teacher : SpeakerModel
        The teacher.
    compute_features, mean_var_norm, sample_rate
        The student's, see :func:`imlkd_brain.models.features.other_features`.

    Returns
    -------
    FrontEnd or None
        None where teacher and student share their features.
    """
    difference = other_features(
        teacher, compute_features, mean_var_norm, sample_rate
    )
    if difference is None:
        return None
    logger.info(
        f"The teacher {teacher.source} has features of its own "
        f"({difference}). It computes them of the waveforms that the student "
        "hears."
    )
    return FrontEnd(teacher, sample_rate)


def check_teacher(
    source, compute_features, mean_var_norm, sample_rate, mode="time_gate"
):
    """Refuse a teacher that this student cannot learn from.

    Arguments
    ---------
    source : str or Path
        See :func:`load_speaker_model`.
    compute_features, mean_var_norm, sample_rate
        The student's, see :func:`front_end_of`.
    mode : str or None
        Of the integrated inputs; None where the method has none.

    Raises
    ------
    UserError
        If the teacher is missing, or has other features and the mode is one
        that does not carry over.
    """
    front_end = front_end_of(
        load_speaker_model(source), compute_features, mean_var_norm, sample_rate
    )
    if front_end is not None and mode is not None:
        front_end.check(mode)


def load_teacher(
    source, speakers, classes="classifier", prototypes=None, features=None
):
    """Load a teacher for a student with the given speakers.

    Arguments
    ---------
    source : str or Path
        See :func:`load_speaker_model`.
    speakers : list of str
        The student's speakers, in the order of its classifier.
    classes : str
        ``classifier``: rows of the teacher's own classifier, by name.
        ``prototypes``: mean teacher embeddings of the training utterances.
    prototypes : callable, optional
        ``prototypes(model, n_speakers)``: (speakers, dim), see
        :func:`imlkd_brain.distillation.prototypes.kept_prototypes`; called
        with the classes ``prototypes`` only.
    features : sequence, optional
        The student's features, normalisation and sampling rate, see
        :func:`front_end_of`; without it the teacher shares the features.

    Returns
    -------
    teacher : Teacher

    Raises
    ------
    UserError
        If ``classes`` is neither of the two, or a speaker has no class.
    """
    model = load_speaker_model(source)
    if classes == "classifier":
        teacher = Teacher(model, speakers)
    elif classes == "prototypes":
        rows = prototypes(model, n_speakers=len(speakers))
        teacher = Teacher(model, speakers, rows)
    else:
        raise UserError(
            f"teacher_classes: {classes!r} is not known; give `classifier` or "
            "`prototypes`."
        )
    if features is not None:
        teacher.front_end = front_end_of(teacher, *features)
    if not teacher.learnt_speakers:
        logger.warning(
            f"{teacher.source}: this teacher names no training speakers, so "
            "nobody will be able to say whether test speakers are new to the "
            "student."
        )
    return teacher
