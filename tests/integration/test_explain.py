"""explain.py on real speech: what it writes, keeps, and refuses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import explain
import numpy as np
import pytest
import soundfile
from synthetic import write_model, write_wav

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.agreement import AGREEMENT

RECIPE = Path(explain.__file__).resolve().parent
MINIVOX_YAML = str(RECIPE / "hparams" / "minivox" / "explain.yaml")


@pytest.fixture(scope="module")
def models(tiny_minivox, tmp_path_factory):
    """A teacher, itself once more, and another untrained student."""
    lists = "".join(
        (tiny_minivox / "trials" / f"{name}.txt").read_text()
        for name in ("test", "dev")
    )
    speakers = sorted(path.name for path in (tiny_minivox / "wav").iterdir())
    training = [speaker for speaker in speakers if f"{speaker}/" not in lists]
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "teacher", speakers=training, dim=12)
    write_model(folder / "other", speakers=training, dim=8, seed=1)
    hop = {"compute_features": {"hop_length": 20}}
    write_model(folder / "coarse", speakers=training, dim=12, **hop)
    return {
        "teacher": folder / "teacher",
        "scratch": folder / "other",
        "iml_kd": folder / "teacher",
    }


def options(sources, output_folder, **more):
    """A command line of explain.py, small enough for a test."""
    named = ", ".join(f"{name}: {folder}" for name, folder in sources.items())
    chosen = {
        "models": f"{{{named}}}",
        "output_folder": output_folder,
        "n_verification": 4,
        "n_identification": 3,
        "durations": "[full, 1]",
        "curve_durations": "[1]",
        "methods": "{integrated_gradients: {n_steps: 2}, "
        "occlusion: {window: [50, 10], stride: [50, 10]}, "
        "grad_cam: {layer: embedding_model.mfa}, gradient_x_input: null}",
        "n_levels": 5,
        "n_sanity": 1,
        "n_bootstrap": 20,
        "insertion_baselines": "[zero]",
        "units": "[frames]",
        "figure_formats": "[]",
        **more,
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def run(*arguments):
    """Run explain.py as a user does, in the recipe's folder."""
    return subprocess.run(
        [sys.executable, "explain.py", MINIVOX_YAML, *arguments],
        cwd=RECIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def read_csv(path):
    """Rows of a table."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def select(rows, **where):
    """Rows with these values."""
    return [r for r in rows if all(r[k] == v for k, v in where.items())]


@pytest.fixture(scope="module")
def results(tiny_minivox, models, tmp_path_factory):
    """The folder of one run over the corpus."""
    folder = tmp_path_factory.mktemp("explain")
    done = run(
        *options(
            models, folder, data_folder=tiny_minivox, figure_formats="[png]"
        )
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Students' maps against the teacher's" in done.stdout
    return folder


def test_a_student_that_is_the_teacher_agrees_with_it_wholly(results):
    rows = read_csv(results / "fidelity.csv")
    students = {row["student"] for row in rows}
    assert students == {"scratch", "iml_kd", "shuffled"}
    assert {row["task"] for row in rows} == {"verification", "identification"}
    for row in select(rows, student="iml_kd"):
        if row["method"] != "random":
            for quantity in AGREEMENT:
                # Rounding of a sum over at most 64,000 ranks.
                assert float(row[f"{quantity}_mean"]) == pytest.approx(
                    1, abs=1e-6
                )
    random = select(rows, student="iml_kd", method="random", duration="full")
    for row in random:
        # Another draw per model, else the control would agree with itself:
        # 0.2 in common, a share of thousands of bins.
        assert abs(float(row["rank_correlation_mean"])) < 0.05
        assert float(row["top_overlap_mean"]) == pytest.approx(0.2, abs=0.03)
    for row in select(rows, student="scratch"):
        assert float(row["rank_correlation_mean"]) < 0.99


def test_a_teacher_with_another_hop_is_compared_at_the_same_times(
    tiny_minivox, models, tmp_path
):
    coarse = models["teacher"].parent / "coarse"
    done = run(
        *options(
            {"teacher": coarse, "student": models["teacher"]},
            tmp_path / "out",
            data_folder=tiny_minivox,
            figure_formats="[png]",
            reference_student="null",
            curve_durations="[]",
            n_sanity=0,
            n_identification=1,
            methods="{occlusion: null, grad_cam: null, gradient: null, "
            "gradient_x_input: null, integrated_gradients: {n_steps: 2}}",
        )
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_csv(tmp_path / "out" / "fidelity.csv")
    of_maps = {"method": "integrated_gradients", "task": "verification"}
    rho = {
        (row["student"], row["duration"]): float(row["rank_correlation_mean"])
        for row in select(rows, **of_maps)
    }
    # The same weights see twice the frames: 0.57 to 0.67 when this was written.
    for duration in ("full", "1", "all"):
        assert rho["student", duration] > 0.4
        assert abs(rho["shuffled", duration]) < 0.1
    assert list((tmp_path / "out").rglob("maps_verification_*.png"))


def test_curves_end_at_the_clean_and_at_the_empty_utterance(results):
    completeness = {
        (row["task"], row["model"]): row
        for row in read_csv(results / "completeness.csv")
        if row["duration"] == "1"
    }
    rows = select(
        read_csv(results / "curves.csv"), metric="score", baseline="zero"
    )
    assert {row["method"] for row in rows} == {
        "integrated_gradients",
        "gradient",
        "grad_cam",
        "occlusion",
        "random",
    }
    for row in rows:
        expected = completeness["verification", row["model"]]
        clean = (1 + float(expected["score"])) / 2
        empty = (1 + float(expected["score_of_baseline"])) / 2
        if row["direction"] == "insertion":
            clean, empty = empty, clean
        # The same networks in another batch: float32 rounding.
        if float(row["level"]) == 0:
            assert float(row["mean"]) == pytest.approx(clean, abs=1e-5)
        if float(row["level"]) == 1:
            assert float(row["mean"]) == pytest.approx(empty, abs=1e-5)


def test_results_hold_every_table_with_its_interval(results):
    kept = json.loads((results / "results.json").read_text())
    assert kept["band_mean_is_zero_at"] == ["1s"]
    for row in kept["areas"]:
        assert row["low"] is not None and row["low"] <= row["high"]
        if row["metric"] != "eer":
            assert 0 <= row["mean"] <= 1
        if row["method"] != "random":
            assert row["less_random_low"] <= row["less_random_high"]
    metrics = {row["metric"] for row in kept["areas"]}
    assert metrics == {"score", "eer", "posterior", "top1", "top5"}
    steps = [
        row["shuffled_down_to"]
        for row in kept["sanity"]
        if row["model"] == "teacher" and row["method"] == "gradient"
    ]
    assert steps[0] == "fc" and steps[-1] == "blocks.0"
    assert all(kept["seconds"][s][0] >= 0 for s in kept["seconds"])
    figures = {path.name for path in (results / "figures").iterdir()}
    assert {
        "maps_verification_integrated_gradients_durations.png",
        "methods_identification_teacher.png",
        "curves_teacher_1s_frames_zero.png",
        "fidelity_verification_integrated_gradients.png",
        "sanity_scratch.png",
    } <= figures


def test_the_same_command_again_computes_only_what_is_missing(
    tiny_minivox, models, results
):
    saved = sorted((results / "save").glob("*.pt"))
    before = {path: path.stat().st_mtime_ns for path in saved}
    tables = {path.name: path.read_text() for path in results.glob("*.csv")}
    lost = results / "save" / "maps_verification_scratch_1s.pt"
    lost.unlink()
    arguments = options(models, results, data_folder=tiny_minivox)
    explain.main([MINIVOX_YAML, *arguments, "--device=cpu"])
    for path in saved:
        same = path.stat().st_mtime_ns == before[path]
        assert same == (path != lost), path
    for name, text in tables.items():
        assert (results / name).read_text() == text


def test_any_folder_of_wav_files(models, tmp_path):
    wavs = tmp_path / "wavs"
    for i, speaker in enumerate(("anna", "bert")):
        for j in range(2):
            write_wav(wavs / speaker / f"{j}.wav", 1.4, 110 + 60 * i + 4 * j, j)
    # A file alone, at another rate and in stereo, enrols itself.
    lone = wavs / "alone.wav"
    rate = 22050
    seconds = np.arange(int(1.5 * rate)) / rate
    noise = np.random.default_rng(0).normal(size=len(seconds))
    sound = 0.1 * np.sin(2 * np.pi * 200 * seconds) + 0.01 * noise
    soundfile.write(lone, np.stack([sound, sound], 1), rate)
    output = tmp_path / "out"
    two = {name: models[name] for name in ("teacher", "scratch")}
    two["iml_kd"] = "null"
    # A single value stands for a list of one.
    single = {"curve_durations": 1, "units": "bins"}
    arguments = options(
        two, output, wav_folder=wavs, n_verification=10, **single
    )
    explain.main([MINIVOX_YAML, *arguments, "--device=cpu"])
    kept = json.loads((output / "results.json").read_text())
    assert kept["utterances"] == {
        "verification": ["alone", "anna/0", "anna/1", "bert/0", "bert/1"]
    }
    # Each of four against its own and one other. Nobody knows whose voice the
    # lone one has, so it is in no trial and no interval is over speakers.
    assert kept["trials"] == {"verification": 4 * 2}
    assert "1 of 5 files" in kept["speakers_not_known"]["verification"]
    assert {row["low"] for row in kept["areas"]} == {None}
    assert {row["metric"] for row in kept["areas"]} == {"score", "eer"}


def test_a_lone_file_has_maps_and_no_eer(models, tmp_path):
    write_wav(tmp_path / "wavs" / "one.wav", 1.3, 150, 0)
    one = {"teacher": models["teacher"], "scratch": "null", "iml_kd": "null"}
    arguments = options(
        one, tmp_path / "out", wav_folder=tmp_path / "wavs", n_sanity=0
    )
    explain.main([MINIVOX_YAML, *arguments, "--device=cpu"])
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["metric"] for row in kept["areas"]} == {"score"}
    assert kept["fidelity"] == [] and kept["sanity"] == []
    # Enrolled with its halves, so that its gradient is not zero.
    (row,) = (r for r in kept["completeness"] if r["duration"] == "full")
    assert 0.3 < row["score"] < 1 - 1e-4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"wav_folder": "{tmp}/empty"}, "there are no wav files"),
        ({"wav_folder": "{tmp}/short"}, "lasts 0.50 s, the durations need 1 s"),
        ({"wav_folder": "{tmp}/broken"}, "this audio file is broken"),
        ({"wav_folder": "{tmp}/nan"}, "1.wav: sample 5 is NaN or infinite"),
        ({"data_folder": "{tmp}/none"}, "data_folder: .* does not exist"),
        ({"models": "{teacher: {tmp}/none}"}, "models: teacher: .*no trained"),
        ({"models": "{teacher: null}"}, "models: there is no `teacher`"),
        (
            {"methods": "{grad_cam: {layer: embedding_model.mfb}}"},
            "no layer `embedding_model.mfb`; try .*embedding_model.mfa",
        ),
        ({"methods": "{lime: {}}"}, "`lime` is none of the maps"),
        ({"durations": "[full, -1]"}, "is -1, but must be full or"),
        ({"curve_durations": "[2]"}, "not one of the durations"),
        ({"figure_methods": "[lime]"}, "figure_methods is 'lime'"),
        (
            {"identification_csv": "{tmp}/no.csv"},
            "identification_csv: .*no.csv",
        ),
        ({"figure_utterance": "a/b/c"}, "figure_utterance: .*a/b/c"),
        (
            {"models": "{teacher: {tmp}/learnt, scratch: null, iml_kd: null}"},
            "training data of the model teacher holds 1 .*--allow_training",
        ),
    ],
)
def test_a_mistake_is_one_sentence(tiny_minivox, models, tmp_path, more, words):
    (tmp_path / "empty").mkdir()
    write_wav(tmp_path / "short" / "anna" / "1.wav", 0.5, 100, 0)
    (tmp_path / "nan" / "anna").mkdir(parents=True)
    samples = np.zeros(4 * 16000)
    samples[5] = np.nan
    path = tmp_path / "nan" / "anna" / "1.wav"
    soundfile.write(path, samples, 16000, "FLOAT")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.wav").write_text("no audio")
    if "learnt" in str(more):
        listed = (tiny_minivox / "trials" / "test.txt").read_text().split()
        learnt = [listed[1].split("/")[0], "nobody"]
        write_model(tmp_path / "learnt", speakers=learnt)
    more = {k: v.replace("{tmp}", str(tmp_path)) for k, v in more.items()}
    more = {"data_folder": tiny_minivox, **more}
    arguments = options(models, tmp_path / "out", **more)
    with pytest.raises(UserError, match=words) as caught:
        explain.main([MINIVOX_YAML, *arguments, "--device=cpu"])
    assert "\n" not in str(caught.value)
