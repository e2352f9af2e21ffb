"""Folders in the formats of SpeechBrain's public models and of its training."""

import io

import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from synthetic import TRAIN_SPEAKERS

from speechbrain.dataio.encoder import CategoricalEncoder

SPEAKERS = [*TRAIN_SPEAKERS, "id10001", "id10270", "id00012", "id09272"]

# Key by key as the public ECAPA has them, with few channels.
HUB = """\
n_mels: {n_mels}
pretrained_path: speechbrain/spkrec-ecapa-voxceleb
out_n_neurons: {n_classes}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [8, 8, 8, 8, 24]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    se_channels: 8
    lin_neurons: 12

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: !ref <out_n_neurons>
"""
HUB_ALONE = """
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""
# What a training's YAML has beside the model: none of it can be built here.
RUN_ALONE = """
seed: 1986
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
sample_rate: 16000
add_noise: !new:speechbrain.augment.time_domain.AddNoise
    csv_file: results/no/such/noise.csv
    clean_sample_rate: !ref <sample_rate>
modules:
    compute_features: !ref <compute_features>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    mean_var_norm: !ref <mean_var_norm>
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <no_such_folder>/save
    recoverables:
        embedding_model: !ref <embedding_model>
        normalizer: !ref <mean_var_norm>
no_such_folder: results/no/such
"""


def write_encoder(folder, speakers):
    """The label encoder of SpeechBrain's recipe."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(speakers)
    encoder.save(folder / "label_encoder.txt")


def write_parts(folder, text, seed):
    """Random weights of the embedding model and the classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    hparams = load_hyperpyyaml(text)
    for name in ("embedding_model", "classifier"):
        torch.save(hparams[name].state_dict(), folder / f"{name}.ckpt")
    return hparams


def write_hub_model(folder, speakers=SPEAKERS, n_mels=20):
    """A folder in the format of ``speechbrain/spkrec-ecapa-voxceleb``."""
    text = HUB.format(n_mels=n_mels, n_classes=len(speakers)) + HUB_ALONE
    hparams = write_parts(folder, text, seed=1)
    norm = hparams["mean_var_norm_emb"].train()
    norm(torch.randn(4, 1, 12), torch.ones(4))
    norm._save(folder / "mean_var_norm_emb.ckpt")
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    write_encoder(folder, speakers)
    return folder


def write_run(folder):
    """What SpeechBrain's training leaves; its second epoch is the best."""
    # Its number of classes was typed by hand, and not made to fit.
    text = HUB.format(n_mels=20, n_classes=len(SPEAKERS) + 3)
    figures = {
        "CKPT+1": "epoch: 1\nErrorRate: 0.5\n",
        "CKPT+2": "epoch: 2\nErrorRate: 0.25\n",
        "CKPT+3": "epoch: 3\nErrorRate: 0.3\n",
        # Within an epoch, and one that was killed while it was written.
        "CKPT+4": "epoch: 4\nintra-epoch-ckpt: true\n",
        "CKPT+5": "epoch: 4\nErrorRate: 0.1\n",
    }
    for number, (name, meta) in enumerate(figures.items()):
        place = folder / "save" / name
        write_parts(place, text, seed=number)
        meta = f"unixtime: {number}.0\nend-of-epoch: true\n{meta}"
        (place / "CKPT.yaml").write_text(meta, encoding="utf-8")
    (folder / "save" / "CKPT+5" / "embedding_model.ckpt").unlink()
    write_encoder(folder / "save", SPEAKERS)
    # As speechbrain.core.create_experiment_directory writes it.
    resolved = resolve_references(io.StringIO(text + RUN_ALONE)).getvalue()
    (folder / "hyperparams.yaml").write_text(resolved, encoding="utf-8")
    return folder
