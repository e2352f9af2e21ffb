#!/usr/bin/env python3
"""Verification as a whole process, beside SpeechBrain's script.

To run it, after the corpus is there and with a checkout of SpeechBrain:
> SPEECHBRAIN=../speechbrain python benchmarks/bench_process.py [DATA_FOLDER]

verify.py and SpeechBrain's speaker_verification_cosine.py score one list with one
model, the one in the package. Both start from nothing: imports, model, audio,
embeddings, scores, EER and minDCF. The list is every second trial of MiniVox's other
voices: SpeechBrain's minDCF holds 24 bytes times the square of the trials, 12 GB for all
of them. Neither normalises scores. SpeechBrain's script
is given CSVs that are there already, and a YAML without `score_norm`. One thread
each; they take turns.

Authors: IML-KD contributors
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from page import about, measured_rates, publish, ratio, sentence, table
from updates import Operations

from imlkd_brain.data.preparation import write_rows
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "VoxCeleb" / "IMLKD"
MODEL = SHIPPED / "ecapa80"
ROUNDS = 3
RATE = 16000


def spent(command, folder, **environment):
    """What a process prints, and its seconds on the wall and the processor."""
    names = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**names, **environment},
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"{command[0]} failed: {done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, wall, cpu


def ours(work, data, listed):
    """Run verify.py with an empty embedding store; its EER in %."""
    output = work / f"ours{time.time_ns()}"
    command = ["verify.py", "hparams/eval.yaml", "--data_folder", data]
    command += ["--output_folder", output, "--models", f"[{MODEL}]"]
    command += ["--trial_lists", f"[{listed}]", "--durations", "[full]"]
    command += ["--bootstrap_samples", "0", "--plots", "False"]
    command += ["--allow_training_speakers", "True"]
    _, wall, cpu = spent(command, RECIPE, PYTHONPATH=str(ROOT))
    (row,) = json.loads((output / "results.json").read_text())["results"]
    return 100 * row["eer"], wall, cpu


def write_theirs(work, data, listed, recipe):
    """CSVs, weights and the YAML that SpeechBrain's script is given."""
    trials = read_trials(listed)
    located = locate_trials(trials, data)
    save = work / "theirs" / "save"
    save.mkdir(parents=True)
    enrol = [path for (path,) in located.enrol_files]
    keys = {
        Path(path): str(Path(path).relative_to(Path(data) / "wav"))[:-4]
        for path in [*enrol, *located.test_files]
    }
    for name, paths in (("enrol", enrol), ("test", located.test_files)):
        rows = []
        for path in sorted(set(paths)):
            n = soundfile.info(path).frames
            rows.append((keys[Path(path)], n / RATE, path, 0, n, "speaker"))
        write_rows(save / f"{name}.csv", rows)
    write_rows(save / "train.csv", rows[:1])
    weights = torch.load(MODEL / "embedding_model.ckpt")
    weights = {key: value.float() for key, value in weights.items()}
    (work / "model").mkdir()
    torch.save(weights, work / "model" / "embedding_model.ckpt")
    text = (recipe / "hparams" / "verification_ecapa.yaml").read_text()
    text = re.sub(r"(?m)^(score_norm|cohort_size): .*\n", "", text)
    text = text.replace(
        "[1024, 1024, 1024, 1024, 3072]", "[80, 80, 80, 80, 240]"
    )
    text = text.replace(
        "attention_channels: 128", "attention_channels: 80\n    se_channels: 80"
    )
    yaml = work / "verification.yaml"
    yaml.write_text(text)
    lines = [
        f"{int(label)} {a}.wav {b}.wav\n"
        for a, b, label in zip(
            trials.enrol, trials.test, trials.labels, strict=True
        )
    ]
    plain = work / "veri_test.txt"
    plain.write_text("".join(lines).replace(".wav.wav", ".wav"))
    return yaml, plain


