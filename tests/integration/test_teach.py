"""teach.py as a process on real speech: killed, gone on, trained on."""

import os
import signal
import time

import pytest
import teach
import train_kd
from synthetic import TRAIN_SPEAKERS, write_model
from test_train import (
    RECIPE,
    n_speakers,
    refused,
    run,
    small,
    start,
    stats_of,
)

from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.models.folder import load_speaker_model

N_VARIANTS = 3


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def options(output):
    """What walk and training share: a teacher of 30 mels, who knows nobody."""
    teacher = write_model(
        output / "teacher", TRAIN_SPEAKERS, n_mels=30, lin_neurons=24
    )
    return {
        "teacher_folder": teacher,
        "teacher_classes": "prototypes",
        "teacher_answers": output / "answers",
        "answers_variants": N_VARIANTS,
        "durations": "[0.5, 0.8]",
    }


def walk(data, output, options):
    """The command line of the walk."""
    command = small("hparams/minivox/teach.yaml", data, output, **options)
    return [o for o in command if not o.startswith("--output_folder")]


def student(data, output, options, **more):
    """The command line of a training on what was stored."""
    more = {"number_of_epochs": 1, "measure_interval": 2, **options, **more}
    return small("hparams/minivox/iml_kd.yaml", data, output, **more)


@pytest.fixture(scope="module")
def answers(tiny_minivox, output, options):
    """The walk, killed after its first file and gone on by two processes."""
    command = walk(tiny_minivox, output, options)
    folder = options["teacher_answers"]
    process = start(command, RECIPE, "teach.py")
    while not (folder / "variant000" / "00000.npy").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = (folder / "variant000" / "00000.npy").stat().st_mtime_ns
    assert AnswerStore.open(folder).n_complete() < N_VARIANTS
    run([*command, "--processes=2"], script="teach.py")
    store = AnswerStore.open(folder)
    assert store.n_complete() == N_VARIANTS
    assert (folder / "variant000" / "00000.npy").stat().st_mtime_ns == first
    # All speakers of the corpus, also those that nobody trains on.
    speakers = {speaker for speaker, _ in store.utterances.values()}
    roles = ("train", "dev", "test")
    assert len(speakers) == n_speakers(tiny_minivox, *roles)
    return folder


def test_a_student_trains_on_what_was_stored(
    answers, tiny_minivox, output, options
):
    folder = output / "student"
    run(student(tiny_minivox, folder, options))
    (row,) = stats_of(folder)
    for term in ("instance", "embedding", "class", "batch"):
        assert float(row[f"train integrated/{term}"]) > 0
    model = load_speaker_model(folder)
    assert len(model.speakers) == n_speakers(tiny_minivox, "train")
    # It is finished with these answers, and not with others or none.
    for more in ({"answers_variants": 2}, {"teacher_answers": "null"}):
        command = student(tiny_minivox, folder, options, **more)
        said = refused(train_kd.main, command)
        assert "teacher_answers: {'chunks': 3" in said


def test_two_processes_train_on_stored_answers(
    answers, tiny_minivox, output, options
):
    folder = output / "distributed"
    command = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    training = student(tiny_minivox, folder, options, method="iml_kd_plus")
    more = ["--device=cpu", "--distributed_backend=gloo"]
    run([*command, "train_kd.py", *training, *more], script="-m")
    (row,) = stats_of(folder)
    n_segments = sum(1 for _ in open(folder / "save" / "train.csv")) - 1
    assert int(row["updates"]) == n_segments // 2 // 16


def test_what_does_not_fit_is_one_sentence(
    answers, tiny_minivox, output, options
):
    for more, words in (
        ({"gate": 0.9}, "attribution.gate: 0.5 there, 0.9 here"),
        ({"answers_variants": 9}, "(3 are complete)"),
        ({"teacher_answers": "nowhere"}, "nowhere: no stored answers"),
    ):
        command = student(tiny_minivox, output / "refused", options, **more)
        assert words in refused(train_kd.main, command)
    command = walk(tiny_minivox, output, options)
    said = refused(teach.main, [*command, "--n_steps=4"])
    assert "attribution.n_steps: 1 there, 4 here" in said
