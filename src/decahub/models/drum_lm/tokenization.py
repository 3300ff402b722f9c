"""A tokenizer with one token for each line of a groove: three times fewer tokens than the writing of a language model.

Ids: 0 padding, 1 begin, 2 end mark, 3 separator, then the lines in the order of their bits, column 0 the most
significant, each with its line end.
"""

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from .grammar.canonical_ids import build_lines


PAD_TOKEN, BOS_TOKEN = "<pad>", "<bos>"


def build_line_tokenizer(columns: int = 6, separator: str = "SEP", end: str = "END") -> PreTrainedTokenizerFast:
    r"""A tokenizer of `4 + 2**columns` tokens, which are whole lines; decoding gives the text back to the character.

    It writes complete lines only: the last one, too, needs its line end, save the end mark, which is the
    end-of-sequence token.

    Args:
        columns (`int`, defaults to 6): Characters of a line.
        separator (`str`, defaults to `"SEP"`): Line between bars.
        end (`str`, defaults to `"END"`): Line after the last bar.

    Example:
    ```python
    >>> from decahub.models.drum_lm.tokenization import build_line_tokenizer
    >>> build_line_tokenizer()("--o---\nSEP\n---o--\nEND")["input_ids"]
    [12, 3, 8, 2]

    ```
    """
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1; got {columns}.")
    if separator == end or not separator or not end:
        raise ValueError(f"`separator` and `end` must be two different words; got {separator!r} and {end!r}.")
    tokens = [PAD_TOKEN, BOS_TOKEN, end, separator + "\n", *build_lines(columns)]
    tokenizer = Tokenizer(WordLevel({token: number for number, token in enumerate(tokens)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=end,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


__all__ = ["build_line_tokenizer"]
