#!/usr/bin/env python3
"""Error rates of published small encoders on a trial list of ours.

Crops, lists and error rates are those of verify.py, so that its models stand
beside them. To run it, after the packages are there (see rivals.py):
> python benchmarks/bench_rivals.py --data_folder DIR \
    --trial_lists trials/fold0_test.txt --models student=results/iml_kd/1986

With noise at a signal-to-noise ratio of 10 dB, which the voices of another corpus
make:
> python -m imlkd_brain.corpora.noises --data_folder NOISE --voices CORPUS
> python benchmarks/bench_rivals.py --noise NOISE --snr 10 ...

Published on README.md beside this file.
Embeddings are kept in .cache, so that a run that was stopped goes on.

Authors: IML-KD contributors
"""

import argparse
import shutil
import sys
import zlib
from pathlib import Path

import soundfile
import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from page import about, publish, sentence  # noqa: E402
from rivals import PACKAGES, RIVALS  # noqa: E402

from imlkd_brain.data.augmentation import AddNoise  # noqa: E402
from imlkd_brain.data.augmentation_data import (  # noqa: E402
    prepare_augmentation_data,
)
from imlkd_brain.data.crops import read_durations  # noqa: E402
from imlkd_brain.errors import UserError, one_sentence_errors  # noqa: E402
from imlkd_brain.models.folder import load_speaker_model  # noqa: E402
from imlkd_brain.verification.embeddings import Embedder  # noqa: E402
from imlkd_brain.verification.inputs import (  # noqa: E402
    check_inputs,
    open_lists,
)
from imlkd_brain.verification.measures import (  # noqa: E402
    Measures,
    measure,
)
from imlkd_brain.verification.scorer import Scorer, score_lists  # noqa: E402

RESULTS = HERE / "bench_rivals"
# Where `make demo` builds it.
MINIVOX = HERE.parent / "recipes/VoxCeleb/IMLKD/data/minivox"


def arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", default=str(MINIVOX))
    parser.add_argument("--trial_lists", nargs="+", default=["trials/test.txt"])
    parser.add_argument("--durations", nargs="+", default=["full", 3, 2, 1])
    parser.add_argument(
        "--models",
        nargs="*",
        default=[],
        help="models of ours beside them, NAME=FOLDER",
    )
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS))
    parser.add_argument("--packages", default=str(PACKAGES))
    parser.add_argument("--seed", type=int, default=1986, help="of the crops")
    parser.add_argument("--noise", help="folder of noises, added to both sides")
    parser.add_argument("--snr", type=float, default=10, help="in dB")
    parser.add_argument("--group_separator", default="-")
    parser.add_argument("--bootstrap_samples", type=int, default=400)
    parser.add_argument(
        "--results", default=str(RESULTS), help="without its ending"
    )
    return parser.parse_args(argv)


def opened_models(given):
    """Every model by name, rivals first."""
    unknown = [name for name in given.rivals if name not in RIVALS]
    if unknown:
        raise UserError(
            f"--rivals {unknown[0]!r} is not known; give some of "
            f"{', '.join(RIVALS)}."
        )
    models = {name: RIVALS[name](given.packages) for name in given.rivals}
    for entry in given.models:
        name, equals, folder = entry.partition("=")
        if not equals:
            raise UserError(f"--models {entry}: give it as NAME=FOLDER.")
        models[name] = load_speaker_model(folder)
    return models


