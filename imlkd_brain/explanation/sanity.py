"""The parameter-randomisation check [1] of saliency maps.

A map that stays the same when the network's parameters are shuffled shows the
utterance, not the network.

References
----------
[1] J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.

Authors: IML-KD contributors
"""

import copy
from dataclasses import dataclass

import torch

from imlkd_brain.explanation.agreement import rank_correlation
from imlkd_brain.explanation.map_sets import identity
from imlkd_brain.explanation.maps import saliency_map
from imlkd_brain.explanation.scores import SHUFFLED, Subject
from imlkd_brain.explanation.tasks import Task, seeded


def shuffle_parameters(module, generator=None):
    """Permute the entries of each parameter of ``module`` in place.

    The distribution of the parameters stays, and so does the scale of the
    activations. What the network has learnt is gone.

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
    """Shuffle a copy of a network step by step, from the output down.

    Arguments
    ---------
    network : torch.nn.Module
        The embedding network. The steps are its direct children and the items
        of its lists, in the reverse order of their registration.
    generator : torch.Generator
        On the CPU.

    Yields
    ------
    name : str
        The child that this step shuffles.
    network : torch.nn.Module
        The copy, in which this child and all before it are shuffled. The next
        step changes it. After the last step it is shuffled as a whole.
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


@dataclass
class Similarity:
    """How far maps change when a network is shuffled down to a layer.

    Attributes
    ----------
    method : str
        The saliency method.
    step : str
        The layer down to which the parameters are shuffled.
    values : torch.Tensor
        Shape (U,), rank correlation of each map with the intact network's.
    """

    method: str
    step: str
    values: torch.Tensor


def all_sanity(subjects, maps, duration, n_utterances, plan):
    """Compute, or read, the check of every model but the shuffled control.

    Arguments
    ---------
    subjects : dict of str to Subject
        The models by name, on held-out speakers.
    maps : dict
        From :func:`imlkd_brain.explanation.map_sets.all_maps`.
    duration : float or str
        Which maps are compared.
    n_utterances : int
        How many of the utterances.
    plan : MapPlan
        How maps are made.

    Returns
    -------
    similarities : dict of str to list of Similarity
        By the name of the model.
    """
    similarities = {}
    with plan.progress("sanity", "step") as progress:
        for name, subject in subjects.items():
            if name == SHUFFLED:
                continue

            def compute(subject=subject, kept=maps[name][duration]):
                return compute_sanity(
                    subject, kept, n_utterances, plan, progress
                )

            similarities[name] = plan.kept(
                f"sanity_{name}",
                [*identity(subject, duration, plan), n_utterances],
                Similarity,
                compute,
            )
    return similarities


def compute_sanity(subject, map_set, n_utterances, plan, progress):
    """Compare the first maps with those of the network while it is shuffled.

    Arguments
    ---------
    subject : Subject
        The intact model and the utterances.
    map_set : MapSet
        Its maps.
    n_utterances : int
        How many of the utterances.
    plan : MapPlan
        How maps are made. The random control is left out.
    progress : tqdm.tqdm
        Counts the steps.

    Returns
    -------
    similarities : list of Similarity
    """
    task = subject.task
    chosen = range(min(n_utterances, len(task.utterances)))
    part = Task(
        task.name,
        [task.utterances[i] for i in chosen],
        [task.enrolments[task.own[i]] for i in chosen],
        list(chosen),
    )
    generator = seeded(plan.seed, "shuffle", subject.name)
    model = copy.deepcopy(subject.model)
    found = {}
    for step, network in parameter_cascade(model.embedding_model, generator):
        model.embedding_model = network
        shuffled = Subject(subject.name, model, part)
        for indices, batch in shuffled.batches(
            [map_set.features[i] for i in chosen], plan.batch_frames
        ):
            for method, options in plan.methods.items():
                if method == "random":
                    continue
                attribution, _ = saliency_map(method, batch, options)
                intact = [map_set.maps[method][i] for i in indices]
                similarity = found.setdefault(
                    (method, step),
                    Similarity(method, step, torch.zeros(len(chosen)).double()),
                )
                similarity.values[indices] = rank_correlation(
                    attribution.cpu(), torch.stack(intact)
                )
        progress.update(1)
    return list(found.values())


def shuffled_control(model, seed):
    """Copy a student and shuffle its parameters: it has learnt nothing.

    All maps of an utterance share its loud bins. Only agreement with the
    teacher beyond this control's is fidelity.

    Arguments
    ---------
    model : SpeakerModel
        The student.
    seed : int
        Of the shuffling.

    Returns
    -------
    control : SpeakerModel
        The copy, with its own ``key``.
    """
    control = copy.deepcopy(model)
    shuffle_parameters(control, seeded(seed, SHUFFLED))
    control.key = f"{model.key} {SHUFFLED} {seed}"
    return control
