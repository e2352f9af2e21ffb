"""Keys of the YAML of ``compare.py``.

Authors: IML-KD contributors
"""

from imlkd_brain.data import keys as data
from imlkd_brain.errors import UserError, nearest
from imlkd_brain.keys import COMMON
from imlkd_brain.schema import Option, choice, flag, list_of, mapping, whole
from imlkd_brain.values import Schema

_OVERRIDES = mapping(
    "Keys of a training's YAML and their values.", example="{lr: 0.01}"
)
_OPTIONAL = {**vars(_OVERRIDES), "optional": True, "null": "none"}

OPTIONS = {
    "output_folder": COMMON["output_folder"],
    "report_folder": Option("folder", "Where tables and figures go."),
    "data_folder": data.data_folder(),
    "runs": list_of(
        mapping(
            "A run.",
            example="{fold: 0, seed: 1}",
            entries={
                "fold": whole("Of the corpus.", low=0, high=10**6),
                "seed": COMMON["seed"],
            },
        ),
        "Fold and seed of each run.",
        example="[{fold: 0, seed: 1}]",
    ),
    "teacher": Option(
        "path",
        "A trained model or a public one's name, which teaches all runs.",
        null="each run trains one",
    ),
    "answers": mapping(
        "Keys of teach.py, whose stored answers all students learn from; where "
        "it is empty they ask the teacher.",
        example="{answers_variants: 4}",
    ),
    "store_answers": Option("file", "The YAML of teach.py."),
    "train_teacher": Option("file", "The YAML of teachers."),
    "train_student": Option("file", "The YAML of students."),
    "teacher_overrides": mapping(
        "What all teachers have of their own.", example="{lr: 0.01}"
    ),
    "student_overrides": mapping(
        "What all students have of their own.", example="{lr: 0.01}"
    ),
    "pairs": mapping(
        "Teachers and students by the name of the pair; null leaves one out.",
        mapping(
            "A pair.",
            entries={
                "teacher": Option(**_OPTIONAL),
                "student": Option(**_OPTIONAL),
                "teacher_of": Option(
                    "text", "The pair whose teacher it is.", optional=True
                ),
            },
            null="left out",
            example="{student: {n_mels: 40}}",
        ),
        example="{mine: {student: {n_mels: 40}}}",
    ),
    "methods": mapping(
        "What a student has of its own, by the name in the table; null leaves "
        "one out.",
        mapping(
            "Keys of the student's YAML.",
            null="left out",
            example="{eta: 0.5}",
        ),
        example="{mine: {eta: 0.5}}",
    ),
    "baselines": list_of(
        Option("text", "A model."),
        "Models that the others are compared with.",
        low=0,
    ),
    "evaluate": choice("Which speakers are tested on.", ("test", "dev")),
    "test_folder": Option("folder", "The corpus of the test trials."),
    "test_trials": Option(
        "file", "A trial list for all runs.", null="the fold's own"
    ),
    "test_teacher": flag(
        "Whether the teacher is tested as well. A large one takes longer than "
        "all students.",
        optional=True,
    ),
    "durations": data.durations(
        "Durations of test speech; seconds are random crops.", single=True
    ),
    "crop_seed": COMMON["seed"],
    "bootstrap_samples": whole(
        "Draws of speakers for intervals.", low=0, high=10**7
    ),
    "plots": flag(
        "Whether figures are drawn.", package=("matplotlib", "plots")
    ),
    "jobs": whole("Trainings at a time.", low=1, high=1024),
    "threads": whole("CPU threads of each.", low=1, high=1024),
    "teacher_cache": flag(
        "Whether students of a run share what the teacher says, on disk."
    ),
}


def check_comparison(values):
    """Refuse values that do not go together.

    Arguments
    ---------
    values : dict
        Of the YAML, each of them as it is declared.

    Raises
    ------
    UserError
        Naming the keys.
    """
    if values["answers"] and not values["teacher"]:
        raise UserError(
            "answers: are of one teacher for all runs, and `teacher` is null; "
            "give a trained model there, or `--answers '{}'`."
        )
    pairs = {k: v for k, v in values["pairs"].items() if v is not None}
    if not pairs:
        raise UserError("pairs: there is none; give a teacher and a student.")
    for name, pair in pairs.items():
        owner = pair.get("teacher_of", name)
        if owner not in values["pairs"]:
            raise UserError(
                f"pairs.{name}.teacher_of: there is no pair {owner!r}"
                f"{nearest(owner, values['pairs'])}."
            )


SCHEMA = Schema(OPTIONS, check_comparison)