def noisy(given):
    """A copy of the lists' corpus with noise, drawn for each file by its name."""
    source = Path(given.data_folder)
    folder = HERE / ".cache" / f"noisy_{source.name}_{given.snr:g}"
    shutil.copytree(source / "trials", folder / "trials", dirs_exist_ok=True)
    csv = folder / "noise.csv"
    prepare_augmentation_data(None, None, "noise", str(csv), given.noise)
    add = AddNoise(
        str(csv),
        snr_low=given.snr,
        snr_high=given.snr,
        noise_sample_rate=16000,
        clean_sample_rate=16000,
    )
    lists = open_lists(given.trial_lists, source)
    files = {file for one in lists for file in one.test_files}
    for one in lists:
        files.update(file for row in one.enrol_files for file in row)
    for file in tqdm(sorted(files), desc="noise", unit="file"):
        name = Path(file).relative_to(source)
        if (folder / name).exists():
            continue
        signal, rate = soundfile.read(file, dtype="float32")
        torch.manual_seed(given.seed + zlib.crc32(str(name).encode()))
        heard = add(torch.from_numpy(signal)[None], torch.ones(1))[0]
        heard = heard / max(1.0, float(heard.abs().max()))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        part = (folder / name).with_suffix(".part.wav")
        soundfile.write(part, heard.numpy(), rate)
        part.rename(folder / name)
    return str(folder)


def seconds(text):
    """A duration as verify.py takes it."""
    try:
        return float(text) if "." in str(text) else int(text)
    except ValueError:
        return text


def tables(rows, lists):
    """Markdown lines: for each list EER by duration, groups below each other."""
    durations = list(dict.fromkeys(row["duration"] for row in rows))
    for name in dict.fromkeys(row["list"] for row in rows):
        about = lists[name]
        yield (
            f"### {name}: {about['speakers']} speakers, "
            f"{about['trials']:,} trials"
        )
        yield ""
        yield f"| model | speakers | {' | '.join(durations)} |"
        yield "|---|---" + "|---" * len(durations) + "|"
        cells = {}
        for row in rows:
            if row["list"] == name:
                text = f"{100 * row['eer']:.2f}"
                if "eer_low" in row:
                    text += (
                        f" ({100 * row['eer_low']:.1f} to "
                        f"{100 * row['eer_high']:.1f})"
                    )
                key = row["group"], row["model"]
                cells.setdefault(key, {})[row["duration"]] = text
        for group in dict.fromkeys(group for group, _ in cells):
            for (found, model), texts in cells.items():
                if found == group:
                    listed = [texts.get(one, "-") for one in durations]
                    yield f"| {model} | {group} | {' | '.join(listed)} |"
        yield ""


def main(argv):
    """Embed, score, measure, write."""
    given = arguments(argv)
    torch.set_num_threads(1)
    durations = read_durations([seconds(text) for text in given.durations])
    models = opened_models(given)
    if given.noise:
        given.data_folder = noisy(given)
    lists = open_lists(given.trial_lists, given.data_folder)
    ours = {k: m for k, m in models.items() if k not in RIVALS}
    check_inputs(lists, ours, {})
    embed = Embedder(
        HERE / ".cache" / "embeddings",
        seed=given.seed,
        data_folder=given.data_folder,
        readers=1,
    )
    measures = Measures(
        group_separator=given.group_separator,
        bootstrap_samples=given.bootstrap_samples,
        seed=given.seed,
    )
    rows = []
    for name, model in models.items():
        for scored in score_lists(name, Scorer(model, embed), lists, durations):
            rows += measure(scored, measures)
    facts = {
        **about(),
        "seed": given.seed,
        "models": {name: model.source for name, model in models.items()},
        "lists": {
            one.trials.name: {
                "trials": len(one.pairs),
                "speakers": len(one.speakers),
            }
            for one in lists
        },
    }
    command = "--data_folder DIR --trial_lists " + " ".join(
        f"trials/{Path(one).name}" for one in given.trial_lists
    )
    title = "Small encoders that are published, on our trials"
    if given.noise:
        title = f"The same encoders in noise of {given.snr:g} dB"
        command += f" --noise NOISE --snr {given.snr:g}"
        facts["noise"] = {
            "snr": given.snr,
            "files": "imlkd_brain.corpora.noises",
        }
    lines = [
        f"## {title}",
        "",
        f"EER in %, with 95 % intervals over speakers; columns are seconds of "
        f"test speech. {sentence(facts)} Crops of seed {given.seed}. `python benchmarks/bench_rivals.py {command}`",
        "",
        *tables(rows, facts["lists"]),
    ]
    publish("bench_rivals", lines, facts, given.results, results_of=rows)


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
