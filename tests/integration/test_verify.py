"""verify.py on real speech, beside SpeechBrain's own way to the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import verify
from helpers.scripts import run_script
from synthetic import write_model

from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.metrics.error_rates import EER as exact_eer
from imlkd_brain.metrics.error_rates import minDCF as exact_min_dcf
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.utils.metric_stats import EER, minDCF

RECIPE = Path(verify.__file__).resolve().parent
MINIVOX_YAML = str(RECIPE / "hparams" / "minivox" / "eval.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model in a training output folder."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, speakers=["nobody", "noone"], dim=24)
    return folder


def options(data_folder, output_folder, models, **more):
    """A command line of verify.py."""
    chosen = {
        "data_folder": data_folder,
        "output_folder": output_folder,
        "models": [str(folder) for folder in models],
        "bootstrap_samples": 20,
        "group_separator": "null",
        "durations": "[full]",
        "decision_list": "null",
        "store_decision": False,
        **more,
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def run(yaml, *arguments, processes=None):
    """Run verify.py as a user does, in the recipe's folder."""
    launch = []
    if processes:
        launch = ["-m", "torch.distributed.run", "--standalone"]
        launch += [f"--nproc_per_node={processes}"]
    return subprocess.run(
        [sys.executable, *launch, "verify.py", yaml, *arguments],
        cwd=RECIPE,
        # torchrun gives each process one thread.
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )


def read_scores(path):
    """Scores by (enrolment, test)."""
    fields = [line.split() for line in path.read_text().splitlines()]
    return {(f[0], f[1]): float(f[3]) for f in fields}


def test_same_scores_and_figures_as_speechbrain(tiny_minivox, model, tmp_path):
    """SpeakerRecognition on the inference folder, metrics of metric_stats.

    Two processes that share the embedding write the same bytes.
    """
    dev = {"decision_list": "trials/dev.txt"}
    alone = options(tiny_minivox, tmp_path, [model], **dev)
    verify.main([MINIVOX_YAML, *alone, "--device=cpu"])
    shared = options(tiny_minivox, tmp_path / "shared", [model], **dev)
    done = run(MINIVOX_YAML, *shared, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([*tmp_path.glob("shared/save/embeddings/*/full/*.npz")]) == 4
    written = [
        place.relative_to(tmp_path)
        for kind in ("scores/**/*.txt", "table.txt", "decision/**/*.json")
        for place in tmp_path.glob(kind)
    ]
    assert len(written) > 1
    for place in written:
        one, other = tmp_path / place, tmp_path / "shared" / place
        assert one.read_bytes() == other.read_bytes(), place
    recognition = SpeakerRecognition.from_hparams(
        source=str(model / "inference"), savedir=str(model / "inference")
    )
    trials = read_trials(tiny_minivox / "trials" / "test.txt")
    embeddings = []
    for name in trials.utterances:
        samples, _ = soundfile.read(
            tiny_minivox / "wav" / f"{name}.wav", dtype="float32"
        )
        wav = torch.from_numpy(samples).unsqueeze(0)
        embeddings.append(recognition.encode_batch(wav))
    expected = torch.cat(
        [
            recognition.similarity(embeddings[i], embeddings[j]).flatten()
            for i, j in trials.pairs.tolist()
        ]
    )
    scores = read_scores(
        tmp_path / "scores" / "test" / _one_word(model) / "full.txt"
    )
    found = [scores[p] for p in zip(trials.enrol, trials.test, strict=True)]
    # The tolerance; the file has six decimals.
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=0)
    (row,) = json.loads((tmp_path / "results.json").read_text())["results"]
    positive, negative = expected[trials.labels], expected[~trials.labels]
    # Two scores closer than float32 rounding may change places: one trial.
    one_trial = 1 / min(len(positive), len(negative))
    assert row["eer"] == pytest.approx(
        EER(positive, negative)[0], abs=one_trial
    )
    assert row["min_dcf_speechbrain_0.01"] == pytest.approx(
        minDCF(positive, negative)[0], abs=0.01 * one_trial
    )
    # On the very same scores nothing may differ.
    ours = torch.tensor(found)
    ours = ours[trials.labels], ours[~trials.labels]
    assert exact_eer(*ours) == EER(*ours)
    assert exact_min_dcf(*ours) == minDCF(*ours)


def _one_word(folder):
    """The model's name when only a folder was given."""
    return "_".join(str(folder).replace("/", " ").split())


