"""Commands, links and Python of the documents fit the tree; nothing is trained.

What takes seconds is run: the Python of the README and of own_recordings.md,
the copy of the recipe, and the help of every script. The hints of a training
are checked as commands.

Code blocks begin at the root, or in the recipe's folder in the recipe's README
and in the scripts' docstrings; `cd` holds to the end of a block. Commands
within sentences may be typed in either of the two.
"""

import ast
import configparser
import contextlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import soundfile
import torch
from ruamel.yaml import YAML

import speechbrain as sb
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.settings import resolve_base
from imlkd_brain.training import next_step
from tests.synthetic import write_model, write_wav

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "VoxCeleb" / "IMLKD"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    RECIPE / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
SCRIPTS = sorted(RECIPE.glob("*.py"))
MODULES = sorted((ROOT / "imlkd_brain").rglob("*.py"))
YAMLS = sorted((ROOT / "hparams").rglob("*.yaml"))
TRAINED = ("results/", "data/")  # what commands make; it need not be there
FIRST_WORDS = ("python", "make", "torchrun", "pip")


class WrongCommand(AssertionError):
    """A command of a document that would not work as typed."""


def without_comments(text):
    """Shell text without its comments, the line ends kept."""
    kept, quote, comment = [], "", False
    for before, character in zip("\n" + text, text, strict=False):
        if character == "\n" and not quote:
            comment = False
        elif not comment and quote in ("", character) and character in "'\"":
            quote = "" if quote else character
        elif character == "#" and not quote and before.isspace():
            comment = True
        if not comment:
            kept.append(character)
    return "".join(kept)


def commands_of_shell(text):
    """Commands of shell text as lists of words; comments are left out."""
    text = without_comments(text.replace("\\\n", " "))
    words = shlex.shlex(text, posix=True, punctuation_chars=";&|\n")
    words.whitespace, words.commenters = " \t", ""
    words.whitespace_split = True
    command = []
    for word in words:
        if set(word) <= set(";&|\n"):
            if command:
                yield command
            command = []
        else:
            command.append(word)
    if command:
        yield command


def check_command(words, folder):
    """Check one command as typed in a folder; return the folder after it."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[0] == "cd":
        target = folder / words[1]
        if not target.is_dir():
            raise WrongCommand(f"no folder {words[1]} in {folder}")
        return target
    name = os.path.basename(words[0])
    if name == "make":
        check_make(words[1:])
    elif name == "pip":
        check_pip(words[1:])
    elif name in ("python", "python3"):
        if "/" in words[0] and ".venv" not in words[0]:
            raise WrongCommand(f"which Python is {words[0]}?")
        check_python(words[1:], folder)
    elif name == "imlkd":
        check_python(["-m", "imlkd_brain", *words[1:]], folder)
    elif name == "torchrun":
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            rest = rest[1:]
        check_python(rest, folder)
    elif name not in (".", "git", "pre-commit", "ls", "mkdir", "cp"):
        raise WrongCommand(f"nobody checks what `{words[0]}` does")
    return folder


def check_make(words):
    """Every target is in the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w%./-]+):", text, re.M))
    for word in words:
        if "=" not in word and word not in targets:
            raise WrongCommand(f"the Makefile has no target {word}")


