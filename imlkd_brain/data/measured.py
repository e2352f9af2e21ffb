"""Measures audio files once and keeps the results on disk.

Authors: IML-KD contributors
"""

import contextlib
import csv
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from imlkd_brain.data.audio import check_audio, converted_length, read_audio
from imlkd_brain.data.sources import FIRST_OFFENDERS
from imlkd_brain.errors import UserError
from imlkd_brain.files import replacing, write_whole
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

MEASURED_FILE = "measured_voxceleb_prepare.csv"
BAD_FILES = "unusable_audio.txt"
LINE_END = "."  # the last field of a line: a line without it is torn


@dataclass(frozen=True)
class Measure:
    """What was read from a file.

    Arguments
    ---------
    state : tuple of int
        Bytes and time of change of the file, see
        :func:`imlkd_brain.data.sources.file_states`.
    n_samples : int
        Length of the file.
    chunk : int
        Samples in a chunk; 0 if the file was not decoded.
    levels : tuple of float
        Mean absolute amplitude of each chunk.
    """

    state: tuple
    n_samples: int
    chunk: int = 0
    levels: tuple = ()


class MeasuredFiles:
    """Lengths and levels of files, which are read once for each save_folder.

    A context manager. Every result is appended to a file at once, so an
    interrupted preparation goes on where it was.

    Arguments
    ---------
    save_folder : str
        Where that file is.
    states : dict
        State of each file by path. A result holds as long as the state is
        the same.
    n_jobs : int
        Threads that read files.
    sample_rate : int
        The rate that all files must have, in Hz. Results of another rate are
        not used.
    """

    def __init__(self, save_folder, states, n_jobs, sample_rate):
        self.path = os.path.join(save_folder, MEASURED_FILE)
        self.states = states
        self.n_jobs = n_jobs
        self.sample_rate = sample_rate
        self.known, self.lines, whole = {}, 0, True
        try:
            with open(
                self.path, newline="", encoding="utf-8", errors="replace"
            ) as file:
                for line in file:
                    self.lines += 1
                    whole = line.endswith("\n")
                    self._read(line)
        except FileNotFoundError:
            pass
        self.file = open(  # noqa: SIM115 (closed by __exit__)
            self.path, "a", newline="", encoding="utf-8"
        )
        if not whole:
            self.file.write("\n")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        if error[0] is None and self.lines > len(self.known):
            # Lines of files that have changed since are of no use.
            with replacing(self.path) as self.file:
                for path, measure in self.known.items():
                    self._append(path, measure)

    def _read(self, line):
        """Take in a line; one that is cut short or damaged is passed over."""
        try:
            path, size, changed, rate, n_samples, chunk, levels, end = next(
                csv.reader([line])
            )
            measure = Measure(
                (int(size), int(changed)),
                int(n_samples),
                int(chunk),
                tuple(float(level) for level in levels.split()),
            )
        except (ValueError, StopIteration, csv.Error):
            return
        if end == LINE_END and rate == str(self.sample_rate):
            self.known[path] = measure

    def _append(self, path, measure):
        """Write a line; nine digits give a float32 back as it was."""
        levels = " ".join(f"{level:.9g}" for level in measure.levels)
        csv.writer(self.file, lineterminator="\n").writerow(
            (path, *measure.state, self.sample_rate)
            + (measure.n_samples, measure.chunk, levels, LINE_END)
        )

    def measure(self, paths, chunk, title, any_format=False):
        """Measure files, reading only those that are new or have changed.

        Arguments
        ---------
        paths : list of str
            Keys of ``states``.
        chunk : int or None
            Samples in a chunk; None where levels are not needed, which spares
            decoding the files.
        title : str
            For the progress bar.
        any_format : bool
            Whether files may have any rate and number of channels. Their
            samples are counted at the rate of this object.

        Returns
        -------
        list of Measure
            One a path. Its levels may be of another chunk if ``chunk`` is
            None.

        Raises
        ------
        UserError
            If files are broken, not mono, of another rate or not finite.
        """
        self.measure_all([(paths, chunk, title)], any_format)
        return [self.known[path] for path in paths]

    def measure_all(self, wanted, any_format=False):
        """Measure several lists of files, and name all bad ones together.

        Arguments
        ---------
        wanted : list of tuple
            Paths, chunk and title of each list, see :meth:`measure`.
        any_format : bool
            See :meth:`measure`.

        Raises
        ------
        UserError
            If files are broken, not mono, of another rate or not finite. A
            file of the folder then names each of them, a path a line.
        """
        bad = {}
        for paths, chunk, title in wanted:
            unread = [path for path in paths if not self._holds(path, chunk)]
            if unread and len(unread) < len(paths):
                logger.info(
                    f"{title}: reading {len(unread)} of {len(paths)}; the "
                    "others have not changed since they were read."
                )
            if unread:
                read = partial(self._read_file, chunk, any_format)
                bad |= _for_all(unread, read, self._keep, self.n_jobs, title)
        listed = os.path.join(os.path.dirname(self.path), BAD_FILES)
        if bad:
            write_whole(listed, "".join(f"{path}\n" for path in sorted(bad)))
            first = "; ".join(bad[p] for p in sorted(bad)[:FIRST_OFFENDERS])
            n_files = len({path for paths, *_ in wanted for path in paths})
            raise UserError(
                f"{len(bad)} of {n_files} audio files cannot be used "
                f"({first}); convert or restore them, move them out of the "
                "data folder, or give the corpus's sample_rate. "
                f"{listed} names all of them."
            )
        with contextlib.suppress(FileNotFoundError):
            os.remove(listed)

    def _read_file(self, chunk, any_format, path):
        """Samples of a file and, where needed, the level of its chunks."""
        state = self.states[path]
        if any_format:
            length, _ = converted_length(path, self.sample_rate)
            return Measure(state, length)
        if chunk is None:
            return Measure(state, check_audio(path, self.sample_rate))
        signal = read_audio(path, sample_rate=self.sample_rate)
        signal = np.abs(signal.numpy())
        levels = tuple(
            float(signal[start:stop].mean())
            for start, stop in bounds(len(signal), chunk)
        )
        return Measure(state, len(signal), chunk, levels)

    def _keep(self, path, measure):
        """Keep a result in memory and in the file."""
        self.known[path] = measure
        self._append(path, measure)
        self.lines += 1

    def _holds(self, path, chunk):
        """Whether the result of a file is known and still holds."""
        known = self.known.get(path)
        return (
            known is not None
            and known.state == self.states[path]
            and chunk in (None, known.chunk)
        )


