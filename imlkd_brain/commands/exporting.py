"""``imlkd export``.

Authors: IML-KD contributors
"""

from pathlib import Path

from imlkd_brain.commands.common import say
from imlkd_brain.commands.exit_codes import YES
from imlkd_brain.errors import UserError
from imlkd_brain.models.card import write_card
from imlkd_brain.models.deployment import check_place, write_deployment
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model
from imlkd_brain.models.onnx_runtime import require_onnx
from imlkd_brain.models.shipped import default_model
from imlkd_brain.models.size import model_size

# What only a model's maker knows; export.py reads it from its YAML.
ABOUT = dict.fromkeys(
    ("license", "language", "training_data", "teacher", "method", "limits")
)


def export(arguments):
    """Write a folder to deploy, with ONNX graphs if asked."""
    if arguments.graphs:
        require_onnx()
    elif arguments.int8:
        raise UserError(
            "--int8: it is of graphs; give `--graphs waveform` with it."
        )
    folder = Path(arguments.out)
    check_place(folder, "--out")
    source = find_inference_folder(arguments.model or default_model())
    model = load_speaker_model(source)
    facts = write_deployment(
        source, folder, arguments.graphs, arguments.int8, arguments.seed
    )
    write_card(folder, ABOUT, model, model_size(model), facts)
    lines = [f"{source} exported to {folder}"]
    for name, graph in facts["graphs"].items():
        line = f"{name}: {graph['bytes'] / 1e6:.2f} MB"
        if graph["largest_distance_to_pytorch"] is not None:
            distance = graph["largest_distance_to_pytorch"]
            line += f", largest distance to PyTorch {distance:.2g}"
        lines.append(line)
    say(arguments.json, {"folder": str(folder), **facts}, "\n".join(lines))
    return YES
