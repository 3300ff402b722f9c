"""Velocities and timing: read from MIDI, learned, drawn for each hit, written to MIDI, and played.

Expected values come from the formulas of the normal distribution, from notes that are written by hand, and from
properties: padding changes nothing, what is known stays.
"""

import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import pipeline

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.data import drum_generation
from decahub.evaluation import evaluate_model
from decahub.models.drum_lm.expression import DrumExpression
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.optimization import training_step
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm_model import BACKBONE


COLUMNS = 9
KICK, SNARE, CLOSED, OPEN = range(4)
ATOL = 1e-5  # a GRU in float32, rows of two lengths
STEP = 120  # ticks of a sixteenth note at 480 a quarter


def build_performance(bars=6, seed=0, ticks_per_quarter=480):
    """Notes of kick, snare, closed and open hi-hat, each up to a third of a step off."""
    generator = np.random.default_rng(seed)
    step = ticks_per_quarter // 4
    notes = []
    for number in range(bars * 16):
        for pitch in generator.choice([36, 38, 42, 46], size=2, replace=False):
            tick = number * step + int(generator.integers(-step // 3, step // 3))
            notes.append((max(0, tick), int(pitch), int(generator.integers(20, 128))))
    return sorted(notes), ticks_per_quarter


@pytest.fixture(scope="module")
def processor():
    tokenizer = build_line_tokenizer(COLUMNS)
    return DrumLmProcessor(tokenizer, columns="nine", tokenization="line", expressive=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    fields = {"backbone_config": {**BACKBONE, "vocab_size": 516, "max_position_embeddings": 1024}, "columns": "nine"}
    return DrumLmForCausalLM(DrumLmConfig(**fields, expression={"hidden_size": 7, "num_layers": 2})).eval()


@pytest.fixture(scope="module")
def pipe(model, processor):
    return pipeline("drum-generation", model=model, processor=processor)


def test_a_roll_keeps_the_strongest_note_of_a_cell_and_its_offset():
    notes = [(0, 36, 70), (130, 38, 20), (110, 40, 99), (225, 42, 64), (490, 46, 1)]

    roll = DrumCodec("nine", bars=1, expressive=True).encode(read_midi((sorted(notes), 480)))

    assert {tuple(cell): roll.velocities[tuple(cell)] for cell in np.argwhere(roll.hits)} == {
        (0, KICK): 70, (1, SNARE): 99, (2, CLOSED): 64, (4, OPEN): 1
    }  # fmt: skip
    expected = {(0, KICK): 0, (1, SNARE): -10 / STEP, (2, CLOSED): -15 / STEP, (4, OPEN): 10 / STEP}
    for cell, offset in expected.items():
        assert roll.offsets[cell] == pytest.approx(offset)
    assert not roll.velocities[~roll.hits].any()


def test_by_default_a_roll_has_hits_only():
    assert not DrumCodec("nine").encode(read_midi(build_performance())).is_expressive


@pytest.mark.parametrize("ticks_per_quarter", [480, 96])
def test_a_file_reads_as_the_roll_it_was_written_from(processor, ticks_per_quarter):
    roll = processor.read(build_performance(ticks_per_quarter=ticks_per_quarter), bars=6)

    again = processor.read(processor.to_midi(roll), bars=6)

    assert np.array_equal(again.hits, roll.hits)
    assert np.array_equal(again.velocities, roll.velocities)
    assert np.abs(again.offsets - roll.offsets).max() <= 0.5 / STEP + 1e-6


def test_hits_half_a_step_apart_stay_in_their_steps_and_none_is_before_the_beginning(processor):
    hits = np.zeros((16, COLUMNS), bool)
    hits[[0, 3, 4], SNARE] = True
    offsets = np.zeros(hits.shape)
    offsets[[0, 3, 4], SNARE] = -0.5, 0.5, -0.5

    midi = processor.to_midi(DrumRoll(hits, velocities=np.where(hits, 50, 0), offsets=offsets))

    assert np.array_equal(processor.read(midi, bars=1).hits, hits)
    ticks = read_midi(midi).ticks.tolist()
    assert ticks == [0, 3 * STEP + 59, 4 * STEP - 59]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"velocities": [[0, 3]]}, "`velocities` and `offsets` must be given together"),
        ({"velocities": [[0, 128]], "offsets": [[0, 0]]}, "`velocities` must be from 1 to 127 at each hit; got 128"),
        ({"velocities": [[9, 0]], "offsets": [[0, 0]]}, "`velocities` must be from 1 to 127 at each hit; got 0"),
        ({"velocities": [[0, 9]], "offsets": [[0, 0.7]]}, "`offsets` must be from -0.5 to 0.5 at each hit; got 0.7"),
        ({"velocities": [[0, 9]], "offsets": [[0, math.nan]]}, "`offsets` must be from -0.5 to 0.5"),
    ],
)
def test_a_roll_refuses_what_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        DrumRoll([[0, 1]], **fields)


