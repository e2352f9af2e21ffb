"""Keys of a YAML that say which data are read, and how.

Authors: IML-KD contributors
"""

from imlkd_brain.data.crops import DURATIONS
from imlkd_brain.errors import UserError, expected_sentence
from imlkd_brain.schema import (
    Option,
    built,
    choice,
    flag,
    list_of,
    mapping,
    number,
    whole,
)
from imlkd_brain.values import short

# Hz; what is read as audio at all.
_RATE = {"low": 1000, "high": 768_000}
_LOADER = {
    "batch_size": whole("Utterances in a batch.", low=1, high=10**6),
    "shuffle": flag("Whether the order is drawn anew in each epoch."),
    "drop_last": flag("Whether the last batch goes if it is smaller."),
    "num_workers": whole("Processes that read audio.", low=0, high=1024),
    "pin_memory": flag("Whether batches lie in pinned memory."),
    "persistent_workers": flag("Whether workers live on between epochs."),
    "prefetch_factor": whole(
        "Batches that a worker reads ahead.", low=1, high=10**6, null="two"
    ),
    "timeout": number("Seconds to wait for a worker.", low=0, high=10**6),
    "multiprocessing_context": choice(
        "How workers start.", ("fork", "spawn", "forkserver"), null="as usual"
    ),
}


def _loader(meaning):
    """Options of a data loader, none of which has to be there."""
    entries = {
        name: Option(**{**vars(option), "optional": True})
        for name, option in _LOADER.items()
    }
    return mapping(meaning, entries=entries, example="{batch_size: 32}")


def durations(meaning, **more):
    """A list of durations: ``full`` or seconds."""
    return Option(**{**vars(DURATIONS), "meaning": meaning, **more})


def data_folder(**more):
    """The corpus."""
    return Option(
        "folder",
        "The corpus, a folder with wav/<speaker>/; several with commas.",
        several=True,
        **more,
    )


# Keys that several scripts have.
SPEAKER_MAP = Option(
    "file",
    "Names the speaker of each file: utt2spk, spk2utt or a CSV.",
    null="folders name the speakers",
)
ALLOW_TRAINING_SPEAKERS = flag(
    "Whether trials may have speakers that a model was trained on."
)
SAMPLE_RATE = whole("Sampling rate of the corpus in Hz.", **_RATE)

