"""Lists the runs of a comparison, and the trainings of each run.

A *run* is one fold and one seed of a pair of models: one teacher, and one
student for each method. All of them see the same data order, chunks and
augmentation, and all students start from the same weights.

Authors: IML-KD contributors
"""

import os
from dataclasses import dataclass
from pathlib import Path

from imlkd_brain.comparison.trainings import TEACHER, make_training, of_fold
from imlkd_brain.errors import UserError

CACHE = "teacher_cache"


@dataclass(frozen=True)
class Pair:
    """A teacher and a student that are trained with the same methods.

    Arguments
    ---------
    teacher, student : dict
        Overrides of the teacher's and of the student's YAML.
    teacher_of : str
        The pair whose teacher it is: its own name, or another pair's.
    """

    teacher: dict
    student: dict
    teacher_of: str


@dataclass(frozen=True)
class Run:
    """One fold and seed of a pair.

    Arguments
    ---------
    pair : str
        The pair's name.
    fold, seed : int
        Fold of the corpus and seed of the trainings.
    folder : Path
        Has a folder for each model.
    teacher_folder : Path
        Where its teacher is trained, in another pair's run if they share it.
    dev_trials, test_trials : Path
        Trial lists of the fold. Their speakers are not trained on.
    scored_trials : Path
        The list that the models are scored on.
    public_teacher : str, optional
        A trained model or a public one's name, which teaches in place of one
        that is trained.
    """

    pair: str
    fold: int
    seed: int
    folder: Path
    teacher_folder: Path
    dev_trials: Path
    test_trials: Path
    scored_trials: Path
    public_teacher: str | None = None

    def source(self, model):
        """Where a model of the run is: its folder, or the public teacher."""
        if model == TEACHER and self.public_teacher:
            return self.public_teacher
        return self.folder / model

    def embeddings(self, model):
        """Where a model's embeddings are kept; all runs share a public one's."""
        if model == TEACHER and self.public_teacher:
            return self.folder.parents[1] / "teacher_embeddings"
        return self.folder / model / "embeddings"

    @property
    def annotations(self):
        """The folder with the CSVs of its training and dev utterances."""
        return self.folder / "csv"

    @property
    def columns(self):
        """What a table says of the run: pair, fold and seed."""
        return {"pair": self.pair, "fold": self.fold, "seed": self.seed}


def read_pairs(pairs, teacher_overrides, student_overrides):
    """Read the pairs of a YAML, and add the overrides that all of them share.

    Arguments
    ---------
    pairs : dict
        Name to its overrides, with the keys ``teacher``, ``student`` and
        ``teacher_of``, each of which may be left out. A pair that is None is
        left out.
    teacher_overrides, student_overrides : dict
        Overrides for all pairs; a pair's own win.

    Returns
    -------
    dict
        Name to :class:`Pair`.

    Example
    -------
    >>> read_pairs({"small": {"student": {"lr": 0.1}}}, {}, {"eta": 1.0})
    {'small': Pair(teacher={}, student={'eta': 1.0, 'lr': 0.1}, teacher_of='small')}
    """
    return {
        name: Pair(
            teacher={**teacher_overrides, **(models.get("teacher") or {})},
            student={**student_overrides, **(models.get("student") or {})},
            teacher_of=models.get("teacher_of", name),
        )
        for name, models in pairs.items()
        if models is not None
    }


def list_runs(
    output_folder,
    data_folder,
    pairs,
    folds_and_seeds,
    scored_trials=None,
    public_teacher=None,
):
    """List the runs of a comparison, pair by pair.

    Arguments
    ---------
    output_folder : str or Path
        Of the comparison.
    data_folder : str or Path
        The corpus, with the trial lists of its folds.
    pairs : dict
        From :func:`read_pairs`.
    folds_and_seeds : list of dict
        ``fold`` and ``seed`` of each run.
    scored_trials : str or Path, optional
        The list that all runs are scored on. If not given, each run is scored
        on the test list of its fold.
    public_teacher : str, optional
        The teacher of all runs, see :class:`Run`.

    Returns
    -------
    list of Run

    Raises
    ------
    UserError
        If a trial list is missing.
    """
    if scored_trials is not None and not Path(scored_trials).is_file():
        raise UserError(
            f"{scored_trials}: no such trial list; build the corpus that has "
            "it (for data/uqm `python -m imlkd_brain.corpora.minivox "
            "--data_folder data/uqm --packs uqm`), or correct `test_trials` in "
            "the YAML."
        )
    runs = []
    for pair, models in pairs.items():
        for entry in folds_and_seeds:
            fold, seed = entry["fold"], entry["seed"]
            folder = run_folder(output_folder, pair, fold, seed)
            owner = run_folder(output_folder, models.teacher_of, fold, seed)
            test = fold_list(data_folder, fold, "test")
            runs.append(
                Run(
                    pair=pair,
                    fold=fold,
                    seed=seed,
                    folder=folder,
                    teacher_folder=owner / TEACHER,
                    dev_trials=fold_list(data_folder, fold, "dev"),
                    test_trials=test,
                    scored_trials=Path(scored_trials or test),
                    public_teacher=public_teacher,
                )
            )
    return runs


