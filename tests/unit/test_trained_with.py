"""A folder is one training: other options stop before they change anything."""

import demo
import pytest
from synthetic import HPARAMS, write_corpus, write_model

import speechbrain as sb
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.options import differences
from imlkd_brain.trained_with import (
    RECORD,
    TrainingRecord,
    model_identity,
    read_record,
)
from imlkd_brain.training import load_training

STUDENT = str(HPARAMS / "iml_kd.yaml")


def start(options, output, yaml=STUDENT, **data):
    """The record of a command line on a folder, checked as at its start."""
    argv = [yaml, "--output_folder", str(output), *options]
    record = TrainingRecord.of_command(argv)
    record.add_data(**data)
    record.check(output, output / "save")
    return record


@pytest.fixture
def trained(tmp_path):
    """An output folder with a checkpoint of the YAML's own options."""
    start([], tmp_path).write(tmp_path / "save")
    (tmp_path / "save" / "CKPT+epoch_004").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--eta", "16"], "eta: 1.0 before, 16 now"),
        (["--method", "scratch"], "method: iml_kd before, scratch now"),
        (["--seed=1"], "seed: 1986 before, 1 now"),
        (["--lr", "0.02"], "lr: 0.01 before, 0.02 now"),
        (["--number_of_epochs", "3"], "number_of_epochs: 4 before, 3 now"),
        (
            ["--train_dataloader_options", "{shuffle: False}"],
            "train_dataloader_options.shuffle: True before, False now",
        ),
        (
            ["--embedding_model", "{attention_channels: 16}"],
            "embedding_model.attention_channels: 32 before, 16 now",
        ),
        (
            ["--methods", "{iml_kd: {integrated: {batch: 7.0}}}"],
            "methods.iml_kd.integrated.batch: 1.0 before, 7.0 now",
        ),
        (["--batchnorm", "shared"], "batchnorm: running before, shared now"),
        (["--precision", "bf16"], "precision: fp32 before, bf16 now"),
        (["--max_grad_norm=1.0"], "max_grad_norm: 5.0 before, 1.0 now"),
        (
            ["--grad_accumulation_factor", "4"],
            "grad_accumulation_factor: 1 before, 4 now",
        ),
        (
            ["--optimizer_step_limit", "9"],
            "optimizer_step_limit: left out before, 9 now",
        ),
    ],
)
def test_an_option_that_changes_the_result_stops_with_both_values(
    trained, options, words
):
    with pytest.raises(UserError) as caught:
        start(options, trained)
    said = str(caught.value)
    assert said.startswith(f"{trained}: trained with other options (")
    assert words in said and "give another output_folder" in said
    # The key alone, not each of the places that refer to it.
    assert said.count(" now") == 1


def test_what_does_not_change_the_result_goes_on(trained):
    start(
        [
            *("--number_of_epochs", "40", "--num_workers", "4"),
            *("--data_folder", "elsewhere", "--teacher_folder", "moved"),
            *("--teacher_cache", "cache", "--export", "best"),
            *("--save_folder", str(trained / "save")),
            *("--train_log", "log.txt", "--use_tensorboard", "True"),
            *("--measure_interval", "0", "--ckpt_interval_minutes", "5"),
            *("--skip_prep", "True", "--train_annotation", "other.csv"),
            *("--device", "cpu", "--noprogressbar"),
            *("--train_dataloader_options", "{pin_memory: True}"),
            # Of another method.
            *("--methods", "{dist: {raw: {correlation: 9.0}}}"),
            *("--batchnorm", "{iml_kd_plus: shared}"),
        ],
        trained,
    )


def test_a_run_option_of_the_yaml_counts_as_on_the_command_line(tmp_path):
    yaml = tmp_path / "mine.yaml"
    text = (HPARAMS.parent / "iml_kd.yaml").read_text()
    yaml.write_text(text + "\nmax_grad_norm: 1.0\n")
    for argv, value in (([], 1.0), (["--max_grad_norm", "2.0"], 2.0)):
        argv = [str(yaml), "--data_folder", "none", *argv]
        record = TrainingRecord.of_command(argv)
        assert record.content["run_options"]["max_grad_norm"] == value
    assert TrainingRecord.of_command([STUDENT]).content["run_options"] == {
        **record.content["run_options"],
        "max_grad_norm": 5.0,
    }


def test_a_yaml_with_a_base_is_what_it_changes_of_it(tmp_path):
    """compare.py asks for the record of a command as train_kd.py keeps it."""
    own = tmp_path / "own.yaml"
    own.write_text(f"base: {STUDENT}\nlr: 0.02\n")
    there = ["--output_folder", str(tmp_path), "--skip_prep=True"]
    there.append("--optimizer_step_limit=6")
    started = TrainingRecord.of_command([str(own), "--eta", "2.0", *there])
    file, _, run_opts, overrides = load_training(
        [str(own), "--eta", "2.0", *there]
    )
    assert TrainingRecord(file, overrides, run_opts).content == started.content
    other = TrainingRecord.of_command([STUDENT, "--lr=0.02", *there])
    assert differences(other.content, started.content) == [
        "eta: 1.0 before, 2.0 now"
    ]


