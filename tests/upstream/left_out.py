"""What SpeechBrain does not get: the one list that says it.

The kinds are those of :class:`upstream.slimming.LeftOut`. Everything that is not
named here, and that the training script reaches, goes.
"""

# What upstream does without. A name may be `module:name`, where it means
# something else in other modules; see slimming.LeftOut for the kinds.
KEYS = {
    **dict.fromkeys(
        (
            # Extras that the script goes without
            "check_augmentation",
            "trained_with",
            "prepare_options",
            "dev_trials",
            "start_from",
            "teacher_prototypes",
            "open_teacher_cache",
            "teacher_cache",
            "open_answers",
            "answers",
            "labels",
            "labelled_speakers",
            "unlabelled_folder",
            "labelled_share",
            "unlabelled_speakers",
            "train_shards",
            "teacher_answers",
            "answers_variants",
            "answers_fields",
            "answers_precision",
            "answers_arithmetic",
            "teacher_hears",
            "processes",
            # What they read
            "initial_weights",
            "teacher_cache_limit",
            "valid_trials",
            "valid_durations",
            "allow_training_speakers",
            "allow_tf32",
            # Options of other losses, and of a weight that changes
            "decoupled_alpha",
            "decoupled_beta",
            "correlation_beta",
            "correlation_gamma",
            "triage_cutoff",
            "triage_alpha",
            "triage_beta",
            "eta_warmup_steps",
            "eta_schedule",
            "eta_total_steps",
            "embedding_projection",
            # Terms of the utterances of all processes
            "gather_batch",
            "segment_share",
        )
    ),
    "teacher_classes": "classifier",
}
NAMES = {
    **dict.fromkeys(
        (
            # Errors in one sentence, and checks
            "one_sentence_errors",
            "sole_training",
            "check_batches",
            "check_features",
            "check_known_speakers",
            "check_teacher",
            "check_valid",
            "check_samples",
            "check_positive_integer",
            "check_durations",
            "DistillationObjective.check",
            # The declared keys of the YAMLs, and what is checked with them
            "check_given",
            "check_value",
            "check_values",
            "_check_list",
            "_check_mapping",
            "_check_object",
            "_check_path",
            "check_fall",
            "Schema",
            "check_term_options",
            "_check_batchnorm",
            "_check_export",
            "_check_format",
            "_check_statistics",
            # Batches that are not finite: SpeechBrain's Brain stops for them
            "FiniteGuard",
            "IMLKDBrain.check_loss_isfinite",
            "IMLKDBrain._save_intra_epoch_ckpt",
            # Workers that hang
            "IMLKDBrain.make_dataloader",
            # Options of this repository alone
            "decoupled_kd_loss",
            "dist_loss",
            "relation_loss",
            "triage_loss",
            "attention_loss",
            "find_pooling",
            "PoolingAttention",
            "enrolment_score",
            "DistillationObjective.plan",
            "DistillationObjective.asks_classes",
            "read_converted",
            "InShard",
            "named_if_too_short",
            "UNLABELLED",
            "option_at",
            "time_weights",
            "_time_weights",
            "_attributed",
            "train_kd:n_epochs",
            "train_kd:model",
            "eta_at",
            "needs_projection",
            "has_statistics",
            "inherited_speakers",
            "utterance_key",
            "build_plain",
            "is_name",
            "is_run",
            "run_of",
            "_check_modules",
            # Model folders with checksums, and those of other people
            "_check_sums",
            "_check_zip",
            "_check_whole",
            "_set_damaged_aside",
            "csv_problems",
            "check_aliases",
            "check_trusted",
            "trust",
            "imlkd_brain.models.export:write_sums",
            "PERTURBED",
            "_tensors",
            "SpeakerModel._apply",
            # Fewer operations for the same answer
            "folded",
            "without_idle_padding",
            # Names that nothing reads then
            "imlkd_brain.models.export:norm",
            "imlkd_brain.models.folder:plain",
            "train_kd:begun",
            "imlkd_brain.distillation.guidance:front_end",
            "train_kd:chunk",
            "train_kd:mode",
            "train_kd:seen",
            "train_kd:trained_with",
            "train_kd:told",
            "train_kd:loader_options",
            "imlkd_brain.brain:labelled",
            "has_unlabelled",
            # Parts of a batch: all branches have the whole one there
            "parts_of",
            "draw_rows",
            "Part",
            "IMLKDBrain._parts",
            # Several processes: each relates its own utterances there
            "counts_of_all",
            "share_of",
            "gathered",
            "_Gathered",
            "Outputs.of_all",
            "DistillationObjective._share",
            "tensors_of",
        )
    ),
}
ATTRIBUTES = {
    **dict.fromkeys(
        (
            "trials",
            "cache",
            "front_end",
            "attention",
            "needs_attention",
            "training_steps",
            "_eta_end",
            "model_key",
            "_fingerprint",
            "check",
            "guard",
            "means_before",
            "_share_statistics",
            "batch_isfinite",
            "of_rows",
            "of_batch",
        )
    ),
    "learnt_speakers": True,
    "validates": True,
    "has_classifier": True,
}
PARAMETERS = {
    "encode_speakers": {"expected": None},
    "train": {"trained_with": None},
    "train_dataset": {"labels": None, "shards": None},
    "valid_dataset": {"labels": None},
    "_speaker_loss": {"labelled": None},
    "branch_terms": {"step": None, "labelled": None, "rows": None},
    "_term": {"step": None, "labelled": None},
    "export_training": {"trained_with": None, "teacher": None, "heard": ()},
    "export_inference_folder": {"trained_with": None, "teacher_speakers": ()},
    "TrainedModel": {"compute_features": None, "mean_var_norm": None},
    "SpeakerModel": {"key": None, "teacher_speakers": ()},
    "Teacher": {"prototypes": None},
    "load_teacher": {
        "classes": "classifier",
        "prototypes": None,
        "features": None,
    },
    "_build": {"run": None},
    "Guidance": {"sample_rate": None, "cache": None},
    "IntegratedInputs": {"share": None},
    "View": {"wavs": None, "batch": None, "rows": None},
    "Integrated": {
        "weights": None,
        "plain": None,
        "segment": None,
        "teacher_weights": None,
    },
    "Outputs": {"attention": None, "weights": None},
    "of_segments": {"integrated": None, "weights": None},
    "_weigh": {"integrated": None, "weights": None},
    "_on_segments": {"weights": None},
    "DistillationObjective": dict.fromkeys(
        (
            "eta_warmup_steps",
            "eta_schedule",
            "eta_total_steps",
            "embedding_projection",
            "gather_batch",
        )
    ),
}
# Arguments in the examples of docstrings.
ARGUMENTS = [name for names in PARAMETERS.values() for name in names] + [
    key
    for key in KEYS
    if key.startswith(("decoupled", "correlation", "triage"))
]
# Functions and classes whose docstrings go without their example.
EXAMPLES = (
    "RandomChunks",
    "batches_per_epoch",
    "batch_loss",
    "class_loss",
    "class_rows",
    "draw_duration",
    "embedding_loss",
    "frame_rate",
    "hop_samples",
    "make_projection",
    "n_batches",
    "random_segments",
    "repeat_to",
    "seconds_to_samples",
    "segments_at",
    "speaker_names",
    "unwrapped",
    "updates_per_epoch",
)
# What a sentence of a docstring must not speak of.
OURS = (
    r"verify\.py|explain\.py|compare\.py|minivox|prototype|trained_with"
    r"|docs/|caches?d?\b|decoupled|dist_loss|dev trials|public model|cohort|build_plain"
    r"|one_sentence_errors|sha-256|loaded back|embedding stores"
)
# Pieces that read otherwise upstream, by module.
TEXTS = {
    "train_kd": {
        "hparams_file, hparams, run_opts, overrides = training.load_training(argv)": (
            "hparams_file, run_opts, overrides = sb.parse_arguments(argv)\n"
            '    with open(hparams_file, encoding="utf-8") as stream:\n'
            "        hparams = load_hyperpyyaml(stream, overrides)"
        ),
        "from voxceleb_prepare": (
            "from hyperpyyaml import load_hyperpyyaml\nfrom voxceleb_prepare"
        ),
        "from speechbrain.utils.distributed": (
            "from speechbrain.utils.data_utils import download_file\n"
            "from speechbrain.utils.distributed"
        ),
        '        options = {\n            "data_folder"': (
            "        trials = os.path.join(\n"
            '            hparams["save_folder"],\n'
            '            os.path.basename(hparams["verification_file"]),\n'
            "        )\n"
            "        run_on_main(\n"
            '            download_file, args=[hparams["verification_file"], trials]\n'
            "        )\n"
            '        options = {\n            "data_folder"'
        ),
        '_file": hparams["verification_file"]': '_file": trials',
        '    teacher = hparams["teacher"] if distils(hparams) else None\n': "",
        "        kwargs=told,\n": "",
        "    logger.info(training.next_step(argv[0], hparams))": (
            "    logger.info(f\"Trained model: {hparams['output_folder']}/inference\")"
        ),
        'objective, integrated = map(hparams.get, ("objective", '
        '"integrated_inputs"))': (
            'integrated = hparams.get("integrated_inputs")'
        ),
        "    if objective is None": '    if "objective" not in hparams',
        "features.frame_rate(seen[0], rate)": (
            'features.frame_rate(hparams["compute_features"], rate)'
        ),
        '        more = {"sample_rate": hparams["sample_rate"]}\n': "",
        "objective.needs_projection(*dims)": (
            'objective.reads("projection") and dims[0] != dims[1]'
        ),
        "Guidance(teacher, integrated, **more)": "Guidance(teacher, integrated)",
        # The comment stands above a statement that goes.
        '    if not hparams["skip_prep"] and hparams["data_folder"] is not '
        "None:\n": (
            "    # Dataset prep (parsing VoxCeleb into csv files)\n"
            '    if not hparams["skip_prep"]:\n'
        ),
        "    if valid_data is not None and hparams": "    if hparams",
        '    folder, rate = hparams["data_folder"], hparams["sample_rate"]\n': "",
        "        folder,\n": '        hparams["data_folder"],\n',
        "        rate,\n": '        hparams["sample_rate"],\n',
        "datasets.valid_dataset(annotation, folder, rate, labels)": (
            "datasets.valid_dataset(\n"
            '        annotation, hparams["data_folder"], hparams["sample_rate"]\n'
            "    )"
        ),
        'training.make_classifier(hparams["classifier"], len(encoder))': (
            'hparams["classifier"](out_neurons=len(encoder))'
        ),
    },
    "imlkd_brain.distillation.guidance": {
        'self._once("answer", feats, compute)': "compute()",
        "self._attributed(view)": "self.teacher.cosines, view.target",
        "        if not integrated and not weights:\n"
        "            return Integrated(plain=segment.features)\n": "",
        '            asked = {"integrated": integrated, "weights": weights}\n': "",
        "with_gap, **asked)": "with_gap)",
        (
            "        if not integrated:\n"
            "            made.weights, made.gap = self.integrated.time_weights(*given)\n"
            "        elif not weights:\n"
            "            made.student, made.gap = self.integrated(*given)\n"
            "        else:\n"
            "            made.student, made.weights, made.gap = self.integrated.weighed(\n"
            "                *given\n"
            "            )\n"
        ): ("        made.student, made.gap = self.integrated(*given)\n"),
        "made = Integrated(plain=segment.features)": "made = Integrated()",
        "        Returns\n        -------\n        Integrated\n"
        "            ``plain`` always; what was not asked for is None.\n": "",
        "One segment of each chunk, and what is asked of it, constants.": (
            "``I(x_d)`` of one segment of each chunk, constants."
        ),
        "Segments of a batch: plain, as ``I(x_d)``, and their time weights.": (
            "``I(x_d)`` of a batch in the features of each, and the gap."
        ),
    },
    "imlkd_brain.data.datasets": {
        "    annotation,\n    data_folder,\n    seconds,\n    sample_rate,\n"
        "    seed,\n    speeds=(1.0,),\n    labels=None,\n    shards=None,\n": (
            "    annotation, data_folder, seconds, sample_rate, seed, "
            "speeds=(1.0,)\n"
        ),
        "    read = read_annotation if labels is None else labels.rows\n"
        "    rows = read(": "    rows = read_annotation(",
        "    read = read_annotation if labels is None else labels.valid_rows\n"
        "    rows = read(": "    rows = read_annotation(",
        '["id", "sig", "spk_id", "utterance"]': '["id", "sig", "spk_id"]',
    },
    "imlkd_brain.models.folder": {
        "        found = misfit(state, module.state_dict())\n": "",
        "found or str(error).splitlines()[-1]": "str(error).splitlines()[1]",
    },
    "imlkd_brain.distillation.objective": {
        "(\n        self,\n        branch,\n        outputs,\n"
        "        target=None,\n        projection=None,\n        step=0,\n"
        "        labelled=None,\n        rows=(),\n    ):": (
            "(self, branch, outputs, target=None, projection=None):"
        ),
        "_term(\n                term,\n"
        "                related if term in common else outputs,\n"
        "                *(target, projection, step, labelled),\n"
        "            )\n            for term in names": (
            "_term(term, outputs, target, projection)\n"
            "            for term in self._terms_of(branch)"
        ),
        "        names = self._terms_of(branch)\n"
        "        common = [n for n in names if self.gather_batch and "
        "TERMS[n].relational]\n"
        "        related = common and outputs.of_all(rows, tensors_of(common))"
        "\n": "",
        "eta * self.weights[name] * self._share(name, shares) * value": (
            "eta * self.weights[name] * value"
        ),
        "terms, step, shares=None": "terms, step",
        "self.eta_at(step)": "self.eta",
        'self.option_at(f"{name}_{need}", step)': (
            'self.options[f"{name}_{need}"]'
        ),
        '            "attention": (outputs.attention, outputs.weights),\n': "",
        '        return self.integrates or self.needs("segment")\n': (
            "        return self.integrates\n"
        ),
        "    ``segment``    ``x_d`` itself             all of ``x``, unweighted\n": "",
        "    ``segment`` is the same with plain segments, whatever the mode of I "
        "is.\n": "",
        " Two\n        numbers ``[start, end]`` change linearly over the training.": "",
    },
    "imlkd_brain.distillation.methods": {
        ', "cross", "segment")': ', "cross")',
        '    "attention",\n': "",
    },
    "imlkd_brain.distillation.terms": {
        "        - ``attention``: the scores of the student's pooling, (B, channels, "
        "T),\n          and the teacher's time weights (B, T)\n": "",
    },
    "imlkd_brain.distillation.attribution": {
        ', "own_embedding")': ")",
        " ``own_embedding`` needs no\n    classes: the caller gives "
        ":func:`enrolment_score` of the utterances' own\n    embeddings, and "
        "their numbers as targets.": "",
        "``predicted``, ``log_posterior`` or ``own_embedding``": (
            "``predicted`` or ``log_posterior``"
        ),
        " (:func:`enrolment_score`)": "",
    },
    "imlkd_brain.distillation.integrated_inputs": {
        '    "reversed_gate",\n': "",
        "    ``reversed_gate``  the same, the weights of the frames in reverse order\n": "",
        "    ``reversed_gate`` is a control: its weights are as uneven and as smooth as"
        "\n    those of ``time_gate``, but belong to other frames.\n\n": "",
        "# Those that have one weight for all bins of a frame\n"
        'OF_FRAMES = ("time_gate", "reversed_gate", "time_mask")\n': "",
        "mode in OF_FRAMES": 'mode.startswith("time_")',
        "gated(mode, feats, ": "gated(feats, ",
        '    if mode == "reversed_gate":\n        weights = weights.flip(1)\n': "",
        "        return inputs, self._time_weights(attribution), gap": (
            "        return inputs, gap"
        ),
        (
            "        inputs, _, gap = self.weighed(\n"
            "            logits, feats, target, generator, with_gap\n"
            "        )\n"
            "        return inputs, gap\n"
            "\n"
            "    def weighed(self, logits, feats, target, generator=None, with_gap=True):\n"
            '        """Integrated inputs, and the time weights of the same attribution.\n'
            "\n"
            "        Arguments are those of a call.\n"
            "\n"
            "        Returns\n"
            "        -------\n"
            "        inputs : torch.Tensor\n"
            "            As a call returns them.\n"
            "        weights : torch.Tensor\n"
            "            As :meth:`time_weights` returns them, whatever the mode is.\n"
            "        gap : torch.Tensor or None\n"
            "            Of the attribution, shape (B,); None if not ``with_gap``.\n"
            '        """\n'
        ): "",
    },
    "imlkd_brain.brain": {
        (
            "        with named_if_too_short(batch, self.hparams.sample_rate):\n"
            "            embeddings = self._embed(*batch.sig)\n"
        ): "        embeddings = self._embed(*batch.sig)\n",
        " of the utterances that have a label": "",
        'self.needs("cross") or self.needs("segment")': 'self.needs("cross")',
        "        x_d, x         -> student, teacher -> terms on the segment branch\n": "",
        (
            '        if self.needs("segment"):\n'
            '            predictions["segment"] = self._on_segments(\n'
            "                inputs.plain, teacher, weights=inputs.weights\n"
            "            )\n"
        ): "",
        "    # Of the student, where a term reads it.\n    attention = None\n": "",
        "        scores = None if self.attention is None else "
        "self.attention.take()\n": "",
        "teacher, scores, weights)": "teacher)",
        "        self.parts = self._parts(view.target)\n": "",
        '            cut = view.of_rows(self.parts["segment"].rows)\n'
        "            self._add_segments(predictions, cut)\n": (
            "            self._add_segments(predictions, view)\n"
        ),
        '        labelled = self.parts["raw"].labelled\n': "",
        "        shares = {name: part.shares for name, part in "
        'self.parts.items()}\n        loss = loss * shares["raw"][1]\n': "",
        "            chosen = self.parts[branch]\n": "",
        "                    chosen.target,\n": "                    target,\n",
        "                    labelled=chosen.labelled,\n"
        "                    rows=chosen.counts[0],\n": "",
        "weighted(\n            terms, self.optimizer_step, shares\n        )": (
            "weighted(terms, self.optimizer_step)"
        ),
    },
    "imlkd_brain.distillation.teacher": {
        "            model.teacher_speakers,\n": "",
        '; give `--teacher_classes "\n                    "prototypes` to use '
        'mean teacher embeddings as classes."': '."',
        ', "\n            "or give `--teacher_classes prototypes` to use mean '
        'teacher "\n            "embeddings as classes."': '."',
    },
}
# Phrases of docstrings that read otherwise, where they are there.
PHRASES = {
    " None\n        where there is nothing to validate on.": "",
    "; no classifier without speakers": "",
    "; the dev trials take embeddings": "",
    "; keeps what a batch of NaN must not change": "",
    ", and cohorts": "",
    "folder, a training output folder, that of SpeechBrain's\n        own "
    "training, or a name, see :mod:`imlkd_brain.models.sources`.": (
        "folder or a training output folder."
    ),
    "\n        It holds ``embedding_model.ckpt``.": "",
    "; of a run only these": "",
    "    # A checkpoint of a run is no model alone: the rest lies above it.\n": "",
    "        # Rows without names are of no use either.\n": "",
    "        # A hub model's own paths are not needed: the files are here.\n": "",
    "        # None, or one that ends in a softmax as the x-vector's: no "
    "cosines.\n": "",
    "spk_id and utterance (``speaker/session/file``)": "spk_id",
    "text, JSON, CSV, cached results": "CSV",
}
NESTED_KEYS = (
    "train_dataloader_options.timeout",
    "valid_dataloader_options.timeout",
    "objective.decoupled_alpha",
    "objective.decoupled_beta",
    "objective.correlation_beta",
    "objective.correlation_gamma",
    "objective.triage_cutoff",
    "objective.triage_alpha",
    "objective.triage_beta",
    "objective.eta_warmup_steps",
    "objective.eta_schedule",
    "objective.eta_total_steps",
    "objective.embedding_projection",
    "objective.gather_batch",
    "integrated_inputs.share",
    "teacher.classes",
    "teacher.features",
    "methods.decoupled_kd",
    "methods.dist",
    "methods.relation_kd",
    "methods.triage_kd",
    "methods.segments_kd",
    "methods.iml_kd_attention",
    "prepare_noise_data.data_folder",
    "prepare_noise_data.name",
    "prepare_noise_data.sample_rate",
    "prepare_rir_data.data_folder",
    "prepare_rir_data.name",
    "prepare_rir_data.sample_rate",
)
YAML_TEXTS = {
    "imlkd_brain.data.augmentation_data.prepare_augmentation_data": (
        "speechbrain.augment.preparation.prepare_dataset_from_URL"
    ),
    "imlkd_brain.data.augmentation.": "speechbrain.augment.time_domain.",
    "imlkd_brain.checkpoints.AtomicCheckpointer": (
        "speechbrain.utils.checkpoints.Checkpointer"
    ),
    "data_folder_noise: null": "data_folder_noise: !ref <data_folder>/noise",
    "data_folder_rir: null": "data_folder_rir: !ref <data_folder>/rir",
    "; several with commas": "",
    "# Downloaded to noise and rir in the (first) data folder, or to the "
    "folders here\n": "# Downloaded to these folders\n",
    ",\n# which is looked for in data_folder first.": ".",
    "dev: a session of each speaker, near to this share": "train and dev",
    "    # A teacher with other features computes its own of the same "
    "waveforms\n": "",
    ", see docs/method.md": "",
    ", multi_level, decoupled,\n# correlation, relation, triage, attention; see": (
        ", multi_level; see"
    ),
    "), `cross` (the student sees I(x_d), the teacher all of x)\n# and `segment` "
    "(the student sees plain x_d, the teacher all of x).\n": (
        ") and `cross` (the student sees I(x_d), the teacher all of x).\n"
    ),
    "# or gate, reversed_gate, overlay": "# or gate, overlay",
    "# or predicted, log_posterior, own_embedding (the chunk's; it needs no "
    "classes)\nattribution_target: true_class\n": (
        "attribution_target: true_class  # or predicted, log_posterior\n"
    ),
    "# What is learnt on I(x) alone has to hold on x (docs/method.md).\n": "",
}