def test_the_loss_is_that_of_two_normal_distributions():
    torch.manual_seed(0)
    network = DrumExpression(COLUMNS, 5, 1)
    velocities = torch.randint(1, 128, (2, 12, COLUMNS)) * (torch.rand(2, 12, COLUMNS) < 0.3)
    offsets = (torch.rand(2, 12, COLUMNS) - 0.5) * (velocities > 0)
    known_steps, bars = torch.tensor([4, 0]), torch.tensor([4, 3])

    loss, errors = network.compute_loss(velocities, offsets, known_steps, bars)

    hits = velocities > 0
    distributions = network(hits, velocities, offsets, known_steps, bars)
    total, count, distances = 0.0, 0, [0.0, 0.0]
    for row, step, column in hits.nonzero().tolist():
        if step < known_steps[row]:
            continue
        means, stds = distributions.means[row, step, column], distributions.log_stds[row, step, column].exp()
        values = torch.stack([velocities[row, step, column] / 127, offsets[row, step, column]])
        log_probs = torch.distributions.Normal(means, stds).log_prob(values)
        total -= float((log_probs + math.log(2 * math.pi) / 2).sum())
        count += 1
        distances = [total + float(part) for total, part in zip(distances, (values - means).abs(), strict=True)]
    assert float(loss) == pytest.approx(total / count, abs=ATOL)
    assert errors.sum(0).tolist() == pytest.approx([127 * distances[0], distances[1], count], rel=1e-4)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    network = DrumExpression(COLUMNS, 5, 2)
    hits = torch.rand(1, 10, COLUMNS) < 0.3
    hits[0, 9, 2] = True
    zeros, known, bars = torch.zeros(1, 10, COLUMNS), torch.tensor([0]), torch.tensor([4])

    alone = network(hits, zeros, zeros, known, bars)
    padded = network(*(torch.nn.functional.pad(part, (0, 0, 0, 6)) for part in (hits, zeros, zeros)), known, bars)

    torch.testing.assert_close(padded.means[:, :10], alone.means, rtol=0, atol=ATOL)


def test_what_is_known_stays_and_the_rest_depends_on_it():
    torch.manual_seed(0)
    network = DrumExpression(COLUMNS, 5, 1)
    hits = torch.rand(2, 12, COLUMNS) < 0.4
    loud, soft = (value * hits.long() for value in (120, 30))
    offsets = 0.25 * hits
    known_steps, bars = torch.tensor([4, 12]), torch.tensor([4, 4])

    drawn, delays = network.sample(hits, loud, offsets, known_steps, bars, temperature=0.0)
    other, _ = network.sample(hits, soft, offsets, known_steps, bars, temperature=0.0)

    assert torch.equal(drawn[0, :4], loud[0, :4])
    assert torch.equal(delays[1], offsets[1])
    assert torch.equal(drawn > 0, hits)
    assert not torch.equal(drawn[0, 4:], other[0, 4:])


