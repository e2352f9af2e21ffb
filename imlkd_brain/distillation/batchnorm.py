"""Which inputs update the student's BatchNorm statistics in a training step.

Authors: IML-KD contributors
"""

from contextlib import contextmanager

import torch

from imlkd_brain.schema import choice, mapping
from imlkd_brain.values import check_value

BATCHNORM_POLICIES = ("shared", "raw_only", "running")
_POLICY = choice("Of a method.", BATCHNORM_POLICIES)

# Keys of the YAML.
OPTIONS = {
    "batchnorm": mapping(
        "How BatchNorm sees integrated inputs: for all methods, or by method.",
        _POLICY,
        words=BATCHNORM_POLICIES,
        example="{iml_kd: running}",
    )
}


def batchnorm_of(policies, method):
    """A method's policy for BatchNorm, from the key of the YAML.

    Arguments
    ---------
    policies : str or dict
        A policy for all methods, or one for each by name; ``raw_only`` for
        those that are not named.
    method : str
        The method.

    Returns
    -------
    str
        See :func:`batchnorm_policy`.

    Raises
    ------
    UserError
        If the policy is not known.

    Example
    -------
    >>> batchnorm_of({"iml_kd": "running"}, "iml_kd")
    'running'
    """
    if isinstance(policies, dict):
        policies = policies.get(method, "raw_only")
    _check_batchnorm(policies)
    return policies


def _check_batchnorm(policy):
    """Refuse a policy that does not exist."""
    check_value("batchnorm", policy, _POLICY)


@contextmanager
def batchnorm_policy(module, policy):
    """What BatchNorm does with the second input distribution.

    Arguments
    ---------
    module : torch.nn.Module
        The student's embedding model, in training mode.
    policy : str
        ``shared``: integrated inputs update the running statistics too.
        ``raw_only``: they are normalised with their own batch's statistics
        and leave the running ones alone. ``running``: they are normalised
        with the running statistics of the raw inputs.

    Raises
    ------
    UserError
        If the policy is none of these.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> with batchnorm_policy(norm, "raw_only"):
    ...     _ = norm(torch.randn(8, 2) + 5)
    >>> norm.running_mean
    tensor([0., 0.])
    """
    _check_batchnorm(policy)
    norms = [
        m
        for m in module.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    ]
    before = [(norm.track_running_stats, norm.training) for norm in norms]
    try:
        for norm in norms:
            if policy == "raw_only":
                # Neither a momentum of zero, which counts the batch and lets
                # NaN through, nor a copy of the statistics is needed.
                norm.track_running_stats = False
            elif policy == "running":
                norm.eval()
        yield
    finally:
        for norm, (tracks, training) in zip(norms, before):
            norm.track_running_stats = tracks
            norm.train(training)
