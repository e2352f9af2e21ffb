#!/usr/bin/env python3
"""Verification as a whole process, beside SpeechBrain's script.

To run it, after the corpus is there and with a checkout of SpeechBrain:
> SPEECHBRAIN=../speechbrain python benchmarks/bench_process.py [DATA_FOLDER]

verify.py and SpeechBrain's speaker_verification_cosine.py score one list with one
model, the one in the package. Both start from nothing: imports, model, audio,
embeddings, scores, EER and minDCF. The list is every second trial of MiniVox's other
voices: SpeechBrain's minDCF holds 24 bytes times the square of the trials, 12 GB for all
of them, and 34 GB for VoxCeleb1-O. SpeechBrain's script is given CSVs that are there
already. One thread each; they take turns.

Scores are once left as they are, and once normalised as SpeechBrain's YAML does it
(s-norm), with a cohort of 1,500 utterances of MiniVox that the list has not, where that YAML
has the 20,000 closest of VoxCeleb.

Authors: IML-KD contributors
"""

import json
import os
import random
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
ROUNDS = 1
COHORT = 1500
RATE = 16000
OURS, THEIRS = "verify.py", "SpeechBrain's script"
PLAIN, NORMED = "cosine", "s-norm"


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


def ours(work, data, listed, *options):
    """Run verify.py with an empty embedding store; EER in %, seconds, scores."""
    output = work / f"ours{time.time_ns()}"
    command = ["verify.py", "hparams/eval.yaml", "--data_folder", data]
    command += ["--output_folder", output, "--models", f"[{MODEL}]"]
    command += ["--trial_lists", f"[{listed}]", "--durations", "[full]"]
    command += ["--bootstrap_samples", "0", "--plots", "False"]
    command += ["--allow_training_speakers", "True", *options]
    _, wall, cpu = spent(command, RECIPE, PYTHONPATH=str(ROOT))
    (row,) = json.loads((output / "results.json").read_text())["results"]
    return 100 * row["eer"], wall, cpu, scores_of(output / "scores.txt", 1)


def scores_of(path, first):
    """{(enrolment, test): score}; names begin at a column, scores end a line."""
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [line for line in lines if "/" in line[first]]
    return {tuple(row[first : first + 2]): float(row[-1]) for row in rows}


def write_theirs(work, data, listed, recipe):
    """CSVs, weights and the YAMLs that SpeechBrain's script is given."""
    trials = read_trials(listed)
    located = locate_trials(trials, data)
    save = work / "theirs" / "save"
    save.mkdir(parents=True)
    enrol = [path for (path,) in located.enrol_files]
    keys = {
        Path(path): str(Path(path).relative_to(Path(data) / "wav"))[:-4]
        for path in [*enrol, *located.test_files]
    }
    others = [
        path
        for path in sorted((data / "wav").glob("*/*/*.wav"))
        if path not in keys
    ]
    cohort = random.Random(COHORT).sample(others, COHORT)
    keys.update(
        {path: str(path.relative_to(data / "wav"))[:-4] for path in cohort}
    )
    for name, paths in (
        ("enrol", enrol),
        ("test", located.test_files),
        ("train", cohort),
    ):
        rows = []
        for path in sorted(set(map(str, paths))):
            n, key = soundfile.info(path).frames, keys[Path(path)]
            rows.append((key, n / RATE, path, 0, n, key.rpartition("/")[0]))
        write_rows(save / f"{name}.csv", rows)
    weights = torch.load(MODEL / "embedding_model.ckpt")
    weights = {key: value.float() for key, value in weights.items()}
    (work / "model").mkdir()
    torch.save(weights, work / "model" / "embedding_model.ckpt")
    text = (recipe / "hparams" / "verification_ecapa.yaml").read_text()
    # Of the whole cohort, which it holds for larger than ours
    text = re.sub(r"(?m)^cohort_size: .*\n", "", text)
    text = text.replace(
        "[1024, 1024, 1024, 1024, 3072]", "[80, 80, 80, 80, 240]"
    )
    text = text.replace(
        "attention_channels: 128", "attention_channels: 80\n    se_channels: 80"
    )
    yamls = {NORMED: work / "s_norm.yaml", PLAIN: work / "plain.yaml"}
    yamls[NORMED].write_text(text)
    yamls[PLAIN].write_text(re.sub(r"(?m)^score_norm: .*\n", "", text))
    lines = [
        f"{int(label)} {a}.wav {b}.wav\n"
        for a, b, label in zip(
            trials.enrol, trials.test, trials.labels, strict=True
        )
    ]
    plain = work / "veri_test.txt"
    plain.write_text("".join(lines).replace(".wav.wav", ".wav"))
    return yamls, plain