def test_velocities_begin_at_what_is_known_of_the_drum():
    network = DrumExpression(2, 3, 1)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    hits = torch.ones(1, 9, 2, dtype=torch.bool)
    hits[0, :6, 1] = False
    velocities = torch.zeros(1, 9, 2)
    velocities[0, :6, 0] = torch.tensor([100.0, 20, 30, 80, 40, 10])  # two bars of three steps are known

    means = network(hits, velocities, torch.zeros(1, 9, 2), torch.tensor([6]), torch.tensor([3])).means

    drum = (100 + 20 + 30 + 80 + 40 + 10) / 6
    expected = torch.tensor([(drum + step) / 2 / 127 for step in ((100 + 80) / 2, (20 + 40) / 2, (30 + 10) / 2)])
    torch.testing.assert_close(means[0, 6:, 0, 0], expected, rtol=0, atol=ATOL)
    torch.testing.assert_close(means[0, 6:, 1, 0], torch.full((3,), 0.5), rtol=0, atol=ATOL)  # nothing is known
    assert not means[..., 1].any()


def test_a_model_learns_to_play(processor):
    torch.manual_seed(0)
    config = DrumLmConfig.from_variant("expressive", expression={"hidden_size": 16, "num_layers": 1})
    model = DrumLmForCausalLM(config)
    midi = processor.to_midi(processor.read(build_performance(), bars=6))
    transform = drum_generation.build_train_transform(processor, 6)
    batch = drum_generation.collate_training([transform({"midi": midi})] * 2)
    optimizer = torch.optim.Adam(model.expression.parameters(), lr=0.02)

    errors = []
    for _ in range(40):
        terms = training_step(model, batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        errors.append(float(terms["velocity_error"]))

    assert errors[-1] < 0.85 * errors[0]


def test_hidden_prompts_give_no_known_steps(processor):
    midi = processor.to_midi(processor.read(build_performance(), bars=6))

    known = [
        drum_generation.build_train_transform(processor, 6, hide_prob=prob)({"midi": midi})["known_steps"]
        for prob in (0.0, 1.0)
    ]

    assert known == [32, 0]


def test_hiding_needs_an_expressive_processor():
    plain = DrumLmProcessor(build_line_tokenizer(), tokenization="line")

    with pytest.raises(ValueError, match="`hide_prob` must be 0 with a processor that is not `expressive`; got 0.5"):
        drum_generation.build_train_transform(plain, hide_prob=0.5)


def test_excerpts_have_the_expression_of_their_own_bars(processor):
    roll = processor.read(build_performance(), bars=6)

    example = processor.encode_pair(roll, first_bar=1, bars=4)

    assert np.array_equal(example["velocities"], roll.velocities[16:80])
    assert np.array_equal(example["offsets"], roll.offsets[16:80])


def test_scores_do_not_depend_on_the_batch(model, processor):
    rows = [
        {"name": str(bars), "midi": processor.to_midi(processor.read(build_performance(bars, bars), bars=bars))}
        for bars in (4, 9, 5)
    ]

    scores = [evaluate_model(model, processor, rows, "drum-generation", batch_size=size).scores for size in (1, 3)]

    assert list(scores[0]) == ["bits_per_step", "bits_per_step_of_lines", "velocity_error", "timing_error"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_an_answer_is_played_and_the_prompt_keeps_its_own(pipe, processor):
    groove = build_performance()

    (answer,) = pipe(groove, bars=5, seed=3)

    prompt = processor.read(groove, bars=2)
    velocities, hits = np.array(answer["velocities"]), np.array(answer["roll"], bool)
    assert np.array_equal(velocities[:32], prompt.velocities)
    assert np.array_equal(velocities > 0, hits)
    assert len(np.unique(velocities[32:][hits[32:]])) > 5
    written = processor.read(answer["midi"], bars=5)
    assert np.array_equal(written.velocities, velocities)
    assert np.abs(written.offsets - np.array(answer["offsets"])).max() <= 1 / STEP


def test_the_same_seed_plays_the_same(pipe):
    first, second, other = (pipe(None, bars=2, seed=seed, outputs=[])[0] for seed in (3, 3, 4))

    assert first == second
    assert first["velocities"] != other["velocities"]


def test_answers_of_a_batch_have_their_own_expression(pipe, processor):
    loud, soft = ([(tick, pitch, velocity) for tick, pitch, _ in build_performance()[0]] for velocity in (120, 20))

    answers = pipe([(loud, 480), (soft, 480)], bars=4, temperature=0, outputs=[])

    for velocity, (answer,) in zip((120, 20), answers, strict=True):
        assert {*np.array(answer["velocities"])[:32].ravel().tolist()} == {0, velocity}


def test_hits_alone_on_demand(pipe, processor):
    groove = build_performance()

    (answer,) = pipe(groove, bars=4, seed=3, expressive=False)

    assert "velocities" not in answer
    assert {*read_midi(answer["midi"]).velocities.tolist()} == {100}


def test_a_model_of_hits_cannot_play():
    tokenizer = build_line_tokenizer()
    processor = DrumLmProcessor(tokenizer, tokenization="line")
    pipe = pipeline(
        "drum-generation", model=DrumLmForCausalLM(DrumLmConfig(backbone_config=BACKBONE)), processor=processor
    )

    with pytest.raises(ValueError, match="`expressive` must be left out with a model without `config.expression`"):
        pipe(None, bars=2, expressive=True)


def test_velocities_are_heard(pipe, processor):
    hits = np.zeros((16, COLUMNS), bool)
    hits[[0, 8], SNARE] = True
    velocities = np.where(hits, 127, 0)
    velocities[8] //= 2
    roll = DrumRoll(hits, velocities=velocities, offsets=np.zeros(hits.shape))
    from decahub.models.drum_lm.render.synthesis import synthesize

    waveform = synthesize(roll, processor.build_codec().drum_map)

    half = len(waveform) // 2
    assert np.abs(waveform[half:]).max() == pytest.approx(np.abs(waveform[:half]).max() * 63 / 127, rel=0.01)


def test_a_saved_model_plays_the_same(tmp_path, model, processor):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    loaded = pipeline("drum-generation", model=str(tmp_path))

    arguments = {"bars": 4, "seed": 1, "outputs": []}
    expected = pipeline("drum-generation", model=model, processor=processor)(build_performance(), **arguments)
    assert loaded(build_performance(), **arguments) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"hidden_size": 8}, "`expression` must have `hidden_size` and `num_layers`"),
        ({"hidden_size": 0, "num_layers": 1}, "`expression.hidden_size` must be at least 1; got 0"),
        ({"hidden_size": 8, "num_layers": 10**6}, "expression.num_layers"),
    ],
)
def test_the_configuration_refuses_odd_networks(expression, message):
    with pytest.raises(StrictDataclassError, match=message):
        DrumLmConfig(expression=expression)


