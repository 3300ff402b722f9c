"""The grammar of grooves: canonical tokens, tables, and what a model without sense writes under it.

Expected values come from the writing itself: a text is valid if its lines and bars are, and canonical if the tokenizer
writes the same ids for it.
"""

import itertools
import os
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from decahub.models.drum_lm.grammar.constraint import DrumGrammar, DrumGrammarLogitsProcessor
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer, build_random_llama, draw_text


STEPS = 4  # lines of a bar in most of these tests
SMOLLM2_VARIABLE = "DECAHUB_SMOLLM2_GGUF"
SMOLLM2_IDS = [29, 64, 95, 198, 423, 568, 586, 5583, 6493, 16317, 17318, 21771, 40316]  # method spec, 3.1


@pytest.fixture(scope="module", params=["words", "lines", "characters", "line"])
def tokenizer(request):
    return build_line_tokenizer() if request.param == "line" else build_bpe_tokenizer(request.param)


@pytest.fixture(scope="module")
def grammar(tokenizer):
    return DrumGrammar(tokenizer, steps_per_bar=STEPS)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_random_llama(tokenizer)


@pytest.fixture(scope="module")
def words():
    return build_bpe_tokenizer("words")


def pad_left(rows, pad_id):
    width = max(1, *map(len, rows), 0)  # an empty prompt is one padding token
    padding = [width - len(row) for row in rows]
    ids = [[pad_id] * count + row for count, row in zip(padding, rows, strict=True)]
    mask = [[0] * min(count, width - 1) + [1] * (width - min(count, width - 1)) for count in padding]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def generate(model, grammar, tokenizer, prompts, bars_min, bars_max=None, controls=None, **kwargs):
    """Texts that the model writes after prompts, and their ids without padding and end of sequence."""
    inputs = pad_left(prompts, tokenizer.pad_token_id)
    processor = DrumGrammarLogitsProcessor(grammar, bars_min, bars_max, **(controls or {}))
    most = int(torch.as_tensor(bars_min if bars_max is None else bars_max).max())
    kwargs = {"do_sample": True, "temperature": 2.0, "top_k": 0} | kwargs
    output = model.generate(
        **inputs,
        logits_processor=[processor],
        max_new_tokens=grammar.count_tokens(most),
        eos_token_id=grammar.stop_id,
        **kwargs,
    )
    ids = [row[row != tokenizer.pad_token_id].tolist() for row in output]
    return [tokenizer.decode(row) for row in ids], ids


def assert_valid(text, bars, columns=6, steps=STEPS):
    line = f"[-o]{{{columns}}}\n"
    assert re.fullmatch(f"((?:{line}){{{steps}}}SEP\n){{{bars - 1}}}(?:{line}){{{steps}}}END", text), text


def assert_canonical(ids, text, tokenizer):
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_random_weights_write_valid_grooves_only(tokenizer, grammar, model):
    prompt = grammar.encode(draw_text(1, STEPS)[: 7 * STEPS])
    torch.manual_seed(0)

    texts, ids = generate(model, grammar, tokenizer, [prompt], 3, num_return_sequences=100)

    assert len(set(texts)) > 90
    for text, row in zip(texts, ids, strict=True):
        assert_valid(text, 3)
        assert_canonical(row, text, tokenizer)


