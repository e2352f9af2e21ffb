"""Refuses a device or precision that this machine does not have.

Also the other run options that SpeechBrain takes on the command line, or as
keys of a YAML.

Authors: IML-KD contributors
"""

import dataclasses

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.schema import Option, choice, number, whole
from imlkd_brain.values import check_value, short
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

logger = get_logger(__name__)

PRECISIONS = ("fp32", "fp16", "bf16")
# Of SpeechBrain's run options those with something to check.
RUN_OPTIONS = {
    "device": Option(
        "text", "Where models run.", null="the GPU if there is one"
    ),
    "precision": choice("Of the training.", PRECISIONS),
    "eval_precision": choice("Of the validation.", PRECISIONS),
    "max_grad_norm": number(
        "Norm that gradients are clipped to; below zero for never.",
        low=-1e9,
        high=1e9,
    ),
    "grad_accumulation_factor": whole(
        "Batches of an update.", low=1, high=10**6
    ),
    "optimizer_step_limit": whole(
        "Updates after which a training ends.",
        low=1,
        high=10**12,
        null="all epochs",
    ),
    "debug_batches": whole("Batches of a try.", low=1, high=10**6),
    "debug_epochs": whole("Epochs of a try.", low=-(10**6), high=10**6),
    "nonfinite_patience": whole(
        "Batches of NaN that are skipped.", low=0, high=10**9
    ),
    "ckpt_interval_minutes": number(
        "Minutes between checkpoints; 0 for the end of epochs alone.",
        low=-1,
        high=10**6,
    ),
    "ckpt_interval_steps": whole(
        "Updates between checkpoints.", low=-1, high=10**12
    ),
}
RUN_OPTION_NAMES = frozenset(
    field.name for field in dataclasses.fields(RunOptions)
)


def check_run_options(given):
    """Refuse run options that mean nothing, or that this machine lacks.

    Arguments
    ---------
    given : mapping or speechbrain.utils.run_opts.RunOptions
        By name; names that are not there are not checked.

    Raises
    ------
    UserError
        Naming the option.

    Example
    -------
    >>> check_run_options({"device": "cpu", "grad_accumulation_factor": 2})
    """
    for name, option in RUN_OPTIONS.items():
        if name in given:
            value = given[name]
            if value is not None or name != "device":
                check_value(name, value, option)
    device = given["device"] if "device" in given else None
    if device is not None:
        check_device(device)
    for name in ("precision", "eval_precision"):
        if name in given:
            check_precision(name, given[name], device)


def check_device(device):
    """Refuse a device that this machine does not have.

    Arguments
    ---------
    device : str
        As torch names it.

    Raises
    ------
    UserError
        Saying what there is.

    Example
    -------
    >>> check_device("cpu")
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UserError(
            f"device: {short(device)} is no device; give cpu, cuda, cuda:0 or "
            "mps, for example."
        ) from None
    if kind.type == "cuda":
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (kind.index or 0) >= number:
            there = f"{number} GPU{'' if number == 1 else 's'}"
            raise UserError(
                f"device: {device} is not there, torch sees "
                f"{there if number else 'no GPU'} on this machine; give "
                f"`--device cpu`{' or `--device cuda:0`' if number else ''}."
            )
        return
    try:
        if kind.type == "meta":
            # It computes nothing, and would be found out in the first update.
            raise RuntimeError
        torch.zeros(1, device=kind)
    # Of backends that torch was built without, or that are not there
    except (AssertionError, ImportError, NotImplementedError, RuntimeError):
        raise UserError(
            f"device: {device} cannot be used on this machine; give "
            "`--device cpu`."
        ) from None


def is_slow_in_bfloat16(device):
    """Whether a device computes bfloat16 many times slower than float32.

    That is a CPU without AVX-512. There torch converts one number after the
    other: a convolution takes 15 times as long on an AMD EPYC with AVX2.

    Arguments
    ---------
    device : str
        As torch names it.

    Returns
    -------
    bool

    Example
    -------
    >>> is_slow_in_bfloat16("cuda")
    False
    """
    has_avx512 = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return torch.device(device).type == "cpu" and not has_avx512


def check_precision(name, precision, device):
    """Refuse bfloat16 on a GPU that does not have it, warn of a slow CPU.

    Arguments
    ---------
    name : str
        Of the option.
    precision : str
        One of ``PRECISIONS``.
    device : str or None
        Where models run; None for the GPU if there is one.

    Raises
    ------
    UserError
        Naming the option.

    Example
    -------
    >>> check_precision("precision", "fp32", "cpu")
    """
    on_gpu = torch.cuda.is_available() and "cuda" in str(device or "cuda")
    if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"{name}: this GPU has no bfloat16; give `--{name} fp16` or fp32."
        )
    if precision == "bf16" and not on_gpu and is_slow_in_bfloat16("cpu"):
        logger.warning_once(
            "%s: this CPU has no instructions for bfloat16, so bf16 takes many "
            "times as long as fp32; give `--%s fp32`.",
            name,
            name,
        )