def check_pip(words):
    """Extras of this package are in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(setup["options.extras_require"])
    for word in words:
        match = re.fullmatch(r"(?:\.|imlkd_brain)\[(.*)\]", word)
        # An extra that is put in later is not known here.
        given = set(match[1].split(",")) - {"DIR"} if match else set()
        if not given <= extras:
            raise WrongCommand(f"setup.cfg has no extra {match[1]}")


def check_python(words, folder):
    """The script or module exists and takes these options."""
    if not words or words == ["..."]:
        return
    if words[0] in ("-m", "-c"):
        if words[0] == "-m" and words[1].startswith("imlkd_brain"):
            check_module(words[1], words[2:], folder)
        return
    script = folder / words[0]
    if not script.is_file():
        raise WrongCommand(f"no script {words[0]} in {folder}")
    arguments = [word for word in words[1:] if word != "..."]
    if arguments and arguments[0].startswith("-"):
        # A script of its own options, such as demo.py; the others take a YAML.
        source = script.read_text(encoding="utf-8")
        if f'"{arguments[0]}"' in source:
            return
    if script.parent.resolve() != RECIPE or not arguments:
        check_paths(arguments, folder)
    else:
        check_options(arguments, folder)


def check_module(module, arguments, folder):
    """The module exists and its help names every option."""
    if importlib.util.find_spec(module) is None:
        raise WrongCommand(f"there is no module {module}")
    known = help_of(module)
    for word in arguments:
        option = word.split("=")[0]
        if option.startswith("-") and option not in known:
            raise WrongCommand(f"{module} has no option {option}")
    check_paths(arguments, folder)


def help_of(module, kept={}):  # noqa: B006 - kept for all tests
    """What ``python -m module --help`` prints."""
    if module not in kept:
        spec = importlib.util.find_spec(module)
        if spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{module}.__main__")
        source = Path(spec.origin).read_text(encoding="utf-8")
        assert "__main__" in source or spec.name.endswith("__main__"), (
            f"{module} is no command"
        )
        printed, argv = io.StringIO(), sys.argv
        sys.argv = [module, "--help"]
        try:
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                # The module was imported before.
                warnings.simplefilter("ignore", RuntimeWarning)
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit:
            pass
        finally:
            sys.argv = argv
        kept[module] = printed.getvalue()
    return kept[module]


def check_options(arguments, folder):
    """The YAML exists and has a key for every option."""
    if arguments[0].startswith("-"):
        raise WrongCommand(f"a YAML goes before {arguments[0]}")
    # Help is printed, and nothing is read.
    arguments = [word for word in arguments if word != "--help"]
    # A flag of SpeechBrain takes a value only when it is no flag.
    path, _, overrides = sb.parse_arguments(arguments)
    if not (folder / path).is_file():
        raise WrongCommand(f"no YAML {path} in {folder}")
    base, of_file = resolve_base(str(folder / path))
    yaml = YAML()
    known = set(yaml.load(Path(base).read_text(encoding="utf-8")))
    given = yaml.load(overrides) or {}
    for key in given:
        if key not in known:
            raise WrongCommand(f"{path} has no key {key}")
    method = given.get("method")
    methods = yaml.load(Path(base).read_text(encoding="utf-8")).get("methods")
    if method and methods and method not in methods:
        raise WrongCommand(f"{path} has no method {method}")
    check_paths(map(str, given.values()), folder)


def check_paths(words, folder):
    """Paths of the repository exist."""
    for word in words:
        path = word.split("=")[-1].split(":")[0]
        kept = path.split("/")[0] in ("docs", "hparams", "tests", "benchmarks")
        if "/" in path and kept and not path.startswith(TRAINED):
            if not (folder / path).exists():
                raise WrongCommand(f"no {path} in {folder}")


def check_block(text, folder):
    """Check the commands of a block one after the other."""
    for words in commands_of_shell(text):
        folder = check_command(words, folder)


def blocks_of(text, *languages):
    """Code blocks of these languages in a Markdown text."""
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```", text, re.M | re.S
    ):
        if language in languages:
            yield block


def inline_commands(text):
    """Commands between backticks of sentences."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`+([^`]+)`+", prose):
        code = " ".join(code.split())
        if code.split(" ")[0] in FIRST_WORDS:
            yield code


def check_inline(code):
    """Check a command that may be typed at the root or in the recipe."""
    problems = []
    for folder in (ROOT, RECIPE):
        try:
            check_block(code.replace("[DATA_FOLDER]", ""), folder)
            return
        except WrongCommand as problem:
            problems.append(str(problem))
    raise WrongCommand(f"`{code}`: {'; '.join(problems)}")


