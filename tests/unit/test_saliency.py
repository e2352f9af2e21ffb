"""Maps, deletion and insertion on networks whose truth is known."""

import sys

import pytest
import torch
from scipy.stats import spearmanr

from imlkd_brain import saliency
from imlkd_brain.errors import UserError
from imlkd_brain.metrics import EER, bootstrap_counts
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

N_FRAMES, N_BANDS = 60, 16
PATCH = (slice(None), slice(20, 30), slice(4, 8))
N_PATCH = 10 * 4


def patch_score(feats):
    """Column 0 reads the patch alone, column 1 all the rest."""
    patch = feats[PATCH].sum((1, 2)) / 2
    rest = (feats.sum((1, 2)) - 2 * patch) / 20
    return torch.stack((patch, rest), 1).tanh()


@pytest.fixture
def feats():
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(5, N_FRAMES, N_BANDS, generator=generator)
    # Positive, so that every bin of the patch speaks for the speaker, and
    # small enough for tanh to keep a gradient.
    return 0.02 + 0.03 * values


@pytest.fixture
def target():
    return torch.zeros(5, dtype=torch.long)


@pytest.fixture
def ecapa():
    torch.manual_seed(0)
    network = ECAPA_TDNN(
        N_BANDS,
        channels=[16] * 4 + [32],
        attention_channels=8,
        se_channels=8,
        lin_neurons=12,
    )
    return network.eval().requires_grad_(False)


METHODS = {
    "integrated_gradients": {"n_steps": 8, "rule": "midpoint"},
    "gradient": {},
    "gradient_x_input": {},
    "occlusion": {"window": [5, 2], "stride": [5, 2]},
}


def patch_mask():
    mask = torch.zeros(1, N_FRAMES, N_BANDS, dtype=torch.bool)
    mask[PATCH] = True
    return mask


# ------------------------------------------------------------------ maps


@pytest.mark.parametrize("method", METHODS)
def test_a_map_finds_the_patch_that_the_score_reads(method, feats, target):
    attribution, _ = saliency.saliency_map(
        method, patch_score, feats, target, options=METHODS[method]
    )
    ranks = saliency.importance_ranks(attribution)
    assert torch.equal(ranks < N_PATCH, patch_mask().expand_as(ranks))
    # The rest is not read at all.
    assert attribution[(~patch_mask()).expand_as(ranks)].abs().max() == 0


def test_a_map_follows_its_target_column(feats):
    other = torch.ones(5, dtype=torch.long)
    attribution, _ = saliency.saliency_map(
        "gradient", patch_score, feats, other
    )
    assert attribution[PATCH].max() == 0
    assert attribution.max() > 0


def test_integrated_gradients_come_with_their_gap(feats, target):
    attribution, gap = saliency.saliency_map(
        "integrated_gradients",
        patch_score,
        feats,
        target,
        options={"n_steps": 64},
    )
    difference = patch_score(feats)[:, 0] - patch_score(0 * feats)[:, 0]
    # The midpoint rule's error falls with the square of 64 steps.
    assert gap.abs().max() < 1e-3
    assert torch.allclose(attribution.sum((1, 2)) - difference, gap, atol=1e-6)


def test_grad_cam_finds_the_frames_and_gives_all_bins_of_one_the_same():
    model = torch.nn.ModuleDict({"front": torch.nn.Conv1d(N_BANDS, 3, 1)})
    with torch.no_grad():
        model["front"].weight.fill_(1.0)
        model["front"].bias.zero_()
    feats = torch.zeros(2, N_FRAMES, N_BANDS)
    feats[:, 20:30] = 1.0

    def score(x):
        return model["front"](x.transpose(1, 2)).mean((1, 2))[:, None]

    attribution, _ = saliency.saliency_map(
        "grad_cam",
        score,
        feats,
        torch.zeros(2, dtype=torch.long),
        model=model,
        options={"layer": "front"},
    )
    assert attribution.shape == feats.shape
    assert (attribution[:, 20:30] > 0).all()
    assert attribution[:, :20].abs().max() == 0
    assert torch.equal(attribution[..., 0], attribution[..., -1])


