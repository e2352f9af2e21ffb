"""Exported folders hold the trained model, whatever it was wrapped in."""

import pytest
import torch
from synthetic import TRAIN_SPEAKERS, load_yaml, resolved_yaml, small_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.export import (
    TrainedModel,
    export_inference_folder,
    unwrapped,
)
from imlkd_brain.models.folder import load_speaker_model
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.speaker import SpeakerRecognition


@pytest.fixture
def trained(tmp_path):
    """What an export needs, of a model with used BatchNorm statistics."""
    options = {
        "data_folder": "none",
        "output_folder": str(tmp_path),
        **small_model(),
    }
    resolved = resolved_yaml("train_teacher", options)
    (tmp_path / "hyperparams.yaml").write_text(resolved)
    hparams = load_yaml("train_teacher", options)
    encoder = CategoricalEncoder()
    for speaker in TRAIN_SPEAKERS:
        encoder.add_label(speaker)
    torch.manual_seed(1)
    hparams["embedding_model"](torch.randn(4, 40, hparams["n_mels"]))
    return {
        "folder": tmp_path / "inference",
        "hyperparameters": tmp_path / "hyperparams.yaml",
        "embedding_model": hparams["embedding_model"],
        "classifier": hparams["classifier"](out_neurons=len(encoder)),
        "label_encoder": encoder,
        "compute_features": hparams["compute_features"],
        "mean_var_norm": hparams["mean_var_norm"],
    }


def export(trained):
    """Export the modules of the fixture."""
    modules = dict(trained)
    places = modules.pop("folder"), modules.pop("hyperparameters")
    return export_inference_folder(*places, TrainedModel(**modules))


def embed(trained, wavs):
    """Embeddings of the trained modules in evaluation mode."""
    model = trained["embedding_model"].eval()
    with torch.no_grad():
        feats = trained["compute_features"](wavs)
        feats = trained["mean_var_norm"](feats, torch.ones(len(wavs)))
        return model(feats).squeeze(1)


class Parallel(torch.nn.DataParallel):
    """As on one device: it only hands its input on."""


def compiled(module):
    return torch.compile(module, backend="eager")


def compiled_inside(module):
    """Only a block of the model, as regional compilation does it."""
    module.blocks[1] = compiled(module.blocks[1])
    return module


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        lambda module: Parallel(compiled(module)),
        lambda module: compiled(Parallel(compiled(compiled_inside(module)))),
    ],
)
def test_a_wrapped_model_is_exported_as_the_model(trained, wrap):
    wavs = torch.randn(2, 12000)
    wanted = embed(trained, wavs)
    names = list(trained["embedding_model"].state_dict())
    for name in ("embedding_model", "classifier"):
        if name == "classifier" and wrap is not compiled:
            continue
        trained[name] = wrap(trained[name])
    modes = [m.training for m in trained["embedding_model"].modules()]
    folder = export(trained)
    # As it was, wrapped and in the same mode.
    assert modes == [m.training for m in trained["embedding_model"].modules()]
    assert names != list(trained["embedding_model"].state_dict())
    assert names == list(torch.load(folder / "embedding_model.ckpt"))

    loaded = load_speaker_model(folder)
    torch.testing.assert_close(loaded.embed(wavs), wanted)
    theirs = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(folder)
    )
    found = theirs.encode_batch(wavs, normalize=False).squeeze(1)
    torch.testing.assert_close(found, wanted)


def test_a_submodule_of_the_name_module_is_no_wrapper():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.Linear(2, 2)

    model = Model()
    assert unwrapped(model) is model
    assert unwrapped(torch.nn.DataParallel(model)) is model


def test_another_model_than_the_trained_one_does_not_replace_an_export(
    trained,
):
    export(trained)
    kept = {p: p.read_bytes() for p in trained["folder"].iterdir()}
    # Trained on other features than those that the YAML describes.
    trained["mean_var_norm"] = torch.nn.Identity()
    trained["mean_var_norm"].forward = lambda feats, lens: feats + 1.0
    with pytest.raises(UserError, match="other embeddings than the trained"):
        export(trained)
    assert kept == {p: p.read_bytes() for p in trained["folder"].iterdir()}
    # Nor does one that diverged.
    del trained["mean_var_norm"]
    next(trained["embedding_model"].parameters()).data[:] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        export(trained)
    assert kept == {p: p.read_bytes() for p in trained["folder"].iterdir()}
