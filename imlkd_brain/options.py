"""Which options change a training's result, and how two trainings differ.

Authors: IML-KD contributors
"""

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from imlkd_brain.distillation.batchnorm import batchnorm_of

# Keys of the YAML that may change between two starts of one training, and what
# stands for their value in the record, also where another key refers to them.
# Every other key counts. Files and teacher count by their content instead.
MAY_CHANGE = {
    **{
        key: key
        for key in (
            "output_folder",
            "save_folder",
            "train_log",
            "teacher_folder",
            "teacher_cache",
            "teacher_answers",
            "data_folder",
            "data_folder_noise",
            "data_folder_rir",
            "noise_annotation",
            "rir_annotation",
            "NOISE_DATASET_URL",
            "RIR_DATASET_URL",
            "train_annotation",
            "valid_annotation",
            "valid_trials",
            "verification_file",
            "initial_weights",
            "labelled_speakers",
            "unlabelled_folder",
        )
    },
    "skip_prep": False,
    "allow_training_speakers": False,
    "use_tensorboard": False,
    "ckpt_interval_minutes": 0,
    "ckpt_interval_steps": 0,
    "measure_interval": 0,
    "teacher_cache_limit": 0,
    "internal_batch_size": None,
    "train_shards": None,
    "num_workers": 0,
}
# Objects that write logs and checkpoints, what only repeats the seed or the
# number of epochs, and what is compared by itself.
LEFT_OUT = {
    "__set_seed",
    "train_logger",
    "tensorboard_logger",
    "checkpointer",
    "epoch_counter",
    "number_of_epochs",
    "export",
    # These repeat other keys.
    "trained_with",
    "dev_trials",
    "start_from",
    "labels",
    "open_teacher_cache",
    "open_answers",
    "teacher_prototypes",
    "prepare_options",
    "check_augmentation",
    # Of teach.py; what a training draws from counts by its content.
    "answers_variants",
    "answers_fields",
    "answers_precision",
    "answers_arithmetic",
    "processes",
}
# How data are read, at any depth of the YAML.
READING = {
    "num_workers",
    "pin_memory",
    "persistent_workers",
    "prefetch_factor",
    "multiprocessing_context",
    "timeout",
}
# These may be raised: what was done is the beginning of what is to be done.
LIMITS = ("number_of_epochs", "optimizer_step_limit")

# Keys with something for each method, and the object that is given them.
OF_METHOD = ("methods", "batchnorm", "objective")


def resolved_options(hparams_file, overrides):
    """What a YAML resolves to, objects as their description.

    Arguments
    ---------
    hparams_file : str
        The training YAML.
    overrides : dict
        The command line's.

    Returns
    -------
    keys : dict
        The plain value of every key, of which those in MAY_CHANGE are hidden.
    counting : dict
        What changes the result.
    """
    with open(hparams_file, encoding="utf-8") as stream:
        resolved = resolve_references(stream, {**overrides, **MAY_CHANGE})
    keys = _plain(YAML().load(resolved))
    counting = {
        key: value
        for key, value in keys.items()
        if key not in MAY_CHANGE and key not in LEFT_OUT
    }
    # A method's weights are its own: what is done to others does not count.
    method = counting.get("method")
    for holder in (counting, _arguments(counting.get("objective"))):
        if isinstance(holder.get("methods"), dict):
            holder["methods"] = {method: holder["methods"].get(method)}
    if isinstance(counting.get("batchnorm"), dict):
        counting["batchnorm"] = batchnorm_of(counting["batchnorm"], method)
    return keys, counting


def _arguments(description):
    """The arguments in an object's description; {} for anything else."""
    if isinstance(description, dict) and len(description) == 1:
        (arguments,) = description.values()
        if isinstance(arguments, dict):
            return arguments
    return {}


def _plain(node):
    """A YAML node as plain Python; an object is {its tag: its arguments}."""
    tag = getattr(getattr(node, "tag", None), "value", None)
    if isinstance(node, dict):
        plain = {
            str(key): _plain(value)
            for key, value in node.items()
            if key not in READING
        }
    elif isinstance(node, list):
        plain = [_plain(value) for value in node]
    elif node is None or isinstance(node, bool):
        return node
    elif type(node).__name__ == "ScalarBoolean":
        return bool(node)
    elif isinstance(node, int):
        return int(node)
    elif isinstance(node, float):
        return float(node)
    else:
        plain = str(getattr(node, "value", node))
    if tag is None or tag.startswith("tag:yaml.org"):
        return plain
    return {tag: plain}


def _leaves(node, name=""):
    """Yield (dotted name, value) of all that is no mapping."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            # An object's arguments go by its own name.
            below = name if key.startswith("!") else f"{name}.{key}"
            if key.startswith("!"):
                yield f"{name}.class".strip("."), key
            for leaf in _leaves(value, below):
                yield leaf
    elif isinstance(node, list) and any(isinstance(v, dict) for v in node):
        for index, value in enumerate(node):
            for leaf in _leaves(value, f"{name}.{index}"):
                yield leaf
    else:
        yield name.strip("."), node


def differences(before, now, same_limits=False):
    """Say in which options that change the result two records differ.

    Arguments
    ---------
    before, now : dict
        The records' contents.
    same_limits : bool
        Whether a raised number of epochs or updates is a difference, and
        another checkpoint that is exported.

    Returns
    -------
    list of str
        ``key: old before, new now``, keys of the YAML first.

    Example
    -------
    >>> differences(
    ...     {"hyperparameters": {"eta": 1.0, "lr": 0.1}},
    ...     {"hyperparameters": {"eta": 16, "lr": 0.1}},
    ... )
    ['eta: 1.0 before, 16 now']
    """
    found = []
    for name in LIMITS:
        old, new = (r.get("limits", {}).get(name) for r in (before, now))
        lowered = new is not None and (old is None or new < old)
        if lowered or (same_limits and old != new):
            found.append(_difference(name, old, new))
    old, new = (r.get("export") for r in (before, now))
    # A record of an earlier version has none.
    if same_limits and None not in (old, new) and old != new:
        found.append(_difference("export", old, new))
    said = []
    for part in ("hyperparameters", "run_options"):
        old, new = (dict(_leaves(r.get(part, {}))) for r in (before, now))
        names = [n for n in {**old, **new} if old.get(n) != new.get(n)]
        if "method" in names:
            # Its weights and policy come with it.
            names = [n for n in names if n.partition(".")[0] not in OF_METHOD]
        # What refers to a key changes with it, and is not named as well.
        for name in sorted(names, key=lambda n: (n.count("."), n)):
            change = (old.get(name), new.get(name))
            if "." not in name or change not in said:
                said.append(change)
                found.append(_difference(name, *change))
    old, new = (r.get("data", {}) for r in (before, now))
    for name in sorted({*old} & {*new}):
        if old[name] != new[name]:
            values = (_short(data[name]) for data in (old, new))
            found.append(_difference(name, *values))
    return found


def _difference(name, old, new):
    """One difference in words."""
    old, new = ("left out" if v is None else v for v in (old, new))
    return f"{name}: {old} before, {new} now"


def _short(identity):
    """What stands for a file's content in a message."""
    if isinstance(identity, str):
        return f"content {identity[:8]}"
    return identity
