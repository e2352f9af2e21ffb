"""Collects what the rooms declare of the scripts' YAMLs, and tabulates it.

To write docs/options.md anew:
> python -m imlkd_brain.registry

Authors: IML-KD contributors
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from imlkd_brain import keys
from imlkd_brain.comparison import keys as comparison
from imlkd_brain.explanation import keys as explanation
from imlkd_brain.files import write_whole
from imlkd_brain.machine import RUN_OPTIONS
from imlkd_brain.values import Schema
from imlkd_brain.verification import export_keys
from imlkd_brain.verification import keys as verification

DOCUMENT = Path(__file__).parents[1] / "docs" / "options.md"


@dataclass(frozen=True)
class Script:
    """A script, the schema of its YAML, and the YAMLs that have all its keys.

    Arguments
    ---------
    schema : Schema
        What its YAML may be.
    yamls : tuple of str
        In ``hparams``.
    """

    schema: Schema
    yamls: tuple


SCRIPTS = {
    "train_kd.py": Script(keys.SCHEMA, ("train_teacher.yaml", "iml_kd.yaml")),
    "verify.py": Script(verification.SCHEMA, ("eval.yaml",)),
    "explain.py": Script(explanation.SCHEMA, ("explain.yaml",)),
    "export.py": Script(export_keys.SCHEMA, ("export.yaml",)),
    "compare.py": Script(comparison.SCHEMA, ("minivox/compare.yaml",)),
}

HEAD = """\
# Options

Every key of every YAML: what it may be and what it means. `python -m
imlkd_brain.registry` writes this page from what the rooms declare
(`imlkd_brain/*/keys.py`). Defaults are in the YAMLs, `hparams/`.

All keys are checked right after the YAML is read, before anything is built,
downloaded or computed. A wrong one ends the script with one sentence. A key that
nothing reads is refused with the nearest name. Keys of your own are accepted
where another key refers to them (`!ref <mine>`).

Each key is also an option of the command line, `--key value`. A mapping given
there changes the YAML's: entries that it does not name stay. Where the table
says *replaces*, they are left out, unless all that is given is null.
"""


def table(options):
    """A Markdown table of declared keys.

    Arguments
    ---------
    options : dict of str to Option
        By key.

    Returns
    -------
    str

    Example
    -------
    >>> from imlkd_brain.schema import whole
    >>> print(table({"jobs": whole("Trainings at a time.", low=1)}))
    | key | may be | meaning |
    |---|---|---|
    | `jobs` | a whole number of at least 1 | Trainings at a time. |
    """
    rows = ["| key | may be | meaning |", "|---|---|---|"]
    for key, option in options.items():
        meaning = option.meaning
        if option.optional:
            meaning += " May be left out."
        if option.replaces:
            meaning += " On the command line it *replaces*."
        if option.package:
            meaning += f" Needs the extra `{option.package[1]}`."
        cells = [f"`{key}`", option.expected, meaning]
        rows.append(f"| {' | '.join(c.replace('|', '/') for c in cells)} |")
        for arguments in option.classes.values():
            for name, argument in arguments.items():
                rows.append(
                    f"| `{key}.{name}` | {argument.expected} | "
                    f"{argument.meaning} |"
                )
    return "\n".join(rows)


def document():
    """The text of docs/options.md."""
    parts = [HEAD]
    for name, script in SCRIPTS.items():
        yamls = " and ".join(f"`hparams/{yaml}`" for yaml in script.yamls)
        parts += [f"## {name}\n\n{yamls}.\n", table(script.schema.options), ""]
    parts += [
        "## Run options of SpeechBrain\n\nOn the command line, or as keys of a "
        "training's YAML; `python train_kd.py hparams/iml_kd.yaml --help` has "
        "them all. These are checked:\n",
        table(RUN_OPTIONS),
    ]
    return "\n".join(parts) + "\n"


def main(argv):
    """Writes the page, to another path if one is given."""
    parser = argparse.ArgumentParser(description="Write docs/options.md anew.")
    parser.add_argument("path", nargs="?", default=DOCUMENT, help="elsewhere")
    path = parser.parse_args(argv).path
    write_whole(path, document())
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
