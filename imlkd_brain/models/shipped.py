"""The models in the package: there after ``pip install``, known by name.

Such a model is a folder ``shipped/<name>`` beside this file, of the format that
:mod:`imlkd_brain.models.folder` reads.

Authors: IML-KD contributors
"""

from pathlib import Path

from imlkd_brain.errors import UserError

SHIPPED = Path(__file__).with_name("shipped")


def shipped_models():
    """Return the folders of the models in the package.

    Returns
    -------
    dict
        Folders by name, sorted. The first is the default of the command.
    """
    return {
        folder.name: folder
        for folder in sorted(SHIPPED.glob("*"))
        if (folder / "embedding_model.ckpt").is_file()
    }


def default_model():
    """Return the folder of the model that is used where none is named.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        If the package has no model, with what to give instead.
    """
    for folder in shipped_models().values():
        return folder
    raise UserError(
        "no model was given and this installation has none of its own; give "
        "the folder of a training with `--model FOLDER`, or bring a public "
        "model with `python -m imlkd_brain.models.public campplus` and give "
        "`--model campplus`."
    )
