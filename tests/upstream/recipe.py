"""The slim recipe for SpeechBrain: what goes, and how much that is.

Everything is derived from this repository's own sources, so that no second
copy of any code exists. The lists below are the only place that says what
goes; :mod:`upstream.slimming` says what leaving out means.
"""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from upstream import left_out as without
from upstream import shaking, slimming, wording, yamls

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/VoxCeleb/IMLKD"
SCRIPT = f"{RECIPE}/train_kd.py"
PACKAGE = "imlkd_brain"
YAMLS = ("train_teacher.yaml", "iml_kd.yaml")
FILES = Path(__file__).parent / "files"  # what exists for upstream alone
VERIFY = "verify.yaml"  # with the model of the second YAML
MODEL_KEYS = (
    "sample_rate",
    "n_mels",
    "lin_neurons",
    "compute_features",
    "mean_var_norm",
    "embedding_model",
)
ROWS = "tests/recipes/VoxCeleb.csv"
COSINE = "recipes/VoxCeleb/SpeakerRec/speaker_verification_cosine.py"
PREPARATION = "voxceleb_prepare.py"
MOST_CODE, MOST_LINES = 3000, 4500

MESSAGE = """\
VoxCeleb: speaker verification with IML-KD

A recipe that distils a large ECAPA-TDNN into a small one with integrated
inputs and three levels of losses, after "Integrated Multi-Level Knowledge
Distillation for Enhanced Speaker Verification" (arXiv 2409.09389), and its
baselines. Trained models are tested by SpeakerRec's cosine script.
"""


def left_out_of(module):
    """What a module does without."""
    names = {
        name.rpartition(":")[2]: value
        for name, value in without.NAMES.items()
        if name.rpartition(":")[0] in ("", module)
    }
    return slimming.LeftOut(
        names, without.ATTRIBUTES, without.KEYS, without.PARAMETERS
    )


def sources(root=ROOT):
    """{dotted name: source} of the script and the package."""
    found = {"train_kd": (root / SCRIPT).read_text(encoding="utf-8")}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


def slim_sources(root=ROOT):
    """The Python of the slim recipe, {dotted name: source}."""
    before = sources(root)
    known = slimming.positions(before.values())
    built = set()
    for name in YAMLS:
        text = slim_yaml(name, root)
        built |= set(re.findall(rf"!\w+:({PACKAGE}[.\w]+)", text))
    everything = list(before.values()) + [
        path.read_text(encoding="utf-8")
        for path in sorted((root / RECIPE).glob("*.py"))
    ]
    entries, roots = ["train_kd"], sorted(built)
    # Cut what the recipe reaches today, then see what it still reaches.
    today = shaking.shake(before, entries, roots, everything)
    after = {}
    for name, text in today.items():
        try:
            text = with_other_texts(text, without.TEXTS.get(name, {}))
            cut = slimming.cut(text, left_out_of(name), known)
        except slimming.SlimmingError as error:
            raise slimming.SlimmingError(f"{name}: {error}") from error
        for old, new in without.PHRASES.items():
            cut = cut.replace(old, new)
        cut = wording.without_stale_raises(before[name], cut)
        cut = wording.without_arguments(cut, without.ARGUMENTS)
        cut = wording.without_examples(cut, without.EXAMPLES)
        after[name] = wording.without_mentions(cut, without.OURS)
    slim = shaking.shake(after, entries, roots, everything)
    return {name: formatted(text) for name, text in slim.items()}


def with_other_texts(text, texts):
    """Replace pieces of a text; all of them have to be there."""
    missing = [old for old in texts if old not in text]
    if missing:
        raise slimming.SlimmingError(
            f"{missing} changed here; follow in tests/upstream/left_out.py."
        )
    for old, new in texts.items():
        text = text.replace(old, new)
    return text