def bounds(n_samples, chunk):
    """Return first and last sample of each chunk; a short file is one chunk.

    Example
    -------
    >>> bounds(7, 3), bounds(2, 3)
    ([(0, 3), (3, 6)], [(0, 2)])
    """
    if n_samples < chunk:
        return [(0, n_samples)]
    return [(i * chunk, (i + 1) * chunk) for i in range(n_samples // chunk)]


def _for_all(paths, read, keep, n_jobs, title):
    """Read files in threads; return what is wrong with the bad ones.

    Reading releases the interpreter's lock, so threads suffice.

    Arguments
    ---------
    paths : list of str
        The files.
    read : callable
        Called with each path.
    keep : callable
        Called with path and result, in order, as soon as there is one.
    n_jobs : int
        Threads.
    title : str
        For the progress bar.

    Returns
    -------
    dict
        A clause about each bad file, by its path.
    """
    bad = {}

    def guarded(path):
        try:
            return read(path)
        except UserError as error:
            # The way out is said once for all of them.
            bad[path] = str(error).partition(";")[0]
        return None

    pool = ThreadPoolExecutor(n_jobs)
    try:
        results = tqdm(
            pool.map(guarded, paths),
            total=len(paths),
            desc=title,
            dynamic_ncols=True,
        )
        for path, result in zip(paths, results, strict=True):
            if result is not None:
                keep(path, result)
    finally:
        # An interrupt does not wait for the files that are still queued.
        pool.shutdown(cancel_futures=True)
    return bad