def theirs(work, data, recipe, yaml, plain):
    """Run SpeechBrain's script; its EER in %."""
    command = ["speaker_verification_cosine.py", yaml, "--data_folder", data]
    command += ["--output_folder", work / "theirs", "--skip_prep", "True"]
    command += ["--pretrain_path", work / "model", "--device", "cpu"]
    command += ["--verification_file", plain]
    command += ["--save_folder", work / "theirs" / "save"]
    said, wall, cpu = spent(command, recipe)
    return float(re.search(r"EER\(%\)=([\d.]+)", said)[1]), wall, cpu


def floor_of(data, listed):
    """Seconds of the operations of each utterance once."""
    model = load_speaker_model(MODEL)
    located = locate_trials(read_trials(listed), data)
    files = {p for group in located.enrol_files for p in group}
    files |= set(located.test_files)
    samples = sum(soundfile.info(path).frames for path in files)
    with Operations() as counted, torch.no_grad():
        model.embed(torch.zeros(1, 3 * RATE))
    flops = counted.flops * samples / (3 * RATE)
    return len(files), samples / RATE, flops, flops / measured_rates()[0]


def main(argv):
    """Measure and publish."""
    torch.set_num_threads(1)
    data = Path(argv[0] if argv else RECIPE / "data" / "minivox").resolve()
    checkout = os.environ.get("SPEECHBRAIN")
    recipe = Path(checkout or "", "recipes", "VoxCeleb", "SpeakerRec").resolve()
    if not checkout or not recipe.is_dir():
        raise UserError(
            "SPEECHBRAIN: give the path of a checkout of SpeechBrain, which has "
            "recipes/VoxCeleb/SpeakerRec."
        )
    rows = {"verify.py": [], "SpeechBrain's script": []}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        whole = (data / "trials" / "unseen.txt").read_text().splitlines()
        listed = work / "list.txt"
        listed.write_text("\n".join(whole[::2]) + "\n")
        given = write_theirs(work, data, listed, recipe)
        for number in range(ROUNDS):
            one = ours(work, data, listed)
            other = theirs(work, data, recipe, *given)
            rows["verify.py"].append(one)
            rows["SpeechBrain's script"].append(other)
            print(f"round {number + 1}: {one} {other}", file=sys.stderr)
        floor = floor_of(data, listed)
    show(rows, floor, len(whole[::2]), about())


def show(rows, floor, n_trials, facts):
    """Publish the table of both ways."""
    n_files, seconds, flops, least = floor
    first = rows["verify.py"]
    lines = [
        "## Verification as a whole process",
        "",
        f"{sentence(facts)} {n_trials:,} trials of {n_files:,} utterances "
        f"({seconds / 60:.0f} min), the model in the package, no score "
        f"normalisation, one thread; medians of {ROUNDS} rounds, processes "
        "take turns. Floor: the operations of each utterance once, "
        f"{flops / 1e9:.0f} GFLOP, {least:.1f} s here, and the start of Python "
        "with torch. `SPEECHBRAIN=../speechbrain python "
        "benchmarks/bench_process.py`",
        "",
    ]

    def middle(values):
        """The median."""
        return sorted(values)[len(values) // 2]

    found = []
    for name, measured in rows.items():
        eer, wall, cpu = zip(*measured, strict=True)
        _, our_wall, our_cpu = zip(*first, strict=True)
        found.append(
            [
                name,
                f"{middle(cpu):.1f}",
                f"{ratio(cpu, our_cpu):.2f}",
                f"{middle(wall):.1f}",
                f"{ratio(wall, our_wall):.2f}",
                f"{eer[0]:.2f}",
            ]
        )
    lines.append(
        "Ours embeds each utterance once, not on both sides, and without BatchNorm. "
        "Five times is not reached where no score is normalised: both spend most of "
        "the time on the network and on starting. SpeechBrain's YAML normalises with "
        "a cohort of 20,000, whose cost the table of s-norm has."
    )
    lines.append("")
    columns = [
        "way",
        "processor (s)",
        "to ours",
        "wall (s)",
        "to ours",
        "EER %",
    ]
    lines += table(columns, found)
    publish("bench_process", lines, facts, rows=rows, floor=floor)


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