def test_rows_of_a_batch_stand_at_different_places(tokenizer, grammar, model):
    text = draw_text(3, STEPS)
    full = grammar.encode(text)
    prompts = [full[:1], full[:4], grammar.encode(text[: 7 * STEPS]), full[: len(full) // 2], []]
    bars = [2, 4, 3, 5, 2]
    torch.manual_seed(1)

    texts, ids = generate(model, grammar, tokenizer, prompts, bars, num_return_sequences=3)

    for number, (text, row) in enumerate(zip(texts, ids, strict=True)):
        assert_valid(text, bars[number // 3])
        assert_canonical(row, text, tokenizer)
        prompt = prompts[number // 3]
        assert row[: len(prompt)] == prompt


@pytest.mark.parametrize("do_sample", [False, True], ids=["beam search", "beam sampling"])
def test_beams_keep_their_places(words, do_sample):
    grammar, model = DrumGrammar(words, steps_per_bar=STEPS), build_random_llama(words)
    prompts = [grammar.encode(draw_text(2, STEPS, seed=seed))[: 9 + seed] for seed in range(2)]
    torch.manual_seed(2)

    texts, _ = generate(
        model, grammar, words, prompts, [2, 3], num_beams=4, num_return_sequences=3, do_sample=do_sample
    )

    for number, text in enumerate(texts):
        # Finished beams may be filled with end marks where the padding id is 0.
        assert_valid(re.sub("(END)+$", "END", text), 2 + number // 3)


def test_reordered_rows_equal_rows_read_anew(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    generator = torch.Generator().manual_seed(3)
    processor = DrumGrammarLogitsProcessor(grammar, 3)
    ids = torch.tensor([grammar.encode("--o--o\n")] * 5)
    scores = torch.randn(5, len(words), generator=generator)
    for _ in range(25):
        masked = processor(ids, scores)
        fresh = DrumGrammarLogitsProcessor(grammar, 3)(ids, scores)
        torch.testing.assert_close(masked, fresh, atol=0, rtol=0)
        order = torch.randint(5, (5,), generator=generator)
        following = masked.softmax(-1).multinomial(1, generator=generator)
        ids = torch.cat([ids, following], dim=1)[order]


def test_shorter_history_is_read_again(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    ids = torch.tensor([grammar.encode(draw_text(2, STEPS))])
    scores = torch.zeros(1, len(words))
    processor = DrumGrammarLogitsProcessor(grammar, 2)

    masks = {length: processor(ids[:, :length], scores) for length in (5, 6, 15, 9, 10, 12)}

    for length, masked in masks.items():
        expected = DrumGrammarLogitsProcessor(grammar, 2)(ids[:, :length], scores)
        torch.testing.assert_close(masked, expected, atol=0, rtol=0)


def test_a_processor_serves_one_prompt_after_another(words):
    grammar, model = DrumGrammar(words, steps_per_bar=STEPS), build_random_llama(words)
    processor = DrumGrammarLogitsProcessor(grammar, 1)

    for seed in (1, 2):
        prompt = torch.tensor([grammar.encode(draw_text(1, STEPS, seed=seed, density=0.6)[:14])])
        ids = model.generate(prompt, logits_processor=[processor], max_new_tokens=60, eos_token_id=grammar.stop_id)
        assert_valid(words.decode(ids[0]), 1)


def test_a_second_prompt_that_extends_the_first_is_checked(words):
    grammar, model = DrumGrammar(words, steps_per_bar=STEPS), build_random_llama(words)
    processor = DrumGrammarLogitsProcessor(grammar, 3)
    prompt = grammar.encode(draw_text(2, STEPS).removesuffix("END") + "SEP\n")
    options = {"logits_processor": [processor], "max_new_tokens": 9, "eos_token_id": grammar.stop_id}
    model.generate(torch.tensor([prompt]), **options)

    for _ in range(2):  # what was refused is refused again
        with pytest.raises(ValueError, match=r"row 0 is not from column \d+ on \(bar 3, line 1\).* stands 'E"):
            model.generate(torch.tensor([[*prompt, *grammar.canonical_ids("END")]]), **options)
    longer = torch.tensor([[*prompt, *grammar.encode("--o---\n")]])
    written = model.generate(longer, **options)

    expected = model.generate(longer, **options | {"logits_processor": [DrumGrammarLogitsProcessor(grammar, 3)]})
    assert torch.equal(written, expected)


def test_a_prompt_that_was_refused_is_refused_again(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    scores = torch.zeros(1, len(words))
    wrong, excluded = (torch.tensor([grammar.canonical_ids(line)]) for line in ("END", "oooooo"))
    processor = DrumGrammarLogitsProcessor(grammar, 2, forbid_columns=[0])

    for ids, message in ((wrong, "canonical"), (excluded[:, :1], "controls")) * 2:
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                processor(ids, scores)


def test_assisted_generation_is_let_through(words):
    grammar, model = DrumGrammar(words, steps_per_bar=STEPS), build_random_llama(words)
    prompt = grammar.encode(draw_text(1, STEPS).removesuffix("END") + "SEP\n")

    for options in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": build_random_llama(words, seed=1)}):
        texts, _ = generate(model, grammar, words, [prompt], 3, do_sample=False, temperature=None, **options)
        assert_valid(texts[0], 3)


def test_bars_lie_between_both_bounds(words):
    grammar, model = DrumGrammar(words, steps_per_bar=1), build_random_llama(words)
    torch.manual_seed(4)

    texts, _ = generate(model, grammar, words, [[], []], [1, 3], [2, 6], num_return_sequences=40)

    counts = [text.count("SEP") + 1 for text in texts]
    assert set(counts[:40]) == {1, 2}
    assert {3, 4} <= set(counts[40:]) <= {3, 4, 5, 6}


def test_only_closing_tokens_follow_the_end_mark(words):
    grammar = DrumGrammar(words, steps_per_bar=1)
    ids = torch.tensor([grammar.encode("--o---\nEND")])
    scores = torch.randn(1, len(words) + 5)

    masked = DrumGrammarLogitsProcessor(grammar, 1)(ids, scores)

    assert masked.isfinite().nonzero()[:, 1].tolist() == [words.eos_token_id]


def test_closing_token_can_be_chosen_where_the_model_gives_it_nothing(words):
    grammar = DrumGrammar(words, steps_per_bar=1)
    ids = torch.tensor([grammar.encode("--o---\nEND")])
    scores = torch.full((1, len(words)), torch.finfo(torch.float32).min)

    masked = DrumGrammarLogitsProcessor(grammar, 1)(ids, scores) / 0.5

    assert masked.softmax(-1)[0, words.eos_token_id] == 1


def test_allowed_scores_are_unchanged(words):
    grammar = DrumGrammar(words, steps_per_bar=1)
    scores = torch.randn(1, len(words), generator=torch.Generator().manual_seed(5))

    masked = DrumGrammarLogitsProcessor(grammar, 1)(torch.tensor([[words.pad_token_id]]), scores)

    first = sorted({grammar.canonical_ids(line)[0] for line in grammar.lines})
    assert masked.isfinite().nonzero()[:, 1].tolist() == first
    torch.testing.assert_close(masked[:, first], scores[:, first], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("------\n--o--\n", r"row 0 .* column .*\(bar 1, line 2\).*'\\n'"),
        ("------\n" * 5, r"\(bar 1, line 5\).*instead of 'SEP'"),
        ("------\n" * 3 + "SEP\n", r"\(bar 1, line 4\).*'SEP'"),
        (("------\n" * 4 + "SEP\n") * 2 + "o", r"\(bar 2, line 5\).*instead of 'END'.*bars_max"),
    ],
    ids=["short line", "long bar", "short bar", "too many bars"],
)
def test_refuses_prompts_outside_the_grammar(words, text, place):
    processor = DrumGrammarLogitsProcessor(DrumGrammar(words, steps_per_bar=STEPS), 2)
    ids = words(text, return_tensors="pt").input_ids

    with pytest.raises(ValueError, match=f"(?s)`input_ids` must be grooves in canonical tokens; {place}|{place}"):
        processor(ids, torch.zeros(1, len(words)))


def test_refuses_tokens_that_are_not_canonical(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    single = words.convert_tokens_to_ids("o")  # `oo` is a token of its own
    good, bad = grammar.encode("o-o-o-\n")[:2], [single, single]

    grammar.walk(good)
    with pytest.raises(ValueError, match="row 1 is not from column 1"):
        grammar.walk(torch.tensor([good, bad]))


def test_text_before_the_groove_is_passed_over_with_starts(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    groove = grammar.encode("--o---\n")
    ids = torch.tensor([[7, 7, 7, *groove]])

    state = grammar.walk(ids, starts=torch.tensor([3]))

    assert (int(state.step), int(state.bars), int(state.place)) == (1, 0, 0)


def test_prompt_may_begin_with_a_separator(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)

    state = grammar.walk(grammar.encode("SEP\n--o---\n"))

    assert (int(state.step), int(state.bars)) == (1, 0)


@pytest.mark.parametrize("name", ["bars_min", "bars_max"])
@pytest.mark.parametrize("value", [2.5, "3", [1, 2.5], True])
def test_bars_are_whole_numbers(words, name, value):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)

    with pytest.raises(ValueError, match=f"`{name}` must be a whole number, or one for each sample; got"):
        DrumGrammarLogitsProcessor(grammar, **{name: value})


def test_a_tokenizer_is_no_grammar(words):
    with pytest.raises(TypeError, match="`grammar` must be a DrumGrammar, which a tokenizer gives; got"):
        DrumGrammarLogitsProcessor(words)


def test_forbidden_columns_stay_silent(tokenizer, grammar, model):
    controls = {"forbid_columns": [0, 4]}

    texts, _ = generate(model, grammar, tokenizer, [[]], 2, controls=controls, num_return_sequences=20)

    for text in texts:
        assert_valid(text, 2)
        assert not any(line[0] == "o" or line[4] == "o" for line in text.splitlines() if line not in ("SEP", "END"))


def test_lines_have_no_more_hits_than_allowed(tokenizer, grammar, model):
    controls = {"max_hits_per_step": 2}

    texts, _ = generate(model, grammar, tokenizer, [[]], 2, controls=controls, num_return_sequences=20)

    assert max(line.count("o") for text in texts for line in text.splitlines()) == 2


def test_forced_cells_are_written(tokenizer, grammar, model):
    generator = torch.Generator().manual_seed(6)
    force = torch.randint(-1, 2, (2, 2 * STEPS - 1, 6), generator=generator)

    texts, _ = generate(model, grammar, tokenizer, [[], []], 2, controls={"force": force}, num_return_sequences=5)

    for number, text in enumerate(texts):
        assert_valid(text, 2)
        lines = [line for line in text.splitlines() if line not in ("SEP", "END")][: 2 * STEPS - 1]
        roll = torch.tensor([[mark == "o" for mark in line] for line in lines]).long()
        cells = force[number // 5]
        assert ((roll == cells) | (cells == -1)).all()


def test_bars_are_not_repeated(words):
    grammar, model = DrumGrammar(words, steps_per_bar=2), build_random_llama(words)
    # Two lines are left, so that a bar repeats that before it in a quarter of all cases.
    controls = {"forbid_columns": [0, 1, 2, 3, 4]}
    free, _ = generate(model, grammar, words, [[]], 4, controls=controls, num_return_sequences=30)
    new, _ = generate(
        model, grammar, words, [[]], 4, controls=controls | {"forbid_repeat": True}, num_return_sequences=30
    )

    def has_repeat(text):
        bars = text.removesuffix("END").split("SEP\n")
        return any(first == second for first, second in itertools.pairwise(bars))

    assert any(map(has_repeat, free))
    assert not any(map(has_repeat, new))


@pytest.mark.parametrize("fill_bars", [[2], [[1, 3], [2]]], ids=["all samples", "each sample"])
def test_fills_leave_the_bar_before_in_their_second_half(tokenizer, fill_bars):
    steps, per_sample = 8, 6
    grammar, model = DrumGrammar(tokenizer, steps_per_bar=steps), build_random_llama(tokenizer)
    # One drum is left: a line is that of the bar before in half of all cases.
    controls = {"forbid_columns": [0, 1, 2, 3, 4], "fill_bars": fill_bars}

    texts, _ = generate(model, grammar, tokenizer, [[], []], 4, controls=controls, num_return_sequences=per_sample)

    other_bars_repeat = False
    for number, text in enumerate(texts):
        assert_valid(text, 4, steps=steps)
        bars = [bar.splitlines() for bar in text.removesuffix("END").split("SEP\n")]
        fills = fill_bars[number // per_sample] if isinstance(fill_bars[0], list) else fill_bars
        for bar in range(1, 4):
            same = [own == before for own, before in zip(bars[bar], bars[bar - 1], strict=True)][steps // 2 :]
            twice = any(first and second for first, second in itertools.pairwise(same))
            assert not (bar in fills and twice)
            other_bars_repeat |= bar not in fills and twice
    assert other_bars_repeat  # so the test can fail


def test_a_fill_that_is_forced_to_repeat_stays(words):
    grammar, model = DrumGrammar(words, steps_per_bar=4), build_random_llama(words)
    controls = {"force": torch.ones(8, 6), "fill_bars": [1]}

    texts, _ = generate(model, grammar, words, [[]], 2, controls=controls)

    assert texts == ["oooooo\n" * 4 + "SEP\n" + "oooooo\n" * 4 + "END"]


def test_bar_0_is_no_fill(words):
    with pytest.raises(ValueError, match="`fill_bars` must be whole numbers, at least 1; got 0"):
        DrumGrammarLogitsProcessor(DrumGrammar(words), fill_bars=[3, 0])


def test_forced_bar_may_be_a_repeat(words):
    grammar, model = DrumGrammar(words, steps_per_bar=2), build_random_llama(words)
    controls = {"force": torch.ones(4, 6), "forbid_repeat": True}

    texts, _ = generate(model, grammar, words, [[]], 2, controls=controls)

    assert texts == ["oooooo\noooooo\nSEP\noooooo\noooooo\nEND"]


def test_density_bias_is_what_the_hits_of_a_line_add_up_to(tokenizer, grammar):
    bias = torch.tensor([0.5, -1.0, 2.0, 0.25, -3.0, 4.0])
    processor = DrumGrammarLogitsProcessor(grammar, 1, density_bias=bias)

    for line in ("--o--o\n", "oooooo\n", "------\n", "-o-oo-\n"):
        ids = grammar.canonical_ids(line)
        total = 0.0
        for length, token in enumerate(ids):
            history = torch.tensor([[tokenizer.pad_token_id, *ids[:length]]])
            total += float(processor(history, torch.zeros(1, len(tokenizer)))[0, token])
        assert total == sum(float(bias[column]) for column, mark in enumerate(line) if mark == "o")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bars_min": 0}, "`bars_min` must be at least 1; got 0"),
        ({"bars_min": 3, "bars_max": 2}, r"`bars_max` must be at least `bars_min` \(3\); got 2"),
        ({"forbid_columns": [6]}, r"`forbid_columns` must be whole numbers in \[0, 6\); got 6"),
        ({"max_hits_per_step": -1}, "`max_hits_per_step` must not be negative; got -1"),
        ({"force": torch.zeros(3, 5)}, r"`force` must have the shape .*got \(3, 5\)"),
        ({"force": torch.full((3, 6), 2)}, "`force` must hold 1 .*got 2"),
        ({"force": torch.ones(3, 6), "max_hits_per_step": 2}, "`force` must leave a line at each step.*step 0"),
        ({"density_bias": [1.0, 2.0]}, r"`density_bias` must be one number or 6; got shape \(2,\)"),
        ({"density_bias": float("inf")}, "`density_bias` must be finite"),
        ({"density_bias": "dense"}, "`density_bias` must be one number or 6; got 'dense'"),
        ({"force": torch.full((3, 6), 0.5)}, "`force` must hold 1 .*; got 0.5"),
        ({"force": [[float("nan")] * 6]}, "`force` must hold 1 .*; got nan"),
        ({"force": [[1] * 6, [0] * 5]}, "`force` must be numbers in rows of 6 columns; expected sequence of length 6"),
        ({"force": "crash"}, "`force` must be numbers in rows of 6 columns"),
        ({"forbid_columns": [1.5]}, r"`forbid_columns` must be whole numbers in \[0, 6\); got 1.5"),
    ],
)
def test_refuses_controls_out_of_range(words, arguments, message):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)

    with pytest.raises(ValueError, match=message):
        DrumGrammarLogitsProcessor(grammar, **arguments)


def test_refuses_bounds_for_another_number_of_samples(words):
    processor = DrumGrammarLogitsProcessor(DrumGrammar(words), [2, 2, 2])

    with pytest.raises(ValueError, match="`bars_min` must have one entry for each sample; got 3 for 2 rows"):
        processor(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, len(words)))


def test_refuses_a_prompt_that_ends_within_an_excluded_line(words):
    grammar = DrumGrammar(words)
    processor = DrumGrammarLogitsProcessor(grammar, 2, forbid_columns=[0])

    with pytest.raises(ValueError, match="row 0 ends within a line that they exclude"):
        processor(torch.tensor([grammar.canonical_ids("oooooo")[:1]]), torch.zeros(1, len(words)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("across", "must not join characters across a line end"),
        ("lower", "must be able to write '------.n'"),
        ("blind", "must be able to write '-----o.n'"),
    ],
)
def test_refuses_tokenizers_that_cannot_write_line_by_line(kind, message):
    with pytest.raises(ValueError, match=f"`tokenizer` {message}"):
        DrumGrammar(build_bpe_tokenizer(kind))


def test_a_model_of_another_vocabulary_is_refused(words):
    grammar = DrumGrammar(words, columns=9, steps_per_bar=STEPS)
    processor = DrumGrammarLogitsProcessor(grammar, bars_min=1)

    with pytest.raises(ValueError, match="`grammar` must be of the tokenizer and the columns of the model"):
        processor(torch.tensor([grammar.canonical_ids("o--------")]), torch.zeros(1, grammar.token_ids[-1]))


def test_padding_that_the_model_does_not_know_is_never_written(words):
    grammar = DrumGrammar(words, steps_per_bar=STEPS)
    vocab_size = max(grammar.token_ids + grammar.closing_ids) + 1
    grammar.closing_ids = [*grammar.closing_ids, vocab_size]
    processor = DrumGrammarLogitsProcessor(grammar, bars_min=1)

    scores = processor(torch.tensor([grammar.canonical_ids("o-----")]), torch.zeros(1, vocab_size))

    assert scores.shape == (1, vocab_size)


def test_nine_columns():
    tokenizer = build_bpe_tokenizer("words", columns=9)
    grammar = DrumGrammar(tokenizer, columns=9, steps_per_bar=3)

    texts, _ = generate(build_random_llama(tokenizer), grammar, tokenizer, [[]], 2, num_return_sequences=20)

    for text in texts:
        assert_valid(text, 2, columns=9, steps=3)


def test_smollm2_writes_grooves_with_thirteen_tokens():
    path = os.environ.get(SMOLLM2_VARIABLE)
    if not path:
        pytest.skip(f"needs the GGUF file of SmolLM2; name it in {SMOLLM2_VARIABLE}")
    tokenizer = AutoTokenizer.from_pretrained(Path(path).parent, gguf_file=Path(path).name)
    text = draw_text(16)

    grammar = DrumGrammar(tokenizer)

    assert grammar.token_ids == SMOLLM2_IDS
    assert grammar.canonical_ids("SEP") == [6493, 64, 198]
    assert grammar.stop_id == 16317
    assert grammar.encode(text) == tokenizer(text)["input_ids"]
