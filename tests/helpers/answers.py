"""Stored answers of a small teacher, as teach.py makes them."""

import teach
from synthetic import HPARAMS, small_model

from imlkd_brain.distillation.answer_store import AnswerStore

ALL_FIELDS = "[chunk, segment, integrated, weights]"


def teach_options(corpus, teacher_folder, folder, **overrides):
    """A command line of teach.py on the small corpus."""
    options = {
        "data_folder": corpus,
        "skip_prep": True,
        "train_annotation": corpus / "train.csv",
        "teacher_folder": teacher_folder,
        "teacher_answers": folder,
        "answers_variants": 1,
        "answers_fields": ALL_FIELDS,
        "answers_precision": "float32",
        "batch_size": 4,
        "sentence_len": 0.5,
        "durations": [0.3, 0.4],
        "speed_perturb": [1.0],
        **small_model(),
        **overrides,
    }
    yaml = str(HPARAMS / "teach.yaml")
    more = ["--device=cpu", "--noprogressbar"]
    return [yaml, *(f"--{k}={v}" for k, v in options.items()), *more]


def taught(corpus, teacher_folder, folder, **overrides):
    """Walk over the small corpus; the store."""
    teach.main(teach_options(corpus, teacher_folder, folder, **overrides))
    return AnswerStore.open(folder)
