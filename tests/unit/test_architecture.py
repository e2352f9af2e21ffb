"""The house: imports run one way, modules stay small, documents name them all."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "imlkd_brain"
RECIPE = ROOT / "recipes" / "VoxCeleb" / "IMLKD"
SCRIPTS = sorted(path for path in RECIPE.glob("*.py"))

# From left to right along the way of the data. A room imports from the left.
# Modules of one level that are no packages may import each other.
LEVELS = (
    ("workers",),
    ("errors",),
    ("schema",),
    ("values",),
    ("machine",),
    (
        "aliases",
        "files",
        "locks",
        "yaml_files",
        "settings",
        "figures",
        "precision",
        "distributed",
    ),
    ("metrics",),
    ("data",),
    ("models",),
    ("distillation",),
    ("keys",),
    ("nonfinite", "bookkeeping", "training", "options"),
    ("brain", "checkpoints", "trained_with"),
    ("verification", "explanation"),
    ("comparison", "commands"),
    ("registry",),
    ("__main__",),
)
# Builders of corpora stand beside that way.
CORPORA_MAY_IMPORT = {"errors", "files", "locks", "corpora"}

MOST_LINES = 500
MOST_LINES_OF_A_SCRIPT = 250


def modules():
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imported_by(path, known):
    """(Module or package, line) of every import, those in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module, node.lineno


def room_of(module):
    """The room of a module: the first name below the package."""
    return module.split(".")[1] if "." in module else ""


def level_of(room):
    """The place of a room along the way of the data."""
    places = [i for i, rooms in enumerate(LEVELS) if room in rooms]
    assert places, (
        f"the room {room!r} is in no level; give it one in this file and in "
        "docs/architecture.md"
    )
    return places[0]


def may_import(room, other):
    """Whether modules of a room may import modules of another."""
    if room == other or other == "":
        return True
    if room == "corpora":
        return other in CORPORA_MAY_IMPORT
    if other == "corpora":
        return room in ("commands", "__main__")
    mine, theirs = level_of(room), level_of(other)
    packages = {room_of(name) for name in MODULES if name.count(".") > 1}
    return theirs < mine or (theirs == mine and not {room, other} & packages)


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name)])
def test_a_module_imports_from_the_rooms_before_its_own(module):
    if module == f"{PACKAGE}.minivox":  # the builder's old name, for its CLI
        return
    back = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {other}"
        for other, line in imported_by(MODULES[module], MODULES)
        if other.split(".")[0] == PACKAGE
        and not may_import(room_of(module), room_of(other))
    ]
    assert not back, "\n".join(back)


def test_a_wrong_import_is_seen(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from imlkd_brain import brain\n")
    assert list(imported_by(file, MODULES)) == [("imlkd_brain.brain", 2)]
    assert not may_import("metrics", "brain")
    assert not may_import("verification", "explanation")
    assert not may_import("corpora", "data")
    assert may_import("comparison", "verification")


def test_no_circle_of_imports():
    graph = {
        module: {
            other
            for other, _ in imported_by(path, MODULES)
            if other in MODULES and other != module
        }
        for module, path in MODULES.items()
    }
    # What imports nothing that is left over is taken away; a circle stays.
    left = dict(graph)
    while True:
        free = {module for module in left if not graph[module] & left.keys()}
        if not free:
            break
        left = {name: left[name] for name in left if name not in free}
    assert not left, f"these modules import each other: {sorted(left)}"


def test_the_training_imports_no_guards_and_extras():
    """They are keys of the YAML: a YAML without the key does without them."""
    reached, todo = set(), [RECIPE / "train_kd.py"]
    while todo:
        for name, _ in imported_by(todo.pop(), MODULES):
            if name in MODULES and name not in reached:
                reached.add(name)
                todo.append(MODULES[name])
    assert f"{PACKAGE}.brain" in reached
    unwanted = {"metrics", "verification", "explanation", "comparison"}
    unwanted |= {"trained_with", "options", "corpora"}
    rooms = {room_of(name) for name in reached}
    assert not rooms & unwanted
    modules = {name.rpartition(".")[2] for name in reached}
    extras = "augmentation augmentation_data initial_weights prototypes"
    extras += (
        " teacher_cache trial_audio trial_lists trials held_out speaker_maps"
    )
    assert not modules & set(extras.split())


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_script(module):
    scripts = {path.stem for path in SCRIPTS} - {"brain"}
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {other}"
        for other, line in imported_by(MODULES[module], MODULES)
        if other.split(".")[0] in scripts
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_and_scripts_are_short():
    long = []
    for most, paths in (
        (MOST_LINES, MODULES.values()),
        (MOST_LINES_OF_A_SCRIPT, SCRIPTS),
    ):
        for path in paths:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > most:
                long.append(
                    f"{path.relative_to(ROOT)}: {lines} of {most} lines"
                )
    assert not long, "\n".join(long)


def mirrored(test):
    """Whether a test file has its module.

    A folder named after a module holds that module's tests by theme.
    """
    room = ROOT / PACKAGE / test.parent
    themes = room.with_suffix(".py").is_file()
    return themes or (room / test.name[len("test_") :]).is_file()


def test_tests_mirror_the_package():
    unit = ROOT / "tests" / "unit"
    stray = [
        str(path.relative_to(unit))
        for path in sorted(unit.glob("*/**/test_*.py"))
        if not mirrored(path.relative_to(unit))
    ]
    assert not stray, f"these test no module of the same place: {stray}"


def tree_of(document):
    """Python files in a document's tree, by their paths, with their lines.

    A tree is a code block; two spaces of indent are one folder down.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    files = {}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    for block in [block for language, block in blocks if language == "text"]:
        folders = {}
        for line in block.splitlines():
            match = re.match(r"( *)(\S+?)(/?)(?:\s{2,}(.*))?$", line)
            if not match:
                continue
            indent, name, folder, says = match.groups()
            depth = len(indent) // 2
            above = [folders.get(level, "?") for level in range(depth)]
            if folder:
                folders[depth] = name
            elif name.endswith(".py"):
                files["/".join([*above, name])] = says
    return files


def test_the_tree_names_every_module_once():
    listed = tree_of("docs/architecture.md")
    exist = {
        str(path.relative_to(ROOT))
        for path in MODULES.values()
        if path.name != "__init__.py"
    } | {str(path.relative_to(ROOT)) for path in SCRIPTS}
    missing = sorted(exist - listed.keys())
    assert not missing, f"name them in docs/architecture.md: {missing}"
    gone = sorted(listed.keys() - exist)
    assert not gone, f"take them out of docs/architecture.md: {gone}"
    silent = [path for path, says in listed.items() if not says]
    assert not silent, f"no line says what these are for: {silent}"


def test_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200, "README.md: move details to docs/"
    rooms = {
        room_of(name)
        for name, path in MODULES.items()
        if path.name == "__init__.py" and room_of(name)
    }
    missing = {room for room in rooms if f"{room}/" not in text}
    assert not missing, f"README.md's tree does not name {sorted(missing)}"