def name_of(path):
    """A path as the name of a test."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_of_a_document(document):
    text = document.read_text(encoding="utf-8")
    start = RECIPE if document.parent == RECIPE else ROOT
    for block in blocks_of(text, "bash", "sh", "shell"):
        check_block(block, start)
    for code in inline_commands(text):
        check_inline(code)


@pytest.mark.parametrize("script", SCRIPTS + MODULES, ids=name_of)
def test_commands_of_a_docstring_and_of_messages(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    docstring = (ast.get_docstring(tree) or "").replace("\\\n", " ")
    for line in docstring.splitlines():
        match = re.match(r"\s*(?:> |\$ )?(python3? \S.*)", line)
        if match and ("> " in line or line.startswith("    ")):
            check_inline(match[1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(
                part.value if isinstance(part, ast.Constant) else "DIR"
                for part in node.values
            )
        else:
            continue
        for code in inline_commands(text):
            # The name of a script or YAML that is put in is not known here.
            if not re.match(r"\w+ DIR", code) and code.count("`") == 0:
                check_inline(code)


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_commands_of_a_yaml(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.search(r"#.*?(?:> |\(|# )(python3? [^)]*)", line)
        if match:
            check_inline(match[1])


def slug_of(heading):
    """GitHub's anchor of a heading."""
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip())
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_of_a_document(document):
    text = document.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == ".md":
            prose = re.sub(
                r"^```.*?^```",
                "",
                path.read_text(encoding="utf-8"),
                flags=re.M | re.S,
            )
            headings = re.findall(r"^#+ (.*)$", prose, re.M)
            if anchor not in map(slug_of, headings):
                broken.append(target)
    assert not broken, f"{name_of(document)}: {broken}"


@pytest.mark.parametrize(
    "command, says",
    [
        ("make dmeo", "no target dmeo"),
        ('pip install -e ".[plot]"', "no extra plot"),
        ("python train.py hparams/iml_kd.yaml", "no script train.py"),
        ("python train_kd.py hparams/iml.yaml", "no YAML hparams/iml.yaml"),
        ("python train_kd.py hparams/iml_kd.yaml --etta 1", "no key etta"),
        (
            "python train_kd.py hparams/iml_kd.yaml --method \\\n  iml_kdd",
            "no method iml_kdd",
        ),
        ("python -m imlkd_brain.corpora.mini", "no module"),
        (
            "python -m imlkd_brain.corpora.minivox --data_folder D --packet x",
            "no option --packet",
        ),
        ("cd recipe && make demo", "no folder recipe"),
        ("python demo.py --train_student", "a YAML goes before"),
    ],
)
def test_a_wrong_command_is_found(command, says):
    with pytest.raises(WrongCommand, match=says):
        check_block(command, RECIPE)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = blocks_of(text, "python")
    # What the demo leaves, in small: the model and the two files it names.
    names = re.findall(r'"([^"]+)"', block)
    model = [name for name in names if name.endswith("/inference")]
    files = [name for name in names if name.endswith(".wav")]
    assert len(model) == 1 and len(files) == 2
    write_model(tmp_path / model[0].removesuffix("/inference"))
    # No cosine is above it.
    (tmp_path / model[0] / "decision.json").write_text('{"threshold": 2.0}')
    for seed, file in enumerate(files):
        write_wav(tmp_path / file, 1.0, 100, seed)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(block, variables)
    score = float(variables["score"])
    # The stored threshold decides, not SpeechBrain's 0.25.
    assert variables["same"] is False
    # The cosine of the two embeddings, without SpeakerRecognition.
    assert -1 <= score <= 1
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    embed = [
        variables["model"].encode_batch(variables["model"].load_audio(f)[None])
        for f in files
    ]
    cosine = torch.cosine_similarity(*embed, dim=-1)
    assert score == pytest.approx(float(cosine), abs=1e-6)