def test_epochs_may_be_raised_in_steps_and_not_lowered(trained):
    start(["--number_of_epochs", "6"], trained).write(trained / "save")
    start(["--number_of_epochs", "8"], trained)
    with pytest.raises(UserError, match="number_of_epochs: 6 before, 4 now"):
        start([], trained)


def test_options_may_change_before_there_is_a_checkpoint(trained):
    (trained / "save" / "CKPT+epoch_004").rmdir()
    start(["--eta", "16"], trained)


def test_a_finished_model_counts_where_its_checkpoints_are_gone(trained):
    inference = trained / "inference"
    inference.mkdir()
    (trained / "save" / RECORD).rename(inference / RECORD)
    (inference / "embedding_model.ckpt").write_bytes(b"")
    start([], trained)
    with pytest.raises(UserError, match=f"{trained}: .*eta: 1.0 before"):
        start(["--eta", "2.0", "--save_folder", "other"], trained)


def test_a_record_is_written_whole_and_only_where_it_differs(trained):
    path = trained / "save" / RECORD
    before = path.stat().st_mtime_ns
    start([], trained).write(trained / "save")
    assert path.stat().st_mtime_ns == before
    assert {p.name for p in path.parent.iterdir()} == {RECORD, "CKPT+epoch_004"}
    path.write_text("{")
    with pytest.raises(UserError, match=f"{RECORD}: cannot be read"):
        start([], trained)


def test_annotations_and_teacher_count_by_their_content(tmp_path):
    data = write_corpus(tmp_path / "data")
    teacher = write_model(tmp_path / "teacher").parent
    files = {
        "train_annotation": data / "train.csv",
        "valid_trials": data / "dev.txt",
        "teacher": teacher,
    }
    output = tmp_path / "out"
    start([], output, **files).write(output / "save")
    (output / "save" / "CKPT+epoch_001").mkdir()
    # Moved, all of it.
    moved = write_corpus(tmp_path / "moved")
    start(
        [],
        output,
        train_annotation=moved / "train.csv",
        valid_trials=moved / "dev.txt",
        teacher=teacher.rename(tmp_path / "renamed"),
    )
    # Not there yet, or no more.
    start([], output, train_annotation="none.csv", teacher=tmp_path / "none")
    rows = (moved / "train.csv").read_text().splitlines()
    (moved / "train.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(UserError, match="train_annotation: content .* now"):
        start([], output, train_annotation=moved / "train.csv")
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="teacher: content .* before, content"):
        start([], output, teacher=other)
    with pytest.raises(
        UserError, match="valid_trials: content .* left out now"
    ):
        start([], output, valid_trials=None)
    assert model_identity(other) == load_speaker_model(other).key


def test_a_record_that_says_null_for_whole_utterances_is_the_same(trained):
    """As versions wrote it before `full`."""
    path = trained / "save" / RECORD
    text = path.read_text()
    assert text.count('"full"') == 1
    path.write_text(text.replace('"full"', "null"))
    start([], trained)
    assert read_record(path.parent)["hyperparameters"]["valid_durations"] == [
        "full",
        2.0,
        1.0,
    ]
    with pytest.raises(UserError, match="valid_durations: .*1.0. before"):
        start(["--valid_durations=[full]"], trained)


def test_debug_has_a_folder_of_its_own(tmp_path):
    argv = [STUDENT, "--output_folder", str(tmp_path), "--debug", "--eta=2.0"]
    argv += ["--skip_prep=True"]
    # Also where the user has chosen the places.
    argv += ["--save_folder", str(tmp_path / "mine")]
    yaml, hparams, run_opts, overrides = load_training(argv)
    assert run_opts.debug and hparams["eta"] == 2.0
    debug = tmp_path / "debug"
    assert hparams["output_folder"] == str(debug)
    assert hparams["save_folder"] == str(debug / "save")
    assert hparams["train_annotation"] == str(debug / "save" / "train.csv")
    assert str(hparams["checkpointer"].checkpoints_dir) == str(debug / "save")
    assert hparams["train_logger"].save_file == str(debug / "train_log.txt")
    sb.core.create_experiment_directory(str(debug), yaml, overrides)
    assert "eta: 2.0" in (debug / "hyperparams.yaml").read_text()
    # The next try begins anew, with any options.
    model = debug / "inference" / "embedding_model.ckpt"
    model.parent.mkdir()
    model.write_bytes(b"")
    start(["--eta=2.0"], debug).write(model.parent)
    start(["--eta=3.0", "--debug"], debug)
    load_training([*argv, "--debug_persistently"])
    assert model.is_file()
    load_training(argv)
    assert not model.exists()


def test_the_demo_takes_no_training_of_other_options_for_its_own(
    tmp_path, monkeypatch
):
    command = f"train_kd.py {STUDENT} --eta 2.0"
    inference = tmp_path / "inference"
    inference.mkdir()
    (inference / "embedding_model.ckpt").write_bytes(b"")
    done = str(inference / "hyperparams.yaml")
    # Of an earlier version, without a record
    demo.check_done(demo.Step("student", command, done))
    options = command.split()[1:]
    TrainingRecord.of_command(options).write(inference)
    demo.check_done(demo.Step("student", command, done))
    with pytest.raises(UserError, match="eta: 2.0 before, 1.0 now"):
        demo.check_done(demo.Step("student", f"train_kd.py {STUDENT}", done))
