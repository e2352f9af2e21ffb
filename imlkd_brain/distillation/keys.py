"""Keys of a YAML that say what a student learns of its teacher.

Those of integrated inputs and BatchNorm are declared in their modules.

Authors: IML-KD contributors
"""

from imlkd_brain.distillation.schedules import SCHEDULES
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

PROJECTIONS = ("differing", "always")
TEACHER_CLASSES = ("classifier", "prototypes")
_WEIGHT = {"low": 0, "high": 1e9}
OTHER_OPTION = number("Of a term.", **_WEIGHT)
_TEMPERATURE = number("Of a softmax.", above=0, high=1e6)

# Keys of the YAML that DistillationObjective is given.
OBJECTIVE = {
    "method": Option("text", "The method that is trained, a key of methods."),
    "methods": mapping(
        "Weighted terms on branches, by the name of the method.",
        mapping(
            "Terms of each branch.",
            mapping(
                "Weight of each term.",
                number("Of a term.", **_WEIGHT),
                null="no term",
                example="{instance: 1.0}",
            ),
            null="no teacher",
            example="{raw: {instance: 1.0}}",
        ),
        example="{mine: {raw: {instance: 1.0}}}",
    ),
    "temperature": list_of(
        _TEMPERATURE,
        "Temperature of terms of posteriors; each term is summed over a list.",
        single=True,
    ),
    "temperatures": list_of(
        _TEMPERATURE,
        "Temperatures that multi_level is summed over.",
        example="[2.0, 4.0, 6.0]",
    ),
    "decoupled_alpha": number(
        "Weight of the target in decoupled distillation.", **_WEIGHT
    ),
    "decoupled_beta": number(
        "Weight of the other speakers in decoupled distillation.", **_WEIGHT
    ),
    "correlation_beta": number(
        "Weight of correlations between speakers in dist.", **_WEIGHT
    ),
    "correlation_gamma": number(
        "Weight of correlations between utterances in dist.", **_WEIGHT
    ),
    "triage_cutoff": list_of(
        number("A share.", low=0, high=1),
        "Share of the teacher's posterior among other speakers that the "
        "confusion set of triage has; two change linearly over the training.",
        low=1,
        high=2,
        example="[0.99, 0.5]",
        single=True,
    ),
    "triage_alpha": number(
        "Weight of target, confusion set and background in triage.", **_WEIGHT
    ),
    "triage_beta": number(
        "Weight of the posterior in the confusion set of triage.", **_WEIGHT
    ),
    "eta": number(
        "Weight of the distillation loss against the speaker loss.", **_WEIGHT
    ),
    "eta_warmup_steps": number(
        "Updates over which eta grows from near zero.", low=0, high=10**12
    ),
    "eta_schedule": choice("How eta goes on after that.", SCHEDULES),
    "eta_total_steps": number(
        "Updates after which a falling eta is zero.",
        above=0,
        high=10**12,
        null="those of the whole training",
    ),
    "embedding_projection": choice(
        "Where the embedding term projects the student's embeddings.",
        PROJECTIONS,
    ),
    "gather_batch": flag(
        "Whether terms that relate utterances see those of all processes; "
        "False: each process relates its own."
    ),
}

# Keys about the teacher and what it said before.
TEACHER = {
    "teacher_folder": Option(
        "path", "A trained model, or a public one by its name."
    ),
    "teacher_classes": choice(
        "Which classes the teacher teaches.", TEACHER_CLASSES, optional=True
    ),
    "teacher": built("Loads the frozen teacher."),
    "teacher_prototypes": built(
        "Makes classes of mean teacher embeddings.", optional=True
    ),
    "teacher_cache": Option(
        "folder",
        "Where the teacher's answers are kept for the next student.",
        null="nowhere",
        optional=True,
    ),
    "teacher_cache_limit": number(
        "GB that the cache may take.",
        above=0,
        high=1e9,
        null="any size",
        optional=True,
    ),
    "open_teacher_cache": built("Opens that cache.", optional=True),
}
# Keys about answers that teach.py stores.
ANSWERS = {
    "teacher_answers": Option(
        "folder",
        "What the teacher said before, where it is asked nothing.",
        null="the teacher is asked",
        optional=True,
    ),
    "answers_variants": whole(
        "Chunks of each row that are stored, or trained on.",
        low=1,
        high=10**6,
        optional=True,
    ),
    "answers_fields": list_of(
        choice("A field.", ("chunk", "segment", "integrated", "weights")),
        "What teach.py stores of each chunk.",
        optional=True,
    ),
    "answers_precision": choice(
        "Of what is stored.", ("float16", "float32"), optional=True
    ),
    "answers_arithmetic": choice(
        "In which teach.py computes embeddings.",
        ("float32", "bfloat16"),
        optional=True,
    ),
    "teacher_hears": choice(
        "What stored answers are to: the chunk that the student hears, or the "
        "one before augmentation, which is the student's alone then.",
        ("augmented", "clean"),
        optional=True,
    ),
    "processes": whole(
        "Processes of teach.py, each with a teacher.",
        low=1,
        high=1024,
        optional=True,
    ),
    "open_answers": built("Opens these answers.", optional=True),
}
# What a term weighs is one key each, which methods refer to.
WEIGHTS = {
    f"{term}_weight": number(
        f"Weight of the term {term} in iml_kd.", optional=True, **_WEIGHT
    )
    for term in ("instance", "embedding", "class", "batch")
}
OBJECTS = {
    "objective": built("A method's weighted sum of losses."),
    "integrated_inputs": built("Makes the integrated inputs."),
}