@pytest.mark.parametrize("transposed", [False, True])
def test_grad_cam_of_a_two_dimensional_layer_keeps_time_on_its_axis(
    transposed,
):
    model = torch.nn.ModuleDict({"front": torch.nn.Conv2d(1, 2, 2, stride=2)})
    with torch.no_grad():
        model["front"].weight.fill_(1.0)
        model["front"].bias.zero_()
    feats = torch.zeros(1, N_FRAMES, N_BANDS)
    feats[PATCH] = 1.0

    def score(x):
        image = x.transpose(1, 2) if transposed else x
        return model["front"](image[:, None]).mean((1, 2, 3))[:, None]

    attribution = saliency.grad_cam_map(
        score, feats, torch.zeros(1, dtype=torch.long), model["front"]
    )
    # Interpolation smears by one cell of two bins.
    inside = torch.zeros_like(feats, dtype=torch.bool)
    inside[:, 18:32, 2:10] = True
    assert attribution[PATCH].min() > 0
    assert attribution[~inside].abs().max() == 0


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("asp_bn", "before the pooling"),
        ("no.such", "no layer `no.such`"),
        (None, "no layer"),
    ],
)
def test_a_layer_that_cannot_be_mapped_is_one_sentence(ecapa, layer, words):
    def score(x):
        return ecapa(x).squeeze(1)

    with pytest.raises(UserError, match=words):
        saliency.saliency_map(
            "grad_cam",
            score,
            torch.randn(1, N_FRAMES, N_BANDS),
            torch.zeros(1, dtype=torch.long),
            model=ecapa,
            options={"layer": layer},
        )


def test_a_channels_last_layer_is_one_sentence():
    model = torch.nn.ModuleDict({"front": torch.nn.Linear(N_BANDS, 4)})

    def score(x):
        return model["front"](x).mean(1)

    with pytest.raises(UserError, match="batch, channels, time"):
        saliency.grad_cam_map(
            score,
            torch.randn(1, N_FRAMES, N_BANDS),
            torch.zeros(1, dtype=torch.long),
            model["front"],
            "front",
        )


def test_unknown_methods_and_options_are_one_sentence(feats, target):
    with pytest.raises(UserError, match="`lime` is none of the maps"):
        saliency.saliency_map("lime", patch_score, feats, target)
    with pytest.raises(UserError, match="methods: occlusion: .*'windows'"):
        saliency.saliency_map(
            "occlusion", patch_score, feats, target, options={"windows": 3}
        )


def test_a_fault_of_the_score_is_not_taken_for_a_wrong_option(feats, target):
    def broken(x):
        raise TypeError("unexpected keyword argument in the network")

    with pytest.raises(TypeError, match="in the network"):
        saliency.saliency_map("gradient", broken, feats, target)


def test_without_captum_one_sentence_says_how_to_get_it(
    monkeypatch, feats, target
):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"imlkd_brain\[explain\]"):
        saliency.saliency_map("gradient", patch_score, feats, target)
    attribution, _ = saliency.saliency_map(
        "integrated_gradients", patch_score, feats, target
    )
    assert attribution.shape == feats.shape


def test_occlusion_is_the_fall_of_the_score(feats, target):
    attribution = saliency.occlusion_map(
        patch_score, feats, target, window=(10, 4), stride=(10, 4)
    )
    without = feats.clone()
    without[PATCH] = 0
    fall = (patch_score(feats) - patch_score(without))[:, 0]
    assert torch.allclose(attribution[:, 25, 6], fall, atol=1e-6)


def test_a_window_larger_than_the_utterance_takes_it_whole(feats, target):
    attribution = saliency.occlusion_map(
        patch_score, feats, target, window=(500, 500), stride=(500, 500)
    )
    fall = patch_score(feats)[:, 0]
    assert torch.allclose(attribution[:, 0, 0], fall, atol=1e-6)


