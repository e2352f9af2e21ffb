#!/usr/bin/env python3
"""Makes the model in the package: corpora, teacher, training, figures, folder.

An ECAPA-TDNN of 80 channels is taught by CAM++ on all voices that may be
redistributed: speechocean762, MiniVox without uqm, and clips of LibriSpeech and
Speech Commands. The test and dev speakers of fold 0 of the first two are held
out. To run it (about two hours on two CPU cores, 3 GB of disk):
> python ship.py

Steps that are done already are skipped, so it can be interrupted at any time.

Authors
    * IML-KD contributors
"""

import json
import sys
from pathlib import Path

from imlkd_brain.comparison.steps import Step, run_groups
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.files import write_whole
from imlkd_brain.models.card import write_card
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.packaging import pack
from imlkd_brain.models.size import model_size
from imlkd_brain.settings import refuse_options

DATA = "data/shipped"
RESULTS = "results/shipped"
MODEL = f"{RESULTS}/1986"
PLACE = "imlkd_brain/models/shipped/ecapa80"

# Those with trials; the third has voices for training alone.
WITH_TRIALS = ("speechocean762", "minivox")
CORPORA = (*WITH_TRIALS, "voice_clips")
FOLDERS = ",".join(f"data/{corpus}" for corpus in CORPORA)

SOURCES = [
    [
        Step(
            corpus,
            f"-m imlkd_brain.corpora.{corpus} --data_folder data/{corpus}",
            f"data/{corpus}/manifest.json",
        )
    ]
    for corpus in CORPORA
] + [
    [Step("teacher", "-m imlkd_brain.models.public campplus")],
    [
        Step(
            "noises",
            f"-m imlkd_brain.corpora.noises --data_folder {DATA}/noise "
            "--voices data/voice_clips",
            f"{DATA}/noise/manifest.json",
        )
    ],
]

TRAINING = [
    [
        Step(
            "the teacher's answers",
            f"teach.py hparams/minivox/teach.yaml --data_folder {FOLDERS} "
            "--teacher_folder campplus --teacher_classes prototypes "
            f"--teacher_answers {DATA}/answers --answers_fields '[chunk]' "
            "--answers_variants 2 --answers_arithmetic bfloat16 --processes 2",
        )
    ],
    [
        Step(
            "student",
            "train_kd.py hparams/shipped.yaml",
            f"{MODEL}/inference/hyperparams.yaml",
        )
    ],
]

VERIFICATION = [
    [
        Step(
            "threshold and error rates",
            f"verify.py hparams/minivox/eval.yaml --data_folder {FOLDERS} "
            f"--models '{{ecapa80: {PLACE}}}' --trial_lists "
            f"'[{DATA}/speechocean762.txt, {DATA}/minivox.txt]' "
            f"--decision_list {DATA}/dev.txt --store_decision True "
            f"--output_folder {RESULTS}/verification",
        )
    ]
]

# Published encoders on the same trials (benchmarks/bench_rivals.py), and what
# their lists are called here.
PUBLISHED = Path(__file__).parents[3] / "benchmarks" / "bench_rivals.json"
LISTS = {"fold0_test": "speechocean762", "test": "minivox"}

ABOUT = {
    "license": "apache-2.0",
    "language": ["en"],
    "training_data": (
        "speechocean762 and MiniVox without uqm, both without the test and dev "
        "speakers of fold 0, and clips of LibriSpeech (CC BY 4.0) and Speech "
        "Commands (CC BY 4.0), at three speeds. Half of the batches have babble "
        "of LibriSpeech's and Speech Commands' voices or coloured noise, at 5 "
        "to 20 dB. MiniVox's packs are under the GPL and Creative Commons "
        "licences."
    ),
    "teacher": (
        "CAM++ (3D-Speaker, arXiv 2303.00332, Apache 2.0), by stored answers. "
        "Whether it has heard speakers of speechocean762 is not known."
    ),
    "method": (
        "AAM-softmax, and the teacher's embedding of a clean chunk for the chunk "
        "and for a plain segment of it, through a linear projection. No "
        "attribution. Twelve epochs, seed 1986, hparams/shipped.yaml."
    ),
    "limits": (
        "Decisions about people without a test on their own recordings. "
        "Telephone speech and other languages were not measured. In noise of 10 "
        "dB, and within single packs of MiniVox, it makes many more errors "
        "(benchmarks/README.md)."
    ),
}


def write_lists():
    """Writes the trials of the corpora: each one's tests, and all together."""
    Path(DATA).mkdir(parents=True, exist_ok=True)
    for part in ("test", "dev"):
        lists = {
            corpus: Path(f"data/{corpus}/trials/{part}.txt").read_text("utf-8")
            for corpus in WITH_TRIALS
        }
        write_whole(f"{DATA}/{part}.txt", "".join(lists.values()))
        if part == "test":
            for corpus, trials in lists.items():
                write_whole(f"{DATA}/{corpus}.txt", trials)


def published():
    """Error rates of published encoders, as the card has them."""
    rows = json.loads(PUBLISHED.read_text("utf-8"))["results_of"]
    return [
        {**row, "list": LISTS[row["list"]]}
        for row in rows
        if row["model"] != Path(PLACE).name
    ]


def main(argv):
    """Runs all steps and writes the model's folder in the package."""
    refuse_options(argv)
    run_groups(SOURCES, RESULTS)
    write_lists()
    run_groups(TRAINING, RESULTS)
    pack(MODEL, PLACE)
    run_groups(VERIFICATION, RESULTS)
    model = load_speaker_model(PLACE)
    results = f"{RESULTS}/verification/results.json"
    write_card(
        Path(PLACE),
        ABOUT,
        model,
        model_size(model),
        results=results,
        beside=published(),
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