def formatted(text):
    """A source with the blank lines and breaks of SpeechBrain's settings."""
    options = ["--isolated", "--line-length=80"]
    return subprocess.run(
        [sys.executable, "-m", "ruff", "format", *options, "-"],
        input=text,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def docstring_lines(text):
    """How many lines of a source are docstrings."""
    lines = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines.update(range(value.lineno, value.end_lineno + 1))
    return len(lines)


def slim_yaml(name, root=ROOT):
    """One of the training YAMLs as upstream gets it."""
    text = (root / "hparams" / name).read_text(encoding="utf-8")
    text = yamls.without_keys(
        text, [*sorted(without.KEYS), *without.NESTED_KEYS]
    )
    for old, new in without.YAML_TEXTS.items():
        text = text.replace(old, new)
    return text


def files(root=ROOT):
    """All files of the recipe's folder upstream, {path: text}."""
    found = {}
    for name, text in slim_sources(root).items():
        path = Path(*name.split("."))
        is_package = (root / path).is_dir()
        path = path / "__init__.py" if is_package else path.with_suffix(".py")
        found[str(path)] = text
    for name in YAMLS:
        found[f"hparams/{name}"] = slim_yaml(name, root)
    model = yamls.blocks(found[f"hparams/{YAMLS[-1]}"], MODEL_KEYS)
    verify = (FILES / VERIFY).read_text(encoding="utf-8")
    found[f"hparams/{VERIFY}"] = verify.replace("{{model}}", model)
    found["README.md"] = (FILES / "README.md").read_text(encoding="utf-8")
    return found


def line_counts(found):
    """{path: (all lines, those that are no docstring)}."""
    counts = {}
    for path, text in sorted(found.items()):
        lines = len(text.splitlines())
        documented = docstring_lines(text) if path.endswith(".py") else 0
        counts[path] = lines, lines - documented
    return counts


def counts_table(found):
    """A table of the lines of every file, and their sums."""
    counts = line_counts(found)
    rows = [f"{'all':>6} {'code':>6}  file"]
    rows += [f"{a:6} {c:6}  {path}" for path, (a, c) in counts.items()]
    total, code = map(sum, zip(*counts.values(), strict=True))
    rows.append(
        f"{total:6} {code:6}  together (at most {MOST_LINES}, {MOST_CODE})"
    )
    return "\n".join(rows)


def within_limits(found):
    """Whether the recipe is as small as promised."""
    total, code = map(sum, zip(*line_counts(found).values(), strict=True))
    return total <= MOST_LINES and code <= MOST_CODE


def rows(first):
    """Rows of SpeechBrain's list of recipes.

    Arguments
    ---------
    first : int
        The number that SpeechBrain's tests give the first of them: its line.
    """
    data = "tests/samples/annotation/ASR_train_plda.csv"
    training = (
        "--data_folder=tests/samples/ASR/ "
        f"--train_annotation={data} --valid_annotation={data} "
        "--number_of_epochs=2 --batch_size=2 --num_workers=0 "
        "--sentence_len=0.5 --skip_prep=True --augmentation=False"
    )
    student = training + (
        " --durations=[0.3,0.5] --n_steps=2"
        f" --teacher_folder=tests/tmp/VoxCeleb_row_{first:02d}"
    )
    samples = "tests/samples/annotation/ASR_train.csv"
    cosine = (
        "--data_folder=tests/samples/ASR/ "
        "--verification_file=tests/samples/annotation/verification.txt "
        f"--train_data={samples} --enrol_data={samples} "
        f"--test_data={samples} --skip_prep=True "
        f"--pretrain_path=tests/tmp/VoxCeleb_row_{first + 1:02d}/inference"
    )
    left = "train_log.txt,log.txt,env.log,hyperparams.yaml,train_stats.csv"
    left += ",save/label_encoder.txt,inference/embedding_model.ckpt"
    scored = "log.txt,scores.txt,env.log,hyperparams.yaml"
    found = []
    for script, name, flags, made in (
        (SCRIPT, YAMLS[0], training, f"train_kd.py,{left}"),
        (SCRIPT, YAMLS[1], student, f"train_kd.py,{left}"),
        (COSINE, VERIFY, cosine, f"speaker_verification_cosine.py,{scored}"),
    ):
        found.append(
            {
                "Task": "Speaker_recognition",
                "Dataset": "VoxCeleb",
                "Script_file": script,
                "Hparam_file": f"{RECIPE}/hparams/{name}",
                "Data_prep_file": f"{RECIPE}/{PREPARATION}",
                "Readme_file": f"{RECIPE}/README.md",
                "test_debug_flags": flags,
                "test_debug_checks": f"file_exists=[{made}]",
            }
        )
    return found


def slim_recipe(folder):
    """Write the recipe into a copy of SpeechBrain; return the message."""
    place = folder / RECIPE
    for name, text in files().items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (place / PREPARATION).symlink_to(os.path.join("..", PREPARATION))
    listed = folder / ROWS
    text = listed.read_text(encoding="utf-8")
    header = next(csv.reader([text.splitlines()[0]]))
    with open(listed, "a", encoding="utf-8", newline="") as stream:
        if not text.endswith("\n"):
            stream.write("\n")
        writer = csv.DictWriter(stream, header, restval="", lineterminator="\n")
        writer.writerows(rows(len(text.splitlines()) + 1))
    # SpeechBrain sorts and breaks lines by its own settings.
    for options in (
        ["check", "--quiet", "--fix", "--exit-zero"],
        ["format", "--quiet"],
    ):
        subprocess.run(
            [sys.executable, "-m", "ruff", *options, str(place)],
            cwd=folder,
            check=True,
        )
    return MESSAGE
