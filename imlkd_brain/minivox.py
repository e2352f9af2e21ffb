"""MiniVox: a small speaker corpus out of Debian packages, laid out like VoxCeleb.

VoxCeleb needs a registration, so the recipe carries this builder: real
recordings of real people from free Debian packages, fetched with
``apt-get download`` (no root needed), joined into utterances of 4 to 8 seconds
and written as ``wav/<speaker>/<session>/<utterance>.wav`` (16 kHz, mono,
16 bit) with trial lists ``label enrol test``.

What keeps the numbers honest:

- No clip is in two utterances, byte-identical copies of a clip count once, and
  target trials are drawn across sessions.
- Trials are made within a pack, and everything in a pack is limited to the band
  that its narrowest voice fills, so that the channel is not the answer.
- Test and dev speakers are held out whole, by the fixed lists of
  ``minivox_splits.csv``: five folds, and every listed speaker is a test speaker
  in one of them.

The command::

    python -m imlkd_brain.minivox --data_folder data/minivox

Authors
 * IML-KD contributors
"""

import argparse
import csv
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import time
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from imlkd_brain.corpus_build import (
    finish,
    finished,
    keep_or_drop,
    last_line,
    need_space,
    sole_build,
    write_json,
)
from imlkd_brain.errors import UserError, one_sentence_errors

SAMPLE_RATE = 16000  # Hz, of everything that is written
SEED = 1234  # of the clip order and of the trial lists; part of the corpus
FORMAT = 1  # raised whenever the same packages would give other audio

SHORTEST_CLIP = 0.12  # seconds of speech left after trimming
LEAST_UTTERANCE, LONGEST_UTTERANCE = 4.0, 8.0  # seconds
UTTERANCE_TARGET = 5.0  # seconds at which an utterance is closed
UTTERANCES_PER_SESSION = 10
FEWEST_SESSIONS = 3  # so that target trials across sessions exist
MINUTES_PER_SPEAKER = 12.0  # the rest of a large voice is not decoded
TINY_MINUTES_PER_SPEAKER = 1.0
SPEECH_LEVEL = 0.05  # RMS of every clip, -26 dB re full scale
SILENCE = 1e-3  # a clip that peaks below this is empty

# Distinct utterances, target and nontarget trials per speaker, at most
SIZES = {"test": (24, 300, 600), "dev": (16, 110, 220)}

SPLITS_FILE = Path(__file__).with_name("minivox_splits.csv")
FOLDS = 5


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

    No theme is called classic here. ``sr@*`` are copies of ``sr``.
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
PARTS = ("wav", "licences", "trials")  # folders of a finished corpus


# ---------------------------------------------------------------------------
# Clips and utterances
# ---------------------------------------------------------------------------