def test_random_maps_depend_on_the_seed_alone(feats):
    def draw(seed):
        return saliency.random_map(feats, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_an_enrolment_score_is_the_cosine_and_spares_the_enrolment(feats):
    enrolments = torch.randn(3, N_BANDS, requires_grad=True)
    score = saliency.enrolment_score(lambda x: x.mean(1), enrolments)
    expected = torch.nn.functional.cosine_similarity(
        feats.mean(1)[:, None], enrolments[None], dim=-1
    )
    scores = score(feats.requires_grad_())
    assert torch.allclose(scores, expected, atol=1e-6)
    scores.sum().backward()
    assert enrolments.grad is None


# ------------------------------------------------- deletion and insertion


@pytest.mark.parametrize("unit", saliency.UNITS)
@pytest.mark.parametrize("kind", saliency.BASELINES)
@pytest.mark.parametrize("insertion", [False, True])
def test_the_ends_of_a_curve_are_the_clean_and_the_empty_input(
    feats, unit, kind, insertion
):
    ranks = saliency.importance_ranks(torch.randn_like(feats), unit)
    baseline = saliency.empty_input(feats, kind, blur_sigma=4.0)
    outputs = saliency.perturbation_outputs(
        lambda x: x.flatten(1),
        feats,
        ranks,
        torch.linspace(0, 1, 21),
        baseline,
        insertion=insertion,
        batch_frames=500,
    )
    first, last = outputs[:, 0], outputs[:, -1]
    clean, empty = (last, first) if insertion else (first, last)
    assert torch.equal(clean, feats.flatten(1))
    assert torch.equal(empty, baseline.flatten(1))


def test_each_level_takes_exactly_its_share_most_important_first(feats):
    attribution = torch.randn_like(feats)
    levels = torch.linspace(0, 1, 21)
    outputs = saliency.perturbation_outputs(
        lambda x: x.flatten(1),
        feats,
        saliency.importance_ranks(attribution),
        levels,
        torch.zeros_like(feats),
    )
    gone = outputs == 0  # the features themselves are positive
    n_bins = N_FRAMES * N_BANDS
    assert (
        gone.sum(2).tolist()
        == [[round(i * n_bins / 20) for i in range(21)]] * 5
    )
    values = attribution.flatten(1)
    for item in range(5):
        for level in range(1, 20):
            lost = values[item][gone[item, level]]
            kept = values[item][~gone[item, level]]
            assert lost.min() >= kept.max()


def test_frames_go_whole(feats):
    ranks = saliency.importance_ranks(torch.randn_like(feats), "frames")
    assert ranks.shape == (5, N_FRAMES, 1)
    half = saliency.perturbed_inputs(
        feats, ranks, torch.full((5,), 30), torch.zeros_like(feats)
    )
    empty = (half == 0).sum(2)
    assert set(empty.flatten().tolist()) == {0, N_BANDS}
    assert ((empty == N_BANDS).sum(1) == 30).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", saliency.UNITS)
def test_a_true_map_beats_the_random_control(feats, target, method, unit):
    levels = torch.linspace(0, 1, 21)
    areas = {}
    for name in (method, "random"):
        attribution, _ = saliency.saliency_map(
            name,
            patch_score,
            feats,
            target,
            options=METHODS.get(name),
            generator=torch.Generator().manual_seed(0),
        )
        ranks = saliency.importance_ranks(attribution, unit)
        for insertion in (False, True):
            curve = (
                saliency.perturbation_outputs(
                    lambda x: patch_score(x)[:, :1],
                    feats,
                    ranks,
                    levels,
                    torch.zeros_like(feats),
                    insertion,
                )[..., 0]
                / patch_score(feats)[:, :1]
            )
            areas[name, insertion] = saliency.area_under_curve(curve, levels)
    # The patch is in a sixth of the frames: the score is gone, or there, at
    # 1/6, so the area is within 1/6 of 0 or 1. At random it goes as the share
    # does: 0.5 but for the curvature of tanh and for which frames are drawn.
    assert (areas[method, False] < 1 / 6).all()
    assert (areas[method, True] > 5 / 6).all()
    for insertion in (False, True):
        assert areas["random", insertion].mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("step", [1, 7, 20])
def test_area_of_a_step_in_closed_form(step):
    levels = torch.linspace(0, 1, 21)
    curve = (torch.arange(21) < step).float()
    # Trapezoids: full ones up to the last 1, half of the one with the step.
    expected = (step - 0.5) / 20
    area = saliency.area_under_curve(curve, levels)
    assert float(area) == pytest.approx(expected, abs=1e-6)
    assert float(
        saliency.area_under_curve(torch.ones(21), levels)
    ) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", [*METHODS, "grad_cam"])
def test_a_batch_equals_one_at_a_time(ecapa, method):
    feats = torch.randn(3, N_FRAMES, N_BANDS)
    feats = feats - feats.mean(1, keepdim=True)
    enrolments = torch.randn(2, 12)
    score = saliency.enrolment_score(lambda x: ecapa(x).squeeze(1), enrolments)
    target = torch.tensor([0, 1, 0])
    options = METHODS.get(method, {"layer": "mfa"})
    levels = torch.linspace(0, 1, 5)

    def run(items):
        attribution, _ = saliency.saliency_map(
            method,
            score,
            feats[items],
            target[items],
            model=ecapa,
            options=options,
        )
        ranks = saliency.importance_ranks(
            attribution, generator=torch.Generator().manual_seed(5)
        )
        outputs = saliency.perturbation_outputs(
            score,
            feats[items],
            ranks,
            levels,
            saliency.empty_input(feats[items], "blur", 3.0),
            insertion=True,
        )
        return attribution, outputs

    together = run([0, 1, 2])
    for item in range(3):
        alone = run([item])
        scale = together[0][item].abs().max()
        # float32 sums in another order: relative 1e-4.
        assert torch.allclose(
            together[0][item], alone[0][0], atol=1e-4 * float(scale)
        )
        # A swap of two nearly equal bins moves the score by less than this.
        assert torch.allclose(together[1][item], alone[1][0], atol=1e-3)


def test_the_memory_limit_changes_nothing(ecapa):
    feats = torch.randn(3, N_FRAMES, N_BANDS)
    ranks = saliency.importance_ranks(torch.randn_like(feats))

    def run(batch_frames):
        return saliency.perturbation_outputs(
            lambda x: ecapa(x).squeeze(1),
            feats,
            ranks,
            torch.linspace(0, 1, 5),
            torch.zeros_like(feats),
            batch_frames=batch_frames,
        )

    # float32 rounding of another batch shape.
    assert torch.allclose(run(1), run(10**6), atol=1e-4)


def test_ties_are_ranked_at_random_but_reproducibly():
    flat = torch.zeros(1, 50, 20)

    def ranks(seed):
        return saliency.importance_ranks(
            flat, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(ranks(1), ranks(1))
    # The first fifth of the ranks is not the first fifth of the bands.
    columns = (ranks(1) < 200).nonzero()[:, 2]
    assert 7 < columns.float().mean() < 12
    assert ranks(1).flatten().sort().values.tolist() == list(range(1000))


def test_the_band_mean_of_normalised_features_is_zero(feats):
    normalised = feats - feats.mean(1, keepdim=True)
    assert torch.allclose(
        saliency.empty_input(normalised, "band_mean"),
        saliency.empty_input(normalised, "zero"),
        atol=1e-7,
    )


def test_blur_smooths_and_keeps_what_is_constant(feats):
    constant = torch.full_like(feats, 3.0)
    assert torch.allclose(
        saliency.empty_input(constant, "blur"), constant, atol=1e-5
    )
    blurred = saliency.empty_input(feats, "blur", blur_sigma=3.0)
    assert blurred.std() < 0.3 * feats.std()


def test_unknown_units_and_baselines_are_one_sentence(feats):
    with pytest.raises(UserError, match="`grey` is none of zero"):
        saliency.empty_input(feats, "grey")
    with pytest.raises(UserError, match="`words` is none of bins"):
        saliency.importance_ranks(feats, "words")


def test_identification_curves_against_their_definition():
    cosines = torch.tensor([[[0.9, 0.1, 0.2], [0.1, 0.3, 0.2]]])
    curves = saliency.identification_curves(
        cosines, torch.tensor([0]), scale=30.0, top=(1, 2)
    )
    logits = 30 * cosines[0]
    expected = logits[:, 0].exp() / logits.exp().sum(1)
    assert torch.allclose(curves["posterior"][0], expected)
    assert curves["top1"].tolist() == [[1.0, 0.0]]
    assert curves["top2"].tolist() == [[1.0, 0.0]]


def test_a_tie_with_another_speaker_is_a_miss():
    curves = saliency.identification_curves(
        torch.full((1, 1, 4), 0.5), torch.tensor([2]), top=(1, 3, 4)
    )
    assert curves["top3"].tolist() == [[0.0]]
    assert curves["top4"].tolist() == [[1.0]]


# --------------------------------------------- confidence and agreement


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties):
    one, other = torch.randn(2, 3, 12, 7).unbind()
    other = other + one
    if ties:
        one, other = (4 * one).round(), (4 * other).round()
    rho = saliency.rank_correlation(one, other)
    for item in range(3):
        expected = spearmanr(one[item].flatten(), other[item].flatten())
        assert float(rho[item]) == pytest.approx(expected.statistic, abs=1e-12)


def test_a_constant_map_correlates_with_nothing():
    rho = saliency.rank_correlation(torch.ones(1, 9), torch.randn(1, 9))
    assert rho.item() == 0


def test_unrelated_maps_share_what_chance_gives_them():
    generator = torch.Generator().manual_seed(0)
    one, other = (
        saliency.top_share(torch.rand(8, 100, 80, generator=generator), 0.2)
        for _ in range(2)
    )
    assert (one.flatten(1).sum(1) == 1600).all()
    overlap = (one & other).sum() / one.sum()
    # Standard error of a share of 0.2 of 12,800 bins: 0.0035.
    assert float(overlap) == pytest.approx(0.2, abs=0.015)


def test_time_profile_has_mean_one_and_survives_an_empty_map():
    maps = torch.stack((torch.randn(30, 8), torch.zeros(30, 8)))
    profile = saliency.time_profile(maps)
    assert profile[0].mean().item() == pytest.approx(1.0, abs=1e-6)
    assert profile[1].abs().max() == 0


def test_weighted_eer_is_the_eer_of_the_list():
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(400, generator=generator) < 0.3
    scores = torch.randn(400, generator=generator) + 1.5 * labels
    scores = (20 * scores).round() / 20  # with ties
    ours = saliency.weighted_eer(scores, labels, torch.ones(1, 400))
    theirs, _ = EER(scores[labels], scores[~labels])
    # Both take the nearest threshold; which of two equally near ones differs
    # by at most one target or nontarget trial.
    assert float(ours) == pytest.approx(theirs, abs=1 / 100)


def test_a_weight_of_three_is_a_trial_listed_three_times():
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([True, False] * 30)
    scores = torch.randn(60, generator=generator) + labels
    weights = torch.randint(0, 4, (5, 60), generator=generator)
    ours = saliency.weighted_eer(scores, labels, weights)
    for row in range(5):
        index = torch.repeat_interleave(torch.arange(60), weights[row])
        listed = saliency.weighted_eer(
            scores[index], labels[index], torch.ones(1, len(index))
        )
        assert float(ours[row]) == pytest.approx(float(listed), abs=1e-12)


def test_weighted_eer_is_the_nearest_of_all_thresholds():
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        labels = torch.rand(9, generator=generator) < 0.5
        labels[0], labels[1] = True, False
        scores = (4 * torch.randn(9, generator=generator)).round()
        gaps = {}
        for threshold in [*scores.tolist(), 99.0]:
            miss = (scores[labels] < threshold).double().mean()
            alarm = (scores[~labels] >= threshold).double().mean()
            gap = round(float((miss - alarm).abs()), 9)
            gaps.setdefault(gap, set()).add(float((miss + alarm) / 2))
        eer = saliency.weighted_eer(scores, labels, torch.ones(1, 9))
        # Where two thresholds are equally near, either will do.
        assert any(abs(float(eer) - v) < 1e-9 for v in gaps[min(gaps)])


def test_weighted_eer_without_targets_is_nan():
    labels = torch.tensor([True, False, False])
    eer = saliency.weighted_eer(
        torch.tensor([0.3, 0.2, 0.1]), labels, torch.tensor([[0.0, 1, 1]])
    )
    assert eer.isnan().all()


def test_bootstrap_means_equal_a_loop_over_drawn_speakers():
    generator = torch.Generator().manual_seed(4)
    speaker = torch.tensor([0, 0, 1, 2, 2, 2])
    values = torch.randn(6, 2, generator=generator)
    counts = bootstrap_counts(3, 20, generator)
    assert (counts.sum(1) == 3).all()
    mean, replicates = saliency.replicated_means(values, speaker, counts)
    assert torch.allclose(mean.float(), values.mean(0))
    for row in range(20):
        times = counts[row].long()[speaker]
        drawn = values.repeat_interleave(times, 0)
        assert torch.allclose(replicates[row].float(), drawn.mean(0))


def test_the_interval_is_as_wide_as_the_speakers_spread():
    generator = torch.Generator().manual_seed(5)
    per_speaker = torch.randn(400, generator=generator)
    # Ten utterances a speaker, all alike: worth one, not ten.
    values = per_speaker.repeat_interleave(10)
    speaker = torch.arange(400).repeat_interleave(10)
    counts = bootstrap_counts(400, 2000, generator)
    _, replicates = saliency.replicated_means(values, speaker, counts)
    low, high = saliency.interval(replicates, 0.95)
    expected = 2 * 1.96 * per_speaker.std() / 400**0.5
    # 2,000 replicates place a 2.5 % quantile within about 5 %.
    assert float(high - low) == pytest.approx(float(expected), rel=0.1)


# ----------------------------------------------------------------- sanity


def test_the_cascade_shuffles_from_the_output_down_and_spares_the_original(
    ecapa,
):
    before = {k: v.clone() for k, v in ecapa.state_dict().items()}
    shuffled_so_far = set()
    for name, network in saliency.parameter_cascade(
        ecapa, torch.Generator().manual_seed(0)
    ):
        shuffled_so_far.add(name)
        for key, value in network.named_parameters():
            ours = any(key.startswith(f"{n}.") for n in shuffled_so_far)
            same = torch.equal(value, before[key])
            assert same or ours, (name, key)
            # A few entries, or equal ones, may fall into place again.
            if ours and before[key].unique().numel() > 8:
                assert not same, (name, key)
            assert torch.equal(
                value.flatten().sort().values,
                before[key].flatten().sort().values,
            )
    assert list(shuffled_so_far) and name == "blocks.0"
    assert all(
        torch.equal(value, before[key])
        for key, value in ecapa.state_dict().items()
    )


def test_maps_of_a_shuffled_network_are_others(ecapa):
    feats = torch.randn(2, N_FRAMES, N_BANDS)
    target = torch.zeros(2, dtype=torch.long)

    def gradient(network):
        return saliency.gradient_map(
            lambda x: network(x).squeeze(1), feats, target
        )

    *_, (_, shuffled) = saliency.parameter_cascade(
        ecapa, torch.Generator().manual_seed(0)
    )
    same = saliency.rank_correlation(gradient(ecapa), gradient(ecapa))
    rho = saliency.rank_correlation(gradient(ecapa), gradient(shuffled))
    assert torch.allclose(same, torch.ones_like(same))
    assert (rho < 0.5).all()


# ------------------------------------------------------------------ plots


def test_figures_are_written_in_every_format_and_nothing_else(tmp_path):
    column = {
        "label": "1 s",
        "start": 0.5,
        "stop": 1.5,
        "log_mel": torch.randn(100, 16),
        "maps": {
            "teacher": torch.randn(100, 16),
            "student": torch.zeros(100, 16),
        },
    }
    band_hz = torch.linspace(60, 7800, 16)
    figure = saliency.plot_maps([column, column], band_hz, "title")
    saliency.save_figure(figure, tmp_path / "new" / "maps.2s", dpi=50)
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["maps.2s.pdf", "maps.2s.png"]
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert "time (s)" in labels
    ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert ticks == ["250", "1000", "2000", "4000"]


def test_curves_put_every_method_beside_random():
    levels = torch.linspace(0, 1, 3)
    curve = (levels, levels, levels - 0.1, levels + 0.1)
    methods = {"occlusion": curve, "random": curve}
    figure = saliency.plot_curves(
        {
            d: {"eer": methods, "top1": methods}
            for d in ("deletion", "insertion")
        },
        "title",
    )
    assert len(figure.axes) == 4
    assert all(len(axis.lines) == 2 for axis in figure.axes)
    # An error rate in [0, 1] is shown in per cent.
    assert max(figure.axes[0].lines[0].get_ydata()) == 100


def test_without_matplotlib_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib"):
        saliency.plot_curves({"deletion": {"eer": {}}}, "title")