def test_the_python_of_own_recordings_converts_and_lists(tmp_path, monkeypatch):
    """Two formats, four speakers; the last three are tried."""
    text = (ROOT / "docs" / "own_recordings.md").read_text(encoding="utf-8")
    (block,) = blocks_of(text, "python")
    for i, speaker in enumerate(("anna", "bert", "cleo", "dave")):
        for number, rate in enumerate((44100, 16000)):
            path = tmp_path / "recordings" / speaker / f"{number}.wav"
            write_wav(path, 0.2, 100 + 40 * i, i, rate=rate, channels=2)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    made = sorted((tmp_path / "my_voices" / "wav").rglob("*.wav"))
    assert len(made) == 8 and made[0].parts[-3:] == ("anna", "s0", "0.wav")
    for path in made:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
    trials = read_trials(tmp_path / "my_voices" / "trials.txt")
    assert int(trials.labels.sum()) == 3 and len(trials.labels) == 15
    assert not any("anna" in name for name in trials.utterances)
    located = locate_trials(trials, tmp_path / "my_voices")
    assert located.speakers == ["bert", "cleo", "dave"]


def test_the_recipe_can_be_copied_beside_speechbrains_own(tmp_path):
    """Its files and no links; what runs left stays where it is."""
    text = (RECIPE / "README.md").read_text(encoding="utf-8")
    (block,) = [b for b in blocks_of(text, "bash") if "cp -rL" in b]
    recipe = tmp_path / "recipe"
    shutil.copytree(
        RECIPE,
        recipe,
        symlinks=True,
        ignore=shutil.ignore_patterns("data", "results", "__pycache__"),
    )
    for link in [path for path in recipe.iterdir() if path.is_symlink()]:
        target = (RECIPE / link.name).resolve()
        link.unlink()
        link.symlink_to(target)
    for left in ("data", "results"):
        (recipe / left).mkdir()
        (recipe / left / "large.wav").write_bytes(b"")
    subprocess.run(["sh", "-ec", block], cwd=recipe, check=True)
    copy = recipe / "speechbrain" / "recipes" / "VoxCeleb" / "IMLKD"
    assert {path.name for path in copy.iterdir()} == {
        path.name for path in recipe.iterdir()
    } - {"data", "results", "speechbrain"}
    assert not [path for path in copy.rglob("*") if path.is_symlink()]
    # Links of its README stay within what was copied.
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert re.match(r"\w+:", target) or (copy / target).exists(), target


def test_extra_requirements_are_those_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    known = setup["options"]["install_requires"] + extras["explain"]
    text = (RECIPE / "extra_requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert set(lines) <= set(known.split())


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_help_of_a_script_is_printed_and_nothing_begins(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    source = script.read_text(encoding="utf-8")
    main.__dict__.update(__file__=str(script))
    with contextlib.suppress(SystemExit):
        exec(compile(source, str(script), "exec"), main.__dict__)
    said = capsys.readouterr()
    assert "error" not in said.err
    # Those that argparse prints begin otherwise.
    first = ast.get_docstring(ast.parse(source)).splitlines()[0]
    assert first in said.out or "usage:" in said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "yaml",
    ["train_teacher", "iml_kd", "minivox/train_teacher", "minivox/iml_kd"]
    + ["own/train"],
)
def test_hints_at_the_end_of_a_training_can_be_typed(yaml, monkeypatch):
    monkeypatch.chdir(RECIPE)
    taught = {} if "t" in yaml.rpartition("/")[2] else {"objective": None}
    folder = {"output_folder": "results/my teacher/1", "data_folder": "a b,c"}
    said = next_step(f"hparams/{yaml}.yaml", {**folder, **taught})
    commands = [
        line.strip() for line in said.splitlines() if line.startswith("    ")
    ]
    scripts = [command.split()[1] for command in commands]
    teacher = "teacher" in yaml
    assert scripts == ["train_kd.py"] * teacher + ["verify.py"]
    for command in commands:
        check_block(command, RECIPE)
        assert shlex.split(command)[-1].strip("[]") == "results/my teacher/1"
