"""Which training utterances have a label, and how many are in a batch.

Unlabelled utterances teach through the teacher alone: they take part in the
distillation terms, and AAM-softmax does not see them.

Authors: IML-KD contributors
"""

import os
import random

from imlkd_brain.data.annotations import read_annotation
from imlkd_brain.data.mixed_batches import MixedBatches
from imlkd_brain.data.preparation import SHORTEST_SHARE
from imlkd_brain.data.sources import read_pairs, speakers_of_pairs
from imlkd_brain.data.trial_lists import find_list
from imlkd_brain.data.unlabelled_folder import ANNOTATION, prepare_unlabelled
from imlkd_brain.distributed import n_processes
from imlkd_brain.errors import UserError
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

FOLDER = "unlabelled"  # in the save folder, with its CSV
NONE = "none"  # labelled_speakers: nobody has a label
# Attribution targets that are the true speaker's
OF_TRUE_CLASS = ("true_class", "log_posterior")


class Labels:
    """The training rows of a YAML, each with or without a label.

    Arguments
    ---------
    labelled_speakers : str or None
        A file that names speakers of the data folder, one a line: the other
        speakers' utterances have no label. ``none``: no utterance has one.
        None: all utterances of the data folder have.
    unlabelled_folder : str or None
        More utterances without a label, see
        :func:`imlkd_brain.data.unlabelled_folder.prepare_unlabelled`.
    labelled_share : float or None
        Of each batch. None: what it is of the data, at least two utterances.
    data_folder : str or None
        The corpus; None where the folder is all there is.
    save_folder : str
        Where CSVs are kept.
    test_trials, dev_trials : str or None
        Trial lists, whose speakers are left out of the folder.
    sample_rate : int
        In Hz.
    sentence_len : float
        Seconds of a training chunk.
    seed : int
        Of the order of utterances.
    unlabelled_speakers : int, optional
        How many of the data folder's speakers without a label are heard; the
        others are left out. A smaller number's are among a larger one's.
    """

    def __init__(
        self,
        labelled_speakers,
        unlabelled_folder,
        labelled_share,
        data_folder,
        save_folder,
        test_trials,
        dev_trials,
        sample_rate,
        sentence_len,
        seed,
        unlabelled_speakers=None,
    ):
        self.labelled_speakers = labelled_speakers
        self.unlabelled_folder = unlabelled_folder
        self.labelled_share = labelled_share
        self.data_folder = data_folder
        self.save_folder = save_folder
        self.test_trials = test_trials
        self.dev_trials = dev_trials
        self.sample_rate = sample_rate
        self.sentence_len = sentence_len
        self.seed = seed
        self.unlabelled_speakers = unlabelled_speakers
        self.objective = self.integrated = None
        # Known once the rows are read
        self.mixes = False
        self.speakers = []  # of unlabelled speech, where they are known

    def check(self, objective=None, integrated=None):
        """Refuse keys that do not go together, before anything is read.

        Arguments
        ---------
        objective : imlkd_brain.distillation.objective.DistillationObjective
            Of the training; None for one without a teacher.
        integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
            How ``I(x_d)`` is made.

        Raises
        ------
        UserError
            Naming the key and the way out.
        """
        self.objective, self.integrated = objective, integrated
        path = self.labelled_speakers
        if path not in (None, NONE):
            read_speakers(path)
        if path is None and self.unlabelled_speakers is not None:
            raise UserError(
                f"unlabelled_speakers: {self.unlabelled_speakers}, but all "
                "speakers have a label; give labelled_speakers, or "
                "`--unlabelled_speakers null`."
            )
        nobody = path == NONE and self.unlabelled_speakers == 0
        if nobody and self.unlabelled_folder is None:
            raise UserError(
                "unlabelled_speakers: 0, but with `labelled_speakers: none` "
                "nobody is left; give more of them, or an unlabelled_folder."
            )
        if self.data_folder is None:
            self._check_without_corpus()
        if not self._teaches and self.data_folder is None:
            raise UserError(
                "data_folder: null, but a training without a teacher learns "
                "from labels alone; give the folder of a corpus."
            )
        if not self._teaches and path == NONE:
            raise UserError(
                "labelled_speakers: none, but a training without a teacher "
                "learns from labels alone; give a file of speakers or null."
            )
        if self._teaches and not self.has_classes:
            self._check_unlabelled(has_classes=False)
        elif self._teaches and self.unlabelled_folder is not None:
            self._check_unlabelled(has_classes=True)

    def _check_without_corpus(self):
        """Refuse what only a corpus can have, where there is just a folder."""
        if self.unlabelled_folder is None:
            raise UserError(
                "data_folder: null, and there is no unlabelled_folder either; "
                "give one of them."
            )
        if self.labelled_speakers not in (None, NONE):
            raise UserError(
                "labelled_speakers: names speakers of data_folder, which is "
                "null; give the folder, or `--labelled_speakers null`."
            )
        if self.dev_trials is not None:
            raise UserError(
                f"valid_trials: {self.dev_trials} needs utterances of "
                "data_folder, which is null; give `--valid_trials null`."
            )
        lists = self.test_trials
        if lists is not None and not os.path.isfile(lists):
            raise UserError(
                f"verification_file: {lists} is no file; without a data_folder "
                "give the path of the test list, whose speakers are left out "
                "of the unlabelled folder, or `--verification_file null`."
            )

    @property
    def _teaches(self):
        """Whether any term needs a teacher, and can use unlabelled speech."""
        return self.objective is not None and self.objective.needs_teacher

    @property
    def has_classes(self):
        """Whether any utterance may have a label."""
        return self.data_folder is not None and self.labelled_speakers != NONE

    def rows(self, annotation, data_folder):
        """Return the rows of a training.

        Arguments
        ---------
        annotation : str
            CSV of ``prepare_voxceleb``.
        data_folder : str or None
            Stands for ``$data_root`` in it; None where there is no corpus.

        Returns
        -------
        dict
            Rows by ID. Where some have no label, each has ``labelled``, True
            or False.

        Raises
        ------
        UserError
            For a speaker that has no utterances, or an option that does not
            go with what has no label.
        """
        rows = {}
        if data_folder is not None:
            rows = read_annotation(annotation, data_folder)
        labelled = self._labelled_names(rows)
        rows = self._heard(rows, labelled)
        more = self._of_folder()
        clash = sorted(rows.keys() & more.keys())
        if clash:
            raise UserError(
                f"{self.unlabelled_folder}: the ID {clash[0]} is in the "
                "training annotation too; rename the file."
            )
        have = [key for key, row in rows.items() if row["spk_id"] in labelled]
        n_rows = len(rows) + len(more)
        if len(have) == n_rows:
            return rows
        if not self._teaches:
            logger.info(
                f"Without a teacher only the {len(have)} utterances of "
                f"{len(labelled)} labelled speakers are trained on, of "
                f"{n_rows}."
            )
            return {key: rows[key] for key in have}
        if len(labelled) == 1:
            raise UserError(
                f"labelled_speakers: {min(labelled)} is the only speaker with "
                "a label; give two or more, or `--labelled_speakers none`."
            )
        self._check_unlabelled(bool(have))
        have = set(have)
        rows = {
            key: {**row, "labelled": key in have}
            for key, row in {**rows, **more}.items()
        }
        self.mixes = True
        self.speakers = sorted(
            {row["spk_id"] for row in rows.values() if not row["labelled"]}
            - {""}
        )
        logger.info(
            f"{len(have)} of {n_rows} training utterances have a label, of "
            f"{len(labelled)} speakers; the others are of "
            f"{len(self.speakers)} speakers that are known by name."
        )
        return rows

    def _labelled_names(self, rows):
        """The speakers whose utterances have a label."""
        there = {row["spk_id"] for row in rows.values()}
        if self.labelled_speakers is None:
            return there
        if self.labelled_speakers == NONE:
            return set()
        names = read_speakers(self.labelled_speakers)
        unknown = [name for name in names if name not in there]
        if unknown:
            raise UserError(
                f"{self.labelled_speakers}: {len(unknown)} of its "
                f"{len(names)} speakers have no training utterances (first: "
                f"{unknown[0]}); correct the names, or check data_folder and "
                "the trial lists, whose speakers are not trained on."
            )
        return set(names)

    def _heard(self, rows, labelled):
        """The rows without those of speakers that are left out."""
        if self.unlabelled_speakers is None or not self._teaches:
            return rows
        others = sorted({row["spk_id"] for row in rows.values()} - labelled)
        if len(others) < self.unlabelled_speakers:
            raise UserError(
                f"unlabelled_speakers: {self.unlabelled_speakers}, but only "
                f"{len(others)} training speakers have no label; give a "
                "smaller number, or null for all."
            )
        random.Random(self.seed).shuffle(others)
        heard = labelled | set(others[: self.unlabelled_speakers])
        return {k: row for k, row in rows.items() if row["spk_id"] in heard}

    def _of_folder(self):
        """The rows of the unlabelled folder; the main process makes them."""
        if self.unlabelled_folder is None or not self._teaches:
            return {}
        place = os.path.join(self.save_folder, FOLDER)
        run_on_main(self._prepare, args=[place])
        path = os.path.join(place, ANNOTATION)
        return read_annotation(path, "")

    def _prepare(self, place):
        """Write the CSV of the unlabelled folder, without test speakers."""
        source = self.test_trials
        if self.data_folder is not None and source is not None:
            source = find_list(source, self.data_folder, self.save_folder)
        lists = [path for path in (source, self.dev_trials) if path is not None]
        prepare_unlabelled(
            self.unlabelled_folder,
            place,
            self.sample_rate,
            SHORTEST_SHARE * self.sentence_len,
            speakers_of_pairs(read_pairs(lists)),
        )

    def _check_unlabelled(self, has_classes):
        """Refuse a method that cannot use speech without labels."""
        objective, integrated = self.objective, self.integrated
        if not has_classes and objective.of_classes:
            raise UserError(
                f"method: {objective.method} has terms of speakers "
                f"({', '.join(objective.of_classes)}) and no utterance has a "
                "label; give a method of embeddings alone, such as "
                "`--method embedding_kd`, or labelled speakers."
            )
        target = integrated.target
        needed = ("predicted",) if not has_classes else ()
        if objective.attributes(integrated.mode) and target in (
            *OF_TRUE_CLASS,
            *needed,
        ):
            other = "`--attribution_target own_embedding`"
            if has_classes:
                other = f"`--attribution_target predicted`, or {other}"
            raise UserError(
                f"attribution_target: {target} asks for a speaker, and some "
                f"training utterances have no label; give {other}."
            )

    def valid_rows(self, annotation, data_folder):
        """Return the validation rows: without dev trials, those with a class.

        Arguments
        ---------
        annotation : str
            CSV of ``prepare_voxceleb``.
        data_folder : str or None
            Stands for ``$data_root`` in it.

        Returns
        -------
        dict
            Empty where there is nothing to validate on.

        Raises
        ------
        UserError
            If no labelled speaker has a dev utterance.
        """
        if self.dev_trials is not None:
            return read_annotation(annotation, data_folder)
        if not self.has_classes:
            logger.warning(
                "There are no dev trials and no labels, so nothing is "
                "validated; the last checkpoint is as good as any."
            )
            return {}
        rows = read_annotation(annotation, data_folder)
        if self.labelled_speakers is None:
            return rows
        names = set(read_speakers(self.labelled_speakers))
        rows = {k: row for k, row in rows.items() if row["spk_id"] in names}
        if not rows:
            raise UserError(
                f"{annotation}: no labelled speaker has a dev utterance; give "
                "dev trials (`--valid_trials`), or a larger dev share in "
                "split_ratio."
            )
        return rows

    def settings(self, dataset, options):
        """Return what a training on this data does otherwise, by key.

        Arguments
        ---------
        dataset : speechbrain.dataio.dataset.DynamicItemDataset
            The training set, of :meth:`rows`.
        options : dict
            Of its data loader.

        Returns
        -------
        dict
            ``unlabelled_rows``: whether some have no label;
            ``without_validation``: whether there is nothing to validate on;
            ``train_dataloader_options``: with a sampler that gives each batch
            a set share of labelled utterances, where there are both kinds.
        """
        without = self.dev_trials is None and not self.has_classes
        return {
            "unlabelled_rows": self.mixes,
            "without_validation": without,
            "train_dataloader_options": self._loader_options(dataset, options),
        }

    def _loader_options(self, dataset, options):
        """The options of a data loader whose batches have a share of labels."""
        if not self.mixes:
            return options
        labelled = [row["labelled"] for row in dataset.data.values()]
        if not any(labelled):
            return options
        if not options.get("shuffle", False):
            raise UserError(
                "train_dataloader_options: shuffle is not True, but labelled "
                "and unlabelled utterances are drawn for each batch; give "
                "shuffle: True."
            )
        share = self.labelled_share
        if share is None:
            share = sum(labelled) / len(labelled)
        sampler = MixedBatches(
            labelled,
            self.seed,
            share,
            options["batch_size"],
            n_processes(),
            options.get("drop_last", False),
        )
        counts = sampler.counts(options["batch_size"] * 100)
        few, many = min(counts), max(counts)
        each = f"{few}" if few == many else f"{few} to {many}"
        logger.info(
            f"{each} of the {options['batch_size']} utterances of a batch have "
            "a label."
        )
        options = {k: v for k, v in options.items() if k != "shuffle"}
        return {**options, "sampler": sampler}


def read_speakers(path):
    """Read the names of speakers, one a line.

    Arguments
    ---------
    path : str
        The file.

    Returns
    -------
    list of str
        Each once, in order.

    Raises
    ------
    UserError
        If it cannot be read or names nobody.
    """
    try:
        with open(path, encoding="utf-8") as file:
            names = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"labelled_speakers: {path} cannot be read ({error}); give a text "
            "file with a speaker a line, `none`, or null."
        ) from error
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise UserError(
            f"labelled_speakers: {path} names nobody; give a speaker a line, "
            "or `--labelled_speakers none` to train without labels."
        )
    return names
