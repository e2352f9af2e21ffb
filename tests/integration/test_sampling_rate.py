"""A corpus at 8 kHz: prepared, trained on, verified and explained at 8 kHz."""

import csv
import json

import explain
import numpy as np
import pytest
import soundfile
import torch
import train_kd
import verify
from synthetic import HPARAMS, load_yaml, write_model, write_wav
from torch.utils.flop_counter import FlopCounterMode

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.figures import band_centres
from imlkd_brain.models.folder import load_speaker_model
from speechbrain.inference.speaker import SpeakerRecognition

RATE = 8000
SECONDS = 0.9


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four speakers to train on, two for dev and two for the test."""
    folder = tmp_path_factory.mktemp("telephone")
    speakers = "abcdefgh"
    for i, speaker in enumerate(speakers):
        for session in ("s0", "s1"):
            path = folder / "wav" / speaker / session / "1.wav"
            write_wav(path, SECONDS, 90 + 40 * i, 7 * i, rate=RATE)
    for name, two in (("dev", "ef"), ("test", "gh")):
        keys = [f"{s}/{u}/1.wav" for s in two for u in ("s0", "s1")]
        (folder / f"{name}.txt").write_text(
            "".join(
                f"{int(a[0] == b[0])} {a} {b}\n"
                for i, a in enumerate(keys)
                for b in keys[i + 1 :]
            )
        )
    return folder


def options(corpus, output, **more):
    """A command line that trains for a few updates."""
    chosen = {
        "data_folder": corpus,
        "output_folder": output,
        "sample_rate": RATE,
        "verification_file": corpus / "test.txt",
        "valid_trials": corpus / "dev.txt",
        "embedding_model": "{channels: [8, 8, 8, 8, 24], "
        "attention_channels: 8, se_channels: 8}",
        "lin_neurons": 8,
        "n_mels": 40,
        "batch_size": 4,
        "sentence_len": 0.5,
        "speed_perturb": "[0.9, 1.0]",
        "valid_durations": "[full, 0.3]",
        "number_of_epochs": 1,
        "augmentation": True,
        **more,
    }
    return [*(f"--{k}={v}" for k, v in chosen.items()), "--device=cpu"]


def distillation(corpus, output, teacher, **more):
    """The same for a student."""
    return [
        str(HPARAMS / "iml_kd.yaml"),
        *options(
            corpus,
            output,
            teacher_folder=teacher,
            durations="[0.3, 0.5]",
            **more,
        ),
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def teacher(corpus, output):
    folder = output / "teacher"
    yaml = str(HPARAMS / "train_teacher.yaml")
    train_kd.main([yaml, *options(corpus, folder)])
    return folder


@pytest.fixture(scope="module")
def student(corpus, output, teacher):
    folder = output / "student"
    train_kd.main(distillation(corpus, folder, teacher))
    return folder


def first_wav(corpus):
    return corpus / "wav" / "a" / "s0" / "1.wav"


def test_preparation_counts_seconds_and_samples_at_8_khz(corpus, student):
    with open(student / "save" / "train.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["spk_id"] for row in rows} == set("abcd")
    for row in rows:
        assert float(row["duration"]) == pytest.approx(SECONDS)
        assert int(row["stop"]) == round(SECONDS * RATE)


def test_the_model_hears_8_khz(student):
    model = load_speaker_model(student)
    assert model.sample_rate == RATE and model.hop_samples == 80
    # A tone at 3 kHz is loudest in the band around 3 kHz, and one second has
    # a frame every 10 ms.
    tone = torch.sin(2 * torch.pi * 3000 * torch.arange(RATE) / RATE)
    feats = model.compute_features(tone[None])
    assert feats.shape == (1, 101, 40)
    centres = band_centres(model, 40)
    assert centres.max() < RATE / 2
    loudest = int(feats.mean(1).argmax())
    assert loudest == int((centres - 3000).abs().argmin())
    # No band is so narrow that it lies between two bins of the spectrum.
    noise = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    assert model.compute_features(noise).std(1).min() > 1


def test_speechbrain_reads_files_at_the_rate_of_the_model(corpus, student):
    model = load_speaker_model(student)
    inference = str(student / "inference")
    recognition = SpeakerRecognition.from_hparams(
        source=inference, savedir=inference, run_opts={"device": "cpu"}
    )
    paths = [first_wav(corpus), corpus / "wav" / "b" / "s0" / "1.wav"]
    score, _ = recognition.verify_files(*map(str, paths))
    with torch.no_grad():
        one, two = (
            model.embed(torch.from_numpy(signal)[None])
            for signal, _ in (soundfile.read(p, dtype="float32") for p in paths)
        )
    expected = torch.cosine_similarity(one, two).item()
    assert score.item() == pytest.approx(expected, abs=1e-5)


def test_verification_crops_seconds_at_8_khz(corpus, student, tmp_path):
    arguments = {
        "models": f"[{student}]",
        "data_folder": corpus,
        "output_folder": tmp_path,
        "trial_lists": f"[{corpus / 'test.txt'}]",
        "durations": "[full, 0.5]",
        "bootstrap_samples": 0,
        "group_separator": "null",
        "plots": False,
    }
    verify.main(
        [
            str(HPARAMS / "eval.yaml"),
            "--decision_list=null",
            "--store_decision=False",
            *(f"--{k}={v}" for k, v in arguments.items()),
            "--device=cpu",
        ]
    )
    stored = {
        path.parent.name: np.load(path)["seconds"]
        for path in (tmp_path / "save").rglob("*.npz")
    }
    (full,) = (v for k, v in stored.items() if k == "full")
    (crop,) = (v for k, v in stored.items() if k.startswith("0.5s"))
    np.testing.assert_allclose(full, SECONDS)
    np.testing.assert_allclose(crop, 0.5)
    # Multiply-accumulates of 3 s do not depend on the rate: 301 frames.
    (model,) = json.loads((tmp_path / "results.json").read_text())[
        "models"
    ].values()
    network = load_speaker_model(student).embedding_model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 301, 40))
    assert model["macs"] == counter.get_total_flops() // 2


def test_explanation_cuts_seconds_at_8_khz(corpus, teacher, student, tmp_path):
    arguments = {
        "models": f"{{teacher: {teacher}, scratch: {student}, iml_kd: null}}",
        "wav_folder": corpus / "wav",
        "output_folder": tmp_path,
        "n_verification": 2,
        "n_identification": 1,
        "durations": "[full, 0.5]",
        "curve_durations": "[0.5]",
        "methods": "{integrated_gradients: {n_steps: 1}, occlusion: null, "
        "grad_cam: null, gradient: null, gradient_x_input: null}",
        "n_levels": 3,
        "n_sanity": 0,
        "n_bootstrap": 10,
        "figure_formats": "[]",
    }
    yaml = str(HPARAMS / "explain.yaml")
    explain.main(
        [yaml, *(f"--{k}={v}" for k, v in arguments.items()), "--device=cpu"]
    )
    kept = {
        duration: torch.load(
            tmp_path / "save" / f"maps_verification_teacher_{duration}.pt"
        )["data"][0]
        for duration in ("full", "0.5s")
    }
    start, stop = kept["full"]["places"][0]
    assert (start, stop) == (0, SECONDS)
    start, stop = kept["0.5s"]["places"][0]
    # The middle half second, from a whole frame on.
    assert stop - start == pytest.approx(0.5)
    assert start == pytest.approx(0.2)
    assert len(kept["0.5s"]["features"][0]) == 51


def test_a_teacher_of_another_rate_hears_the_same_speech(corpus, output):
    other = write_model(output / "wide", speakers=list("abcd"), n_mels=40)
    folder = output / "mixed"
    arguments = distillation(corpus, folder, other)
    train_kd.main([*arguments, "--teacher_classes=prototypes"])
    student = load_speaker_model(folder)
    assert student.sample_rate == RATE
    assert student.embed(torch.randn(1, RATE)).isfinite().all()


def test_a_corpus_of_another_rate_is_one_sentence(corpus, output):
    yaml = str(HPARAMS / "train_teacher.yaml")
    arguments = options(corpus, output / "wrong", sample_rate=16000)
    with pytest.raises(UserError, match=r"mono audio at 16000 Hz, .*8000 Hz"):
        train_kd.main([yaml, *arguments])


@pytest.mark.parametrize("name", ["iml_kd", "train_teacher"])
@pytest.mark.parametrize("folder", [HPARAMS, HPARAMS.parent])
def test_the_yamls_scale_what_is_given_in_samples(folder, name):
    overrides = {"data_folder": "none", "sample_rate": RATE}
    hparams = load_yaml(name, overrides, folder)
    drop = hparams["drop_chunk"]
    # 62.5 to 125 ms, as 1000 to 2000 samples are at 16 kHz.
    assert (drop.drop_length_low, drop.drop_length_high) == (500, 1000)
    if folder != HPARAMS:
        # The noise that is downloaded has 16 kHz, whatever the corpus has.
        noise, reverb = hparams["add_noise"], hparams["add_reverb"]
        assert (noise.noise_sample_rate, noise.clean_sample_rate) == (
            16000,
            RATE,
        )
        assert (reverb.reverb_sample_rate, reverb.clean_sample_rate) == (
            16000,
            RATE,
        )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        # Features of a YAML that does not hand its sample_rate on.
        (
            {"compute_features": "{sample_rate: 16000}"},
            "compute_features: .* 16000 Hz, but sample_rate is 8000",
        ),
        ({"sample_rate": 24000}, "window has 600 samples .*n_fft: 600"),
        ({"sample_rate": 8000.0}, "sample_rate is 8000.0, .* a whole number"),
        ({"mean_var_norm": "{norm_type: batch}"}, "depends on the other"),
        # A teacher with other features has weights for frames alone.
        ({"n_mels": 30, "mode": "gate"}, "mode: gate .*--mode time_gate"),
        (
            {"compute_features": "{hop_length: 12}", "mode": "mask"},
            "mode: mask .*--mode time_gate",
        ),
        ({"durations": "[0.3, 0.6]"}, "0.6 s is longer .*sentence_len: 0.5 s"),
    ],
)
def test_features_that_do_not_fit_are_refused_before_the_preparation(
    corpus, output, teacher, more, words
):
    folder = output / "refused"
    arguments = distillation(corpus, folder, teacher)
    arguments += [f"--{key}={value}" for key, value in more.items()]
    # A key that is given twice has its last value.
    arguments = list({a.split("=")[0]: a for a in arguments}.values())
    with pytest.raises(UserError, match=words) as caught:
        train_kd.main(arguments)
    assert "\n" not in str(caught.value)
    assert not (folder / "save" / "train.csv").exists()