def run_folder(output_folder, pair, fold, seed):
    """Return the folder of one fold and seed of a pair.

    Example
    -------
    >>> run_folder("out", "small", 0, 1).as_posix()
    'out/runs/small/fold0_seed1'
    """
    return Path(output_folder, "runs", pair, f"fold{fold}_seed{seed}")


def fold_list(data_folder, fold, part):
    """Return the trial list of a fold.

    Arguments
    ---------
    data_folder : str or Path
        The corpus.
    fold : int
        Number of the fold.
    part : str
        ``dev`` or ``test``.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        If there is no such list.
    """
    path = Path(data_folder, "trials", f"fold{fold}_{part}.txt")
    if path.is_file():
        return path
    folds = sorted(
        other.name[len("fold") : -len(f"_{part}.txt")]
        for other in path.parent.glob(f"fold*_{part}.txt")
    )
    if folds:
        raise UserError(
            f"{path}: no such trial list; this corpus has lists of the folds "
            f"{', '.join(folds)}, so correct `runs` in the YAML."
        )
    raise UserError(
        f"{path}: no such trial list; correct `data_folder` in the YAML, or "
        "build a corpus with folds there, with `python -m "
        f"imlkd_brain.corpora.minivox --data_folder {data_folder}` or `python "
        f"-m imlkd_brain.corpora.speechocean762 --data_folder {data_folder}`."
    )


def plan(runs, pairs, methods, recipe):
    """List the trainings of a comparison, each teacher before its students.

    Arguments
    ---------
    runs : list of Run
        From :func:`list_runs`.
    pairs : dict
        From :func:`read_pairs`.
    methods : dict
        Name to the method's overrides of the student's YAML.
    recipe : Recipe
        How models are trained.

    Returns
    -------
    list of Training
    """
    trainings, teachers = [], set()
    for run in runs:
        shared = {
            "seed": run.seed,
            "data_folder": recipe.data_folder,
            "train_annotation": run.annotations / "train.csv",
            "valid_annotation": run.annotations / "dev.csv",
            "valid_trials": run.dev_trials,
            "skip_prep": True,
        }
        pair = pairs[run.pair]
        public = run.public_teacher
        if not public and run.teacher_folder not in teachers:
            teachers.add(run.teacher_folder)
            places = {**shared, "output_folder": run.teacher_folder}
            trainings.append(
                make_training(
                    TEACHER, recipe, places, of_fold(pair.teacher, run.fold)
                )
            )
        cache = run.folder / CACHE if recipe.teacher_cache else None
        for name, overrides in methods.items():
            places = {
                **shared,
                "teacher_folder": run.source(TEACHER),
                "teacher_cache": cache,
                "output_folder": run.folder / name,
            }
            if recipe.answers:
                places["teacher_answers"] = recipe.answers_folder
            trainings.append(
                make_training(
                    name,
                    recipe,
                    places,
                    of_fold({**pair.student, **overrides}, run.fold),
                    waits_for=None if public else run.teacher_folder,
                )
            )
    return trainings


def preparation(run, pair, data_folder):
    """Options of ``prepare_voxceleb`` for the annotations of a run.

    Arguments
    ---------
    run : Run
        The run.
    pair : Pair
        Its pair.
    data_folder : str
        The corpus.

    Returns
    -------
    dict
        Keyword arguments of ``prepare_voxceleb``.
    """
    options = {
        "data_folder": str(data_folder),
        "save_folder": str(run.annotations),
        "verification_pairs_file": str(run.test_trials),
        "splits": ["train", "dev"],
        "random_segment": True,
        "dev_pairs_file": str(run.dev_trials),
        "begun": any(run.folder.glob("*/save/CKPT*")),
    }
    # The models of a pair have one sampling rate, or their training stops.
    overrides = {**pair.teacher, **pair.student}
    if "sample_rate" in overrides:
        options["sample_rate"] = overrides["sample_rate"]
    return options


def link_teachers(runs):
    """Link shared teachers to where each run's own teacher would be.

    Arguments
    ---------
    runs : list of Run
        Those whose teacher is trained in another pair's run get a link.

    Raises
    ------
    UserError
        If a run has another teacher already.
    """
    for run in runs:
        link = run.folder / TEACHER
        if run.public_teacher or link == run.teacher_folder:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(link):
            link.symlink_to(os.path.relpath(run.teacher_folder, link.parent))
        elif link.resolve() != run.teacher_folder.resolve():
            raise UserError(
                f"{link}: this pair has another teacher already; remove it, "
                f"or correct `teacher_of` of {run.pair} in the YAML."
            )
