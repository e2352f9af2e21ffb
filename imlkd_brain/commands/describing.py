"""``imlkd info``.

Authors: IML-KD contributors
"""

import os
import sys

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from imlkd_brain.commands.common import say
from imlkd_brain.commands.exit_codes import YES
from imlkd_brain.models.decision import (
    DECISION_FILE,
    fingerprint,
    read_decision,
)
from imlkd_brain.models.features import hop_samples
from imlkd_brain.models.folder import (
    EXECUTED,
    find_inference_folder,
    load_speaker_model,
)
from imlkd_brain.models.shipped import default_model
from imlkd_brain.models.size import model_size
from imlkd_brain.models.sources import only_keys, run_of
from imlkd_brain.models.trust import code_of, trust
from imlkd_brain.trained_with import read_record
from imlkd_brain.verification.gallery import read_gallery

MACS_SECONDS = 3.0
CARD = "README.md"
# What of a training's options says how a model came about.
OPTIONS = ("method", "seed", "number_of_epochs", "sentence_len", "teacher")


def _trust(folder):
    """Let a model's description run what it names."""
    run = run_of(folder)
    text = ((run or folder) / "hyperparams.yaml").read_text(encoding="utf-8")
    if run is not None:
        text = only_keys(text, EXECUTED)
    code = code_of(text)
    trust(text)
    print(
        f"{folder}: trusted from now on; loading it runs "
        f"{', '.join(code) or 'nothing of its maker'}.",
        file=sys.stderr,
    )


def info(arguments):
    """Describe a model or a gallery."""
    name = arguments.model
    if name and name.endswith(".npz"):
        return _describe_gallery(name, arguments.json)
    folder = find_inference_folder(name or default_model())
    if arguments.trust:
        _trust(folder)
    model = load_speaker_model(folder)
    decision = read_decision(folder, model)
    parameters, macs = model_size(model, MACS_SECONDS)
    card = read_card(folder / CARD)
    record = (read_record(folder) or {}).get("hyperparameters", {})
    options = {key: record[key] for key in OPTIONS if key in record}
    size = sum(
        entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()
    )
    weights = (folder / "embedding_model.ckpt").stat().st_size
    content = {
        "folder": str(folder),
        "fingerprint": fingerprint(model),
        "network": type(model.embedding_model).__name__,
        "parameters": parameters,
        "macs": macs,
        "macs_seconds": MACS_SECONDS,
        "weights_bytes": weights,
        "folder_bytes": size,
        "embedding_dimension": model.embedding_dim,
        "front_end": front_end(model),
        "training": {
            "speakers": len(model.speakers),
            "teacher_speakers": len(model.teacher_speakers),
            "datasets": card.get("datasets"),
            **options,
        },
        "licence": card.get("license"),
        "decision": None,
    }
    if decision is not None:
        content["decision"] = {
            "threshold": decision.threshold,
            "eer": decision.eer,
            "trials": decision.trials,
            "list": decision.list,
            "duration": decision.duration,
        }
    say(arguments.json, content, _as_text(content))
    return YES


def front_end(model):
    """Describe the features of a model.

    Arguments
    ---------
    model : SpeakerModel
        On the CPU.

    Returns
    -------
    dict
        Class, sampling rate (Hz), number of features of a frame, hop
        (samples) and normalisation.
    """
    import torch

    with torch.inference_mode():
        feats = model.features(torch.zeros(1, model.sample_rate))
    return {
        "features": type(model.compute_features).__name__,
        "sample_rate": model.sample_rate,
        "dimension": feats.shape[-1],
        "hop_samples": hop_samples(model.compute_features, model.sample_rate),
        "normalisation": getattr(
            model.mean_var_norm, "norm_type", type(model.mean_var_norm).__name__
        ),
    }


def read_card(path):
    """Return the YAML head of a model card; {} where there is none.

    Arguments
    ---------
    path : Path
        A ``README.md`` that begins with a block between two lines ``---``.

    Returns
    -------
    dict
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not text.startswith("---\n"):
            return {}
        head = YAML(typ="safe").load(text.split("\n---", 1)[0])
        return head if isinstance(head, dict) else {}
    except (OSError, UnicodeDecodeError, YAMLError):
        # The card is for readers; the model is the same without it.
        return {}


def _as_text(content):
    """The description for people."""
    front, training = content["front_end"], content["training"]
    own, others = training["speakers"], training["teacher_speakers"]
    if own and others:
        learnt = f"{own} speakers, its teacher on {others}"
    elif own or others:
        learnt = f"{own or others} speakers"
    else:
        learnt = "the folder does not say on which speakers"
    if training["datasets"]:
        learnt += f"; {', '.join(map(str, training['datasets']))}"
    options = [f"{key} {training[key]}" for key in OPTIONS if key in training]
    if options:
        learnt += f"; {', '.join(options)}"
    decision = content["decision"]
    error = f"not measured: no {DECISION_FILE}"
    if decision:
        error = (
            f"{100 * decision['eer']:.2f} % at threshold "
            f"{decision['threshold']:.3f} ({decision['trials']} trials of "
            f"{decision['list']}, test speech {decision['duration']})"
        )
    rows = {
        "model": content["folder"],
        "fingerprint": content["fingerprint"],
        "network": f"{content['network']}, embeddings of "
        f"{content['embedding_dimension']} numbers",
        "parameters": f"{content['parameters'] / 1e6:.3f} M",
        "MACs": f"{content['macs'] / 1e9:.3f} G for "
        f"{content['macs_seconds']:g} s of speech",
        "size": f"{content['weights_bytes'] / 1e6:.2f} MB of weights, "
        f"{content['folder_bytes'] / 1e6:.2f} MB with all files",
        "front end": f"{front['features']}, {front['dimension']} numbers every "
        f"{1000 * front['hop_samples'] / front['sample_rate']:g} ms, "
        f"{front['sample_rate']} Hz, normalised by {front['normalisation']}",
        "trained on": learnt,
        "EER": error,
    }
    if content["licence"]:
        rows["licence"] = content["licence"]
    width = max(map(len, rows)) + 2
    return "\n".join(f"{key:{width}}{value}" for key, value in rows.items())


def _describe_gallery(path, as_json):
    """List the speakers of a gallery."""
    gallery = read_gallery(path)
    counts = gallery.counts()
    lines = [f"{name}: {number} recordings" for name, number in counts.items()]
    lines.append(f"{len(counts)} speakers, model {gallery.fingerprint}")
    say(
        as_json,
        {"speakers": counts, "fingerprint": gallery.fingerprint},
        "\n".join(lines),
    )
    return YES
