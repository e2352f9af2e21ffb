"""Draws the cohort of a verification from a training annotation.

Authors: IML-KD contributors
"""

import csv
import random

from imlkd_brain.errors import UserError
from imlkd_brain.files import csv_problems


def read_cohort(path, data_folder, size, seed):
    """Choose cohort utterances out of a training annotation.

    Arguments
    ---------
    path : str or Path
        CSV of ``prepare_voxceleb``, with the columns ``wav`` and ``spk_id``.
        ``$data_root`` stands for the data folder. Segments of one file are
        one utterance.
    data_folder : str or Path
        The corpus.
    size : int
        Most utterances to take. They are drawn at random.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict
        Speaker of each utterance's file, by path.

    Raises
    ------
    UserError
        If the file or a column is missing.
    """
    speaker_of = {}
    try:
        with (
            csv_problems(path),
            open(path, newline="", encoding="utf-8-sig") as stream,
        ):
            for row in csv.DictReader(stream):
                if not row["wav"] or not row["spk_id"]:
                    raise UserError(
                        f"{path}: a line has no wav or no spk_id; expected a "
                        "CSV as prepare_voxceleb writes it."
                    )
                wav = row["wav"].replace("$data_root", str(data_folder))
                speaker_of[wav] = row["spk_id"]
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such cohort; give the train.csv in the "
            "save folder of a training run."
        ) from None
    except KeyError as error:
        raise UserError(
            f"{path}: the column {error.args[0]} is missing; expected a CSV "
            "as prepare_voxceleb writes it."
        ) from None
    if not speaker_of:
        raise UserError(
            f"{path}: holds no utterances; expected a CSV as prepare_voxceleb "
            "writes it."
        )
    if len(speaker_of) > size:
        drawn = random.Random(seed).sample(sorted(speaker_of), size)
        speaker_of = {wav: speaker_of[wav] for wav in drawn}
    return speaker_of
