"""The parameter-randomisation check [1] of saliency maps.

A map that stays the same when the network's parameters are shuffled shows the
utterance, not the network.

References
----------
[1] J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.

Authors: IML-KD contributors
"""

import copy

import torch

from imlkd_brain.explanation.agreement import rank_correlation
from imlkd_brain.explanation.maps import saliency_map
from imlkd_brain.explanation.tasks import (
    SHUFFLED,
    Task,
    enrol,
    equal_lengths,
    score_of,
    seeded,
)


def shuffle_parameters(module, generator=None):
    """Permute the entries of each parameter of ``module`` in place.

    Their distribution, and so the scale of the activations, stays; what they
    learnt goes.

    Arguments
    ---------
    module : torch.nn.Module
        Any module.
    generator : torch.Generator
        On the CPU.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            shuffle = torch.randperm(parameter.numel(), generator=generator)
            flat = parameter.flatten()[shuffle.to(parameter.device)]
            parameter.copy_(flat.view_as(parameter))


def parameter_cascade(network, generator=None):
    """Copies of a network, shuffled deeper and deeper from the output down.

    Arguments
    ---------
    network : torch.nn.Module
        The embedding network. Its direct children, and the items of its
        lists, are the steps, in the order they were registered.
    generator : torch.Generator
        On the CPU.

    Yields
    ------
    name : str
        The child that is shuffled now, besides those before.
    network : torch.nn.Module
        The copy, in which this is so. The last one is shuffled whole.
    """
    network = copy.deepcopy(network)
    children = []
    for name, child in network.named_children():
        if isinstance(child, torch.nn.ModuleList | torch.nn.Sequential):
            children += [(f"{name}.{i}", item) for i, item in enumerate(child)]
        else:
            children.append((name, child))
    for name, child in reversed(children):
        if any(True for _ in child.parameters()):
            shuffle_parameters(child, generator)
            yield name, network


def compute_sanity(task, name, model, kept, hparams, device, progress):
    """How far maps change while the network is shuffled from the output down.

    Returns
    -------
    similarity : dict
        From ``method/step`` to the rank correlation of each utterance's map
        with the intact network's, shape (N,).
    """
    methods = {m: o for m, o in hparams["methods"].items() if m != "random"}
    generator = seeded(hparams["seed"], "shuffle", name)
    chosen = range(min(hparams["n_sanity"], len(task.utterances)))
    part = Task(
        task.name,
        [task.utterances[i] for i in chosen],
        [task.enrolments[task.own[i]] for i in chosen],
        list(chosen),
    )
    feats = [kept["feats"][i] for i in chosen]
    similarity = {}
    for step, network in parameter_cascade(model.embedding_model, generator):
        # Grad-CAM finds its layer by the name it has in the whole model.
        holder = torch.nn.ModuleDict({"embedding_model": network})

        def embed(x, network=network):
            return network(x).squeeze(1)

        enrolled = enrol(part, model, embed, device)
        score, target = score_of(part, model, embed, enrolled, device)
        for indices in equal_lengths(feats, hparams["batch_frames"]):
            batch = torch.stack([feats[i] for i in indices]).to(device)
            for method, options in methods.items():
                shuffled, _ = saliency_map(
                    method,
                    score,
                    batch,
                    target[indices],
                    model=holder,
                    options=options,
                    batch_frames=hparams["batch_frames"],
                )
                intact = torch.stack([kept["maps"][method][i] for i in indices])
                rho = rank_correlation(shuffled.cpu(), intact)
                place = similarity.setdefault(
                    f"{method}/{step}", torch.zeros(len(feats)).double()
                )
                place[indices] = rho
        progress.update(1)
    return similarity


def add_shuffled_control(models, seed):
    """The last student with shuffled parameters: it has learnt nothing.

    All maps of one utterance have its loud bins in common. What this network
    shares with the teacher is no fidelity, only what a student shares beyond.
    """
    student = list(models.values())[-1]
    control = copy.deepcopy(student)
    shuffle_parameters(control, seeded(seed, SHUFFLED))
    control.key = f"{student.key} {SHUFFLED} {seed}"
    models[SHUFFLED] = control
