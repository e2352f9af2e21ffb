"""Two small patches for SpeechBrain's library.

``exact_error_rates`` gives EER and minDCF the algorithm of
:mod:`imlkd_brain.metrics.error_rates.error_rates`; their names, arguments, docstrings and
values stay. ``meta_file_last`` lets the Checkpointer write the file that makes
a folder a checkpoint after the weights.

The new code is taken from this repository and put into SpeechBrain's files
where a function or a statement ends, so that the same edit serves several
releases.
"""

import ast
import inspect
import textwrap
from pathlib import Path

from imlkd_brain.metrics import error_rates

METRICS = "speechbrain/utils/metric_stats.py"
CHECKPOINTS = "speechbrain/utils/checkpoints.py"
ADDED_TESTS = Path(__file__).parent / "added_tests"
# Inside SpeechBrain a helper is not called after it.
RENAMED = {
    "check_scores": "_check_scores",
    "error_counts": "_error_counts",
    "_speechbrain_rates": "_thresholds_and_rates",
    "exactly as SpeechBrain computes them": "at the scores and midway between them",
}
HELPERS = ("check_scores", "error_counts", "_speechbrain_rates")

ERROR_RATES_MESSAGE = """\
Exact EER and minDCF in O(N log N) time and O(N) memory

EER looped over all thresholds and minDCF built a matrix of trials by
thresholds. Both now sort the scores once and look the error counts up by
binary search. Names, arguments, thresholds and values stay the same.

Scores that are not finite now raise a ValueError: a NaN among them used to
give an EER of 0.
"""
CHECKPOINTS_MESSAGE = """\
Checkpointer: write the meta file last

The meta file makes a folder a checkpoint. It was written before the weights,
so that a job killed in between left a most recent checkpoint that could not
be loaded. It is now written when everything else is there.
"""


def exact_error_rates(folder):
    """Edit metric_stats.py and its tests in a copy; return the message."""
    path = folder / METRICS
    text = path.read_text(encoding="utf-8")
    for name in ("EER", "minDCF"):
        text = with_body(text, name, body_of(getattr(error_rates, name)))
    helpers = [inspect.getsource(getattr(error_rates, n)) for n in HELPERS]
    text = before_function(text, "EER", renamed("\n\n".join(helpers)))
    path.write_text(text, encoding="utf-8")
    append(folder / "tests/unittests/test_metrics.py", "error_rates.py")
    return ERROR_RATES_MESSAGE


def meta_file_last(folder):
    """Edit checkpoints.py and its tests in a copy; return the message."""
    path = folder / CHECKPOINTS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    function = find(ast.parse("".join(lines)), "save_checkpoint")
    written = next(
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and "metafile" in ast.dump(node.value)
    )
    returned = next(
        node
        for node in function.body
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return)
    )
    statement = lines[written.lineno - 1 : written.end_lineno]
    # From the end to the beginning: line numbers above stay true.
    at = returned.body[0].lineno - 1
    lines[at:at] = [
        " " * 12 + "# The meta file makes the folder a checkpoint: it comes\n",
        " " * 12 + "# last, so that an interrupted save leaves none behind.\n",
        *statement,
    ]
    at = returned.lineno - 1
    lines[at:at] = [
        " " * 8 + "# All processes have written their part from here on\n",
        " " * 8 + "ddp_barrier()\n",
        "\n",
    ]
    lines[written.lineno - 1 : written.end_lineno] = [
        " " * 12
        + "# A checkpoint of the same name is no checkpoint meanwhile\n",
        " " * 12 + "if (ckpt_dir / METAFNAME).exists():\n",
        " " * 16 + "(ckpt_dir / METAFNAME).unlink()\n",
    ]
    path.write_text("".join(lines), encoding="utf-8")
    append(folder / "tests/unittests/test_checkpoints.py", "checkpoints.py")
    return CHECKPOINTS_MESSAGE


def append(path, addition):
    """Append tests to one of SpeechBrain's test files, which has imports."""
    source = (ADDED_TESTS / addition).read_text(encoding="utf-8")
    functions = ast.parse(source).body
    first = next(n for n in functions if isinstance(n, ast.FunctionDef))
    added = "".join(source.splitlines(keepends=True)[first.lineno - 1 :])
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text.rstrip()}\n\n\n{added}", encoding="utf-8")


def body_of(function):
    """Source of a function's body, without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    first = find(ast.parse(source), function.__name__).body[1]
    lines = source.splitlines(keepends=True)
    return renamed("".join(lines[first.lineno - 1 :]))


def with_body(text, name, body):
    """Replace a function's body in a source; keep signature and docstring."""
    lines = text.splitlines(keepends=True)
    function = find(ast.parse(text), name)
    docstring = function.body[0]
    kept = lines[: docstring.end_lineno]
    return "".join([*kept, body, *lines[function.end_lineno :]])


def before_function(text, name, code):
    """Put code in front of a function of a source."""
    lines = text.splitlines(keepends=True)
    at = find(ast.parse(text), name).lineno - 1
    return "".join([*lines[:at], code, "\n\n", *lines[at:]])


def renamed(code):
    """Give code the names that it has inside SpeechBrain."""
    for old, new in RENAMED.items():
        code = code.replace(old, new)
    return code


def find(tree, name):
    """The function of a name in a parsed source."""
    return next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
