"""The model card: a README.md with a YAML head, as model hubs read it.

Authors: IML-KD contributors
"""

import io
import json
from pathlib import Path

from ruamel.yaml import YAML

from imlkd_brain.errors import UserError
from imlkd_brain.files import read_json, write_whole

CARD = "README.md"
DECISION = "decision.json"
TAGS = ("speechbrain", "speaker-verification", "speaker-embeddings")

USE = """\
```python
from speechbrain.inference.speaker import SpeakerRecognition

model = SpeakerRecognition.from_hparams(source=FOLDER, savedir=FOLDER)
score, _ = model.verify_files("a.wav", "b.wav")
```

`FOLDER` is this folder. `score` is the cosine of the two embeddings."""
USE_ONNX = """\
Without SpeechBrain, through onnxruntime:

```python
import onnxruntime

session = onnxruntime.InferenceSession(FOLDER + "/waveform.onnx")
(embeddings,) = session.run(None, {"waveform": waveforms})
```

`waveforms` is float32, (batch, samples), between -1 and 1, all of one length."""


def write_card(
    folder, about, model, size, facts=None, results=None, rows=(), beside=()
):
    """Write the card of a model into its folder.

    Arguments
    ---------
    folder : Path
        The exported folder. Its name is the model's; a ``decision.json`` there
        gives the threshold.
    about : dict
        What only its maker knows, None where that is not said: ``license``,
        ``language`` (a list), ``training_data``, ``teacher``, ``method`` and
        ``limits``.
    model : imlkd_brain.models.speaker_model.SpeakerModel
        The model.
    size : tuple of int
        Parameters and multiply-accumulates for 3 s.
    facts : dict, optional
        What :func:`imlkd_brain.models.deployment.write_deployment` returned.
    results : str or Path, optional
        A ``results.json`` of ``verify.py``: its error rates go into the card,
        those of other models beside those of this one.
    rows : sequence of dict
        Error rates of the graphs, with ``model``, ``list``, ``duration`` and
        ``eer``.
    beside : sequence of dict
        The same of other models on the lists of the results, which the table
        shows beside this one.

    Raises
    ------
    UserError
        If the results cannot be read or do not have this model.
    """
    measured, ours = read_results(results, model.key) if results else ([], None)
    head = {
        "license": about["license"] or "unknown",
        "language": about["language"] or [],
        "library_name": "speechbrain",
        "tags": list(TAGS),
        "metrics": ["eer"],
        "model-index": _index(folder.name, measured, ours),
    }
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump({key: value for key, value in head.items() if value}, stream)
    graphs = (facts or {}).get("graphs", {})
    parts = [
        f"---\n{stream.getvalue()}---\n",
        f"# {folder.name}\n",
        f"Speaker embeddings of {model.embedding_dim} numbers from "
        f"{model.sample_rate} Hz speech: {size[0] / 1e6:.2f} M parameters, "
        f"{size[1] / 1e6:.0f} M multiply-accumulates for 3 s.\n",
        f"## Use\n\n{USE}\n",
    ]
    if "waveform.onnx" in graphs:
        parts.append(f"{USE_ONNX}\n")
    threshold = _threshold(folder)
    if threshold:
        parts.append(f"{threshold}\n")
    for title, key in (
        ("Training data", "training_data"),
        ("Teacher", "teacher"),
        ("Method", "method"),
    ):
        if about[key]:
            parts.append(f"## {title}\n\n{about[key]}\n")
    if measured:
        parts.append(
            "## Error rates\n\nEER in % by seconds of test speech, on voices "
            f"that this model never learnt.\n\n{_table([*measured, *beside])}\n"
        )
    if graphs:
        parts.append(f"## ONNX\n\n{_graphs_table(graphs)}\n")
    if rows:
        parts.append(f"EER in %:\n\n{_table(rows)}\n")
    if about["limits"]:
        parts.append(f"## What it is not good for\n\n{about['limits']}\n")
    write_whole(folder / CARD, "\n".join(parts))


def read_results(path, key):
    """Read error rates of ``verify.py``.

    Arguments
    ---------
    path : str or Path
        Its ``results.json``.
    key : str
        Of the model that the card is for.

    Returns
    -------
    rows : list of dict
        Of all models, each with ``model``, ``list``, ``group``, ``duration``
        and ``eer``.
    name : str
        The model's name there.

    Raises
    ------
    UserError
        If the file cannot be read, or the model is not in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows, models = content["results"], content["models"]
        names = [name for name, one in models.items() if one["key"] == key]
        for row in rows:
            row["list"], row["duration"], float(row["eer"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not readable as results of verify.py "
            f"({type(error).__name__}); give its results.json, or null."
        ) from error
    if not names:
        raise UserError(
            f"{path}: these results are of other models than this one "
            f"({', '.join(models)}); run verify.py with it, or give null."
        )
    return rows, names[0]


def _index(name, rows, ours):
    """The figures of this model in the form of a hub's model index."""
    rows = [row for row in rows if row["model"] == ours]
    lists = dict.fromkeys(_title(row) for row in rows)
    if not lists:
        return None
    return [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": "speaker-verification"},
                    "dataset": {"name": title, "type": title},
                    "metrics": [
                        {
                            "type": "eer",
                            "name": f"EER %, {row['duration']}",
                            "value": round(100 * float(row["eer"]), 2),
                        }
                        for row in rows
                        if _title(row) == title
                    ],
                }
                for title in lists
            ],
        }
    ]


def _title(row):
    """A list, and the group of its speakers."""
    group = row.get("group", "all")
    return row["list"] if group == "all" else f"{row['list']}, {group}"


def _table(rows):
    """EER by duration, a row for each list and model."""
    durations = list(dict.fromkeys(row["duration"] for row in rows))
    lines = [
        f"| list | model | {' | '.join(durations)} |",
        "|---" * (2 + len(durations)) + "|",
    ]
    found = {
        (_title(row), row["model"], row["duration"]): f"{100 * row['eer']:.2f}"
        for row in rows
    }
    names = dict.fromkeys(name for _, name, _ in found)
    for title in dict.fromkeys(key[0] for key in found):
        for name in names:
            cells = [found.get((title, name, one), "-") for one in durations]
            if set(cells) != {"-"}:
                lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _graphs_table(graphs):
    """Files, what they read, and how far they are from PyTorch."""
    lines = [
        "| file | reads | kB | largest distance to PyTorch at unit length |",
        "|---|---|---|---|",
    ]
    for name, graph in graphs.items():
        distance = graph["largest_distance_to_pytorch"]
        said = "see EER" if distance is None else f"{distance:.1e}"
        lines.append(
            f"| `{name}` | {graph['reads']} | {graph['bytes'] / 1000:.0f} | "
            f"{said} |"
        )
    return "\n".join(lines)


def _threshold(folder):
    """A sentence on the threshold that the folder carries."""
    path = folder / DECISION
    if not path.is_file():
        return None
    decision = read_json(path)
    needed = {"threshold", "eer", "trials", "list", "duration"}
    if not needed <= decision.keys():
        raise UserError(
            f"{path}: not a readable decision; write it anew with verify.py's "
            "`--decision_list` and `--store_decision True`, or delete it."
        )
    return (
        f"Scores above {decision['threshold']:.3f} are of one speaker: the "
        f"threshold at the EER ({100 * decision['eer']:.1f} %) of "
        f"{decision['trials']} dev trials ({decision['list']}, "
        f"{decision['duration']})."
    )
