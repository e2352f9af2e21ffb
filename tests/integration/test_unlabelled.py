"""train_kd.py as a process where few utterances have a label, or none."""

import csv
import shutil

import pytest
import train_kd
import verify
from synthetic import TRAIN_SPEAKERS, write_model
from test_train import here, n_speakers, refused, run, small, stats_of

from imlkd_brain.models.folder import load_speaker_model, read_names
from speechbrain.inference.speaker import SpeakerRecognition


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A public teacher: other speakers, and other features."""
    return write_model(
        tmp_path_factory.mktemp("results") / "teacher",
        TRAIN_SPEAKERS,
        n_mels=30,
        lin_neurons=24,
    )


def student(data, teacher, output, **more):
    """The command line of a short training."""
    more = {
        "teacher_folder": teacher,
        "teacher_classes": "prototypes",
        "durations": "[0.5, 0.8]",
        "number_of_epochs": 1,
        **more,
    }
    return small("hparams/minivox/iml_kd.yaml", data, output, **more)


def key_of(trials):
    """The first utterance of a trial list."""
    return trials.read_text().split()[1]


def test_few_labels_and_a_folder_train_and_resume(
    tiny_minivox, teacher, tmp_path
):
    output = tmp_path / "few"
    names = sorted(path.name for path in (tiny_minivox / "wav").iterdir())
    heap = tmp_path / "heap"
    shutil.copytree(tiny_minivox / "wav" / names[0], heap / "somebody")
    labelled = tmp_path / "labelled.txt"
    options = {
        "unlabelled_folder": heap,
        "labelled_speakers": labelled,
        "attribution_target": "own_embedding",
    }
    labelled.write_text("nobody\n")
    first = student(tiny_minivox, teacher, output, **options)
    assert "nobody" in refused(train_kd.main, first)
    with open(output / "save" / "train.csv", newline="") as stream:
        trained = sorted({row["spk_id"] for row in csv.DictReader(stream)})
    labelled.write_text("\n".join(trained[:3]))
    run(first)

    (row,) = stats_of(output)
    assert 0 < float(row["train labelled_share"]) < 1
    model = load_speaker_model(output)
    assert model.speakers == trained[:3]
    assert {"somebody", *trained[3:]} <= set(model.teacher_speakers)
    assert len(trained) == n_speakers(tiny_minivox, "train")

    more = {**options, "number_of_epochs": 2}
    longer = student(tiny_minivox, teacher, output, **more)
    here(train_kd.main, longer)
    assert len(stats_of(output)) == 2
    labelled.write_text("\n".join(trained[:4]))
    said = refused(train_kd.main, longer)
    assert "labelled_speakers: content" in said


@pytest.mark.slow
def test_a_folder_alone_trains_and_verifies(tiny_minivox, teacher, tmp_path):
    output = tmp_path / "none"
    wavs, tests = tiny_minivox / "wav", tiny_minivox / "trials" / "test.txt"
    more = {
        "unlabelled_folder": wavs,
        "verification_file": tests,
        "valid_trials": "null",
    }
    said = refused(train_kd.main, student("null", teacher, output, **more))
    assert "iml_kd has terms of speakers" in said
    run(student("null", teacher, output, method="embedding_kd", **more))
    (row,) = stats_of(output)
    assert "train accuracy" not in row and "valid EER" not in row

    folder = output / "inference"
    assert not (folder / "classifier.ckpt").exists()
    speakers = read_names(folder / "teacher_speakers.txt")
    assert len(speakers) > len(TRAIN_SPEAKERS)
    hub = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(tmp_path / "hub")
    )
    wav = str(next(wavs.rglob("*.wav")))
    score, _ = hub.verify_files(wav, wav)
    assert float(score) == pytest.approx(1)
    command = [
        "hparams/minivox/eval.yaml",
        f"--data_folder={tiny_minivox}",
        f"--output_folder={tmp_path / 'scores'}",
        f"--models={{student: {output}, teacher: null, iml_kd: null, "
        "scratch: null}",
        "--durations=[full]",
        # Dev speakers are among the unlabelled ones.
        "--decision_list=null",
        "--store_decision=False",
    ]
    here(verify.main, command)
    # The folder's own speakers are no test speakers any more.
    speaker = next(name for name in speakers if name not in TRAIN_SPEAKERS)
    files = sorted((wavs / speaker).rglob("*.wav"))[:2]
    keys = [file.relative_to(wavs).as_posix() for file in files]
    heard = tmp_path / "heard.txt"
    heard.write_text(f"1 {keys[0]} {keys[1]}\n0 {keys[0]} {key_of(tests)}\n")
    said = refused(verify.main, [*command, f"--trial_lists=[{heard}]"])
    assert "unlabelled speech" in said