_URL = {"null": "nothing is downloaded", "optional": True}
_NOISE = {"null": "no such audio", "optional": True}
# Keys of a training's YAML.
OPTIONS = {
    "data_folder": data_folder(null="an unlabelled folder alone"),
    "labelled_speakers": Option(
        "file",
        "Names the speakers with a label, one a line; none: nobody has one.",
        words=("none",),
        null="all speakers of the data folder",
        optional=True,
    ),
    "unlabelled_folder": Option(
        "folder",
        "More audio to train on, without a label.",
        null="none",
        optional=True,
    ),
    "labelled_share": number(
        "Share of labelled utterances in a batch.",
        above=0,
        high=1,
        null="that of the data, two utterances at least",
        optional=True,
    ),
    "unlabelled_speakers": whole(
        "How many of the data folder's speakers without a label are heard.",
        low=0,
        high=10**7,
        null="all",
        optional=True,
    ),
    "labels": built("Says which utterances have a label.", optional=True),
    "data_folder_noise": Option(
        "folder",
        "Where noises lie or are downloaded to.",
        null="noise in the data folder",
        optional=True,
    ),
    "data_folder_rir": Option(
        "folder",
        "Where room responses lie or are downloaded to.",
        null="rir in the data folder",
        optional=True,
    ),
    "noise_annotation": Option("file", "CSV of the noises.", **_NOISE),
    "rir_annotation": Option("file", "CSV of the room responses.", **_NOISE),
    "NOISE_DATASET_URL": Option("text", "Archive of the noises.", **_URL),
    "RIR_DATASET_URL": Option("text", "Archive of the room responses.", **_URL),
    "train_annotation": Option("file", "CSV of the training utterances."),
    "train_shards": Option(
        "folder",
        "Shards that the training utterances are read out of.",
        null="their files",
        optional=True,
    ),
    "valid_annotation": Option("file", "CSV of the dev utterances."),
    "verification_file": Option(
        "file",
        "Trial list, or its URL, whose speakers are kept out of training; "
        "several with commas.",
        several=True,
        null="no speaker is kept out",
    ),
    "valid_trials": Option(
        "file",
        "Dev trials for the dev EER.",
        null="an error rate instead",
        optional=True,
    ),
    "valid_durations": durations(
        "Durations of the dev EER; the first is full, which enrols.",
        optional=True,
    ),
    "allow_training_speakers": Option(
        **{**vars(ALLOW_TRAINING_SPEAKERS), "optional": True}
    ),
    "split_ratio": list_of(
        number("A share.", low=0, high=1e9),
        "Shares of train and dev utterances.",
        low=2,
        high=2,
        example="[90, 10]",
        check=lambda ratio: None if sum(ratio) > 0 else "not all zero",
    ),
    "skip_prep": flag("Whether the CSVs are there already."),
    "random_segment": flag(
        "Whether a CSV row is a whole utterance and chunks are drawn of it."
    ),
    "sample_rate": SAMPLE_RATE,
    "sentence_len": number("Seconds of a training chunk.", above=0, high=3600),
    "speed_perturb": list_of(
        number("A factor.", low=0.1, high=10),
        "Factors of speed; each but 1.0 makes new speakers.",
    ),
    "num_workers": _LOADER["num_workers"],
    "train_dataloader_options": _loader("Data loader of the training."),
    "valid_dataloader_options": _loader("Data loader of the dev utterances."),
    "batch_size": whole(
        "Utterances in a batch of the training.", low=2, high=10**6
    ),
    "augmentation": flag("Whether training chunks are augmented."),
    "augmentation_sample_rate": whole(
        "Sampling rate of noises and room responses in Hz.",
        null="no such audio",
        optional=True,
        **_RATE,
    ),
    "prepare_noise_data": built("Lists the noises in a CSV.", **_NOISE),
    "prepare_rir_data": built("Lists the room responses in a CSV.", **_NOISE),
    "add_noise": built(
        "Adds noise.",
        classes={
            "imlkd_brain.data.augmentation.AddNoise": {
                "snr_low": number("dB.", low=-1000, high=1000),
                "snr_high": number("dB.", low=-1000, high=1000),
            }
        },
        **_NOISE,
    ),
    "add_reverb": built("Adds reverberation.", **_NOISE),
    "drop_freq": built(
        "Drops frequencies.",
        classes={
            "speechbrain.augment.time_domain.DropFreq": {
                "drop_freq_low": number("Share of Nyquist.", low=0, high=1),
                "drop_freq_high": number("Share of Nyquist.", low=0, high=1),
                "drop_freq_count_low": whole("Bands.", low=0, high=1000),
                "drop_freq_count_high": whole("Bands.", low=0, high=1000),
                "drop_freq_width": number("Share.", low=0, high=1),
            }
        },
        null="none",
        optional=True,
    ),
    "drop_chunk": built(
        "Drops stretches of audio.",
        classes={
            "speechbrain.augment.time_domain.DropChunk": {
                "drop_length_low": whole("Samples.", low=0, high=10**9),
                "drop_length_high": whole("Samples.", low=0, high=10**9),
                "drop_count_low": whole("Stretches.", low=0, high=10**6),
                "drop_count_high": whole("Stretches.", low=0, high=10**6),
            }
        },
        null="none",
        optional=True,
    ),
    "wav_augment": built(
        "Chooses augmentations for a batch.",
        classes={
            "speechbrain.augment.augmenter.Augmenter": {
                "parallel_augment": flag("Beside each other."),
                "concat_original": flag("With the batch itself."),
                "shuffle_augmentations": flag("In a drawn order."),
                "min_augmentations": whole("Fewest.", low=0, high=100),
                "max_augmentations": whole(
                    "Most.", low=0, high=100, null="all"
                ),
                "augment_prob": number("Probability.", low=0, high=1),
                "augmentations": list_of(built("One."), "Those there are."),
            }
        },
        null="none",
        optional=True,
    ),
    "check_augmentation": built(
        "Refuses augmentation that cannot be repeated.", optional=True
    ),
    "prepare_options": built(
        "Further options of the preparation.", optional=True
    ),
    "dev_trials": built("Computes the dev EER.", optional=True),
}


def check_ranges(values):
    """Refuse a lowest value of an augmentation that is above its highest.

    Arguments
    ---------
    values : dict
        Of the YAML.

    Raises
    ------
    UserError
        Naming both.
    """
    for key in ("add_noise", "drop_freq", "drop_chunk"):
        arguments = getattr(values.get(key), "kwargs", {})
        for name, low in arguments.items():
            high = arguments.get(name.replace("_low", "_high"), low)
            if name.endswith("_low") and low > high:
                other = name.replace("_low", "_high")
                raise UserError(
                    expected_sentence(
                        f"{key}.{name}", short(low), f"at most {other}, {high}"
                    )
                )
