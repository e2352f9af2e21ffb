"""The packages with free speech, and which files are which speaker.

Authors: IML-KD contributors
"""

import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Pack:
    """Where a pack's voices are.

    ``voice`` maps a file's path inside its package (below ``usr/share``) to
    the name of the voice, or to None for a file that is not used. ``band`` (Hz)
    is what the narrowest voice of the pack fills, measured 65 dB below the
    spectrum's peak; lossy coding often leaves less than the sampling rate
    promises. Clips with a lower sampling rate than that needs are left out.
    """

    packages: tuple
    voice: object
    band: float
    component: str = "main"


def _tuxpaint_voice(path):
    """``stamps/**/<name>_desc_<language>.ogg``; no language is US English."""
    found = re.search(r"^tuxpaint/stamps/.*_desc(?:_(\w+))?\.ogg$", path)
    return (found.group(1) or "en") if found else None


def _klettres_voice(path):
    """``klettres/<language>/{alpha,syllab}/*.ogg``."""
    found = re.search(r"^klettres/(\w+)/(?:alpha|syllab)/.*\.ogg$", path)
    return found.group(1) if found else None


# Some languages of ktuberling were read by several people, theme by theme: the
# median pitch of the themes tells them apart (man and woman). Themes that mix
# voices, or differ from the rest of the language, are left out (None).
KTUBERLING_THEMES = {
    "ca": {"classic": "ca_m", "pizzeria": "ca_m"},
    "da": {"classic": None, "xmas": None},
    "en": {"pizzeria": None},
    "fr": {"robin": None},
    "ru": {"classic": None, "tv": None, "xmas": None},
}


def _ktuberling_voice(path):
    """``ktuberling/sounds/<language>/[<theme>_]<name>.*``.

    Files without a theme are of the theme ``classic``. ``sr@*`` are copies of
    ``sr`` and are not used.
    """
    found = re.search(
        r"^ktuberling/sounds/(\w+)/(?:([a-z]+)_)?[^/]*\.(?:ogg|opus|wav)$", path
    )
    if not found:
        return None
    language, theme = found.group(1), found.group(2) or "classic"
    return KTUBERLING_THEMES.get(language, {}).get(theme, language)


def _fillets_voice(path):
    """``<level>/<language>/<room>-<role>-*.ogg``: the two fish have a voice."""
    found = re.search(r"^games/fillets-ng/.*/(cs|nl)/\w+-([mv])-.*\.ogg$", path)
    return f"{found.group(1)}_{found.group(2)}" if found else None


def _asterisk_voice(path):
    """``asterisk/sounds/<language>_<sex>_<name>/*.wav``.

    The English and the Spanish prompts are one person.
    """
    found = re.search(r"^asterisk/sounds/\w{5}_\w_(\w+)/(.*)\.wav$", path)
    if not found or found.group(2).startswith("silence/"):
        return None
    return found.group(1).lower()


def _gcin_voice(path):
    """``gcin-voice/ogg/<syllable>/<voice>.ogg``: two voices, 3 and 5."""
    found = re.search(r"^gcin-voice/ogg/.*/(\d)\.ogg$", path)
    return found.group(1) if found else None


def _uqm_voice(path):
    """``3dovoice/<role>/*.ogg`` inside the package's zip file."""
    found = re.search(r"3dovoice/(\w+)/.*\.ogg$", path)
    return found.group(1) if found else None


PACKS = {
    "tuxpaint": Pack(("tuxpaint-stamps-default",), _tuxpaint_voice, 6000.0),
    "klettres": Pack(("klettres-data",), _klettres_voice, 7000.0),
    "ktuberling": Pack(("ktuberling-data",), _ktuberling_voice, 7000.0),
    "fillets": Pack(
        ("fillets-ng-data-cs", "fillets-ng-data-nl"), _fillets_voice, 6500.0
    ),
    "asterisk": Pack(
        (
            "asterisk-core-sounds-en-wav",
            "asterisk-core-sounds-es-wav",
            "asterisk-core-sounds-fr-wav",
            "asterisk-core-sounds-it-wav",
            "asterisk-core-sounds-ru-wav",
            "asterisk-prompt-it-menardi-wav",
        ),
        _asterisk_voice,
        3800.0,
    ),
    "gcin": Pack(("gcin-voice",), _gcin_voice, 8000.0),
    "uqm": Pack(("uqm-voice",), _uqm_voice, 5500.0, "non-free"),
}
DEFAULT_PACKS = (
    "tuxpaint",
    "klettres",
    "ktuberling",
    "fillets",
    "asterisk",
    "gcin",
)
TINY_PACKS = ("klettres",)
AUDIO_SUFFIXES = (".ogg", ".opus", ".wav")


def find_clips(pack, trees, speakers):
    """List the clips of a pack's speakers.

    Arguments
    ---------
    pack : str
        A key of ``PACKS``.
    trees : dict
        Package name to the ``usr/share`` it was unpacked to.
    speakers : container of str
        The speakers, ``<pack>-<voice>``, whose clips are listed.

    Returns
    -------
    dict
        Speaker to its sorted list of (file, member of a zip file or None).
    """
    clips = defaultdict(list)
    for package in PACKS[pack].packages:
        root = trees[package]
        for path in sorted(root.rglob("*")):
            if path.suffix in AUDIO_SUFFIXES:
                members = [(path.relative_to(root).as_posix(), None)]
            elif pack == "uqm" and zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    members = [(name, name) for name in archive.namelist()]
            else:
                continue
            for name, member in sorted(members):
                voice = PACKS[pack].voice(name)
                if voice and f"{pack}-{voice}" in speakers:
                    clips[f"{pack}-{voice}"].append((str(path), member))
    return dict(clips)
