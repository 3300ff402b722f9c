"""The pipeline "drum-generation": valid grooves of random weights, seeds, batches, meters, streams, clear errors."""

import dataclasses
import io
import json
import wave
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from transformers.generation.streamers import BaseStreamer
from transformers.pipelines.pt_utils import KeyDataset

from decahub import DrumGenerationPipeline, DrumLmForCausalLM, DrumLmProcessor
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.performance import DrumPerformance
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer
from tests.tiny.drum_lm_model import BACKBONE, build_config


ATOL_LOG_PROB = 1e-3  # sums of a hundred float32 values; a batch pads and adds in another order
CODEC = DrumCodec()


def build_roll(bars=4, seed=0, tempo=97.0, time_signature=(4, 4)):
    steps_per_bar = 4 * time_signature[0]
    hits = np.random.default_rng(seed).random((bars * steps_per_bar, 6)) < 0.2
    hits[-1, 2] = True  # so that the last bar is not silent
    return DrumRoll(hits, steps_per_bar, time_signature, tempo)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights, as a user has it on disk."""
    folder = str(tmp_path_factory.mktemp("drum-lm"))
    torch.manual_seed(0)
    DrumLmForCausalLM(build_config()).save_pretrained(folder)
    DrumLmProcessor(tokenizer=build_line_tokenizer(), tokenization="line").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("drum-generation", model=folder)


def answer_once(pipe):
    """The pipeline as a function from one groove to its only answer."""

    def compose(groove, **options):
        (answer,) = pipe(groove, **options)
        return answer

    return compose


@pytest.fixture(scope="module")
def compose(pipe):
    return answer_once(pipe)


def read_hits(answer):
    return np.array(answer["roll"], dtype=bool)


def test_the_beginning_is_kept_and_the_rest_is_new(pipe, compose):
    roll = build_roll()

    answer = compose(CODEC.to_midi(roll), bars=5, seed=1)

    assert isinstance(pipe, DrumGenerationPipeline)
    assert (answer["bars"], answer["prompt_bars"], answer["valid"]) == (5, 2, True)
    assert np.array_equal(read_hits(answer)[:32], roll.hits[:32])
    assert answer["text"] == CODEC.to_text(read_hits(answer))
    assert answer["text"].count("\n") == 80
    assert not np.array_equal(read_hits(answer)[32:64], roll.hits[32:64])


def test_files_hold_the_same_groove(pipe, compose):
    answer = compose(build_roll(), bars=3, seed=1, sampling_rate=8000)

    again = pipe.processor.read(answer["midi"])
    assert np.array_equal(again.hits[:48], read_hits(answer))
    assert again.tempo == pytest.approx(97.0, rel=1e-5)
    assert Image.open(io.BytesIO(answer["png"])).format == "PNG"
    with wave.open(io.BytesIO(answer["wav"])) as file:
        assert file.getframerate() == 8000
        assert file.getnframes() >= 3 * 4 * 60 / 97 * 8000 - 1


@pytest.mark.parametrize("outputs", [(), ("midi",), ["wav", "png"]])
def test_only_files_asked_for_are_made(compose, outputs):
    answer = compose(None, bars=1, outputs=outputs)

    assert {name for name, value in answer.items() if isinstance(value, bytes)} == set(outputs)
    values = {name: value for name, value in answer.items() if name not in outputs}
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize("form", ["path", "bytes", "file", "text", "array", "lists", "roll"])
def test_grooves_come_in_every_form(compose, form, tmp_path):
    roll = build_roll()
    data = CODEC.to_midi(roll)
    (tmp_path / "groove.mid").write_bytes(data)
    forms = {
        "path": str(tmp_path / "groove.mid"),
        "bytes": data,
        "file": io.BytesIO(data),
        "text": CODEC.to_text(roll),
        "array": roll.hits,
        "lists": roll.hits.astype(int).tolist(),
        "roll": roll,
    }

    answer = compose(forms[form], bars=3, seed=4, outputs=())

    assert answer["roll"] == compose(roll, bars=3, seed=4, outputs=())["roll"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_groove_may_have_no_beginning(compose, nothing):
    answer = compose(nothing, bars=2, seed=0, tempo=80, outputs=())

    assert (answer["bars"], answer["prompt_bars"], answer["tempo"], answer["valid"]) == (2, 0, 80.0, True)


def test_a_seed_repeats_the_groove_and_leaves_the_global_generator_alone(compose):
    torch.manual_seed(5)
    state = torch.get_rng_state()

    first, second, other = (compose(build_roll(), bars=4, seed=seed) for seed in (7, 7, 8))

    assert first == second
    assert first["midi"] != other["midi"]
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_global_generator_decides(compose):
    torch.manual_seed(5)
    first, second = (compose(None, bars=2, outputs=("midi",)) for _ in range(2))
    torch.manual_seed(5)

    assert compose(None, bars=2, outputs=("midi",)) == first
    assert first != second


def test_temperature_zero_takes_the_most_probable(compose):
    answers = [
        compose(build_roll(), bars=3, outputs=(), **options) for options in ({"temperature": 0}, {"do_sample": False})
    ]

    assert answers[0] == answers[1]
    assert answers[0]["valid"]


def test_log_prob_is_that_of_the_model_over_what_the_grammar_allows(pipe, compose):
    answer = compose(build_roll(), bars=3, seed=2, temperature=1.7, top_k=9, outputs=())

    grammar = pipe.processor.build_grammar()
    text = answer["text"]
    bars = [grammar.encode(text[first : first + 112]) for first in range(0, len(text), 112)]
    separator, end = grammar.canonical_ids("SEP"), grammar.canonical_ids("END")
    ids = torch.tensor([bars[0] + separator + bars[1] + separator + bars[2] + end])
    with torch.no_grad():
        logits = pipe.model(ids).logits[0].double()
    lines = torch.tensor([grammar.canonical_ids(line)[0] for line in grammar.lines])
    # Within a bar any line may follow, and after the last one only the end mark.
    expected = sum(
        (logits[place - 1, ids[0, place]] - logits[place - 1, lines].logsumexp(0)).item() for place in range(34, 50)
    )
    assert answer["log_prob"] == pytest.approx(expected, abs=ATOL_LOG_PROB)


def test_a_batch_of_unlike_prompts_gives_what_each_gives_alone(pipe, compose):
    grooves = [build_roll(3, seed=1), None, build_roll(1, seed=2), build_roll(4, seed=3, time_signature=(3, 4))]

    together = [answers[0] for answers in pipe(grooves, bars=4, temperature=0, outputs=())]
    alone = [compose(groove, bars=4, temperature=0, outputs=()) for groove in grooves]

    for answer, expected in zip(together, alone, strict=True):
        assert answer["roll"] == expected["roll"]
        assert answer["log_prob"] == pytest.approx(expected["log_prob"], abs=ATOL_LOG_PROB)
    assert [answer["prompt_bars"] for answer in together] == [2, 0, 1, 2]


def test_several_answers_for_each_groove(pipe):
    answers = pipe([build_roll(), None], bars=3, num_return_sequences=3, seed=0, outputs=())

    assert [len(group) for group in answers] == [3, 3]
    assert len({answer["text"] for answer in answers[0]}) == 3
    assert {answer["text"][:224] for answer in answers[0]} == {CODEC.to_text(build_roll())[:224]}
    assert all(answer["valid"] and answer["bars"] == 3 for group in answers for answer in group)


def test_a_generator_is_answered_one_by_one(pipe):
    taken = []

    def produce():
        for seed in range(3):
            taken.append(seed)
            yield build_roll(seed=seed)

    answers = pipe(produce(), bars=3, seed=0, outputs=())

    assert next(answers)[0]["bars"] == 3
    assert taken == [0]


def test_a_generator_gets_other_draws_for_each_groove(pipe):
    answers = list(pipe(iter([None] * 3), bars=1, seed=0, outputs=()))

    assert len({answer[0]["text"] for answer in answers}) == 3
    assert answers == list(pipe(iter([None] * 3), bars=1, seed=0, outputs=()))


def test_a_generator_is_answered_in_batches(pipe):
    grooves = [build_roll(seed=seed) for seed in range(3)]
    options = {"bars": 3, "seed": 0, "outputs": (), "batch_size": 2}

    answers = list(pipe(iter(grooves), **options))

    assert [answer[0]["text"] for answer in answers] == [answer[0]["text"] for answer in pipe(grooves, **options)]


def test_arguments_with_a_generator_are_checked_at_once(pipe):
    with pytest.raises(ValueError, match="`bars` must be a whole number"):
        pipe(iter([None]), bars=0)


@pytest.mark.parametrize("form", ["tuple", "column", "rows of numbers", "dataset"])
def test_a_batch_comes_in_every_form(pipe, form):
    rolls = [build_roll(seed=seed) for seed in range(2)]
    files = [CODEC.to_midi(roll) for roll in rolls]
    forms = {
        "tuple": tuple(files),
        "column": datasets.Dataset.from_dict({"midi": files})["midi"],
        "rows of numbers": [roll.hits.astype(int).tolist() for roll in rolls],
        "dataset": KeyDataset(datasets.Dataset.from_dict({"midi": files}), "midi"),
    }
    options = {"bars": 3, "seed": 0, "outputs": ()}

    answers = pipe(forms[form], **options)

    assert [answer[0]["roll"] for answer in answers] == [answer[0]["roll"] for answer in pipe(files, **options)]


def test_a_saved_pipeline_is_loaded_whole(folder, tmp_path):
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line", prompt_bars=3, bars=8, pedal_hat="hihat")
    saved = DrumGenerationPipeline(model=DrumLmForCausalLM.from_pretrained(folder), processor=processor)
    saved.save_pretrained(tmp_path)

    loaded = pipeline("drum-generation", model=str(tmp_path))

    assert (loaded.processor.prompt_bars, loaded.processor.pedal_hat) == (3, "hihat")
    options = {"bars": 5, "seed": 0, "outputs": ()}
    assert loaded(build_roll(), **options) == saved(build_roll(), **options)


@pytest.mark.parametrize(
    ("groove", "time_signature"),
    [
        ("o-----", (3, 4)),
        (DrumRoll(np.ones((12, 6)), 12), (6, 8)),
        (np.ones((24, 6)).tolist(), (3, 4)),
    ],
    ids=["line", "roll", "lists"],
)
def test_a_groove_without_a_meter_gets_that_asked_for(compose, groove, time_signature):
    answer = compose(groove, bars=3, prompt_bars=1, time_signature=time_signature, seed=0, outputs=())

    assert (answer["time_signature"], len(answer["roll"])) == (list(time_signature), 36)


@pytest.mark.parametrize("time_signature", [(3, 4), (5, 4)])
def test_the_meter_is_that_of_the_groove(pipe, compose, time_signature):
    roll = build_roll(3, time_signature=time_signature)

    answer = compose(CODEC.to_midi(roll), bars=4, seed=0)

    steps = 4 * time_signature[0]
    assert answer["time_signature"] == list(time_signature)
    assert len(answer["roll"]) == 4 * steps
    assert np.array_equal(read_hits(answer)[: 2 * steps], roll.hits[: 2 * steps])
    assert tuple(pipe.processor.read(answer["midi"]).time_signature) == time_signature


def test_a_new_groove_has_the_meter_asked_for(compose):
    answer = compose(None, bars=2, time_signature=[3, 4], outputs=())

    assert (len(answer["roll"]), answer["time_signature"], answer["valid"]) == (24, [3, 4], True)


def test_the_steps_of_a_bar_make_its_meter(pipe, compose):
    answer = compose("o--o--\n" * 12, steps_per_bar=12, bars=3, seed=0)

    assert answer["time_signature"] == [3, 4]
    assert pipe.processor.read(answer["midi"]).steps_per_bar == 12


def test_controls_reach_the_grammar(compose):
    force = np.full((48, 6), -1)
    force[32::4, 3] = 1

    answer = compose(
        build_roll(), bars=3, seed=0, forbid_columns=["ride", 0], force=force, max_hits_per_step=2, outputs=()
    )

    new = read_hits(answer)[32:]
    assert not new[:, :2].any()
    assert new[::4, 3].all()
    assert new.sum(1).max() <= 2


def test_each_groove_of_a_batch_may_have_its_own_force(pipe):
    force = np.full((2, 16, 6), -1)
    force[0, :, 2], force[1, :, 2] = 0, 1

    (first,), (second,) = pipe([None, None], bars=1, seed=0, force=force, outputs=())

    assert not read_hits(first)[:, 2].any()
    assert read_hits(second)[:, 2].all()


def test_a_stream_gives_the_bars_of_a_call_one_after_the_other(pipe, compose):
    options = {"bars": 5, "seed": 3, "temperature": 1.2}
    expected = compose(build_roll(), **options, outputs=())
    torch.manual_seed(1)
    state = torch.get_rng_state()

    bars = []
    for bar in pipe.stream(build_roll(), **options):
        assert torch.equal(torch.get_rng_state(), state)
        state = torch.rand(3) is not None and torch.get_rng_state()  # what is drawn between bars changes none
        bars.append(bar)

    assert [bar["bar"] for bar in bars] == [2, 3, 4]
    assert "".join(bar["text"] for bar in bars) == expected["text"][2 * 112 :]
    assert [row for bar in bars for row in bar["roll"]] == expected["roll"][32:]


def test_a_stream_computes_no_more_than_is_asked_for(pipe, monkeypatch):
    calls = []
    generate = pipe.model.generate
    monkeypatch.setattr(pipe.model, "generate", lambda *args, **kwargs: calls.append(1) or generate(*args, **kwargs))

    stream = pipe.stream(None, bars=4, seed=0)

    assert calls == []
    assert next(stream)["bar"] == 0
    assert len(calls) == 1


def test_a_streamer_gets_the_tokens(pipe, compose):
    class Collector(BaseStreamer):
        def __init__(self):
            self.tokens, self.is_over = [], False

        def put(self, value):
            self.tokens.extend(value.flatten().tolist())

        def end(self):
            self.is_over = True

    collector = Collector()
    answer = compose(build_roll(), bars=3, seed=0, outputs=(), streamer=collector)

    text = pipe.processor.tokenizer.decode(collector.tokens)
    assert collector.is_over
    assert text.replace("SEP\n", "").removesuffix("END") == answer["text"]


def test_text_tokens_are_as_valid_as_lines():
    tokenizer = build_bpe_tokenizer()
    torch.manual_seed(0)
    config = build_config(
        backbone_config={**BACKBONE, "vocab_size": 90, "max_position_embeddings": 2048}, tokenization="text"
    )
    model = DrumLmForCausalLM(config).eval()
    pipe = DrumGenerationPipeline(model=model, processor=DrumLmProcessor(tokenizer=tokenizer, tokenization="text"))

    answers = pipe([build_roll(), None], bars=3, seed=0, temperature=2.0, outputs=())

    assert all(answer["valid"] and answer["bars"] == 3 for (answer,) in answers)
    bars = list(pipe.stream(build_roll(), bars=3, seed=0))
    assert bars[0]["text"] == pipe(build_roll(), bars=3, seed=0, outputs=())[0]["text"][224:]


def build_short_pipeline(context):
    torch.manual_seed(0)
    config = build_config(backbone_config={**BACKBONE, "max_position_embeddings": context})
    processor = DrumLmProcessor(tokenizer=build_line_tokenizer(), tokenization="line")
    return answer_once(DrumGenerationPipeline(model=DrumLmForCausalLM(config).eval(), processor=processor))


def test_of_a_prompt_too_long_the_latest_bars_are_seen():
    roll = build_roll(6)
    force = np.full((128, 6), -1)
    force[96:112], force[112:] = 1, 0

    with pytest.warns(UserWarning, match="the model sees the latest bars only, without the first 4"):
        answer = build_short_pipeline(70)(roll, bars=8, prompt_bars=6, seed=0, force=force, outputs=())

    latest = DrumRoll(roll.hits[64:])
    expected = build_short_pipeline(70)(latest, bars=4, prompt_bars=2, seed=0, force=force[64:], outputs=())
    assert (answer["bars"], answer["prompt_bars"], answer["valid"]) == (8, 6, True)
    assert np.array_equal(read_hits(answer)[:96], roll.hits)
    assert read_hits(answer)[96:112].all()
    assert answer["log_prob"] == expected["log_prob"]


def test_refuses_more_bars_than_the_context_holds():
    with pytest.raises(ValueError, match="`bars` must be so few .* 6 new ones fit into the 70 tokens"):
        build_short_pipeline(70)(build_roll(), bars=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bars": 0}, "`bars` must be a whole number, at least 1; got 0"),
        ({"bars": 2}, "`bars` must be more than the 2 bars that are given, which it includes; got 2"),
        ({"prompt_bars": -1}, "`prompt_bars` must be a whole number, at least 0; got -1"),
        ({"temperature": -0.5}, r"`temperature` must be a number from 0 to 1e\+06; got -0.5"),
        ({"temperature": float("nan")}, r"`temperature` must be a number from 0 to 1e\+06; got nan"),
        ({"top_p": 0}, "`top_p` must be above 0; got 0"),
        ({"top_k": -1}, "`top_k` must be a whole number, at least 0; got -1"),
        ({"num_return_sequences": 0}, "`num_return_sequences` must be a whole number, at least 1; got 0"),
        ({"num_return_sequences": 2, "temperature": 0}, "`num_return_sequences` must be 1 without sampling"),
        ({"tempo": 0}, r"`tempo` must be a number from 3.6 to 6e\+07 quarter notes a minute; got 0"),
        ({"tempo": 1.0}, "`tempo` must be a number from 3.6"),
        ({"tempo": "fast"}, "`tempo` must be a number from 3.6 .*; got 'fast'"),
        ({"bars": 2.5}, "`bars` must be a whole number, at least 1; got 2.5"),
        ({"bars": 10**9}, "`bars` must be at most 4096; got 1000000000"),
        ({"num_return_sequences": 10**9}, "`num_return_sequences` must be at most 4096; got 1000000000"),
        ({"start_bar": -1}, "`start_bar` must be a whole number, at least 0; got -1"),
        ({"start_bar": 4}, "`start_bar` must be below 4, the bars of the groove; got 4"),
        ({"pitch_map": {60: "cowbell"}}, "`pitch_map` must map pitches from 0 to 127 to crash"),
        ({"steps_per_bar": 12}, "`steps_per_bar` must be 16, .*; got 12"),
        ({"bars": [2, 3]}, r"`bars` must be a whole number, at least 1; got \[2, 3\]"),
        ({"time_signature": "3/4"}, r"`time_signature` must be two whole numbers, such as \(3, 4\), or 'last'; got"),
        ({"time_signature": (3, 0)}, "a power of two up to 128 as denominator; got 3/0"),
        ({"time_signature": (-3, 4)}, "`time_signature` must have a numerator from 1 to 255"),
        ({"time_signature": (3, 3)}, "a power of two up to 128 as denominator; got 3/3"),
        ({"time_signature": 3}, "`time_signature` must be two whole numbers, .*; got 3"),
        ({"time_signature": (3.0, 4)}, r"`time_signature` must be two whole numbers, .*; got \(3.0, 4\)"),
        ({"temperature": 1e-42}, "`temperature` must be 0 or at least 1e-06; got 1e-42"),
        ({"temperature": 1e30}, r"`temperature` must be a number from 0 to 1e\+06; got 1e\+30"),
        ({"seed": 1.5}, "`seed` must be a whole number of 64 bits; got 1.5"),
        ({"seed": 2**64}, "`seed` must be a whole number of 64 bits; got 18446744073709551616"),
        ({"sampling_rate": 100}, r"`sampling_rate` must be a whole number in \[8000, 192000\]; got 100"),
        ({"sampling_rate": 22050.5}, "`sampling_rate` must be a whole number in .*; got 22050.5"),
        ({"track": "drums"}, "`track` must be a whole number, at least 0; got 'drums'"),
        ({"do_sample": "no"}, "`do_sample` must be True or False; got 'no'"),
        ({"strict": "no"}, "`strict` must be True or False; got 'no'"),
        ({"outputs": 5}, "`outputs` must be a sequence of midi, png, wav; got 5"),
        ({"forbid_columns": "crash"}, r"`forbid_columns` must be a sequence of columns, such as \['crash'\]; got"),
        ({"forbid_columns": 3}, "`forbid_columns` must be a sequence of columns, .*; got 3"),
        ({"force": [[1] * 6, [0] * 5]}, "`force` must be numbers in rows of 6 columns; expected sequence of length 6"),
        ({"force": "crash"}, "`force` must be numbers in rows of 6 columns"),
        ({"force": np.full((3, 6), 0.5)}, "`force` must hold 1 .*; got 0.5"),
        ({"force": 0.5}, r"`force` must have the shape \(num_steps, 6\) .*; got \(\)"),
        ({"outputs": ("mp3",)}, "`outputs` must be a sequence of midi, png, wav; got"),
        ({"outputs": "midi"}, "`outputs` must be a sequence of midi, png, wav; got 'midi'"),
        ({"time_signature": (3, 4)}, "`time_signature` must be that of the groove, 4/4; got 3/4"),
        ({"forbid_columns": ["cowbell"]}, "must be one of crash, ride, .*; got 'cowbell'"),
        ({"force": np.zeros((3, 4, 6), dtype=int)}, "`force` must have one array for each of 1 grooves; got 3"),
        ({"batch_size": -1}, "`batch_size` must be a whole number, at least 1; got -1"),
        ({"batch_size": 0}, "`batch_size` must be a whole number, at least 1; got 0"),
        ({"batch_size": "2"}, "`batch_size` must be a whole number, at least 1; got '2'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses(pipe, compose, monkeypatch, options, message):
    monkeypatch.setattr(pipe.model, "generate", lambda *_, **__: pytest.fail("computed before it was checked"))

    with pytest.raises(ValueError, match=message):
        compose(build_roll(), **{"bars": 3, **options})


@pytest.mark.parametrize(
    ("groove", "message"),
    [
        (build_roll(tempo=1.0), "`tempo` must be from 3.6 to 60 million quarter notes a minute; got 1.0"),
    ],
    ids=["tempo"],
)
def test_refuses_a_groove_that_no_file_can_hold_before_it_computes(pipe, monkeypatch, groove, message):
    monkeypatch.setattr(pipe.model, "generate", lambda *_, **__: pytest.fail("computed before it was checked"))

    with pytest.raises(ValueError, match=message):
        pipe(groove, bars=3)


def test_a_late_groove_of_a_batch_has_its_force_checked_first(pipe, monkeypatch):
    monkeypatch.setattr(pipe.model, "generate", lambda *_, **__: pytest.fail("computed before it was checked"))
    force = np.full((2, 16, 6), -1)
    force[1] = 2

    with pytest.raises(ValueError, match="`force` must hold 1 .*got 2"):
        pipe([build_roll(), build_roll(time_signature=(3, 4))], bars=3, force=force)


def test_padding_that_the_model_does_not_know_is_never_read(pipe):
    tokenizer = build_line_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(10)])
    tokenizer.add_special_tokens({"pad_token": "<unknown to the model>"})
    processor = DrumLmProcessor(tokenizer=tokenizer, tokenization="line")
    wider = DrumGenerationPipeline(model=pipe.model, processor=processor)
    grooves = [None, build_roll()]

    answers = wider(grooves, bars=3, temperature=0, outputs=())

    assert tokenizer.pad_token_id >= BACKBONE["vocab_size"]
    expected = pipe(grooves, bars=3, temperature=0, outputs=())
    assert [answer["text"] for (answer,) in answers] == [answer["text"] for (answer,) in expected]


def test_silence_at_the_beginning_is_no_prompt(compose):
    silent = DrumRoll(np.concatenate([np.zeros((2 * 16, 6), dtype=bool), build_roll().hits]), 16, (4, 4), 97.0)

    answer = compose(CODEC.to_midi(silent), bars=3, seed=1, outputs=())
    given = compose(CODEC.to_midi(silent), bars=3, prompt_bars=2, seed=1, outputs=())

    assert np.array_equal(read_hits(answer)[:32], build_roll().hits[:32])
    assert not read_hits(given)[:32].any()


def test_a_prompt_may_be_longer_than_a_groove_of_training(compose):
    roll = build_roll(bars=19)

    answer = compose(CODEC.to_midi(roll), bars=19, prompt_bars=18, seed=1, outputs=())

    assert np.array_equal(read_hits(answer)[: 18 * 16], roll.hits[: 18 * 16])


def test_options_of_reading_reach_the_reader(compose):
    silence = ([(0, 44, 90)], 480)
    text = CODEC.to_text(build_roll()).replace("o", "O") + "\n"
    midi = CODEC.to_midi(build_roll())

    with pytest.raises(ValueError, match="Pass `allow_empty=True`"):
        compose(silence, bars=2, outputs=())
    assert compose(silence, bars=2, allow_empty=True, outputs=())["valid"]
    with pytest.raises(ValueError, match="and no track 7"):
        compose(midi, bars=3, track=7, outputs=())
    with pytest.raises(ValueError, match="`text` must hold only 'o' and '-'; got 'O'"):
        compose(text, bars=3, outputs=())
    assert np.array_equal(read_hits(compose(text, bars=3, strict=False, outputs=()))[:32], build_roll().hits[:32])


def test_the_last_of_several_meters_can_be_asked_for(compose):
    notes = build_roll()
    performance = dataclasses.replace(read_midi(CODEC.to_midi(notes)), time_signatures=[(0, 3, 4), (1440, 4, 4)])

    with pytest.raises(ValueError, match="`performance` must have one meter"):
        compose(performance, bars=3, outputs=())
    answer = compose(performance, bars=3, time_signature="last", outputs=())

    assert answer["time_signature"] == [4, 4]


def quarters(num_notes=48, offset=0, meters=(), tempos=()):
    """Kick and snare in quarter notes of 480 ticks."""
    ticks = [offset + 480 * number for number in range(num_notes)]
    return DrumPerformance(ticks, [36, 38] * (num_notes // 2), [90] * num_notes, 480, list(meters), list(tempos))


@pytest.mark.parametrize(
    ("groove", "meter"),
    [
        (quarters(meters=[(0, 4, 4), (15360, 3, 4)]), (4, 4)),
        (quarters(meters=[(0, 3, 4), (0, 4, 4)]), (4, 4)),
        (quarters(meters=[(0, 6, 8)]), (6, 8)),
        (quarters(meters=[(0, 7, 8)]), (7, 8)),
        (quarters(meters=[(0, 2, 2)]), (2, 2)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_meter_is_that_where_the_prompt_is(compose, groove, meter):
    answer = compose(groove, bars=4, seed=0, outputs=("midi",))

    assert (answer["time_signature"], answer["valid"]) == (list(meter), True)
    assert len(answer["roll"]) == 4 * 16 * meter[0] // meter[1]
    assert read_midi(answer["midi"]).time_signatures == [(0, *meter)]


@pytest.mark.parametrize(
    ("groove", "tempo"),
    [
        (quarters(tempos=[(0, 500_000), (0, 600_000)]), 100),
        (quarters(offset=3840, tempos=[(0, 1_000_000), (3840, 428_571)]), 140),
    ],
    ids=["one tick", "count-in"],
)
def test_the_tempo_is_that_where_the_music_begins(compose, groove, tempo):
    assert compose(groove, bars=3, outputs=())["tempo"] == pytest.approx(tempo, abs=0.01)


@pytest.mark.parametrize(
    ("options", "start", "dropped"),
    [({}, 10, [10, 10]), ({"start_bar": 14}, 14, [14, 6]), ({"prompt_bars": 3, "start_bar": 19}, 19, [19, 0])],
    ids=["by default", "by start_bar", "the end"],
)
def test_an_answer_says_where_it_lies_in_the_groove(compose, options, start, dropped):
    answer = compose(quarters(offset=19200), bars=4, outputs=(), **options)

    assert (answer["start_bar"], answer["input_bars"], answer["dropped_bars"]) == (start, 22, dropped)
    assert answer["roll"][0][3] == 1  # a kick


def test_an_answer_lists_what_has_no_column(compose):
    groove = ([(0, 36, 90), (0, 60, 90), (480, 60, 90), (960, 44, 90)], 480)

    answer = compose(groove, bars=2, outputs=())
    mapped = compose(groove, bars=2, outputs=(), pitch_map={60: "tom"}, pedal_hat="hihat")

    assert answer["dropped_pitches"] == {"60": 2, "44": 1} or answer["dropped_pitches"] == {"44": 1, "60": 2}
    assert (mapped["dropped_pitches"], mapped["roll"][0][5], mapped["roll"][8][4]) == ({}, 1, 1)


def test_steps_that_contradict_the_meter_are_refused(compose):
    with pytest.raises(ValueError, match="`steps_per_bar` must be 16, .*; got 12"):
        compose(quarters(), bars=4, steps_per_bar=12)
    assert compose(quarters(), bars=4, time_signature=(3, 4), outputs=())["time_signature"] == [3, 4]


def test_the_groove_of_a_batch_that_cannot_be_read_is_named(pipe):
    with pytest.raises(ValueError, match="Groove 1 of the batch, counted from 0: .*whole sixteenth notes; got 3/32"):
        pipe([quarters(), quarters(meters=[(0, 3, 32)]), quarters()], bars=4)


def test_seeds_hold_in_any_thread(pipe):
    options = {"bars": 2, "seed": 5, "outputs": ()}
    expected = pipe(None, **options)[0]["text"]
    torch.manual_seed(0)
    state = torch.get_rng_state()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: pipe(None, **options)[0]["text"], range(16)))

    assert set(answers) == {expected}
    assert torch.equal(torch.get_rng_state(), state)


def test_refuses_an_empty_list(pipe):
    with pytest.raises(ValueError, match="`inputs` must hold at least one groove"):
        pipe([])


def test_refuses_a_misspelled_argument_with_the_nearest(compose):
    with pytest.raises(TypeError, match="`temperatur` must be an argument of this pipeline.*`temperature`"):
        compose(None, temperatur=1.0)


def test_a_stream_refuses_what_only_a_call_takes(pipe):
    with pytest.raises(TypeError, match="`outputs` must be left to a call"):
        pipe.stream(None, outputs=("midi",))


def test_a_new_groove_has_whole_steps(compose):
    with pytest.raises(ValueError, match="must make a bar of whole sixteenth notes; got 1/32"):
        compose(None, time_signature=(1, 32))


def test_a_damaged_file_is_named(compose):
    with pytest.raises(ValueError, match="`source` must be a readable MIDI file"):
        compose(b"MThd and nothing else")


def test_arguments_of_the_constructor_are_defaults(folder):
    compose = answer_once(pipeline("drum-generation", model=folder, bars=2, seed=4, outputs=()))

    assert compose(None) == compose(None)
    assert (compose(None)["bars"], compose(None, bars=1)["bars"]) == (2, 1)


@pytest.mark.parametrize("task", ["drum-generation", "node-classification"])
def test_a_pipeline_without_a_model_says_that_it_needs_one(task):
    with pytest.raises(ValueError, match="`model` must be given to `pipeline`, as there is no default model"):
        pipeline(task)


@pytest.mark.parametrize(
    ("fill", "bars"), [(True, [5]), ([3, 5], [3, 5]), (range(2, 4), [2, 3]), (np.array([4]), [4])]
)
def test_fills_on_demand(compose, fill, bars):
    # One drum in every step: a model that takes the most probable line again and again repeats the bar before.
    groove = np.tile([[0, 0, 1, 0, 0, 0]], (32, 1))
    controls = {"forbid_columns": [0, 1, 3, 4, 5], "density_bias": 50.0, "temperature": 0, "outputs": []}

    answer = compose(groove, bars=6, fill=fill, **controls)

    by_bar = read_hits(answer).reshape(6, 16, 6)
    differing = [int((by_bar[bar] != by_bar[bar - 1]).any(1).sum()) for bar in range(2, 6)]
    for bar, count in zip(range(2, 6), differing, strict=True):
        assert count >= 4 if bar in bars else True
    if fill is True:
        assert differing[:3] == [0, 0, 0]


def test_a_streamed_fill_is_that_of_a_call(pipe, compose):
    arguments = {"bars": 4, "seed": 5, "fill": [3]}

    streamed = list(pipe.stream(build_roll(), **arguments))

    answer = compose(build_roll(), **arguments, outputs=[])
    assert [bar["text"] for bar in streamed] == [answer["text"][bar * 16 * 7 :][: 16 * 7] for bar in (2, 3)]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ([1], "`fill` must be new bars of the answer, from 2 to 3, counted from 0; got 1"),
        ([4], "`fill` must be new bars of the answer, from 2 to 3, counted from 0; got 4"),
        ([0], "`fill` must be True for the last bar, or bars counted from 0"),
        ("last", "`fill` must be True for the last bar"),
        (7, "`fill` must be True for the last bar"),
        (1, "`fill` must be True for the last bar"),
        ([2.5], "`fill` must be True for the last bar"),
    ],
)
def test_refuses_fills_that_are_no_new_bars(compose, fill, message):
    with pytest.raises(ValueError, match=message):
        compose(build_roll(), bars=4, fill=fill)
