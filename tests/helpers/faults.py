"""Wrong values for every declared key, made from what is declared.

They are made from the kind and range alone; the code that refuses them is not
asked.
"""

import importlib
import json
import os
import sys
from dataclasses import dataclass
from functools import cache

import pytest
import yaml

from imlkd_brain.errors import UserError

HUGE = 10**30
NAN, INFINITE = float("nan"), float("inf")
# What each kind is not, whatever its range.
OF_OTHER_KINDS = {
    "number": ["abc", "0.5x", True, [], [1, [2]], {"a": 1}, NAN, INFINITE],
    "whole": ["abc", "3x", False, [], [1, [2]], {"a": 1}, NAN, INFINITE, 1.5],
    "flag": ["yes", "no", 0, 1, 2.5, [], {"a": 1}, NAN],
    "text": [3, 1.5, True, [], ["a"], {"a": 1}, NAN, "", " "],
    "choice": [3, 1.5, True, [], {"a": 1}, NAN, "", "no such word"],
    "file": [3, 1.5, True, [], {"a": 1}, NAN, ""],
    "folder": [3, 1.5, True, [], {"a": 1}, NAN, ""],
    "path": [3, 1.5, True, [], {"a": 1}, NAN, ""],
    "list": [{"a": 1}, NAN, True],
    "mapping": [3, 1.5, True, [1], "abc", NAN],
    "object": [3, 1.5, True, [1], "abc", NAN],
}


def wrong_values(option, depth=0):
    """Yield values that the key of an option may not have.

    Arguments
    ---------
    option : imlkd_brain.schema.Option
        What is declared.
    depth : int
        How many lists and mappings are around it.
    """
    kind = option.kind
    if option.null is None:
        yield None
    elsewhere = option.other or option
    for value in OF_OTHER_KINDS[kind]:
        if not _is_alternative(value, elsewhere):
            yield value
    if kind in ("number", "whole"):
        yield from (-INFINITE, HUGE, -HUGE)
        if option.low is not None:
            yield option.low - 1
        if option.above is not None:
            yield from (option.above, option.above - 1)
        if option.high is not None:
            yield option.high + 1
    elif kind == "choice":
        for known in option.choices:
            yield from (f"{known}x", known.upper())
    elif kind == "list":
        if option.low:
            yield []
        if depth < 2:
            for value in _wrong_items(option.item, depth):
                yield [value] * max(1, int(option.low or 1))
                if option.single and not isinstance(value, list | dict):
                    if value is not None or option.null is None:
                        yield value
    elif kind == "mapping" and depth < 3:
        if option.item:
            for value in _wrong_items(option.item, depth):
                yield {"a": value}
        for name, entry in (option.entries or {}).items():
            for value in wrong_values(entry, depth + 1):
                yield {name: value}
        if option.entries and not option.item:
            yield {"nothing": 1}


def _wrong_items(item, depth):
    return list(wrong_values(item, depth + 1)) if item else []


def _is_alternative(value, option):
    """Whether an option takes this otherwise wrong value after all."""
    if option.kind != "list" or not option.item:
        return False
    if option.item.kind in ("text", "file", "path"):
        return (option.single and isinstance(value, str) and value.strip()) or (
            isinstance(value, list) and all(isinstance(v, str) for v in value)
        )
    return False


def as_option(value):
    """A value as it is typed on the command line."""
    text = yaml.safe_dump({"k": value}, default_flow_style=True, width=10**9)
    return text.strip()[len("{k: ") : -1]


@dataclass(frozen=True)
class Fault:
    """A wrong value of a key, or of an argument of the key's object.

    Arguments
    ---------
    script, yaml, key : str
        Where.
    argument : str or None
        Of the object.
    value : str
        As it is typed.
    """

    script: str
    yaml: str
    key: str
    argument: object
    value: str

    @property
    def argv(self):
        """The command line without the script's name."""
        value = self.value
        if self.argument:
            value = f"{{{self.argument}: {value}}}"
        argv = [f"hparams/{self.yaml}", f"--{self.key}", value]
        if self.key != "data_folder":
            argv += ["--data_folder", "data"]
        return argv


@cache
def faults():
    """Every key of every YAML times every wrong kind of value."""
    from imlkd_brain.registry import SCRIPTS

    found = []
    for name, script in SCRIPTS.items():
        for path in script.yamls:
            there = yaml_keys(path)
            for key, option in script.schema.options.items():
                if key not in there:
                    continue
                for argument, declared in [
                    (None, option),
                    *[
                        (a, o)
                        for arguments in option.classes.values()
                        for a, o in arguments.items()
                    ],
                ]:
                    typed = map(as_option, wrong_values(declared))
                    found += [
                        Fault(name, path, key, argument, value)
                        for value in dict.fromkeys(typed)
                    ]
    return found


def yaml_keys(path):
    """The keys of a YAML in hparams."""
    from ruamel.yaml import YAML

    with open(os.path.join("hparams", path), encoding="utf-8") as stream:
        return [k for k in YAML().load(stream) if not k.startswith("__")]


class Begun(BaseException):
    """A script went on to its work."""


def outcome(fault, monkeypatch):
    """What a script's main function does with a fault.

    Returns
    -------
    kind : str
        ``sentence`` that names the key; ``other sentence``; ``traceback``;
        ``silence``: the work began.
    message : str
    """
    script = importlib.import_module(fault.script[:-3])
    stop_before_work(script, monkeypatch)
    try:
        script.main(fault.argv)
    except UserError as error:
        text = str(error)
        if "\n" not in text and (fault.argument or fault.key) in text:
            return "sentence", text
        return "other sentence", text
    except Begun:
        return "silence", ""
    except (Exception, SystemExit) as error:
        return "traceback", repr(error)
    return "silence", "it ended"


def stop_before_work(script, monkeypatch):
    """End a script where its work would begin; models and lists are there."""

    def begin(*args, **kwargs):
        raise Begun

    monkeypatch.setattr("speechbrain.core.create_experiment_directory", begin)
    for name in ("train", "prepare"):
        if hasattr(script, name):
            monkeypatch.setattr(script, name, begin)
    for name, result in (
        ("open_models", {}),
        ("load_models", {}),
        ("open_lists", [None]),
        ("check_inputs", None),
        ("check_methods", None),
        ("check_teacher", None),
        ("set_tf32", None),
    ):
        if hasattr(script, name):
            monkeypatch.setattr(
                script, name, lambda *a, _result=result, **k: _result
            )


def main(path):
    """Count the outcomes of faults that a file lists, or list them there."""
    if not os.path.exists(path):
        with open(path, "w", encoding="utf-8") as stream:
            json.dump([list(vars(f).values()) for f in faults()], stream)
        return
    with open(path, encoding="utf-8") as stream:
        listed = [Fault(*entry) for entry in json.load(stream)]
    counts, examples = {}, {}
    for fault in listed:
        with pytest.MonkeyPatch.context() as monkeypatch:
            kind, message = outcome(fault, monkeypatch)
        counts.setdefault(fault.script, {}).setdefault(kind, 0)
        counts[fault.script][kind] += 1
        examples.setdefault(kind, []).append((fault, message))
    for script, kinds in counts.items():
        print(script, sum(kinds.values()), kinds)
    for kind, cases in examples.items():
        if kind != "sentence":
            for fault, message in cases[:: max(1, len(cases) // 40)]:
                print(kind, fault.argv[:3], message[:150])


if __name__ == "__main__":
    main(sys.argv[1])
