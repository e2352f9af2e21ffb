"""How much of the student's update each term of a loss asks for.

Authors: IML-KD contributors
"""

import torch


def gradient_shares(weighted_terms, parameters, retain_graph=True):
    """Each weighted term's part in the gradient of some parameters.

    ``|g_k| / sum_j |g_j|`` with ``g_k`` the gradient of term k alone. Norms do
    not add up as the gradients do, so these are shares of effort, not of
    direction. No ``.grad`` changes.

    Arguments
    ---------
    weighted_terms : dict of str to torch.Tensor
        Scalars, the speaker loss among them if it is to be compared.
    parameters : iterable of torch.Tensor
        Those of the student; the ones without gradient are left out.
    retain_graph : bool
        Whether the graph is needed afterwards, as for the update itself.

    Returns
    -------
    dict of str to float
        Shares that sum to one; all zero if no term has a gradient.

    Example
    -------
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> gradient_shares({"a": (3 * w).sum(), "b": (-w).sum()}, [w])
    {'a': 0.75, 'b': 0.25}
    """
    parameters = [p for p in parameters if p.requires_grad]
    names = [
        name for name, term in weighted_terms.items() if term.requires_grad
    ]
    norms = []
    for position, name in enumerate(names):
        gradients = torch.autograd.grad(
            weighted_terms[name],
            parameters,
            # The terms share the student's forward pass.
            retain_graph=retain_graph or position < len(names) - 1,
            allow_unused=True,
        )
        norms.append(
            torch.stack(
                [g.float().norm() for g in gradients if g is not None]
                or [torch.zeros((), device=parameters[0].device)]
            ).norm()
        )
    shares = dict.fromkeys(weighted_terms, 0.0)
    if norms:
        # One transfer for all terms.
        values = torch.stack(norms).tolist()
        total = sum(values)
        if total > 0:
            shares.update(
                (name, value / total) for name, value in zip(names, values)
            )
    return shares