def test_lists_models_durations_back_end_and_rerun(
    tiny_minivox, model, tmp_path, capsys
):
    """Everything at once; a second run embeds nothing."""
    other = tmp_path / "other"
    write_model(other, speakers=["nobody", "noone"], dim=16, seed=1)
    trials = read_trials(tiny_minivox / "trials" / "test.txt")
    kaldi = tmp_path / "kaldi.txt"
    kaldi.write_text(
        "".join(
            f"{enrol} {test} {'target' if label else 'nontarget'}\n"
            for enrol, test, label in zip(
                trials.enrol, trials.test, trials.labels, strict=True
            )
        )
    )
    held_out = {name.split("/")[0] for name in trials.utterances}
    dev = read_trials(tiny_minivox / "trials" / "dev.txt").utterances
    held_out |= {name.split("/")[0] for name in dev}
    wavs = sorted((tiny_minivox / "wav").glob("*/*/*.wav"))
    rows = [
        f"{i},1,{wav},0,1,{wav.parts[-3]}"
        for i, wav in enumerate(wavs)
        if wav.parts[-3] not in held_out
    ][:40]
    cohort = tmp_path / "train.csv"
    header = "ID,duration,wav,start,stop,spk_id"
    cohort.write_text("\n".join([header, *rows]))
    output = tmp_path / "out"
    command = options(
        tiny_minivox,
        output,
        [model, other],
        durations="[full, 1]",
        trial_lists=f"[trials/test.txt, {kaldi}]",
        score_norm="as-norm",
        mean_subtraction=True,
        cohort_csv=cohort,
        cohort_top=20,
        calibration_list="trials/dev.txt",
    )
    done = run(MINIVOX_YAML, *command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "embedding (" in done.stderr
    results = json.loads((output / "results.json").read_text())
    figures = {
        (row["list"], row["model"], row["duration"]): row
        for row in results["results"]
    }
    assert len(figures) == 2 * 2 * 3
    for (name, *rest), row in figures.items():
        if name == "test":
            same = figures[("kaldi", *rest)]
            assert {**row, "list": "kaldi"} == same
            # Trained on dev trials, calibrated ratios beat saying nothing.
            assert row["min_cllr"] <= row["cllr"] < 1.2
    assert {m["parameters"] for m in results["models"].values()} != set()
    lines = (output / "scores.txt").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(trials.labels)
    assert len(lines[0].split()) == 4 + 2 * 2
    for name in ("det_test.png", "histogram_kaldi.png", "table.txt"):
        assert (output / name).stat().st_size > 0
    assert (output / "table.txt").read_text() in done.stdout

    stored = {part: part.stat().st_mtime_ns for part in output.rglob("*.npz")}
    capsys.readouterr()
    verify.main([MINIVOX_YAML, *command, "--plots=False", "--device=cpu"])
    assert "embedding (" not in capsys.readouterr().err
    assert stored == {
        part: part.stat().st_mtime_ns for part in output.rglob("*.npz")
    }
    again = json.loads((output / "results.json").read_text())
    assert again["results"] == results["results"]


def test_without_data_folder_the_way_out_is_named():
    """The command that the user named stops with one sentence."""
    done = run_script("verify.py", "hparams/eval.yaml")
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert "--data_folder" in message
    assert "hparams/minivox/eval.yaml" in message
    assert "Traceback" not in done.stderr


def test_training_speakers_are_refused_before_embedding(tiny_minivox, tmp_path):
    """Unless told to go on, and nothing is written."""
    speaker = read_trials(tiny_minivox / "trials" / "test.txt").utterances[0]
    speaker = speaker.split("/")[0]
    write_model(tmp_path / "model", speakers=[speaker, "nobody"])
    command = options(tiny_minivox, tmp_path / "out", [tmp_path / "model"])
    with pytest.raises(UserError, match=f"holds 1 of its .*{speaker}"):
        verify.main([MINIVOX_YAML, *command])
    assert not (tmp_path / "out").exists()


def test_no_list_may_have_speakers_that_a_model_or_its_teacher_learnt(
    tiny_minivox, tmp_path
):
    """Neither the calibration list nor, of the teacher, the test list."""
    speakers = {
        part: read_trials(tiny_minivox / "trials" / f"{part}.txt")
        .utterances[0]
        .split("/")[0]
        for part in ("test", "dev")
    }
    own, taught = tmp_path / "own", tmp_path / "taught"
    write_model(own, speakers=["nobody", speakers["dev"]])
    folder = write_model(taught, speakers=["nobody", "no one"])
    (folder / "teacher_speakers.txt").write_text(f"{speakers['test']}\n")
    for model, more, words in (
        (
            own,
            ["--calibration_list=trials/dev.txt"],
            f"dev: the training data of .*own holds 1 .*{speakers['dev']}"
            ".*too sure of itself.*--allow_training_speakers True",
        ),
        (
            taught,
            [],
            f"test: .* the teacher or .*taught holds 1 .*{speakers['test']}"
            ".*--allow_training_speakers True",
        ),
    ):
        command = options(tiny_minivox, tmp_path / "out", [model])
        with pytest.raises(UserError, match=words):
            verify.main([MINIVOX_YAML, *command, *more])
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("models=[none/such]", "none/such: "),
        ("models=[]", r"models is \[\], but must be"),
        ("trial_lists=[none.txt]", "none.txt: no such trial list"),
        ("trial_lists=[Vox1-E]", "list_test_all2.txt"),
        ("durations=[full,-1]", "is -1, but must be full or"),
        ("durations=[]", r"durations is \[\], but must be"),
        ("score_norm=x-norm", "must be one of z-norm"),
        ("score_norm=s-norm", "need a cohort"),
        ("enrolment_file=none.txt", "no such text file"),
        ("data_folder=no_such_folder", "there is no such folder"),
    ],
)
def test_mistakes_get_one_sentence(
    tiny_minivox, model, tmp_path, option, sentence, monkeypatch
):
    """Before the output folder is made or anything is embedded."""
    # A hub that does not answer is asked again and again, for 20 s.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    key, value = option.split("=")
    command = options(tiny_minivox, tmp_path / "out", [model])
    command = [c for c in command if not c.startswith(f"--{key}=")]
    with pytest.raises(UserError, match=sentence) as error:
        verify.main([MINIVOX_YAML, *command, f"--{option}"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