def theirs(work, data, recipe, yaml, plain, *options):
    """Run SpeechBrain's script; EER in %, seconds, scores."""
    command = ["speaker_verification_cosine.py", yaml, "--data_folder", data]
    command += ["--output_folder", work / "theirs", "--skip_prep", "True"]
    command += ["--pretrain_path", work / "model", "--device", "cpu"]
    command += ["--verification_file", plain]
    command += ["--save_folder", work / "theirs" / "save", *options]
    said, wall, cpu = spent(command, recipe)
    eer = float(re.search(r"EER\(%\)=([\d.]+)", said)[1])
    return eer, wall, cpu, scores_of(work / "theirs" / "scores.txt", 0)


def apart(one, other):
    """Largest difference of the scores of the same trials."""
    assert one.keys() == other.keys()
    return max(abs(one[trial] - other[trial]) for trial in one)


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
    rows = {key: {OURS: [], THEIRS: []} for key in (PLAIN, NORMED)}
    differences = {}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        whole = (data / "trials" / "unseen.txt").read_text().splitlines()
        listed = work / "list.txt"
        listed.write_text("\n".join(whole[::2]) + "\n")
        yamls, plain = write_theirs(work, data, listed, recipe)
        norm = ["--score_norm", "s-norm", "--cohort_size", COHORT]
        norm += ["--cohort_csv", work / "theirs" / "save" / "train.csv"]
        for number in range(ROUNDS):
            for key, options in ((PLAIN, []), (NORMED, norm)):
                *one, scores = ours(work, data, listed, *options)
                *other, _ = theirs(work, data, recipe, yamls[key], plain)
                rows[key][OURS].append(one)
                rows[key][THEIRS].append(other)
                print(f"{number + 1}, {key}: {one} {other}", file=sys.stderr)
                if not number:
                    # Without padding, which changes embeddings
                    alone = ["--batch_size", "1"]
                    given = yamls[key], plain, *alone
                    *_, exact = theirs(work, data, recipe, *given)
                    differences[key] = apart(scores, exact)
        floor = floor_of(data, listed)
    show(rows, differences, floor, len(whole[::2]), about())


def show(rows, differences, floor, n_trials, facts):
    """Publish the table of both ways."""
    n_files, seconds, flops, least = floor
    lines = [
        "## Verification as a whole process",
        "",
        f"{sentence(facts)} {n_trials:,} trials of {n_files:,} utterances "
        f"({seconds / 60:.0f} min), the model in the package, one "
        f"thread; s-norm with a cohort of {COHORT:,} other utterances, which are "
        f"embedded too; rounds: {ROUNDS}, processes "
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
    for scoring, ways in rows.items():
        _, our_wall, our_cpu = zip(*ways[OURS], strict=True)
        for name, measured in ways.items():
            eer, wall, cpu = zip(*measured, strict=True)
            found.append(
                [
                    scoring,
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
        "Five times as fast is not reached, normalised or not: both spend most of "
        "the time on the network, and both embed a cohort once. SpeechBrain goes "
        "through the cohort twice a trial; its YAML has 20,000 utterances. This cohort "
        "has the list's own speakers, so its EER is of no use but to compare the two. "
        "SpeechBrain's batches of 8 are padded, which changes embeddings. With batches "
        f"of one no score is further from ours than {differences[PLAIN]:.0e}, "
        f"normalised {differences[NORMED]:.0e}."
    )
    lines.append("")
    columns = [
        "scores",
        "way",
        "processor (s)",
        "to ours",
        "wall (s)",
        "to ours",
        "EER %",
    ]
    lines += table(columns, found)
    publish(
        "bench_process",
        lines,
        facts,
        rows=rows,
        floor=floor,
        differences=differences,
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
