"""The Brain: dev figures, and the statistics of global normalisation."""

import pytest
import torch
from helpers.brains import fit, stats_of
from synthetic import (
    RATE,
    TRAIN_SPEAKERS,
    resolved_yaml,
    small_model,
)
from torch.nn.functional import cosine_similarity

import speechbrain as sb
from imlkd_brain.data.audio import read_audio
from imlkd_brain.errors import UserError
from imlkd_brain.models.export import TrainedModel, export_inference_folder
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.verification.dev_trials import dev_eer
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.metric_stats import EER as speechbrain_eer


def test_global_normalisation_is_kept_and_exported(make, corpus, tmp_path):
    brain = fit(make("scratch", mean_var_norm={"norm_type": "global"}))
    norm = brain.modules.mean_var_norm
    assert norm.count > 0
    # A checkpoint has the statistics: whoever goes on from it has the same.
    again = make(
        "scratch",
        mean_var_norm={"norm_type": "global"},
        output_folder=brain.hparams.output_folder,
    )
    again.on_fit_start()
    assert again.modules.mean_var_norm.count == norm.count
    assert torch.equal(again.modules.mean_var_norm.glob_mean, norm.glob_mean)

    resolved = tmp_path / "hyperparams.yaml"
    overrides = {
        "data_folder": "none",
        "mean_var_norm": {"norm_type": "global"},
        **small_model(),
    }
    resolved.write_text(resolved_yaml("iml_kd", overrides))
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(TRAIN_SPEAKERS)

    def export(**more):
        return export_inference_folder(
            tmp_path / "inference",
            resolved,
            TrainedModel(
                brain.modules.embedding_model,
                brain.modules.classifier,
                encoder,
                **more,
            ),
        )

    with pytest.raises(UserError, match="norm_type global"):
        export()
    unused = InputNormalization(norm_type="global")
    with pytest.raises(UserError, match="has seen no features"):
        export(mean_var_norm=unused)
    folder = export(mean_var_norm=norm)

    wavs = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    brain.modules.eval()
    with torch.no_grad():
        # By the definition: less the mean of all frames that were seen.
        feats = brain.modules.compute_features(wavs) - norm.glob_mean
        expected = brain.modules.embedding_model(feats).squeeze(1)
    model = load_speaker_model(folder)
    assert torch.equal(model.embed(wavs), expected)
    inference = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(folder), run_opts={"device": "cpu"}
    )
    assert torch.equal(inference.encode_batch(wavs).squeeze(1), expected)
    # The statistics go where the weights go, and are part of the key.
    assert model.to("meta").mean_var_norm.glob_mean.is_meta
    (folder / "checksums.json").unlink()  # as for a change on purpose
    state = torch.load(folder / "mean_var_norm.ckpt")
    state["glob_mean"] += 1
    torch.save(state, folder / "mean_var_norm.ckpt")
    assert load_speaker_model(folder).key != model.key
    state["glob_mean"][0] = torch.nan
    torch.save(state, folder / "mean_var_norm.ckpt")
    with pytest.raises(UserError, match="mean_var_norm.ckpt.*NaN"):
        load_speaker_model(folder)
    (folder / "mean_var_norm.ckpt").unlink()
    with pytest.raises(UserError, match="mean_var_norm.ckpt: missing"):
        load_speaker_model(folder)


def test_validation_is_deterministic_and_its_eer_speechbrains(make, corpus):
    brain = make("scratch", valid_dataloader_options={"batch_size": 1})
    results = []
    for _ in range(2):
        brain.on_stage_start(sb.Stage.VALID, 1)
        brain.modules.eval()
        loader = brain.make_dataloader(
            brain.data[1], sb.Stage.VALID, None, batch_size=1
        )
        for batch in loader:
            brain.evaluate_batch(batch, sb.Stage.VALID)
        results.append(list(brain.trials.figures().values()))
    assert results[0] == results[1]

    # The same figure from files, one utterance at a time.
    hparams = brain.hparams
    embeddings = {}
    for name in brain.trials.trials.utterances:
        signal = read_audio(f"{corpus}/wav/{name}.wav").unsqueeze(0)
        lens = torch.ones(1)
        with torch.no_grad():
            feats = hparams.mean_var_norm(
                hparams.compute_features(signal), lens
            )
            embeddings[name] = brain.modules.embedding_model(feats, lens)[0, 0]
    positive, negative = [], []
    for line in (corpus / "dev.txt").read_text().splitlines():
        label, enrol, test = line.replace(".wav", "").split()
        score = cosine_similarity(embeddings[enrol], embeddings[test], dim=0)
        (positive if label == "1" else negative).append(score)
    expected, _ = speechbrain_eer(torch.stack(positive), torch.stack(negative))
    # Scores differ in rounding, the EER of 15 trials in nothing.
    assert results[0][0] == pytest.approx(100 * float(expected), abs=1e-4)
    lengths = {len(brain.trials.crop(batch, 0.3)[0][0]) for batch in loader}
    assert lengths == {int(0.3 * RATE)}


def test_dev_eer_of_known_embeddings(make):
    """One trial of each label on the wrong side: SpeechBrain's EER too."""
    brain = make("scratch")
    trials = brain.trials.trials
    names = trials.utterances
    torch.manual_seed(1)
    full = {name: torch.randn(8) for name in names}
    cropped = {name: torch.randn(8) for name in names}
    labels = trials.labels
    scores = torch.stack(
        [
            cosine_similarity(full[names[a]], cropped[names[b]], dim=0)
            for a, b in trials.pairs.tolist()
        ]
    )
    expected, _ = speechbrain_eer(scores[labels], scores[~labels])
    expected = pytest.approx(100 * float(expected), abs=1e-4)
    assert dev_eer(trials, full, cropped) == expected
    # The figure to choose a checkpoint by is the mean over durations.
    brain.trials.embeddings = {"full": full, "0.3s": cropped}
    figures = brain.trials.figures()
    assert list(figures) == ["EER_full", "EER_0.3s", "EER"]
    whole = dev_eer(trials, full, full)
    assert figures["EER_full"] == whole and figures["EER_0.3s"] == expected
    assert figures["EER"] == (figures["EER_full"] + figures["EER_0.3s"]) / 2


def test_without_dev_trials_the_error_rate_decides(make, corpus):
    brain = make(
        "iml_kd",
        valid_trials=None,
        valid_annotation=str(corpus / "train.csv"),
        valid_durations=["full"],
        valid_dataloader_options={"batch_size": 3},
    )
    wrong = []
    evaluate = brain.evaluate_batch

    def counted(batch, stage):
        loss = evaluate(batch, stage)
        with torch.no_grad():
            cosines = brain._validate(batch.to("cpu"))
        target = batch.spk_id_encoded.data.squeeze(1)
        wrong.extend((cosines.argmax(-1) != target).tolist())
        return loss

    brain.evaluate_batch = counted
    fit(brain)
    assert len(wrong) == 8
    stats = stats_of(brain)
    # Batches of 3, 3 and 2 count by their utterances.
    assert float(stats["valid ErrorRate"]) == pytest.approx(sum(wrong) / 8)
    (checkpoint,) = brain.checkpointer.list_checkpoints()
    assert checkpoint.meta["ErrorRate"] == pytest.approx(sum(wrong) / 8)
