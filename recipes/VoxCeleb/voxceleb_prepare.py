"""
Data preparation for VoxCeleb1, VoxCeleb2, both, and corpora laid out alike.

Download: http://www.robots.ox.ac.uk/~vgg/data/voxceleb/

Same function, arguments and CSV columns as SpeechBrain's own preparation. What
is different: the same folder always gives the same CSVs (sorted files, a seeded
split), dev has sessions of its own, lengths come from the files' headers, files
shorter than a chunk are handled, a CSV that is there is a whole one, and CSVs
are made again when the files, the lists or the options have changed.

train_kd.py calls prepare_voxceleb; there is nothing to run here.

Authors: IML-KD contributors
"""

from imlkd_brain.data.archives import unpack_source
from imlkd_brain.data.preparation import Preparation, PreparationOptions
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def prepare_voxceleb(
    data_folder,
    save_folder,
    verification_pairs_file,
    splits=("train", "dev", "test"),
    split_ratio=(90, 10),
    seg_dur=3.0,
    amp_th=5e-04,
    source=None,
    split_speaker=False,
    random_segment=False,
    skip_prep=False,
    dev_pairs_file=None,
    seed=1986,
    n_jobs=None,
    begun=False,
    sample_rate=16000,
):
    """
    Prepares the csv files: train.csv, dev.csv, and enrol.csv and test.csv.

    A split whose CSVs were made with the same options from the same files
    (path, size and time of change) is not made again. Where something has
    changed, the split is made again, and only files that are new or changed
    are read.

    Without dev_pairs_file, dev takes one session of each speaker that has two
    or more, so that no dev utterance comes from a recording that training has.
    The other sessions train. A speaker of one session trains and is not in
    dev.

    Arguments
    ---------
    data_folder : str
        Folder with ``wav/<speaker>/<session>/<utterance>.wav`` (mono, at
        ``sample_rate``); several folders are separated by commas.
    save_folder : str
        The directory where to store the csv files.
    verification_pairs_file : str, list of str or None
        Trial list(s), ``label enrol test`` a line, several separated by
        commas. Their speakers, of both columns, are neither in train nor in
        dev, and their utterances are what enrol.csv and test.csv hold.
    splits : list
        Of 'train', 'dev' and 'test'.
    split_ratio : list
        Shares of train and dev, where there is no dev_pairs_file. Of each
        speaker, dev takes the session whose share of the speaker's files is
        nearest to the one of dev (none at 0); with split_speaker, dev takes
        that share of the speakers.
    seg_dur : float
        Length of a chunk in seconds. A file shorter than a chunk makes one
        row of its whole length if it has half of a chunk, else it is left out,
        counted and logged.
    amp_th : float
        Chunks whose mean absolute amplitude is below it are left out (not
        from whole files); 0 spares decoding the files.
    source : str
        Folder with the archive vox1_test_wav.zip, to be unpacked into
        (the first) data_folder.
    split_speaker : bool
        Whether dev takes whole speakers rather than a session of each.
    random_segment : bool
        One row of the whole length per training file: the chunk is drawn in
        training. Dev without dev_pairs_file has chunks in any case.
    skip_prep : bool
        If True, skip preparation.
    dev_pairs_file : str, list of str or None
        Trial list(s) of the dev speakers. These are left out of train, and
        dev.csv holds exactly the utterances of the list, whole.
    seed : int
        Of the split into train and dev.
    n_jobs : int
        Threads that read files; None for one per processor.
    begun : bool
        Whether a training on the CSVs in save_folder has begun. Its train.csv
        and dev.csv are then not replaced by others; other paths of the same
        utterances are accepted.
    sample_rate : int
        The rate that all files must have, in Hz.

    Raises
    ------
    UserError
        If folders, lists or audio files are not as described, if dev is
        asked for and no speaker has two sessions, or if a training that has
        begun would get other utterances.

    Example
    -------
    >>> prepare_voxceleb("data", "results", None, skip_prep=True)
    """
    if skip_prep:
        return
    options = PreparationOptions(
        data_folder=data_folder,
        verification_pairs_file=verification_pairs_file,
        splits=splits,
        split_ratio=split_ratio,
        seg_dur=seg_dur,
        amp_th=amp_th,
        split_speaker=split_speaker,
        random_segment=random_segment,
        dev_pairs_file=dev_pairs_file,
        seed=seed,
        sample_rate=sample_rate,
    )
    # Unpack the test archive of VoxCeleb1
    if source is not None:
        unpack_source(source, options.folders[0])

    # Check if this phase is already done (if so, skip it)
    preparation = Preparation(options, save_folder, n_jobs, begun)
    if not preparation.splits:
        logger.info(
            "Skipping preparation, completed in previous run; files, lists "
            "and options are the same."
        )
        return

    logger.info(f"Creating csv files in {save_folder}")
    with preparation:
        preparation.read_audio()
        if "test" in preparation.splits:
            preparation.write_enrol_and_test()
        if "train" in preparation.splits:
            preparation.write_train()
        if "dev" in preparation.splits:
            preparation.write_dev()


if __name__ == "__main__":
    print(__doc__.strip())