def band_limited(signal, rate, band):
    """Resample to 16 kHz and remove what lies above ``band``, in one FFT.

    The spectrum is cut at 8 kHz or extended with zeros, and falls off with a
    raised cosine over the 500 Hz below ``band``.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape (samples,).
    rate : int
        Its sampling rate in Hz.
    band : float
        Highest frequency (Hz) that is kept.

    Returns
    -------
    numpy.ndarray
        Shape (round(samples * 16000 / rate),), float32.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    >>> out = band_limited(tone, 44100, 7000.0)
    >>> out.shape
    (16000,)
    >>> bool(np.abs(out[4000:12000]).max() > 0.99)
    True
    """
    common = np.gcd(int(rate), SAMPLE_RATE)
    step = int(rate) // common  # input lengths that map to whole outputs
    # Zeros behind the signal keep its end from wrapping onto its start.
    blocks = -(-(len(signal) + int(0.02 * rate)) // step)
    padded = blocks * step
    length = blocks * (SAMPLE_RATE // common)
    spectrum = np.fft.rfft(signal, padded)
    hertz = np.arange(len(spectrum)) * (rate / padded)
    slope = np.clip((band - hertz) / 500.0, 0.0, 1.0)
    spectrum *= 0.5 - 0.5 * np.cos(np.pi * slope)
    out = np.zeros(length // 2 + 1, dtype=spectrum.dtype)
    kept = min(len(out), len(spectrum))
    out[:kept] = spectrum[:kept]
    wanted = int(round(len(signal) * SAMPLE_RATE / rate))
    return (np.fft.irfft(out, length)[:wanted] * (length / padded)).astype(
        np.float32
    )


def trimmed(signal, below_peak=35.0, pad=0.05):
    """Cut silence off both ends of a 16-kHz signal.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape (samples,).
    below_peak : float
        A 20-ms frame is silent if its level is that many dB below the
        loudest frame's.
    pad : float
        Seconds kept on each side of the first and last frame that is not.

    Returns
    -------
    numpy.ndarray
        A view of ``signal``; empty if the whole signal is silent.
    """
    frame = SAMPLE_RATE // 50
    frames = len(signal) // frame
    if frames == 0 or np.abs(signal).max() < SILENCE:
        return signal[:0]
    power = (signal[: frames * frame].reshape(frames, frame) ** 2).mean(1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-below_peak / 10))
    margin = int(pad * SAMPLE_RATE)
    start = max(0, loud[0] * frame - margin)
    return signal[start : (loud[-1] + 1) * frame + margin]


def levelled(signal):
    """Bring a clip to the corpus' RMS level, its peak at most 0.95.

    A 5-ms fade on both ends keeps the joints from clicking.
    """
    signal = signal * (SPEECH_LEVEL / np.sqrt((signal**2).mean()))
    peak = np.abs(signal).max()
    if peak > 0.95:
        signal = signal * (0.95 / peak)
    fade = min(len(signal) // 2, SAMPLE_RATE // 200)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    signal[:fade] *= ramp
    signal[len(signal) - fade :] *= ramp[::-1]
    return signal


def cut_long(signal, longest=LONGEST_UTTERANCE):
    """Cut a clip that is longer than an utterance into equal pieces."""
    pieces = -(-len(signal) // int(longest * SAMPLE_RATE))
    return np.array_split(signal, pieces) if pieces > 1 else [signal]


def join_clips(
    lengths,
    least=LEAST_UTTERANCE,
    target=UTTERANCE_TARGET,
    longest=LONGEST_UTTERANCE,
):
    """Group clips, in order, into utterances of ``least`` to ``longest``.

    Arguments
    ---------
    lengths : list of float
        Seconds of each clip, none longer than ``longest``.
    least, target, longest : float
        Seconds. An utterance is closed when it reaches ``target``.

    Returns
    -------
    list of list of int
        Indices of the clips of each utterance; no clip is in two of them.
        Clips left over at the end that do not make ``least`` are in none.

    Example
    -------
    >>> join_clips([2.0, 2.0, 3.0, 7.0, 1.0])
    [[0, 1, 2], [3]]
    """
    utterances, current, seconds = [], [], 0.0
    for index, length in enumerate(lengths):
        if seconds + length > longest:
            if seconds < least:
                # What is open is too short to close and this clip too long
                # to join it, so this clip (> longest - least) stands alone.
                if length >= least:
                    utterances.append([index])
                continue
            utterances.append(current)
            current, seconds = [], 0.0
        current.append(index)
        seconds += length
        if seconds >= target:
            utterances.append(current)
            current, seconds = [], 0.0
    if seconds >= least:
        utterances.append(current)
    return utterances


def session_sizes(utterances):
    """Sizes of the sessions: about ten utterances each, at least three.

    Example
    -------
    >>> session_sizes(25), session_sizes(5), session_sizes(2)
    ([9, 8, 8], [2, 2, 1], [1, 1])
    """
    sessions = max(FEWEST_SESSIONS, -(-utterances // UTTERANCES_PER_SESSION))
    each, more = divmod(utterances, sessions)
    sizes = [each + 1] * more + [each] * (sessions - more)
    return [size for size in sizes if size]


def read_clip(data, band):
    """Decode one clip's bytes into levelled pieces at 16 kHz.

    Returns
    -------
    pieces : list of numpy.ndarray
        Each (samples,), at most 8 s; empty if the clip is dropped.
    rate : int
        Sampling rate of the source in Hz, 0 if it is broken.
    reason : str or None
        Why the clip was dropped: broken, narrow band, silent or short.
    """
    try:
        signal, rate = soundfile.read(
            BytesIO(data), dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, RuntimeError):
        return [], 0, "broken"
    if not np.isfinite(signal).all():
        return [], rate, "broken"
    if rate / 2 < band:
        return [], rate, "narrow band"
    if len(signal) == 0:
        return [], rate, "silent"
    signal = trimmed(band_limited(signal.mean(1), rate, band))
    if len(signal) == 0:
        return [], rate, "silent"
    if len(signal) < SHORTEST_CLIP * SAMPLE_RATE:
        return [], rate, "short"
    return [levelled(piece) for piece in cut_long(signal)], rate, None


def build_speaker(speaker, clips, band, minutes, folder):
    """Decode, join and write one speaker, whole or not at all.

    Arguments
    ---------
    speaker : str
        ``<pack>-<voice>``.
    clips : list of tuple
        Sorted (file, member) pairs: an audio file and None, or a zip file and
        the name of the audio in it.
    band : float
        Highest frequency (Hz) that is kept.
    minutes : float
        Decoding stops when the speaker has that much speech.
    folder : pathlib.Path
        Where ``<speaker>/<session>/<utterance>.wav`` goes.

    Returns
    -------
    dict
        The speaker's row of the manifest.
    """
    order = list(clips)
    random.Random(f"{SEED} {speaker}").shuffle(order)
    pieces, rates, dropped, seen = [], defaultdict(int), defaultdict(int), set()
    seconds, used = 0.0, 0
    for path, member in order:
        if seconds >= minutes * 60:
            dropped["over the cap"] = len(order) - used
            break
        used += 1
        data = _clip_bytes(path, member)
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            # The same recording under two names would be a target trial
            # that any copy detector solves.
            dropped["copy"] += 1
            continue
        seen.add(digest)
        found, rate, reason = read_clip(data, band)
        if reason:
            dropped[reason] += 1
            continue
        rates[str(rate)] += 1
        pieces += found
        seconds += sum(map(len, found)) / SAMPLE_RATE
    # A small voice closes its utterances early: more of them, more trials.
    target = LEAST_UTTERANCE if seconds < 120 else UTTERANCE_TARGET
    utterances = join_clips(
        [len(piece) / SAMPLE_RATE for piece in pieces], target=target
    )
    partial = folder / f".{speaker}"
    shutil.rmtree(partial, ignore_errors=True)
    kept, start = 0, 0
    for session, size in enumerate(session_sizes(len(utterances))):
        place = partial / f"s{session:02d}"
        place.mkdir(parents=True)
        for number, group in enumerate(utterances[start : start + size]):
            signal = np.concatenate([pieces[index] for index in group])
            soundfile.write(
                place / f"{number:05d}.wav", signal, SAMPLE_RATE, "PCM_16"
            )
            kept += len(signal)
        start += size
    if utterances:
        os.rename(partial, folder / speaker)
    return {
        "speaker": speaker,
        "pack": speaker.split("-")[0],
        "utterances": len(utterances),
        "sessions": len(session_sizes(len(utterances))),
        "minutes": round(kept / SAMPLE_RATE / 60, 2),
        "clips": len(order),
        "source_rates": dict(sorted(rates.items())),
        "dropped": dict(sorted(dropped.items())),
    }


def _clip_bytes(path, member):
    """The encoded bytes of a clip, out of a file or a zip file's member."""
    if member is None:
        return Path(path).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


# ---------------------------------------------------------------------------
# Splits and trials
# ---------------------------------------------------------------------------


def read_splits(path=SPLITS_FILE):
    """Read the fixed lists of speakers.

    Columns of the file: ``speaker``; ``fold`` (0 to 4, where it is a test
    speaker, or ``train``); ``tiny`` (its part in the tiny build). While a fold
    is tested, the speakers of the next one are the dev speakers: fewer would
    leave single pairs of speakers in a pack, and a dev EER that means little.

    Returns
    -------
    dict
        Speaker to its row, itself a dict of strings, in the file's order.
    """
    with open(path, encoding="utf-8", newline="") as file:
        return {row["speaker"]: row for row in csv.DictReader(file)}


def roles(splits, fold):
    """Say who trains, who is dev and who is test.

    Arguments
    ---------
    splits : dict
        From :func:`read_splits`.
    fold : int or None
        0 to 4; None is the tiny build's own split.

    Returns
    -------
    dict
        Speaker to ``train``, ``dev`` or ``test``.
    """
    if fold is None:
        return {
            name: row["tiny"] for name, row in splits.items() if row["tiny"]
        }
    parts = {}
    for name, row in splits.items():
        parts[name] = "train"
        if row["fold"] == str(fold):
            parts[name] = "test"
        elif row["fold"] == str((fold + 1) % FOLDS):
            parts[name] = "dev"
    return parts


def make_trials(
    utterances, per_speaker, targets, nontargets, seed=f"{SEED} trials"
):
    """Draw trials within each pack.

    Target trials pair utterances of different sessions. A speaker with few of
    them gets few nontarget trials too (two for each target trial, sixty at
    least), so that it weighs in both error rates alike.

    Arguments
    ---------
    utterances : dict
        Speaker to its sorted list of ``speaker/session/utterance.wav``.
    per_speaker : int
        Distinct utterances used per speaker, at most; taken from its sessions
        in turn.
    targets, nontargets : int
        Trials per speaker, at most (nontarget ones by the enrolment side).
    seed : str
        Of the draw.

    Returns
    -------
    list of tuple
        (label, enrolment, test) with label 1 for a target trial; shuffled,
        no pair of utterances twice in either order.
    """
    draw = random.Random(seed)
    chosen = {
        speaker: _spread(files, per_speaker, draw)
        for speaker, files in sorted(utterances.items())
    }
    trials, seen = [], set()
    for speaker, files in chosen.items():
        same = [
            pair
            for pair in itertools.combinations(files, 2)
            if pair[0].split("/")[1] != pair[1].split("/")[1]
        ]
        same = draw.sample(same, min(targets, len(same)))
        trials += [("1", *draw.sample(pair, 2)) for pair in same]
        pack = speaker.split("-")[0]
        others = [
            (mine, theirs)
            for other, theirs_all in chosen.items()
            if other != speaker and other.split("-")[0] == pack
            for mine in files
            for theirs in theirs_all
            if frozenset((mine, theirs)) not in seen
        ]
        wanted = min(nontargets, max(60, 2 * len(same)), len(others))
        for pair in draw.sample(others, wanted):
            seen.add(frozenset(pair))
            trials.append(("0", *pair))
    draw.shuffle(trials)
    return trials


def _spread(files, count, draw):
    """Pick ``count`` of a speaker's utterances, from its sessions in turn."""
    sessions = defaultdict(list)
    for file in files:
        sessions[file.split("/")[1]].append(file)
    for session in sessions.values():
        draw.shuffle(session)
    rounds = itertools.zip_longest(*sessions.values())
    picked = [file for turn in rounds for file in turn if file]
    return sorted(picked[:count])


def write_trials(folder, utterances, splits, tiny):
    """Write ``test.txt``, ``dev.txt`` and, but for tiny, a pair per fold.

    A fold in which the packs at hand have no such speakers gets no file. In
    ``unseen.txt`` are the speakers of all folds, for models that were trained
    on another corpus.

    Arguments
    ---------
    folder : pathlib.Path
        The ``trials`` folder, made here.
    utterances : dict
        Speaker to its sorted list of utterances.
    splits : dict
        From :func:`read_splits`.
    tiny : bool
        Whether to use the tiny build's own split.

    Returns
    -------
    dict
        File name to the numbers of [target, nontarget] trials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lists = {}
    for fold in (None,) if tiny else range(FOLDS):
        parts = roles(splits, fold)
        for part in ("test", "dev"):
            chosen = {name for name in parts if parts[name] == part}
            names = [] if tiny else [f"fold{fold}_{part}.txt"]
            names += [f"{part}.txt"] if not fold else []
            lists.update(dict.fromkeys(names, (part, chosen)))
    if not tiny:
        in_folds = {s for s in splits if splits[s]["fold"] != "train"}
        lists["unseen.txt"] = ("test", in_folds)
    counts = {}
    for name, (part, chosen) in lists.items():
        held_out = {s: utterances[s] for s in utterances if s in chosen}
        if not held_out:
            continue  # a fold in which none of the packs has a part
        trials = make_trials(held_out, *SIZES[part])
        text = "".join(" ".join(trial) + "\n" for trial in trials)
        (folder / name).write_text(text, encoding="utf-8")
        target = sum(trial[0] == "1" for trial in trials)
        counts[name] = [target, len(trials) - target]
    return counts


# ---------------------------------------------------------------------------
# Packages
# ---------------------------------------------------------------------------


def fetch_packages(packages, cache, deb_dir=None):
    """Have a verified .deb of each package, from ``deb_dir`` or from apt.

    Arguments
    ---------
    packages : dict
        Package name to archive component (``main`` or ``non-free``).
    cache : pathlib.Path
        Downloads stay in its ``debs``, apt's lists in its ``apt``.
    deb_dir : pathlib.Path or None
        A folder that has the .deb files already; apt is not asked then.

    Returns
    -------
    dict
        Package name to the path of its .deb file.

    Raises
    ------
    UserError
        If a package cannot be had, or a file is broken.
    """
    if shutil.which("dpkg-deb") is None:
        raise UserError(
            "MiniVox is made of Debian packages and `dpkg-deb`, which unpacks "
            "them, is not on this machine: install the package dpkg, or build "
            "the corpus on a Debian or Ubuntu machine and copy its folder here."
        )
    if deb_dir is not None:
        return _debs_in(deb_dir, packages)
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    # A download is in `.partial` until it is checked: only whole, verified files are ever renamed into that folder.
    found = {
        name: path
        for name in packages
        for path in sorted(debs.glob(f"{name}_*.deb"))
    }
    missing = [name for name in packages if name not in found]
    if missing:
        found.update(_apt_download(missing, packages, cache, debs))
    return {name: found[name] for name in packages}


def _debs_in(deb_dir, packages):
    """Find and check each package's .deb in a folder of the user's."""
    if not deb_dir.is_dir():
        raise UserError(f"--deb-dir {deb_dir}: there is no such folder.")
    found = {}
    for name in packages:
        files = sorted(deb_dir.glob(f"{name}_*.deb"))
        if not files:
            raise UserError(
                f"--deb-dir {deb_dir}: no {name}_*.deb there; get it with "
                f"`apt-get download {name}`, or leave its pack out of --packs."
            )
        found[name] = files[-1]
        if _deb_field(files[-1], "Package") != name:
            raise UserError(
                f"{files[-1]}: this is not the Debian package {name}, or it "
                "is broken; download it again."
            )
    return found


def _deb_field(path, field):
    """A field of a .deb's control file, empty if it cannot be read."""
    answer = subprocess.run(
        ["dpkg-deb", "--field", str(path), field],
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()


def _apt(options, *words):
    """Run apt-get with its state in our folder; return code, out and err."""
    command = ["apt-get", "-q", *options, *words]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return answer.returncode, answer.stdout, answer.stderr


def _apt_download(missing, packages, cache, debs):
    """Download packages with apt, sizes and SHA256 checked before the rename."""
    if shutil.which("apt-get") is None:
        raise UserError(
            "MiniVox comes out of Debian packages and there is no `apt-get` "
            "here: on a machine that has it, run `apt-get download "
            f"{' '.join(missing)}`, copy the files and give their folder with "
            "--deb-dir."
        )
    found = {}
    options = _apt_options(cache / "apt" / "main")
    print("asking apt where the packages are ...", flush=True)
    _, _, complaint = _apt(options, "update")
    for component in sorted({packages[name] for name in missing}):
        names = [name for name in missing if packages[name] == component]
        chosen = options
        if component != "main":
            chosen = _component_options(options, cache / "apt", component)
            _, _, complaint = _apt(chosen, "update")
        _, listing, error = _apt(chosen, "--print-uris", "download", *names)
        wanted = {
            file.split("_")[0]: (file, int(size), digest)
            for file, size, digest in re.findall(
                r"^'[^']+' (\S+) (\d+) SHA256:(\w+)$", listing, re.MULTILINE
            )
        }
        gone = [name for name in names if name not in wanted]
        if gone:
            reasons = filter(None, (last_line(complaint), last_line(error)))
            raise UserError(
                f"apt offers no package {', '.join(gone)} "
                f"({'; '.join(reasons)}); check the network and the sources "
                "in /etc/apt, or get the .deb on another Debian machine and "
                "give its folder with --deb-dir."
            )
        found.update(_apt_get_files(chosen, wanted, debs))
    return found


def _apt_options(state):
    """Options that keep apt's lists and cache in ``state``: no root needed."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={state.resolve() / 'lists'}",
        f"-oDir::Cache={state.resolve() / 'cache'}",
        "-oDebug::NoLocking=1",
        "-oAcquire::Languages=none",
        "-oAcquire::Retries=3",
    ]
    if os.geteuid() == 0:
        # The download user may not write to our folder, and apt says so at
        # length; as any other user it downloads without that step anyway.
        options.append("-oAPT::Sandbox::User=root")
    return options


def _component_options(options, state, component):
    """Options with one more source: the system's Debian with ``component``."""
    _, listing, _ = _apt(options, "indextargets", "Created-By: Packages")
    for stanza in listing.split("\n\n"):
        target = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if target.get("Origin") == "Debian" and target["Component"] == "main":
            break
    else:
        raise UserError(
            f"the {component} part of Debian is needed and apt's sources in "
            "/etc/apt name no Debian archive; leave uqm out of --packs or give "
            "its .deb with --deb-dir."
        )
    origin = Path(target["Sourcesentry"].rpartition(":")[0])
    key = re.search(
        r"signed-by[:=]\s*(/[^\s\]]+)",
        origin.read_text(encoding="utf-8"),
        re.IGNORECASE,
    )
    signed = f"[signed-by={key.group(1)}] " if key else ""
    source = state / f"{component}.list"
    source.write_text(
        f"deb {signed}{target['Repo-URI']} {target['Release']} {component}\n",
        encoding="utf-8",
    )
    return [
        *_apt_options(state / component),
        f"-oDir::Etc::SourceList={source.resolve()}",
        "-oDir::Etc::SourceParts=/dev/null",
    ]


def _apt_get_files(options, wanted, debs):
    """Let apt download into a scratch folder; keep what arrived whole.

    Arguments
    ---------
    options : list of str
        For apt-get.
    wanted : dict
        Package name to (file name, bytes, SHA-256).
    debs : pathlib.Path
        Where whole files go.

    Returns
    -------
    dict
        Package name to path.
    """
    scratch = debs / ".partial"
    scratch.mkdir(exist_ok=True)
    # An interrupted download may have left whole files.
    found = _keep_whole(wanted, scratch, debs)
    left = {name: wanted[name] for name in wanted if name not in found}
    shutil.rmtree(scratch)
    if not left:
        return found
    scratch.mkdir()
    total = sum(size for _, size, _ in left.values())
    # The packages, what they unpack to, and the corpus made of them.
    need_space(debs, 4 * total, f"download and unpack {', '.join(left)}")
    process = subprocess.Popen(
        ["apt-get", "-q", *options, "download", *left],
        cwd=scratch,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="download") as bar,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            complaint = reader.submit(process.stderr.read)
            while process.poll() is None:
                time.sleep(0.2)
                files = [scratch / file for file, _, _ in left.values()]
                here = sum(f.stat().st_size for f in files if f.exists())
                bar.update(min(here, total) - bar.n)
        finally:
            if process.poll() is None:
                process.terminate()
    found.update(_keep_whole(left, scratch, debs))
    broken = [name for name in left if name not in found]
    if broken:
        reason = last_line(complaint.result()) or "size or SHA256 differ"
        raise UserError(
            f"{', '.join(broken)} did not arrive whole ({reason}); run the "
            "same command again, what did arrive is kept."
        )
    return found


def _keep_whole(wanted, scratch, debs):
    """Move files of the right size and SHA-256 from ``scratch`` to ``debs``."""
    found = {}
    for name, (file, size, digest) in wanted.items():
        path = scratch / file
        if (
            path.exists()
            and path.stat().st_size == size
            and sha256_of(path) == digest
        ):
            os.replace(path, debs / file)
            found[name] = debs / file
    return found


def sha256_of(path):
    """SHA-256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack(debs, folder):
    """Unpack packages side by side, each whole or not at all.

    Returns
    -------
    dict
        Package name to its ``usr/share``.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(name):
        place, partial = folder / name, folder / f".{name}"
        if not place.exists():
            shutil.rmtree(partial, ignore_errors=True)
            answer = subprocess.run(
                ["dpkg-deb", "-x", str(debs[name]), str(partial)],
                capture_output=True,
                text=True,
            )
            if answer.returncode:
                reason = last_line(answer.stderr) or "no reason given"
                raise UserError(
                    f"{debs[name]}: dpkg-deb cannot unpack it "
                    f"({reason}); delete the file and run the same command "
                    "again."
                )
            os.rename(partial, place)
        return name, place / "usr" / "share"

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(one, name) for name in debs]
        done = tqdm(jobs, desc="unpack", unit="package")
        return dict(job.result() for job in done)


def find_clips(pack, trees, speakers):
    """List the clips of a pack's speakers.

    Arguments
    ---------
    pack : str
        A key of ``PACKS``.
    trees : dict
        Package name to the ``usr/share`` it was unpacked to.
    speakers : container of str
        Which ``<pack>-<voice>`` are wanted.

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


# ---------------------------------------------------------------------------
# The build
# ---------------------------------------------------------------------------


def build(data_folder, packs=DEFAULT_PACKS, tiny=False, deb_dir=None):
    """Build the corpus, or go on with an interrupted build, or do nothing.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``wav``, ``trials``, ``licences``, ``manifest.json`` and the
        ``cache`` of downloads go. ``manifest.json`` is written last: a folder
        without it is not finished.
    packs : iterable of str
        Keys of ``PACKS``.
    tiny : bool
        One pack, a minute a speaker, its own split: for tests.
    deb_dir : str, pathlib.Path or None
        A folder with the .deb files, for machines without apt.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        If a pack is unknown, a package cannot be had or the folder holds
        another build.
    """
    data_folder = Path(data_folder)
    packs = _known_packs(TINY_PACKS if tiny else packs)
    splits = {
        name: row
        for name, row in read_splits().items()
        if name.split("-")[0] in packs and (row["tiny"] or not tiny)
    }
    parts = roles(splits, None if tiny else 0)
    if not {"test", "dev"} <= set(parts.values()):
        raise UserError(
            f"--packs {' '.join(packs)}: the default split has no test or no "
            "dev speakers in these packs; add one of tuxpaint, klettres, "
            "ktuberling."
        )
    options = {
        "format": FORMAT,
        "tiny": tiny,
        "packs": packs,
        "splits": hashlib.sha256(json.dumps(splits).encode()).hexdigest(),
    }
    hint = (
        f" (with --deb-dir {data_folder / 'cache' / 'debs'} nothing is "
        "downloaded twice)"
    )
    with sole_build(data_folder):
        manifest = finished(data_folder, options, PARTS, hint)
        if manifest:
            print(f"{data_folder} is built already; nothing to do.")
            return manifest
        return _build(data_folder, options, splits, parts, deb_dir)


def _build(data_folder, options, splits, parts, deb_dir):
    """Build what :func:`build` found to be missing; return the manifest."""
    packs, tiny = options["packs"], options["tiny"]
    work = keep_or_drop(data_folder, options, PARTS)
    packages = {
        package: PACKS[pack].component
        for pack in packs
        for package in PACKS[pack].packages
    }
    seconds = {}
    started = time.perf_counter()
    debs = fetch_packages(
        packages, data_folder / "cache", Path(deb_dir) if deb_dir else None
    )
    seconds["download"] = time.perf_counter() - started
    started = time.perf_counter()
    trees = unpack(debs, work / "unpacked")
    seconds["unpack"] = time.perf_counter() - started
    started = time.perf_counter()
    rows = _build_speakers(packs, trees, splits, tiny, work)
    seconds["decode"] = time.perf_counter() - started

    licences = _copy_licences(trees, work / "licences")
    utterances = {
        speaker: sorted(
            path.relative_to(work / "wav").as_posix()
            for path in (work / "wav" / speaker).rglob("*.wav")
        )
        for speaker in splits
    }
    counts = write_trials(work / "trials", utterances, splits, tiny)
    manifest = {
        "options": options,
        "speakers": {
            row["speaker"]: {
                "role": parts[row["speaker"]],
                "fold": splits[row["speaker"]]["fold"],
                **row,
            }
            for row in rows
        },
        "packages": {
            name: {
                "version": _deb_field(path, "Version"),
                "sha256": sha256_of(path),
                "licence": licences[name],
            }
            for name, path in debs.items()
        },
        "trials": counts,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    finish(data_folder, PARTS, manifest)
    return manifest


def _known_packs(packs):
    """Check pack names; return them in the order of ``PACKS``."""
    unknown = sorted(set(packs) - set(PACKS))
    if unknown or not packs:
        raise UserError(
            f"--packs {' '.join(unknown)}: not a pack; choose from "
            f"{', '.join(PACKS)}."
        )
    return [pack for pack in PACKS if pack in packs]


def _build_speakers(packs, trees, splits, tiny, work):
    """Build the speakers that are not there yet, two at a time."""
    jobs = []
    for pack in packs:
        clips = find_clips(pack, trees, splits)
        jobs += [
            (speaker, clips.get(speaker, []), PACKS[pack].band)
            for speaker in splits
            if speaker.split("-")[0] == pack
        ]
    minutes = TINY_MINUTES_PER_SPEAKER if tiny else MINUTES_PER_SPEAKER
    for speaker, clips, _ in jobs:
        if not clips:
            raise UserError(
                f"{speaker}: its package has no recordings of this voice; it "
                "is another version of the package than this recipe knows, "
                "so leave the pack out of --packs."
            )
    left = [
        (speaker, clips, band, minutes, work)
        for speaker, clips, band in jobs
        if not (work / "rows" / f"{speaker}.json").exists()
    ]
    # The large voices first, so that no process ends long after the other.
    left.sort(key=lambda job: -len(job[1]))
    # Ctrl-C is the parent's to report; it ends its workers.
    with multiprocessing.get_context("spawn").Pool(
        2, signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        total = sum(len(job[1]) for job in left)
        with tqdm(total=total, unit="clip", desc="decode") as bar:
            for row in pool.imap_unordered(_build_one, left):
                bar.update(row["clips"])
    return [
        json.loads((work / "rows" / f"{job[0]}.json").read_text("utf-8"))
        for job in jobs
    ]


def _build_one(job):
    """Build a speaker; its row, written last, says that it is whole."""
    speaker, clips, band, minutes, work = job
    shutil.rmtree(work / "wav" / speaker, ignore_errors=True)
    row = build_speaker(speaker, clips, band, minutes, work / "wav")
    if not row["utterances"]:
        raise UserError(
            f"{speaker}: none of its {len(clips)} clips could be used "
            f"({row['dropped']}); it is another version of the package than "
            "this recipe knows, so leave the pack out of --packs."
        )
    write_json(work / "rows" / f"{speaker}.json", row)
    return row


def _copy_licences(trees, folder):
    """Keep each package's copyright file; return their paths in the corpus."""
    paths = {}
    for name, tree in trees.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / "doc" / name / "copyright", place / "copyright")
        paths[name] = f"licences/{name}/copyright"
    return paths


def summary(data_folder, manifest):
    """What was built, as a table to print."""
    rows = manifest["speakers"].values()
    lines = [
        f"{'pack':<12}{'train':>6}{'dev':>5}{'test':>6}{'utts':>7}{'min':>8}"
    ]
    for pack in [*manifest["options"]["packs"], "all"]:
        mine = [row for row in rows if pack in ("all", row["pack"])]
        count = {
            part: sum(row["role"] == part for row in mine)
            for part in ("train", "dev", "test")
        }
        lines.append(
            f"{pack:<12}{count['train']:>6}{count['dev']:>5}{count['test']:>6}"
            f"{sum(row['utterances'] for row in mine):>7}"
            f"{sum(row['minutes'] for row in mine):>8.1f}"
        )
    lines.append("")
    for name, (target, nontarget) in manifest["trials"].items():
        if not name.startswith("fold"):
            lines.append(
                f"trials/{name}: {target} target and {nontarget} nontarget"
            )
    folds = sum(name.endswith("_test.txt") for name in manifest["trials"])
    if folds:
        lines.append(
            f"trials/fold<k>_test.txt, fold<k>_dev.txt: {folds} folds, "
            "test.txt and dev.txt are fold 0's"
        )
    lines.append("licences:")
    for name, package in manifest["packages"].items():
        lines.append(f"  {data_folder}/{package['licence']}  ({name})")
    took = manifest["seconds"]
    lines.append(
        "built in " + ", ".join(f"{took[key]:.0f} s {key}" for key in took)
    )
    return "\n".join(lines)


def main(arguments=None):
    """Parse the command line, build, and say what is where."""
    parser = argparse.ArgumentParser(
        prog="python -m imlkd_brain.minivox",
        description="Build MiniVox, a small VoxCeleb-like corpus, out of "
        "Debian packages.",
    )
    parser.add_argument(
        "--data_folder", required=True, help="where the corpus goes"
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="klettres alone, a minute a speaker: for tests",
    )
    parser.add_argument(
        "--packs",
        nargs="+",
        metavar="PACK",
        help=f"of {', '.join(PACKS)}; all but uqm, which is non-free, "
        "if not given",
    )
    parser.add_argument(
        "--deb-dir",
        help="a folder with the .deb files, for machines without apt",
    )
    chosen = parser.parse_args(arguments)
    if chosen.tiny and chosen.packs:
        raise UserError("--tiny is klettres alone; leave --packs out with it.")
    packs = chosen.packs or DEFAULT_PACKS
    manifest = build(chosen.data_folder, packs, chosen.tiny, chosen.deb_dir)
    print(f"\nMiniVox in {chosen.data_folder}")
    print(summary(chosen.data_folder, manifest))
    print(
        "\nnext, in recipes/VoxCeleb/IMLKD:\n  python train_kd.py "
        "hparams/minivox/train_teacher.yaml --data_folder "
        f"{Path(chosen.data_folder).resolve()}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
