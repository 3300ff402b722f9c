"""Jumping forward: the tokens of plain generation, with no forward pass where the grammar settles all rows.

How many passes are needed follows from the tokens: one for each place at which some row that is not finished has a
choice, the prompt included.
"""

import pytest
import torch
from transformers import StoppingCriteria

from decahub.models.drum_lm.grammar.constraint import DrumGrammar, DrumGrammarLogitsProcessor
from decahub.models.drum_lm.grammar.jump_forward import jump_forward
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer, build_random_llama, draw_text


STEPS, BARS = 4, 3


class Setup:
    """A model without sense, its grammar, and prompts of one bar and one of a bar and a half."""

    def __init__(self, kind, num_prompts=1):
        self.tokenizer = build_line_tokenizer() if kind == "line" else build_bpe_tokenizer(kind)
        self.model = build_random_llama(self.tokenizer)
        self.grammar = DrumGrammar(self.tokenizer, steps_per_bar=STEPS)
        texts = [draw_text(2, STEPS, seed=seed) for seed in range(num_prompts)]
        rows = [self.grammar.encode(text[: 7 * STEPS] + "SEP\n") for text in texts]
        rows[-1] = self.grammar.encode(texts[-1][: 7 * (STEPS + 2) - 3])
        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        pad_id = self.tokenizer.pad_token_id
        self.input_ids = torch.tensor([[pad_id] * count + row for count, row in zip(padding, rows, strict=True)])
        self.starts = torch.tensor(padding)
        self.attention_mask = (torch.arange(width) >= self.starts[:, None]).long()
        self.num_passes = 0
        self.model.register_forward_hook(self._count)

    def _count(self, *_):
        self.num_passes += 1

    def generate(self, controls=None, seed=0, **options):
        """What the model writes, and the number of its forward passes."""
        torch.manual_seed(seed)
        self.num_passes = 0
        options = {"max_new_tokens": self.grammar.count_tokens(BARS), "eos_token_id": self.grammar.stop_id} | options
        output = self.model.generate(
            self.input_ids,
            attention_mask=self.attention_mask,
            logits_processor=[DrumGrammarLogitsProcessor(self.grammar, BARS, starts=self.starts, **controls or {})],
            pad_token_id=self.tokenizer.pad_token_id,
            **{"do_sample": True, "temperature": 2.0, "top_k": 0} | options,
        )
        return output, self.num_passes

    def count_choices(self, output):
        """Places after the prompts at which a row that has no end mark yet may go on in two ways or more."""
        width, grammar = self.input_ids.shape[1], self.grammar
        has_choice = torch.zeros(output.shape[1] - width, dtype=torch.bool)
        for row, start in zip(output.tolist(), self.starts.tolist(), strict=True):
            state = grammar.walk(row[start:width], BARS, BARS)
            for place, token in enumerate(row[width:]):
                has_choice[place] |= int(grammar.find_allowed(state).sum()) > 1
                if token == grammar.stop_id:
                    break
                state = grammar.advance(state, torch.tensor([token]))
        has_choice[0] = True  # the prompt is read, whatever may follow it
        return int(has_choice.sum())


@pytest.mark.parametrize("num_prompts", [1, 3], ids=["one prompt", "three prompts"])
@pytest.mark.parametrize("kind", ["words", "characters", "line"])
@pytest.mark.parametrize("options", [{}, {"do_sample": False, "temperature": None}], ids=["sampling", "greedy"])
def test_tokens_are_those_of_plain_generation(kind, num_prompts, options):
    setup = Setup(kind, num_prompts)

    output, num_passes = setup.generate(custom_generate=jump_forward, **options)

    expected, most_passes = setup.generate(**options)
    assert torch.equal(output, expected)
    assert num_passes == setup.count_choices(output) < most_passes


def test_several_sequences_of_a_prompt():
    setup = Setup("words")

    output, _ = setup.generate(custom_generate=jump_forward, num_return_sequences=4)

    expected, _ = setup.generate(num_return_sequences=4)
    assert len(set(map(tuple, output.tolist()))) == 4
    assert torch.equal(output, expected)


def test_a_bar_that_is_given_is_not_computed():
    setup = Setup("words")
    force = torch.zeros(STEPS * BARS, 6)
    force[::3, 2:4] = 1

    output, num_passes = setup.generate({"force": force}, custom_generate=jump_forward)

    expected, _ = setup.generate({"force": force})
    assert torch.equal(output, expected)
    assert num_passes == 1


def test_ends_within_a_jump_where_it_is_told_to():
    setup = Setup("characters")
    whole, _ = setup.generate(custom_generate=jump_forward)
    width = setup.input_ids.shape[1]

    for length in range(3, 15):  # a line has seven tokens, of which the last is settled
        output, _ = setup.generate(custom_generate=jump_forward, max_new_tokens=length)
        assert torch.equal(output, whole[:, : width + length])


class AfterToken(StoppingCriteria):
    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == self.token


@pytest.mark.parametrize("eos_token_id", [True, None], ids=["with end mark", "without"])
def test_rows_stop_by_criteria(eos_token_id):
    setup = Setup("line", 3)
    separator = setup.grammar.canonical_ids("SEP")[0]
    options = {"stopping_criteria": [AfterToken(separator)]} | ({} if eos_token_id else {"eos_token_id": None})

    output, _ = setup.generate(custom_generate=jump_forward, **options)

    expected, _ = setup.generate(**options)
    assert torch.equal(output, expected)
    assert (output[:, setup.input_ids.shape[1] :] == separator).any(1).all()


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_goes_on_from_its_cache(use_cache):
    setup = Setup("words")
    whole, _ = setup.generate(custom_generate=jump_forward, use_cache=use_cache, do_sample=False)
    settings = {"custom_generate": jump_forward, "do_sample": False, "return_dict_in_generate": True}
    first, _ = setup.generate(max_new_tokens=11, use_cache=use_cache, **settings)
    assert torch.equal(first.sequences, whole[:, : setup.input_ids.shape[1] + 11])
    if not use_cache:
        return
    setup.input_ids, setup.attention_mask = first.sequences, torch.ones_like(first.sequences)
    name = "cache" if "cache" in first else "past_key_values"

    rest, _ = setup.generate(**settings, **{name: first[name]})

    assert torch.equal(rest.sequences, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "`num_beams` must be 1 to jump forward; got 2"),
        ({"return_dict_in_generate": True, "output_scores": True}, "`output_scores` must be left out"),
    ],
    ids=["beams", "scores"],
)
def test_refuses_what_it_does_not_do(options, message):
    with pytest.raises(ValueError, match=message):
        Setup("line").generate(custom_generate=jump_forward, **options)


def test_refuses_generation_without_a_grammar():
    setup = Setup("line")

    with pytest.raises(ValueError, match="`logits_processor` must hold a DrumGrammarLogitsProcessor.*got none"):
        setup.model.generate(setup.input_ids, custom_generate=jump_forward, max_new_tokens=2, do_sample=False)
