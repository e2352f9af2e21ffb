"""Reads a YAML and its command line, and explains mistakes in them.

A missing file, a YAML error or an unset placeholder is reported in one
sentence that names the file and the key.

Authors: IML-KD contributors
"""

import io
import os
import re
import sys
from contextlib import redirect_stderr
from dataclasses import replace

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML

import speechbrain as sb
from imlkd_brain.errors import UserError, nearest
from imlkd_brain.machine import RUN_OPTION_NAMES, check_run_options
from imlkd_brain.values import short
from imlkd_brain.yaml_files import explained, load_values, read_text


def load_hyperparameters(argv, schema=None, check=None):
    """Parse a recipe's command line, check its YAML and build its objects.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.
    schema : imlkd_brain.schema.Schema, optional
        What the YAML may be. Everything is checked before anything is built.
    check : callable, optional
        Called with the values, after the schema's checks and before objects
        are built, some of which make folders. It needs a schema.

    Returns
    -------
    hparams_file : str
        The YAML's path; of its base where it names one.
    hparams : dict
        The YAML's objects.
    run_opts : speechbrain.utils.run_opts.RunOptions
        Device and other run options.
    overrides : str
        In YAML form: what the YAML changes of its base, then the command
        line's overrides.

    Raises
    ------
    UserError
        If the YAML is missing or cannot be read, a placeholder was not
        filled, an override names no key of the YAML, a value is not what the
        schema says, or an object cannot be built.
    """
    hparams_file, run_opts, overrides = read_command(argv, schema, check)
    with explained(hparams_file, overrides):
        with open(hparams_file, encoding="utf-8") as stream:
            hparams = load_hyperpyyaml(stream, overrides)
    return hparams_file, hparams, run_opts, overrides


def refuse_options(argv):
    """Print the help of a script that takes no options, or refuse them.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.

    Raises
    ------
    UserError
        If there are any.
    """
    _print_help(argv)
    if argv:
        script = os.path.basename(sys.argv[0])
        raise UserError(
            f"{argv[0]}: {script} takes no options; run `python {script}`, or "
            "one of the commands that it prints with options of its own."
        )


def _print_help(argv):
    """Print the docstring of the script and end it, where help is wanted."""
    usage = sys.modules["__main__"].__doc__ or ""
    if {"-h", "--help"} & set(argv):
        print(usage.strip())
        raise SystemExit(0)
    return usage


def read_command(argv, schema=None, check=None):
    """Parse a recipe's command line and check its YAML; build nothing.

    Arguments and errors are those of :func:`load_hyperparameters`, and so are
    the results but for the objects.
    """
    usage = _print_help(argv)
    if not argv or argv[0].startswith("-"):
        script = os.path.basename(sys.argv[0])
        # The first command in the script's own docstring.
        own = re.search(rf"{re.escape(script)} (\S+\.yaml)", usage)
        yaml = own.group(1) if own else "hparams/iml_kd.yaml"
        raise UserError(
            "the first argument must be a hyperparameter file, as in "
            f"`python {script} {yaml}`; --help says more."
        )
    hparams_file, run_opts, overrides = parse_command(argv)
    if schema is not None:
        check_run_options(run_opts)
    with explained(hparams_file, overrides):
        given = load_values(overrides) if overrides else {}
        if not isinstance(given, dict):
            raise UserError(
                f"{short(given)} on the command line belongs to no option; "
                "give options as `--name value`, a list in quotes."
            )
        if schema is not None:
            schema.check_given(given)
            check_run_options(given)
        whole, overrides = resolve_base(
            hparams_file, overrides, _replaced(schema, given)
        )
    with explained(whole, overrides):
        if schema is not None:
            values, named = describe(whole, overrides)
            check_run_options(values)
            try:
                schema.check_values(values, hparams_file, named)
            except UserError as error:
                hint = _origin(str(error), whole, overrides)
                raise UserError(f"{error}{hint}") from error
            if check is not None:
                check(values)
    return whole, run_opts, overrides


def _origin(message, hparams_file, overrides):
    """Which key to give instead, where the one complained of only repeats it."""
    text = f"{read_text(hparams_file)}\n{overrides}"
    repeats = dict(re.findall(r"^(\w+): !ref <(\w+)>", text, re.MULTILINE))
    other = repeats.get(message.partition(" ")[0])
    return f" It repeats {other}: give `--{other}`." if other else ""


def _replaced(schema, given):
    """Keys whose mapping on the command line replaces the YAML's."""
    options = schema.options if schema is not None else {}
    return [
        key
        for key, value in given.items()
        if key in options
        and options[key].replaces
        and isinstance(value, dict)
        # Nothing but null takes out of what is there.
        and any(entry is not None for entry in value.values())
    ]


def parse_command(argv):
    """Parse a command line as SpeechBrain does, its complaints one sentence.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.

    Returns
    -------
    hparams_file, run_opts, overrides
        Of ``speechbrain.parse_arguments``, numbers as numbers.

    Raises
    ------
    UserError
        For what it cannot parse.
    """
    _check_text(argv)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            file, run_opts, overrides = sb.parse_arguments(argv)
        limit = run_opts.optimizer_step_limit
        if isinstance(limit, str) and limit.isdecimal():
            # The only number without a default, so SpeechBrain leaves it text.
            run_opts = replace(run_opts, optimizer_step_limit=int(limit))
        return file, run_opts, overrides
    except SystemExit as end:
        if not end.code:
            raise
    problem = said.getvalue().strip().rpartition("error: ")[2]
    raise UserError(f"{' '.join(problem.split())}; correct the command line.")


