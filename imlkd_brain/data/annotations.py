"""Reads the CSVs that ``voxceleb_prepare.py`` writes.

Authors: IML-KD contributors
"""

import csv
import os

from imlkd_brain.errors import UserError
from imlkd_brain.files import csv_problems

UNLABELLED = "unlabelled--"  # begins the IDs of files that are of no corpus
CSV_COLUMNS = ("duration", "wav", "start", "stop", "spk_id")


def read_annotation(path, data_folder):
    """Read a CSV of ``prepare_voxceleb``.

    Arguments
    ---------
    path : str
        The CSV.
    data_folder : str
        Stands for ``$data_root`` in the CSV.

    Returns
    -------
    dict
        Rows by ID; durations, starts and stops are numbers.

    Raises
    ------
    UserError
        If the CSV is missing or empty, lacks a column, repeats an ID, or has
        numbers that cannot be right.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: missing; let the script prepare the data (`--skip_prep "
            "False`), or give the annotation's path."
        )
    rows = {}
    with csv_problems(path):
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = ("ID", *CSV_COLUMNS)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: the column(s) {', '.join(missing)} are missing; "
                    f"expected {','.join(columns)} as prepare_voxceleb writes "
                    "them."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                _check_whole(row, where)
                key = row.pop("ID")
                if key in rows:
                    raise UserError(
                        f"{where}: the ID `{key}` is there more than once; give "
                        "each row its own."
                    )
                rows[key] = _numbers(row, where)
                row["wav"] = row["wav"].replace("$data_root", data_folder)
    if not rows:
        raise UserError(
            f"{path}: holds no utterances; check data_folder ({data_folder}) "
            "and the shares of train and dev in split_ratio."
        )
    return rows


def _check_whole(row, where):
    """Refuse a row that is cut, or has more values than there are columns."""
    if None in row or None in row.values():
        raise UserError(
            f"{where}: has too few or too many values; expected "
            f"ID,{','.join(CSV_COLUMNS)}."
        )


def _numbers(row, where):
    """Turn a row's numbers into numbers, in place."""
    for column, kind in (("duration", float), ("start", int), ("stop", int)):
        try:
            row[column] = kind(row[column])
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: {column} is {row[column]!r}; expected "
                + ("seconds." if kind is float else "a number of samples.")
            ) from None
    if not row["duration"] > 0:
        raise UserError(
            f"{where}: duration is {row['duration']}; expected seconds above 0."
        )
    if not 0 <= row["start"] < row["stop"]:
        raise UserError(
            f"{where}: stop ({row['stop']}) must come after start "
            f"({row['start']}), in samples from 0."
        )
    return row
