"""train_kd.py as a process on real speech: train, go on, stop, complain."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_kd

from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from speechbrain.inference.speaker import SpeakerRecognition

RECIPE = Path(train_kd.__file__).resolve().parent
ROOT = RECIPE.parents[2]
N_EPOCHS = 3


def start(options, folder, script="train_kd.py"):
    """Start the script as a user does, nothing installed but SpeechBrain."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        [sys.executable, script, *options, "--noprogressbar"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job would leave Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(options, folder=RECIPE, script="train_kd.py", code=0):
    """Run to the end; what was said on stderr."""
    process = start(options, folder, script)
    _, said = process.communicate()
    assert process.returncode == code, said[-3000:]
    return said


def here(main, options):
    """Run a script's main function in this process, which has torch already.

    Arguments
    ---------
    main : callable
        As ``train_kd.main``.
    options : list of str
        Its command line.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(RECIPE)
        main([*options, "--device=cpu", "--noprogressbar"])


def refused(main, options):
    """The one sentence that a script's main function ends with."""
    with pytest.raises(UserError) as caught:
        here(main, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def small(yaml, data, output, **more):
    """A command line that trains for about a second."""
    options = {
        "data_folder": data,
        "output_folder": output,
        "embedding_model": "{channels: [8, 8, 8, 8, 24], "
        "attention_channels: 8, se_channels: 8}",
        "lin_neurons": 16,
        "n_mels": 40,
        "batch_size": 16,
        "sentence_len": 1.0,
        "speed_perturb": "[1.0]",
        "valid_durations": "[full, 1.0]",
        "number_of_epochs": N_EPOCHS,
        **more,
    }
    return [yaml, *(f"--{key}={value}" for key, value in options.items())]


def student(data, teacher, output, **more):
    """A command line of the distillation on MiniVox."""
    return small(
        "hparams/minivox/iml_kd.yaml",
        data,
        output,
        teacher_folder=teacher,
        durations="[0.5, 0.8]",
        measure_interval=2,
        **more,
    )


def stats_of(folder):
    """The statistics of a run, without those of the clock."""
    with open(folder / "train_stats.csv", newline="") as stream:
        return [
            {k: v for k, v in row.items() if "seconds" not in k}
            for row in csv.DictReader(stream)
        ]


def n_speakers(data, *roles):
    """How many speakers of a MiniVox are for these uses."""
    manifest = json.loads((data / "manifest.json").read_text())
    return sum(s["role"] in roles for s in manifest["speakers"].values())


def same_weights(one, other):
    """Whether two inference folders hold the same, bit for bit."""
    return all(
        torch.equal(value, state[key])
        for name in ("embedding_model.ckpt", "classifier.ckpt")
        for state in [torch.load(other / "inference" / name)]
        for key, value in torch.load(one / "inference" / name).items()
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def teacher(tiny_minivox, output):
    """A teacher, trained in the recipe's folder."""
    folder = output / "teacher"
    run(small("hparams/minivox/train_teacher.yaml", tiny_minivox, folder))
    return folder


@pytest.fixture(scope="module")
def taught(tiny_minivox, teacher, output):
    """Its student, trained in one go, from the repository's root."""
    folder = output / "student"
    run(
        student(tiny_minivox, teacher, folder),
        folder=ROOT,
        script="recipes/VoxCeleb/IMLKD/train_kd.py",
    )
    return folder


def test_a_teacher_is_ready_for_inference(teacher, tiny_minivox):
    stats = stats_of(teacher)
    assert [row["epoch"] for row in stats] == ["1", "2", "3"]
    assert float(stats[-1]["train loss"]) < float(stats[0]["train loss"])
    assert {"valid EER", "valid EER_full", "valid EER_1s"} <= stats[0].keys()
    model = load_speaker_model(teacher)
    assert len(model.speakers) == n_speakers(tiny_minivox, "train")
    assert model.embedding_dim == 16
    speechbrains = SpeakerRecognition.from_hparams(
        source=str(teacher / "inference"),
        savedir=str(teacher / "inference"),
    )
    one, two, *_ = sorted((tiny_minivox / "wav").glob("*/*/*.wav"))
    score, same = speechbrains.verify_files(str(one), str(two))
    assert -1 <= score.item() <= 1
    # The checkpoint exported is the one with the best dev EER.
    best = min(stats, key=lambda row: float(row["valid EER"]))
    (checkpoint,) = (
        folder
        for folder in (teacher / "save").glob("CKPT*")
        if folder.name.endswith(f"epoch_{int(best['epoch']):03d}")
    )
    kept = torch.load(checkpoint / "embedding_model.ckpt")
    exported = torch.load(teacher / "inference" / "embedding_model.ckpt")
    assert all(torch.equal(kept[key], exported[key]) for key in kept)


def test_a_student_names_the_speakers_of_its_teacher(taught, teacher):
    own = load_speaker_model(teacher).speakers
    assert own and load_speaker_model(taught).teacher_speakers == sorted(own)


def test_a_student_learns_from_it_by_all_levels(taught):
    stats = stats_of(taught)
    assert len(stats) == N_EPOCHS
    assert stats[0]["updates"] == str(int(stats[2]["updates"]) // 3)
    for term in ("instance", "embedding", "class", "batch"):
        column = f"train integrated/{term}"
        assert float(stats[0][column]) > 0
        assert 0 < float(stats[0][f"{column} gradient_share"]) < 1
    assert float(stats[0]["train completeness_gap"]) >= 0
    log = (taught / "train_log.txt").read_text()
    assert log.count("integrated/instance gradient_share") == N_EPOCHS
    assert not list((taught / "save").rglob("*teacher*"))


def test_an_interrupted_training_goes_on_as_if_nothing_happened(
    taught, teacher, tiny_minivox, output
):
    folder = output / "interrupted"
    options = student(tiny_minivox, teacher, folder)
    process = start(options, RECIPE)
    while not (folder / "train_stats.csv").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in said
    assert len(stats_of(folder)) < N_EPOCHS
    assert not (folder / "inference").exists()

    run(options)
    assert stats_of(folder) == stats_of(taught)
    assert same_weights(folder, taught)


def test_two_processes_train_one_student(teacher, tiny_minivox, output):
    folder = output / "distributed"
    options = student(
        tiny_minivox, teacher, folder, number_of_epochs=2, lr_step_epochs=1
    )
    command = ["-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--standalone", "train_kd.py"]
    # Without GPUs they meet by gloo, unasked.
    run([*command[1:], *options, "--device=cpu"], script=command[0])
    stats = stats_of(folder)
    assert [row["epoch"] for row in stats] == ["1", "2"]
    # Half of the batches each, and the learning rate at its cycle's end.
    n_segments = sum(1 for _ in open(folder / "save" / "train.csv")) - 1
    assert int(stats[1]["updates"]) == 2 * (n_segments // 2 // 16)
    assert float(stats[1]["lr"]) == pytest.approx(1e-8)
    model = load_speaker_model(folder)
    assert len(model.speakers) == n_speakers(tiny_minivox, "train")


def test_two_processes_try_a_training_and_end(teacher, tiny_minivox, output):
    """SpeechBrain's debug mode: each process had checkpoints of its own."""
    folder = output / "tried"
    options = student(
        tiny_minivox, teacher, folder, teacher_classes="prototypes"
    )
    command = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    said = run([*command, "train_kd.py", *options, "--debug"], script="-m")
    assert "Traceback" not in said
    assert [row["updates"] for row in stats_of(folder / "debug")] == ["2", "4"]
    assert load_speaker_model(folder / "debug").speakers


def test_a_finished_training_is_left_alone(teacher, tiny_minivox):
    def everything():
        return {
            path: path.read_bytes()
            for name in ("save", "inference", "train_stats.csv")
            for path in [teacher / name, *(teacher / name).rglob("*")]
            if path.is_file()
        }

    before = everything()
    options = small("hparams/minivox/train_teacher.yaml", tiny_minivox, teacher)
    here(train_kd.main, options)
    after = everything()
    assert before.keys() == after.keys()
    assert [path for path in before if before[path] != after[path]] == []


def test_the_last_checkpoint_is_the_model_unless_the_best_is_asked_for(
    teacher, tiny_minivox, output
):
    """An early epoch with the lowest dev EER, as few speakers can give it."""
    folder = output / "export"
    shutil.copytree(teacher, folder)
    last = folder / "save" / f"CKPT+epoch_{N_EPOCHS:03d}"
    early = folder / "save" / "CKPT+epoch_000"
    for other in (folder / "save").glob("CKPT+*"):
        if other != last:
            shutil.rmtree(other)
    shutil.copytree(last, early)
    meta = (early / "CKPT.yaml").read_text()
    meta = re.sub(r"(?m)^EER: .*", "EER: 0.0", meta)
    meta = re.sub(r"(?m)^unixtime: .*", "unixtime: 1.0", meta)
    (early / "CKPT.yaml").write_text(meta)
    weights = torch.load(early / "embedding_model.ckpt")
    torch.save(
        {key: 2 * value for key, value in weights.items()},
        early / "embedding_model.ckpt",
    )
    # It would be taken for a damaged one.
    (early / "checksums.json").unlink()
    options = small("hparams/minivox/train_teacher.yaml", tiny_minivox, folder)
    for export, checkpoint in (("best", early), ("last", last)):
        here(train_kd.main, [*options, f"--export={export}"])
        model = torch.load(folder / "inference" / "embedding_model.ckpt")
        wanted = torch.load(checkpoint / "embedding_model.ckpt")
        assert model.keys() == wanted.keys()
        assert all(torch.equal(model[key], wanted[key]) for key in wanted)


def files(folder):
    """Every file below a folder, with its bytes."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_finished_model_is_not_touched_by_other_options_or_tries(
    taught, teacher, tiny_minivox, output
):
    folder = output / "finished"
    shutil.copytree(taught, folder)
    before = files(folder)
    options = student(tiny_minivox, teacher, folder)
    for more, words in (
        (["--eta=16"], "eta: 1.0 before, 16 now"),
        (["--method=scratch"], "method: iml_kd before, scratch now"),
        (["--max_grad_norm=1.0"], "max_grad_norm: 5.0 before, 1.0 now"),
        (["--test_only", "--export=last"], "nothing was changed"),
    ):
        said = run([*options, *more], code=2)
        assert "Traceback" not in said and words in said
        assert files(folder) == before
    run([*options, "--debug"])
    assert {row["updates"] for row in stats_of(folder / "debug")} == {"2", "4"}
    assert load_speaker_model(folder / "debug").embedding_dim == 16
    shutil.rmtree(folder / "debug")
    assert files(folder) == before


@pytest.mark.slow
def test_a_training_starts_from_another_of_other_speakers(
    teacher, tiny_minivox, output
):
    folder = output / "adapted"
    rows = (teacher / "save" / "train.csv").read_text().splitlines()
    first, second = sorted({row.rpartition(",")[2] for row in rows[1:]})[:2]
    some = output / "some.csv"
    some.write_text("\n".join([rows[0], *filter(
        lambda row: row.endswith((f",{first}", f",{second}")), rows[1:]
    )]).replace(f",{second}", ",somebody") + "\n")  # fmt: skip
    options = small(
        "hparams/minivox/train_teacher.yaml",
        tiny_minivox,
        folder,
        batch_size=4,
        number_of_epochs=1,
        # Nothing is learnt, so that the start is what is exported.
        lr=0.0,
        base_lr=0.0,
        weight_decay=0.0,
        skip_prep=True,
        train_annotation=some,
        valid_annotation=teacher / "save" / "dev.csv",
    )
    run([*options, f"--initial_weights={teacher}"])
    said = (folder / "log.txt").read_text()
    assert "the classifier's rows of 1 of 2 training speakers" in said
    theirs, ours = map(load_speaker_model, (teacher, folder))
    assert ours.speakers == sorted([first, "somebody"])
    # Whom the weights have learnt before is not new to this model either.
    assert ours.teacher_speakers == sorted(theirs.speakers)
    wanted = dict(theirs.embedding_model.named_parameters())
    for name, value in ours.embedding_model.named_parameters():
        assert torch.equal(value, wanted[name])
    row = theirs.classifier.weight[theirs.speakers.index(first)]
    assert torch.equal(ours.classifier.weight[ours.speakers.index(first)], row)
    # A training that has begun does not ask for it any more.
    run([*options, "--initial_weights=nowhere"])


def test_the_voxceleb_yaml_on_chunks_speeds_and_prototypes(
    teacher, tiny_minivox, output
):
    """Without dev trials, in workers, and with speakers the teacher lacks.

    The workers are started as on macOS and Windows, and persist.
    """
    folder = output / "voxceleb"
    options = small(
        "hparams/iml_kd.yaml",
        tiny_minivox,
        folder,
        teacher_folder=teacher,
        teacher_classes="prototypes",
        durations="[0.5]",
        valid_durations="[full]",
        verification_file=tiny_minivox / "trials" / "test.txt",
        augmentation=False,
        speed_perturb="[0.9, 1.0, 1.1]",
        num_workers=1,
        train_dataloader_options="{multiprocessing_context: spawn, "
        "persistent_workers: True}",
        n_steps=1,
        measure_interval=1,
    )
    run([*options, "--debug"])
    folder /= "debug"
    n_classes = 3 * n_speakers(tiny_minivox, "train", "dev")
    assert len(load_speaker_model(folder).speakers) == n_classes
    (*_, last) = stats_of(folder)
    assert 0 <= float(last["valid ErrorRate"]) <= 1


def test_what_is_missing_is_one_sentence(tiny_minivox, output):
    """The first as a process, which prints it and no traceback."""
    said = run(["hparams/iml_kd.yaml"], code=2)
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert (
        "give `--data_folder /path/to/VoxCeleb1` (a folder with "
        "wav/<speaker>/<session>/); without VoxCeleb, `python -m "
        "imlkd_brain.corpora.minivox --data_folder DIR` installs a small real "
        "corpus for `hparams/minivox/iml_kd.yaml --data_folder DIR`" in last
    )
    orphan = student(tiny_minivox, "nowhere", output / "orphan")
    said = refused(train_kd.main, orphan)
    assert "nowhere: no trained model there" in said
    none = tiny_minivox / "none"
    yaml = "hparams/minivox/train_teacher.yaml"
    said = refused(train_kd.main, small(yaml, none, output / "empty"))
    assert f"{none}" in said