def _check_text(argv):
    """Refuse arguments of which YAML would read another text, or none."""
    for argument in argv:
        if re.search("[\ud800-\udfff]", argument):
            shown = argument.encode(errors="surrogateescape")
            raise UserError(
                f"{shown.decode(errors='replace')}: these letters are none in "
                "this locale; run `export LC_ALL=C.UTF-8` before."
            )
        value = argument.partition("=")[2] or argument
        if re.search(r"\s#", argument) and value[0] not in "\"'[{":
            raise UserError(
                f"{argument}: what follows ` #` is a remark to YAML; quote the "
                "value for the shell and again for YAML, as in `--data_folder "
                "'\"/my data #2\"'`."
            )


def describe(hparams_file, overrides=""):
    """What a YAML resolves to, without building its objects.

    Arguments
    ---------
    hparams_file : str
        A YAML without a base.
    overrides : str or dict
        As :func:`resolve_base` returns them.

    Returns
    -------
    values : dict
        Objects as :class:`imlkd_brain.schema.Made`.
    named : set of str
        Keys that others refer to, and SpeechBrain's run options.
    """
    text = read_text(hparams_file)
    with open(hparams_file, encoding="utf-8") as stream:
        resolved = resolve_references(stream, overrides, True)
    values = load_values(resolved.getvalue())
    values = {k: v for k, v in values.items() if not str(k).startswith("__")}
    named = set(re.findall(r"<([^<>\[\].]+)", f"{text}{overrides}"))
    return values, named | RUN_OPTION_NAMES


def resolve_base(hparams_file, overrides="", replaced=()):
    """Turn a YAML with a ``base`` into that base and overrides of it.

    A YAML whose top level has the key ``base`` is read as the base with its
    other keys changed. Mappings are merged, other values are replaced. The
    base is a path relative to the YAML and may have a base of its own.

    Arguments
    ---------
    hparams_file : str
        The YAML's path.
    overrides : str
        The command line's overrides in YAML form. They win over the YAML.
    replaced : list of str
        Keys of the overrides whose mapping is not merged: other entries
        become null.

    Returns
    -------
    base : str
        The path of the YAML at the end of the chain.
    overrides : str
        All overrides of it in YAML form.

    Raises
    ------
    UserError
        If a YAML cannot be read, a base is missing or names itself, or a key
        is not in the base.
    """
    yaml = YAML()
    command = yaml.load(overrides) if overrides else {}
    chain, contents = [hparams_file], []
    while True:
        stream = io.StringIO(read_text(chain[-1]))
        stream.name = chain[-1]  # for the message, if it cannot be read
        content = yaml.load(stream)
        if not isinstance(content, dict):
            found = "empty" if content is None else "no mapping"
            raise UserError(
                f"{chain[-1]}: this YAML is {found}; keys with values are "
                "expected, as in hparams/iml_kd.yaml."
            )
        contents.append(content)
        if "base" not in content:
            break
        name = content.pop("base")
        base = os.path.normpath(
            os.path.join(os.path.dirname(chain[-1]), str(name))
        )
        if not os.path.isfile(base):
            raise UserError(
                f"{chain[-1]}: its base {base} is missing; give the path of a "
                "YAML relative to this one."
            )
        if any(os.path.samefile(base, path) for path in chain):
            raise UserError(
                f"{chain[-1]}: its base {base} leads back to itself; name a "
                "YAML that is whole."
            )
        chain.append(base)
    whole = contents[-1]
    for path, content in zip(chain, contents[:-1]):
        _check_keys_of_base(path, content, chain[-1], whole)
    for key in replaced:
        for content in contents:
            for name in content.get(key) or ():
                command[key].setdefault(name, None)
    if len(chain) == 1:
        return hparams_file, _dump(command) if replaced else overrides
    changes = contents[-2]
    for content in reversed(contents[:-2]):
        _merge(changes, content)
    if command:
        _merge(changes, command)
    return chain[-1], _dump(changes)


def _merge(changes, content):
    """Put overrides over others; a mapping replaces what is none."""
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(changes.get(key), dict):
            _merge(changes[key], value)
        else:
            changes[key] = value


def _dump(content):
    """Overrides in YAML form."""
    stream = io.StringIO()
    YAML().dump(content, stream)
    return stream.getvalue()


def _check_keys_of_base(hparams_file, content, base, whole):
    """Refuse a key that the YAML at the end of the chain does not have."""
    for key in content:
        if key not in whole:
            raise UserError(
                f"{hparams_file}: the key `{key}` is not in its base "
                f"{base}{nearest(key, whole)}; check its spelling against "
                "that file."
            )


def as_list(value):
    "Makes a list of a single value, which is easier to type in a terminal."
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_mapping(overrides):
    """Return overrides as a mapping, whether they are one or YAML text.

    Example
    -------
    >>> as_mapping("eta: 2.0")["eta"], as_mapping(None)
    (2.0, {})
    """
    if isinstance(overrides, str):
        return YAML().load(overrides) or {}
    return dict(overrides or {})