def test_adapters_have_no_expression():
    with pytest.raises(StrictDataclassError, match="`expression` must be left out with `adapter_base`"):
        DrumLmConfig(expression={"hidden_size": 8, "num_layers": 1}, adapter={"r": 2}, adapter_base={"repo_id": "a/b"})


def test_a_model_without_expression_refuses_velocities():
    model = DrumLmForCausalLM(DrumLmConfig(backbone_config=BACKBONE))
    ids = torch.tensor([[5, 6]])

    with pytest.raises(ValueError, match="`velocities` must be left out"):
        model(ids, velocities=torch.ones(1, 1, 6, dtype=torch.long))


def test_swapping_needs_a_ride_and_one_hihat(processor):
    with pytest.raises(ValueError, match="`swap_prob` must be 0 with the columns kick, snare, closed_hihat"):
        drum_generation.build_train_transform(processor, swap_prob=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"processor": {"columns": "nine"}}, "`processor.columns` must be those of the model, 'six'; got 'nine'"),
        ({"processor": {"expressive": True}}, "`processor.expressive` must be true if and only if"),
        ({"variant": "expressive", "processor": {"columns": "nine"}}, "`processor.expressive` must be true"),
    ],
)
def test_a_run_has_one_kind_of_drums(fields, message):
    from decahub.procedures.drum_lm import Arguments

    with pytest.raises(ValueError, match=message):
        Arguments(**fields)
