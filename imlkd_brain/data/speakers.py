"""Names utterances and their speakers by their paths.

Authors: IML-KD contributors
"""

import os
import re
from pathlib import PurePath

import torch

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3")
WAV = "wav"  # the folder of VoxCeleb that holds the speakers' folders
# What speed perturbation appends to a speaker, see dataio.train_dataset.
PERTURBED = re.compile(r"-sp\d+(\.\d+)?$")


def without_suffix(name):
    """Return a name without the suffix of an audio file.

    Example
    -------
    >>> without_suffix("id1/a/1.wav"), without_suffix("dr.who")
    ('id1/a/1', 'dr.who')
    """
    stem, suffix = os.path.splitext(str(name))
    return stem if suffix.lower() in AUDIO_SUFFIXES else str(name)


def slashed(name):
    """Yield the paths that Kaldi's ``speaker-session-utterance`` may mean.

    Speakers and sessions may hold a dash too.

    Arguments
    ---------
    name : str
        The name; one with a slash stands for itself alone.

    Example
    -------
    >>> list(slashed("a-b-c-d"))
    ['a/b-c/d', 'a-b/c/d']
    """
    parts = name.split("-")
    if "/" in name or len(parts) < 3:
        return
    for cut in range(1, len(parts) - 1):
        speaker, session = parts[:cut], parts[cut:-1]
        yield f"{'-'.join(speaker)}/{'-'.join(session)}/{parts[-1]}"


def utterance_key(path, roots=()):
    """Return what CSVs, trial lists and embedding stores call an utterance.

    Arguments
    ---------
    path : str or Path
        The file.
    roots : sequence of str
        The data folders. Their own names are not part of the key, so a
        corpus can be moved.

    Returns
    -------
    str
        The last three components of the path below its data folder, without
        an audio suffix.

    Example
    -------
    >>> utterance_key("/data/voxceleb1/wav/id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    >>> utterance_key("/data/cn/id00012/song-1.wav", ["/data/cn"])
    'id00012/song-1'
    """
    inside = below(path, roots)
    path = str(path) if inside is None else inside
    return "/".join(PurePath(without_suffix(path)).parts[-3:])


def below(path, roots):
    """Return a path relative to the innermost of some folders.

    Arguments
    ---------
    path : str or Path
        The file.
    roots : sequence of str
        Folders.

    Returns
    -------
    str or None
        None if the file is in none of them.

    Example
    -------
    >>> below("/data/cn/id1/a.wav", ["/data", "/data/cn"])
    'id1/a.wav'
    """
    inside = []
    for root in roots:
        try:
            inside.append(str(PurePath(path).relative_to(root)))
        except ValueError:
            continue
    return min(inside, key=len, default=None)


def separated(paths):
    """Return a list of paths.

    Example
    -------
    >>> separated("one, two"), separated(["one"]), separated(None)
    (['one', 'two'], ['one'], [])
    """
    if paths is None:
        return []
    if isinstance(paths, str):
        paths = paths.split(",")
    return [str(path).strip() for path in paths if str(path).strip()]


def data_folders(data_folder):
    """Return the folders of a list with commas.

    Example
    -------
    >>> data_folders("/data/vox1, /data/vox2")
    ['/data/vox1', '/data/vox2']
    """
    return [part.strip() for part in str(data_folder).split(",")]


def speaker_of(path, roots=()):
    """Return the speaker by the folders that a file lies in.

    It is the first folder below ``wav``, else the first below the data
    folder, as in ``wav/<speaker>/<session>/<utterance>.wav`` and in
    ``<speaker>/<utterance>.wav``.

    Arguments
    ---------
    path : str or Path
        The file. A relative path is taken as one below the data folder.
    roots : sequence of str
        The data folders.

    Returns
    -------
    str or None
        None if the file lies in no folder of its speaker.

    Example
    -------
    >>> speaker_of("/data/vox1/wav/id10270/5r0dWxy17C8/00001.wav", ["/data"])
    'id10270'
    >>> speaker_of("/data/cn/id00012/song-1.wav", ["/data/cn"])
    'id00012'
    >>> speaker_of("/data/cn/song-1.wav", ["/data/cn"]) is None
    True
    """
    path, inside = str(path), below(path, roots)
    outside = inside is None and os.path.isabs(path)
    folders = list(PurePath(path if inside is None else inside).parts[:-1])
    for place in range(len(folders) - 2, -1, -1):
        if folders[place] == WAV:
            return folders[place + 1]
    if outside or not folders or folders == [WAV]:
        return None
    return folders[0]


def doubt_about(enrol, test, pairs, labels, where="trial"):
    """Say why the speakers of a trial list cannot be right.

    Without trust in the speakers there are no intervals over speakers, and
    nothing says that they were held out.

    Arguments
    ---------
    enrol, test : list of str or None
        Speaker of each row of the two sides, None where it is not known.
    pairs : torch.Tensor
        Row of each trial's enrolment and test side, int64, (P, 2).
    labels : torch.Tensor
        True for target trials, (P,).
    where : callable or str
        ``where(trial)`` says where a trial is written.

    Returns
    -------
    str
        Part of a sentence; empty where nothing speaks against the speakers.

    Example
    -------
    >>> pairs, labels = torch.tensor([[0, 0], [0, 1]]), torch.tensor([1, 0])
    >>> doubt_about(["a"], ["a", "b"], pairs, labels.bool())
    ''
    >>> doubt_about(["wav"], ["wav", "wav"], pairs, labels.bool())
    'all files have the same speaker, wav'
    """
    rows = [*enrol, *test]
    unknown = sum(name is None for name in rows)
    if unknown:
        return f"the speakers of {unknown} of {len(rows)} files are not named"
    number = {name: index for index, name in enumerate(dict.fromkeys(rows))}
    if len(number) < 2:
        return f"all files have the same speaker, {rows[0]}"
    sides = [
        torch.tensor([number[name] for name in names])[pairs[:, side]]
        for side, names in enumerate((enrol, test))
    ]
    wrong = torch.nonzero((sides[0] == sides[1]) != labels.bool()).flatten()
    if not len(wrong):
        return ""
    first = int(wrong[0])
    place = where(first) if callable(where) else f"{where} {first + 1}"
    one, other = (
        names[int(pairs[first, side])]
        for side, names in enumerate((enrol, test))
    )
    kind = (
        f"a target trial of two speakers, {one} and {other}"
        if labels[first]
        else f"a nontarget trial of one speaker, {one}"
    )
    return f"{len(wrong)} trials speak against them, as {place}: {kind}"


def plain_speakers(names):
    """Return speakers as the corpus calls them, without a mark of speed.

    Example
    -------
    >>> sorted(plain_speakers(["id1", "id1-sp0.9", "id2-sp1.1"]))
    ['id1', 'id2']
    """
    return {PERTURBED.sub("", name) for name in names}
