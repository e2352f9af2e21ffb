"""Describes the trainings of a comparison: script, options, what they wait for.

Authors: IML-KD contributors
"""

import json
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from imlkd_brain.models.folder import INFERENCE
from imlkd_brain.trained_with import TrainingRecord

TEACHER = "teacher"


@dataclass(frozen=True)
class Recipe:
    """How models are trained: script, YAMLs and options of all trainings.

    Arguments
    ---------
    script : Path
        ``train_kd.py``.
    teacher_yaml, student_yaml : str
        YAMLs of teachers and students.
    data_folder : str
        The corpus.
    device : str, optional
        Device of the trainings; SpeechBrain's choice if not given.
    teacher_cache : bool
        Whether the students of a run share what the teacher says, on disk.
    answers : dict, optional
        Options of ``teach.py``, whose stored answers all students learn from.
        Where it is empty they ask the teacher.
    answers_yaml : str, optional
        Its YAML.
    answers_folder : Path, optional
        Where the answers go.
    """

    script: Path
    teacher_yaml: str
    student_yaml: str
    data_folder: str
    device: str | None = None
    teacher_cache: bool = False
    answers: dict | None = None
    answers_yaml: str | None = None
    answers_folder: Path | None = None

    def answers_command(self, teacher):
        """Options of ``teach.py``, its YAML first, for a public teacher."""
        given = {
            "data_folder": self.data_folder,
            "teacher_folder": teacher,
            "teacher_answers": self.answers_folder,
            **self.answers,
        }
        command = [str(self.answers_yaml)]
        for key, value in given.items():
            command += [f"--{key}", option(value)]
        return command + (["--device", self.device] if self.device else [])


@dataclass(frozen=True)
class Training:
    """One training of a comparison.

    Arguments
    ---------
    name : str
        ``teacher``, or the name of a method.
    folder : Path
        Its output folder.
    command : list of str
        What starts it: Python, script, YAML and options.
    waits_for : Path, optional
        The folder of the training that has to be done before.
    overrides : dict
        What the comparison's YAML changes of the training's YAML.
    data : dict
        Files and folders that decide its result, by the names that
        :meth:`imlkd_brain.trained_with.TrainingRecord.add_data` has for them.
    """

    name: str
    folder: Path
    command: list
    waits_for: Path | None = None
    overrides: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)

    @cached_property
    def record(self):
        """What the command asks for, as a training keeps it."""
        return TrainingRecord.of_command(self.command[2:])

    @property
    def is_done(self):
        """Whether it has exported its model."""
        return is_done(self.folder)


def is_done(folder):
    """Whether a training's folder has its exported model."""
    return (folder / INFERENCE / "hyperparams.yaml").is_file()


def of_fold(overrides, fold):
    """Put the number of a run's fold where texts have ``{fold}``.

    Example
    -------
    >>> of_fold({"labelled_speakers": "labels/fold{fold}_30.txt", "lr": 0.1}, 2)
    {'labelled_speakers': 'labels/fold2_30.txt', 'lr': 0.1}
    """
    return {
        key: value.replace("{fold}", str(fold))
        if isinstance(value, str)
        else value
        for key, value in overrides.items()
    }


def make_training(name, recipe, places, overrides, waits_for=None):
    """Describe one training.

    Arguments
    ---------
    name : str
        ``teacher``, or the name of a method.
    recipe : Recipe
        How models are trained.
    places : dict
        Options that the comparison gives: files, folders and the seed.
        ``output_folder`` is a Path.
    overrides : dict
        Options that its YAML gives; they win over the places.
    waits_for : Path, optional
        The folder of the training that has to be done before.

    Returns
    -------
    Training
    """
    yaml = recipe.teacher_yaml if name == TEACHER else recipe.student_yaml
    given = {**places, **overrides}
    command = [sys.executable, str(recipe.script), yaml]
    for key, value in given.items():
        command += [f"--{key}", option(value)]
    command.append("--noprogressbar")
    if recipe.device:
        command += ["--device", recipe.device]
    data = {
        "train_annotation": "train_annotation",
        "valid_annotation": "valid_annotation",
        "valid_trials": "valid_trials",
        "teacher": "teacher_folder",
        "initial_weights": "initial_weights",
        "labelled_speakers": "labelled_speakers",
    }
    return Training(
        name=name,
        folder=places["output_folder"],
        command=command,
        waits_for=waits_for,
        overrides=overrides,
        data={part: given[key] for part, key in data.items() if key in given},
    )


def option(value):
    """Write an override's value so that the command line does not change it.

    Example
    -------
    >>> option("a=b"), option([1.0, None])
    ('"a\\\\u003db"', '[1.0, null]')
    """
    text = str(value) if isinstance(value, Path) else value
    # JSON is YAML, and what is quoted has no `: ` or `#` to trip over; the
    # command line is split at `=`.
    return json.dumps(text, ensure_ascii=False).replace("=", "\\u003d")
