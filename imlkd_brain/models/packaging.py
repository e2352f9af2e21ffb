"""From a trained model to the small folder that travels with the package.

It verifies and embeds. The classes of its training speakers are left out, which
nobody needs any more, and its weights are stored in half precision.

Authors: IML-KD contributors
"""

import shutil
from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.files import replace_folder
from imlkd_brain.models.export import write_names
from imlkd_brain.models.folder import TEACHER_SPEAKERS, load_speaker_model
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

LARGEST = 1_000_000  # bytes of a packed folder, so that it can lie in git
LARGEST_ERROR = 0.01  # of the embeddings, in half precision


@torch.no_grad()
def pack(source, folder):
    """Write a model for verification alone, in half precision.

    The folder is built beside its place, loaded back, compared with the
    source and renamed.

    Arguments
    ---------
    source : str or Path
        See :func:`imlkd_brain.models.folder.load_speaker_model`; it has an
        ``inference`` folder of this recipe.
    folder : str or Path
        Where the model goes; an older one is replaced.

    Returns
    -------
    folder : Path
        The folder written.

    Raises
    ------
    UserError
        If the packed model is too large for git, or answers otherwise than
        the source.
    """
    # It reads YAML with comments and tags, and takes a while to import.
    from ruamel.yaml import YAML

    model = load_speaker_model(source)
    inference = Path(source)
    if (inference / "inference").is_dir():
        inference = inference / "inference"
    folder = Path(folder)
    building = folder.with_name(f".{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with open(inference / "hyperparams.yaml", encoding="utf-8") as stream:
        description = YAML().load(stream)
    for place in (
        description,
        description["modules"],
        description["pretrainer"]["loadables"],
    ):
        for name in ("classifier", "label_encoder"):
            place.pop(name, None)
    with open(building / "hyperparams.yaml", "w", encoding="utf-8") as stream:
        YAML().dump(description, stream)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.embedding_model.state_dict().items()
    }
    torch.save(state, building / "embedding_model.ckpt")
    # A speaker at another speed is the same person.
    people = {name.split("-sp")[0] for name in model.learnt_speakers}
    write_names(building / TEACHER_SPEAKERS, sorted(people))
    _check(building, model)
    replace_folder(building, folder)
    return folder


def _check(folder, model):
    """Refuse a packed model that is too large, or another one."""
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    if size > LARGEST:
        raise UserError(
            f"{folder}: has {size:,} bytes, but a model in the package should "
            f"have at most {LARGEST:,}; train a smaller one."
        )
    packed = load_speaker_model(folder)
    wavs = torch.randn(
        1,
        2 * model.sample_rate,
        generator=torch.Generator().manual_seed(0),
    )
    ours, theirs = (one.embed(wavs).flatten() for one in (model, packed))
    error = float((ours - theirs).norm() / ours.norm())
    if not error <= LARGEST_ERROR:
        raise UserError(
            f"{folder}: in half precision the model answers otherwise "
            f"(relative difference {error:.2g}); keep it in float32."
        )
    logger.info(
        f"{folder}: {size:,} bytes, embeddings differ by {error:.2g} of their "
        "length from those in float32."
    )
