"""Unit tests of ``imlkd_brain.models.keys``: networks that cannot be built."""

import copy

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.models.keys import (
    CLASSIFIER,
    ECAPA,
    FBANK,
    check_layout,
    fewest_frames,
)
from imlkd_brain.schema import Made
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

LAYOUT = {
    "input_size": 20,
    "channels": [8, 8, 8, 8, 24],
    "kernel_sizes": [5, 3, 3, 3, 1],
    "dilations": [1, 2, 3, 4, 1],
    "groups": [1, 1, 1, 1, 1],
    "attention_channels": 8,
    "se_channels": 8,
    "lin_neurons": 16,
}
VALUES = {
    "compute_features": Made(FBANK, [], {"n_mels": 20}),
    "embedding_model": Made(ECAPA, [], LAYOUT),
    "classifier": Made(CLASSIFIER, [], {"input_size": 16}),
}


def changed(**arguments):
    values = copy.deepcopy(VALUES)
    values["embedding_model"].kwargs.update(arguments)
    return values


def runs(values, frames=50):
    """Whether SpeechBrain builds the network and it takes an input."""
    try:
        model = ECAPA_TDNN(**values["embedding_model"].kwargs).eval()
        return model(torch.randn(2, frames, 20)).shape == (2, 1, 16)
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": [8, 12, 8, 8, 24]}, "channels.*12 is no multiple of 8"),
        ({"channels": [8, 8, 8, 24]}, "kernel_sizes.*list of 4 entries"),
        ({"dilations": [1, 2, 3, 4]}, "dilations.*list of 5 entries"),
        ({"groups": [3, 1, 1, 1, 1]}, "groups.*layer 0"),
        ({"res2net_scale": 3}, "no multiple of 3"),
        ({"input_size": 40}, "input_size is 40.*number of features, 20"),
    ],
)
def test_layouts_that_cannot_be_built_are_named(arguments, words):
    values = changed(**arguments)
    assert not runs(values)
    with pytest.raises(UserError, match=f"embedding_model.*{words}"):
        check_layout(values)


def test_a_list_that_is_too_short_is_named_also_where_its_end_is_reused():
    with pytest.raises(UserError, match="groups.*list of 5 entries"):
        check_layout(changed(groups=[1, 1, 1, 1]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"channels": [16, 32, 32, 32, 50]},
        {"groups": [2, 1, 1, 1, 2]},
        {"res2net_scale": 4, "channels": [8, 12, 12, 12, 24]},
        {
            "channels": [8, 8, 24],
            "kernel_sizes": [5, 3, 1],
            "dilations": [1, 2, 1],
            "groups": [1, 1, 1],
        },
    ],
)
def test_layouts_that_can_be_built_pass(arguments):
    values = changed(**arguments)
    assert runs(values)
    check_layout(values)


def test_the_classifier_takes_the_embeddings():
    values = copy.deepcopy(VALUES)
    values["classifier"].kwargs["input_size"] = 17
    with pytest.raises(UserError, match="classifier.input_size is 17.* 16"):
        check_layout(values)


def test_another_network_is_not_judged():
    values = changed(channels=[1, 2])
    values["embedding_model"] = Made("Mine", [], {"channels": [1, 2]})
    check_layout(values)
    assert fewest_frames(values) == 1


@pytest.mark.parametrize("dilations", [[1, 2, 3, 4, 1], [1, 2, 3, 9, 1]])
def test_the_fewest_frames_are_what_the_network_takes(dilations):
    values = changed(dilations=dilations)
    fewest = fewest_frames(values)
    assert runs(values, fewest) and not runs(values, fewest - 1)
