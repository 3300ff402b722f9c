"""One token for each line: ids by the bits of the line, text back to the character."""

import pytest
from transformers import AutoTokenizer

from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import draw_text


@pytest.mark.parametrize("columns", [6, 9])
def test_ids_are_special_tokens_and_then_the_bits_of_the_lines(columns):
    tokenizer = build_line_tokenizer(columns)
    numbers = [0, 1, 2 ** (columns - 1), 2**columns - 1, 11]
    lines = [bin(number)[2:].zfill(columns).replace("0", "-").replace("1", "o") + "\n" for number in numbers]

    ids = tokenizer("".join(lines))["input_ids"]

    assert ids == [4 + number for number in numbers]
    assert len(tokenizer) == 4 + 2**columns


def test_special_ids():
    tokenizer = build_line_tokenizer()

    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("SEP\nEND")["input_ids"] == [3, 2]


def test_text_comes_back():
    tokenizer = build_line_tokenizer()
    text = draw_text(16)

    ids = tokenizer(text)["input_ids"]

    assert len(ids) == 16 * 16 + 16
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([0, 1, *ids], skip_special_tokens=True) == text.removesuffix("END")


def test_own_separator_and_end():
    tokenizer = build_line_tokenizer(separator="|", end="*")

    assert tokenizer("------\n|\noooooo\n*")["input_ids"] == [4, 3, 67, 2]


def test_prompts_are_padded_on_the_left():
    batch = build_line_tokenizer()(["------\n", "------\nSEP\n"], padding=True)

    assert batch["input_ids"] == [[0, 4], [4, 3]]
    assert batch["attention_mask"] == [[0, 1], [1, 1]]


def test_auto_tokenizer_loads_what_was_saved(tmp_path):
    tokenizer = build_line_tokenizer()
    text = draw_text(2)

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.padding_side) == (0, 2, "left")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": 0}, "`columns` must be at least 1; got 0"),
        ({"separator": "END"}, "`separator` and `end` must be two different words; got 'END' and 'END'"),
        ({"end": ""}, "`separator` and `end` must be two different words; got 'SEP' and ''"),
    ],
)
def test_refuses_what_cannot_be_written(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_line_tokenizer(**arguments)
