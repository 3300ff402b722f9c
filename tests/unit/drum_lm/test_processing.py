"""The processor of Drum LM: prompts, pairs to learn from, ids back to grooves, saving and loading."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from decahub import DrumLmConfig, DrumLmProcessor
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer


STEPS = 16


def build_roll(bars=4, seed=0, silent_first=0, silent_last=0):
    hits = np.random.default_rng(seed).random((bars * STEPS, 6)) < 0.2
    hits[::STEPS, 3] = True  # no bar is silent
    hits[: silent_first * STEPS] = False
    if silent_last:
        hits[-silent_last * STEPS :] = False
    return DrumRoll(hits, STEPS, (4, 4), 97.0)


@pytest.fixture(scope="module", params=["line", "text"])
def processor(request):
    tokenizer = build_line_tokenizer() if request.param == "line" else build_bpe_tokenizer()
    return DrumLmProcessor(tokenizer, tokenization=request.param)


def test_a_prompt_is_two_bars_with_separators(processor):
    roll = build_roll()

    inputs = processor(roll, return_tensors="pt")

    text = processor.decode_text(inputs["input_ids"][0])
    lines = processor.build_codec().to_text(roll).splitlines()
    assert text.splitlines() == [*lines[:STEPS], "SEP", *lines[STEPS : 2 * STEPS], "SEP"]
    assert bool(inputs["attention_mask"].all())


def test_prompts_of_a_batch_are_padded_on_the_left(processor):
    inputs = processor([build_roll(bars=1), build_roll(bars=3), None], return_tensors="pt")

    mask = inputs["attention_mask"]
    assert mask.shape == inputs["input_ids"].shape
    assert bool((mask.diff(dim=1) >= 0).all())
    assert int(mask[2].sum()) == len(processor.build_grammar().canonical_ids("SEP"))


def test_prompts_are_padded_without_a_padding_token():
    tokenizer = build_bpe_tokenizer()
    tokenizer.pad_token = None
    processor = DrumLmProcessor(tokenizer)
    rolls = [build_roll(bars=1), build_roll(bars=3)]

    both = processor(rolls, return_tensors="pt")
    alone = processor(rolls[0])["input_ids"][0]

    assert both["input_ids"][0, both["attention_mask"][0].bool()].tolist() == alone
    assert bool((both["attention_mask"].diff(dim=1) >= 0).all())


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "max_length", "max_length": 300},
        {"pad_to_multiple_of": 64},
        {"padding_side": "right"},
        {"padding": False},
        {"return_attention_mask": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_padding_by_hand_is_that_of_a_tokenizer_with_a_padding_token(options):
    processor = DrumLmProcessor(build_bpe_tokenizer())  # whose padding token is the end of sequence
    rolls = [build_roll(bars=1), build_roll(bars=3)]
    expected = processor(rolls, **options)

    processor.tokenizer.pad_token = None
    padded = processor(rolls, **options)

    assert dict(padded) == dict(expected)


def test_padding_is_never_a_mark():
    tokenizer = build_line_tokenizer()  # whose end of sequence is the end mark
    tokenizer.pad_token = None
    processor = DrumLmProcessor(tokenizer, tokenization="line")

    inputs = processor([build_roll(bars=1), build_roll(bars=3)])

    assert processor.decode_roll(inputs["input_ids"][0]).num_bars == 1


def test_more_bars_are_read_than_those_of_training_if_asked_for(processor):
    midi = processor.to_midi(build_roll(bars=20))

    text = processor.decode_text(processor(midi, num_prompt_bars=18)["input_ids"][0])

    assert text.splitlines()[:16] == processor.build_codec().to_text(build_roll(bars=20)).splitlines()[:16]
    assert "o" in text.split("SEP")[17]


def test_a_text_of_another_meter_is_refused(processor):
    text = ("---o--\n" * 12 + "SEP\n") * 2

    with pytest.raises(ValueError, match="after each bar of 16 lines; in line 13 it stands after 12"):
        processor.read(text)

    assert processor.read(text, steps_per_bar=12).num_bars == 2
    with pytest.raises(ValueError, match="pass `steps_per_bar=12`"):
        processor(text)


def test_only_lenient_reading_lets_a_separator_be_missing(processor):
    text = "---o--\n" * 32 + "SEP\n" + "---o--\n" * 16

    with pytest.raises(ValueError, match="in line 33 it stands after 32"):
        processor.read(text)

    assert processor.read(text, strict=False).num_bars == 3


@pytest.mark.parametrize("text", ["--O---", "x-----", "---X--"])
def test_one_line_is_read_leniently_as_well(processor, text):
    assert processor.read(text, strict=False).hits.sum() == 1


def build_midi(notes, **options):
    return read_midi((notes, 480)) if not options else dataclasses.replace(read_midi((notes, 480)), **options)


KICKS = [(480 * beat, 36, 90) for beat in range(12)]


@pytest.mark.parametrize(
    ("groove", "options", "message"),
    [
        (build_midi([(0, 44, 90)]), {"allow_empty": True}, "Pass `allow_empty=True`"),
        (build_midi([(0, 60, 90)]), {"pitch_map": {60: "tom"}}, "Name their columns by `pitch_map`"),
        (build_midi(KICKS, time_signatures=[(0, 3, 4), (1440, 4, 4)]), {"start_bar": 1}, "`start_bar=1`"),
        ("--O---\n" * 16, {"strict": False}, "must hold only 'o' and '-'"),
    ],
    ids=["allow_empty", "pitch_map", "start_bar", "strict"],
)
def test_what_an_error_recommends_can_be_passed(processor, groove, options, message):
    for read in (processor.read, processor):
        with pytest.raises(ValueError, match=message):
            read(groove)
    processor.read(groove, **options)
    processor(groove, reading=options)


def test_track_reaches_the_reader(processor):
    midi = processor.to_midi(build_roll())

    processor(midi, reading={"track": 0})
    with pytest.raises(ValueError, match="and no track 7"):
        processor(midi, reading={"track": 7})


@pytest.mark.parametrize("num_bars", [1, 2])
def test_padding_is_nothing_to_learn(processor, num_bars):
    midi = processor.to_midi(build_roll(bars=num_bars))

    assert processor.count_bars(midi) == num_bars
    assert processor.decode_roll(processor(midi)["input_ids"][0]).num_bars == num_bars
    with pytest.raises(ValueError, match=f"more bars than the 2 of the prompt .*; got {num_bars} bars with hits"):
        processor.encode_pair(midi)


def test_what_is_not_used_of_a_groove_may_be_anything(processor):
    groove = build_midi(KICKS, time_signatures=[(0, 4, 4), (2 * 1920, 3, 32)])

    prompt = processor.read_prompt(groove)

    assert (prompt.num_bars, prompt.time_signature, prompt.first_bar) == (2, (4, 4), 0)


def test_a_late_groove_says_how_to_reach_it(processor):
    late = build_midi([(40_000 + tick, pitch, velocity) for tick, pitch, velocity in KICKS])

    with pytest.raises(ValueError, match="its next is in bar 20. Pass at least 21 `bars`, or `start_bar=20`"):
        processor.read(late)
    assert processor.read(late, start_bar=20).first_bar == 20
    assert processor.read_prompt(late).first_bar == 20


@pytest.mark.parametrize("form", ["midi", "text"])
def test_a_prompt_knows_where_it_lies(processor, form):
    roll = build_roll(bars=8, silent_first=1)
    groove = processor.to_midi(roll) if form == "midi" else processor.to_text(roll)

    first, later = processor.read_prompt(groove), processor.read_prompt(groove, 3, start_bar=4)

    assert (first.first_bar, first.source_bars, first.num_bars) == (1, 8, 2)
    assert (later.first_bar, later.source_bars, later.num_bars) == (4, 8, 3)
    assert np.array_equal(later.hits, roll.hits[4 * STEPS : 7 * STEPS])
    with pytest.raises(ValueError, match="`start_bar` must be below 8, the bars of the groove; got 8"):
        processor.read_prompt(groove, start_bar=8)


def test_the_groove_of_a_batch_that_cannot_be_read_is_named(processor, tmp_path):
    with pytest.raises(ValueError, match="Groove 1 of the batch, counted from 0: `source` must be a readable"):
        processor([build_roll(), b"MThd", build_roll()])
    with pytest.raises(FileNotFoundError, match="Groove 0 of the batch, .* there is no .*none.mid"):
        processor([str(tmp_path / "none.mid")])


def test_lines_that_the_vocabulary_lacks_are_refused(processor):
    if processor.tokenization == "text":
        assert processor(text="---xx-\n")["input_ids"]
        return
    with pytest.raises(ValueError, match="`text` must hold lines of 6 characters .*; line 2 is '---xx-"):
        processor(text="------\n---xx-\n")


def test_a_pitch_map_is_saved(processor, tmp_path):
    DrumLmProcessor(processor.tokenizer, tokenization=processor.tokenization, pitch_map={60: "tom"}).save_pretrained(
        tmp_path
    )

    loaded = DrumLmProcessor.from_pretrained(tmp_path)

    assert loaded.read(build_midi([(0, 60, 90)])).hits[0].tolist() == [False] * 5 + [True]


def test_a_map_of_ones_own_is_refused():
    with pytest.raises(TypeError, match="`columns` must be the name of a drum map"):
        DrumLmProcessor(build_line_tokenizer(), tokenization="line", columns=DrumCodec().drum_map)


def test_a_pair_says_what_was_given_and_what_follows(processor):
    roll = build_roll(bars=5)

    example = processor.encode_pair(roll, prompt_bars=2)

    ids, length = example["input_ids"], example["prompt_length"]
    assert example["labels"] == ids
    assert ids[:length] == processor(roll)["input_ids"][0]
    assert example["num_steps"] == 3 * STEPS
    lines = processor.build_codec().to_text(roll).splitlines()[2 * STEPS :]
    written = [*lines[:STEPS], "SEP", *lines[STEPS : 2 * STEPS], "SEP", *lines[2 * STEPS :], "END"]
    assert ids[length:] == processor.build_grammar().encode("\n".join(written))


def test_marks_are_the_tokens_of_separators_and_end(processor):
    example = processor.encode_pair(build_roll(bars=5))

    grammar = processor.build_grammar()
    marks = [token for token, mark in zip(example["input_ids"], example["is_mark"], strict=True) if mark]
    assert marks == grammar.canonical_ids("SEP") * 4 + grammar.canonical_ids("END")


def test_an_excerpt_that_stops_before_the_end_has_no_end_mark(processor):
    example = processor.encode_pair(build_roll(bars=6), first_bar=1, bars=4)

    grammar = processor.build_grammar()
    assert example["num_steps"] == 2 * STEPS
    assert example["input_ids"][-len(grammar.canonical_ids("SEP")) :] == grammar.canonical_ids("SEP")
    assert grammar.canonical_ids("END")[-1] not in example["input_ids"]


@pytest.mark.parametrize("trim_empty", [True, False])
def test_silence_at_the_end_is_learned_only_if_asked_for(trim_empty):
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line", trim_empty=trim_empty)

    example = processor.encode_pair(build_roll(bars=6, silent_last=2))

    assert example["num_steps"] == (2 if trim_empty else 4) * STEPS


def test_silent_bars_at_the_beginning_are_dropped(processor):
    first = processor.encode_pair(build_roll(bars=6, silent_first=1))

    assert first["num_steps"] == 3 * STEPS


def test_a_groove_that_is_all_prompt_is_refused(processor):
    with pytest.raises(ValueError, match="`groove` must have more bars than the 2 of the prompt"):
        processor.encode_pair(build_roll(bars=2))


def test_ids_are_read_back(processor):
    roll = build_roll()
    example = processor.encode_pair(roll)

    read = processor.decode_roll(example["input_ids"])

    assert np.array_equal(read.hits, roll.hits)


def test_every_form_of_a_groove_is_read_alike(processor, tmp_path):
    roll = build_roll(bars=processor.bars)
    data = processor.to_midi(roll)
    (tmp_path / "groove.mid").write_bytes(data)

    forms = [data, tmp_path / "groove.mid", processor.to_text(roll), roll.hits, torch.tensor(roll.hits), roll]
    forms.append(roll.hits.tolist())

    assert all(np.array_equal(processor.read(form).hits, roll.hits) for form in forms)
    assert processor.read(data).tempo == pytest.approx(97.0, abs=1e-3)


def test_plots_and_sounds_are_files(processor):
    roll = build_roll(bars=2)

    assert processor.to_png(roll, prompt_bars=1).startswith(b"\x89PNG")
    assert processor.to_wav(roll, sampling_rate=8000).startswith(b"RIFF")


def test_a_saved_processor_is_loaded_whole(processor, tmp_path):
    changed = DrumLmProcessor(processor.tokenizer, tokenization=processor.tokenization, bars=8, trim_empty=False)
    changed.save_pretrained(tmp_path)
    DrumLmConfig().save_pretrained(tmp_path)

    loaded = AutoProcessor.from_pretrained(tmp_path)

    assert type(loaded) is DrumLmProcessor
    assert (loaded.bars, loaded.trim_empty, loaded.tokenization) == (8, False, processor.tokenization)
    assert loaded(build_roll())["input_ids"] == processor(build_roll())["input_ids"]


def test_fields_of_the_configuration_go_with_the_processor(processor):
    fields = processor.to_config_fields()

    assert fields["tokenization"] == processor.tokenization
    assert fields["grammar_token_ids"] == processor.build_grammar().token_ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenization": "word"}, "`tokenization` must be one of text, line; got 'word'"),
        ({"encoding_version": 9}, "`encoding_version` must be 1; got 9"),
        ({"prompt_bars": 16}, r"`prompt_bars` must be in \[0, `bars` \(16\)\); got 16"),
        ({"prompt_bars": 1.5}, r"`prompt_bars` must be in \[0, `bars` \(16\)\); got 1.5"),
        ({"bars": 4.5}, "`bars` must be a whole number, at least 1; got 4.5"),
        ({"columns": "seven"}, "`columns` must be"),
        ({"strip_rule": "x"}, "`strip_rule` must be one of first_beat, bar, or None; got 'x'"),
        ({"separator": "END"}, "`separator` and `end` must differ; both are 'END'"),
        ({"end": ""}, "`end` must be a word without '-', 'o' and line ends; got ''"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DrumLmProcessor(build_line_tokenizer(), **arguments)


@pytest.mark.parametrize(("tokenization", "right"), [("text", "line"), ("line", "text")])
def test_a_tokenization_that_is_not_the_tokenizers_has_no_model(tokenization, right):
    tokenizer = build_line_tokenizer() if right == "line" else build_bpe_tokenizer()
    processor = DrumLmProcessor(tokenizer, tokenization=tokenization)

    with pytest.raises(
        ValueError, match=f"`tokenization` must be '{right}' with this tokenizer.*; got '{tokenization}'"
    ):
        processor.to_config_fields()


def test_the_latest_bars_that_fit_are_kept(processor):
    roll = build_roll()
    whole = processor(roll)["input_ids"][0]
    last = processor(DrumRoll(roll.hits[STEPS : 2 * STEPS]))["input_ids"][0]

    assert processor(roll, truncation=True, max_length=len(whole))["input_ids"] == [whole]
    assert processor(roll, truncation=True, max_length=len(whole) - 1)["input_ids"] == [last]
    with pytest.raises(ValueError, match=f"`max_length` must hold a bar; got 9, and the last bar has {len(last)}"):
        processor(roll, truncation=True, max_length=9)


def test_an_unknown_way_of_reading_is_refused(processor):
    with pytest.raises(TypeError, match="`foo` must be among columns, steps_per_bar, .*, which say how"):
        processor.read(build_roll(), foo=1)


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_of_no_token_is_refused(processor, token):
    with pytest.raises(ValueError, match=rf"`ids` must be in \[0, \d+\); got {token}"):
        processor.decode_roll([token])


@pytest.mark.parametrize(
    ("steps_per_bar", "time_signature"), [(16, (4, 4)), (12, (3, 4)), (20, (5, 4)), (14, (14, 16)), (3, (3, 16))]
)
def test_the_steps_of_a_bar_make_its_meter(processor, steps_per_bar, time_signature):
    ids = processor.build_grammar(steps_per_bar).encode("--o---\n" * steps_per_bar)

    roll = processor.decode_roll(ids, steps_per_bar=steps_per_bar)

    assert roll.time_signature == time_signature
    assert read_midi(processor.to_midi(roll)).time_signatures == [(0, *time_signature)]


def test_a_meter_may_be_given_with_the_ids_or_with_the_file(processor):
    ids = processor.build_grammar(12).encode("--o---\n" * 12)

    roll = processor.decode_roll(ids, steps_per_bar=12, time_signature=(6, 8))

    assert roll.time_signature == (6, 8)
    assert read_midi(processor.to_midi(roll)).time_signatures == [(0, 6, 8)]
    assert read_midi(processor.to_midi(roll, time_signature=(3, 4))).time_signatures == [(0, 3, 4)]


def test_exactly_one_kind_of_input_is_wanted(processor):
    with pytest.raises(ValueError, match="One of `grooves` and `text` must be given; got neither"):
        processor()
    with pytest.raises(ValueError, match="One of `grooves` and `text` must be given; got both"):
        processor(build_roll(), text="--o---\n")


def test_a_roll_of_other_columns_is_refused(processor):
    with pytest.raises(ValueError, match="`groove` must have 6 columns"):
        processor.read(np.zeros((16, 9), dtype=bool))
