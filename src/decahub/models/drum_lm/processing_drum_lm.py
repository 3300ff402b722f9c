"""Grooves -> token ids -> grooves, as text, MIDI, plots and sound.

One tick of the clock is a sixteenth note: a line of the text, a row of a roll. Token ids are always the canonical ones
of the grammar, line by line.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from .configuration_drum_lm import check_marks
from .grammar.constraint import DrumGrammar
from .midi.codec import DrumCodec, DrumRoll, check_steps
from .midi.drum_map import DRUM_MAPS
from .midi.meter import MeterError, count_steps
from .midi.performance import DrumPerformance
from .midi.reader import SCORE_READERS, read_midi
from .pairs import STRIP_RULES, insert_separators, strip_silence, trim_silence


ENCODING_VERSION = 1
DEFAULT_STEPS_PER_BAR = 16
NAMED_ERRORS = (FileNotFoundError, IsADirectoryError, PermissionError, TypeError, MeterError)
TOKENIZATIONS = ("text", "line")
CODEC_SETTINGS = (
    "columns", "steps_per_bar", "bars", "quantize", "unknown_pitch", "pedal_hat", "pitch_map", "time_signature",
    "expressive",
)  # fmt: skip
PADDING = (
    "padding", "max_length", "pad_to_multiple_of", "return_tensors", "return_attention_mask", "padding_side"
)  # fmt: skip


def is_text(groove: Any, strict: bool = True) -> bool:
    """Whether it is a text of lines and no path: it has a line end, or nothing but hits and rests."""
    return isinstance(groove, str) and ("\n" in groove or not groove.strip("-o" if strict else "-oOxX"))


def is_rows(groove: Any) -> bool:
    """Whether it is a roll as lists, a row of numbers for each step."""
    first = groove[0] if isinstance(groove, list) and groove else None
    return isinstance(first, (list, tuple)) and bool(first) and all(isinstance(cell, (int, float)) for cell in first)


def is_batch(grooves: Any) -> bool:
    """Whether it is a sequence of grooves, such as a list or a column of a dataset, and not one of them."""
    single = (str, bytes, bytearray, memoryview, np.ndarray, torch.Tensor, DrumRoll, DrumPerformance, Mapping)
    is_score = type(grooves).__module__.partition(".")[0] in SCORE_READERS
    is_notes = isinstance(grooves, tuple) and len(grooves) == 2 and isinstance(grooves[1], (int, np.integer))
    if isinstance(grooves, single) or is_score or is_notes or is_rows(grooves):
        return False
    return hasattr(grooves, "__len__") and hasattr(grooves, "__getitem__")


def read_each(grooves: Iterable[Any], read: Callable[[Any], Any]) -> list[Any]:
    """What `read` makes of each groove; an error names the groove by its place."""
    results = []
    for index, groove in enumerate(grooves):
        try:
            results.append(read(groove))
        except (OSError, TypeError, ValueError) as error:
            kind = next((kind for kind in NAMED_ERRORS if type(error) is kind), ValueError)
            raise kind(f"Groove {index} of the batch, counted from 0: {error}") from error
    return results


class DrumLmProcessorKwargs(ProcessingKwargs, total=False):
    """Keywords of a call: those of the tokenizer."""

    _defaults = {"text_kwargs": {"add_special_tokens": False}}


class DrumLmProcessor(ProcessorMixin):
    r"""Reads and writes grooves for [`DrumLmForCausalLM`].

    Args:
        tokenizer (`PreTrainedTokenizerBase`): That of the language model, or of
            [`~decahub.models.drum_lm.tokenization.build_line_tokenizer`].
        columns (`str`, defaults to `"six"`): Groups of drums: `"six"` or `"nine"`.
        steps_per_bar (`int`, *optional*): Lines of a bar; by default four for each quarter note of the meter.
        bars (`int`, defaults to 16): Bars that are read of a groove.
        prompt_bars (`int`, defaults to 2): Bars of a prompt.
        separator (`str`, defaults to `"SEP"`): Line after each bar but the last.
        end (`str`, defaults to `"END"`): Line after the last bar.
        tokenization (`str`, defaults to `"text"`): `"text"` for the tokens of a language model, `"line"` for one token
            for each line. Must be that of the tokenizer.
        quantize, unknown_pitch, pedal_hat, pitch_map, time_signature: As in
            [`~decahub.models.drum_lm.midi.codec.DrumCodec`].
        strip_rule (`str`, *optional*, defaults to `"bar"`): Which silent bars at the beginning are dropped: `"bar"` or
            `"first_beat"`; none with `None`.
        trim_empty (`bool`, defaults to `True`): Whether silent bars at the end are dropped from what is learned.
        encoding_version (`int`, defaults to 1): Version of the writing.
        expressive (`bool`, defaults to `False`): Whether rolls of MIDI keep velocities and timing, for a model with
            `config.expression`. The text has neither.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
    ```python
    >>> from decahub import DrumLmProcessor
    >>> from decahub.models.drum_lm.tokenization import build_line_tokenizer
    >>> processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line", steps_per_bar=2)
    >>> processor("--o---\n---o--\n", num_prompt_bars=1)["input_ids"]
    [[12, 8, 3]]

    ```
    """

    valid_processor_kwargs = DrumLmProcessorKwargs

    def __init__(
        self,
        tokenizer: Any = None,
        columns: Literal["six", "nine"] = "six",
        steps_per_bar: int | None = None,
        bars: int = 16,
        prompt_bars: int = 2,
        separator: str = "SEP",
        end: str = "END",
        tokenization: Literal["text", "line"] = "text",
        quantize: str = "exact",
        unknown_pitch: str = "ignore",
        pedal_hat: str = "drop",
        pitch_map: dict[int, str | None] | None = None,
        time_signature: str = "error",
        strip_rule: str | None = "bar",
        trim_empty: bool = True,
        encoding_version: int = ENCODING_VERSION,
        expressive: bool = False,
        **kwargs: Any,
    ):
        if not isinstance(columns, str):
            raise TypeError(
                f"`columns` must be the name of a drum map, which is saved; got {type(columns).__name__}. Change "
                "its pitches by `pitch_map`."
            )
        if tokenization not in TOKENIZATIONS:
            raise ValueError(f"`tokenization` must be one of {', '.join(TOKENIZATIONS)}; got {tokenization!r}.")
        if encoding_version != ENCODING_VERSION:
            raise ValueError(
                f"`encoding_version` must be {ENCODING_VERSION}; got {encoding_version!r}. Install a version of "
                "decahub that knows it."
            )
        check_marks(separator, end)
        if strip_rule is not None and strip_rule not in STRIP_RULES:
            raise ValueError(f"`strip_rule` must be one of {', '.join(STRIP_RULES)}, or None; got {strip_rule!r}.")
        if not isinstance(prompt_bars, int) or not 0 <= prompt_bars < bars:
            raise ValueError(f"`prompt_bars` must be in [0, `bars` ({bars})); got {prompt_bars}.")
        self.columns, self.steps_per_bar, self.bars, self.prompt_bars = columns, steps_per_bar, bars, prompt_bars
        self.separator, self.end, self.tokenization = separator, end, tokenization
        self.quantize, self.unknown_pitch = quantize, unknown_pitch
        self.pedal_hat, self.pitch_map = pedal_hat, pitch_map
        self.time_signature, self.strip_rule, self.trim_empty = time_signature, strip_rule, trim_empty
        self.encoding_version, self.expressive = encoding_version, expressive
        width = self.build_codec().drum_map.num_columns
        if tokenization == "line" and tokenizer is not None:
            known = tokenizer.get_vocab()
            fitting = [name for name, drum_map in DRUM_MAPS.items() if "-" * drum_map.num_columns + "\n" in known]
            if fitting and columns not in fitting:
                raise ValueError(
                    f"`columns` must be those of the lines that `tokenizer` knows, {' or '.join(fitting)}; "
                    f"got {columns!r}, with lines of {width} characters."
                )
        super().__init__(tokenizer, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    def build_codec(self, **overrides: Any) -> DrumCodec:
        """The codec with the settings of this processor, save `overrides`."""
        return DrumCodec(**{name: getattr(self, name) for name in CODEC_SETTINGS} | overrides)

    def build_grammar(self, steps_per_bar: int | None = None) -> DrumGrammar:
        """The grammar of the tokenizer; by default its bars are those of the processor, or have 16 lines."""
        return DrumGrammar(
            self.tokenizer,
            self.build_codec().drum_map.num_columns,
            steps_per_bar or self.steps_per_bar or DEFAULT_STEPS_PER_BAR,
            self.separator,
            self.end,
        )

    def to_config_fields(self) -> dict[str, Any]:
        """Fields of a [`DrumLmConfig`] that go with this processor, whose `tokenization` must be its tokenizer's."""
        grammar = self._get_grammar()
        has_lines = all(len(grammar.canonical_ids(line)) == 1 for line in grammar.lines)
        if has_lines != (self.tokenization == "line"):
            raise ValueError(
                f"`tokenization` must be {'line' if has_lines else 'text'!r} with this tokenizer, which writes a line "
                f"with {'one token' if has_lines else 'several tokens'}; got {self.tokenization!r}."
            )
        names = ("columns", "bars", "prompt_bars", "separator", "end", "tokenization", "encoding_version")
        return {name: getattr(self, name) for name in names} | {
            "steps_per_bar": self.steps_per_bar or DEFAULT_STEPS_PER_BAR,
            "grammar_token_ids": grammar.token_ids,
        }

    # --- Grooves to token ids

    def __call__(
        self,
        grooves: Any = None,
        text: str | list[str] | None = None,
        num_prompt_bars: int | None = None,
        reading: dict[str, Any] | None = None,
        **kwargs: Unpack[DrumLmProcessorKwargs],
    ) -> BatchFeature:
        """Prompts for generation.

        Args:
            grooves: One groove, or a sequence of them, whatever [`~DrumLmProcessor.read`] takes; `None` in it is an
                empty prompt, which begins with the separator. Silent bars at the beginning are dropped.
            text (`str` or `list[str]`, *optional*): In place of grooves, prompts that go to the tokenizer as they are.
            num_prompt_bars (`int`, *optional*): Bars of each groove that are taken; by default `prompt_bars` of the
                processor. Grooves that are shorter are taken whole.
            reading (`dict`, *optional*): How grooves are read, such as `{"strict": False}`: the keywords of
                [`~DrumLmProcessor.read_prompt`].
            kwargs: Keywords of the tokenizer, such as `return_tensors`, `padding` (grooves are padded on the left
                unless told otherwise), and `max_length`, with `truncation=True` for the latest bars that fit into it.

        Returns:
            [`~transformers.BatchFeature`] with `input_ids` and `attention_mask` `(batch_size, num_tokens)`.

        Raises:
            ValueError: If neither or both of `grooves` and `text` are given, a groove cannot be read, or not even its
                last bar fits; the message names the groove of a batch.
        """
        if (grooves is None) == (text is None):
            raise ValueError("One of `grooves` and `text` must be given; got " + ("both." if text else "neither."))
        merged = self._merge_kwargs(DrumLmProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)[
            "text_kwargs"
        ]
        if text is not None:
            for one in [text] if isinstance(text, str) else text:
                self._check_lines(one)
            return BatchFeature(dict(self.tokenizer(text, **merged)), tensor_type=None)
        num_prompt_bars = self.prompt_bars if num_prompt_bars is None else num_prompt_bars
        if num_prompt_bars < 0:
            raise ValueError(f"`num_prompt_bars` must not be negative; got {num_prompt_bars}.")
        max_length = None
        if merged.get("truncation") not in (None, False, "do_not_truncate"):
            max_length = merged.get("max_length") or self.tokenizer.model_max_length

        def encode(groove: Any) -> list[int]:
            return self._encode_prompt(self.read_prompt(groove, num_prompt_bars, **(reading or {})), max_length)

        rows = read_each(grooves, encode) if is_batch(grooves) else [encode(grooves)]
        options = {name: merged[name] for name in PADDING if merged.get(name) is not None}
        return self._pad(rows, **{"padding": True, "padding_side": "left"} | options)

    def _pad(self, rows: list[list[int]], **options: Any) -> BatchFeature:
        """Rows of one length, as the tokenizer pads them; one without a padding token is helped out."""
        tokenizer = self.tokenizer
        if tokenizer.pad_token_id is None:  # any token that is in no groove will do, since the mask hides it
            leading, end = self._get_grammar().leading_ids, tokenizer.eos_token_id
            filling = end if end in leading else next(iter(leading), 0)
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer(WordLevel({"<pad>": filling})),
                pad_token="<pad>",
                model_max_length=tokenizer.model_max_length,
            )
        return BatchFeature(dict(tokenizer.pad({"input_ids": rows}, **options)), tensor_type=None)

    def _check_lines(self, text: str) -> None:
        """Refuses a text with lines that a vocabulary of lines does not have."""
        known = self.tokenizer.get_vocab() if self.tokenization == "line" else {}
        for number, line in enumerate(text.splitlines(keepends=True) if known else [], start=1):
            if line not in known:
                raise ValueError(
                    f"`text` must hold lines of {self.build_codec().drum_map.num_columns} characters 'o' and '-' "
                    f"or {self.separator}, each with its line end, or {self.end}; line {number} is {line[:40]!r}."
                )

    def _encode_prompt(self, roll: DrumRoll, max_length: int | None) -> list[int]:
        """Ids of the bars, or of those of them that are the latest and fit."""
        per_bar = roll.steps_per_bar
        lines = self.build_codec().to_text(roll).splitlines()
        if not lines:
            return self._get_grammar().canonical_ids(self.separator)
        bars = [
            self._encode_lines(insert_separators(lines[first : first + per_bar], per_bar, self.separator))
            for first in range(0, len(lines), per_bar)
        ]
        while max_length is not None and bars and sum(map(len, bars)) > max_length:
            last = bars.pop(0)
            if not bars:
                raise ValueError(f"`max_length` must hold a bar; got {max_length}, and the last bar has {len(last)}.")
        return [token for bar in bars for token in bar]

    def encode_pair(
        self, groove: Any, first_bar: int = 0, bars: int | None = None, prompt_bars: int | None = None
    ) -> dict[str, Any]:
        """Token ids to learn from: a prompt and what follows it.

        Silent bars at the beginning are dropped, and with `trim_empty` those at the end. The excerpt has at most
        `bars` bars from `first_bar` on, `prompt_bars` of them the prompt. The end mark stands where the groove ends,
        and not where the excerpt stops before that.

        Returns:
            `dict` with `input_ids` and `labels`, lists of the same ids; `is_mark`, for each of them whether it belongs
            to a separator or the end mark; `prompt_length`, the tokens of the prompt; `num_steps`, the lines after it.
            Of an expressive roll also its `velocities` and `offsets`, arrays `(steps, columns)`, `known_steps`,
            the steps of the prompt, and `bar_steps`, those of a bar.

        Raises:
            ValueError: If no bar follows the prompt.
        """
        bars = self.bars if bars is None else bars
        prompt_bars = self.prompt_bars if prompt_bars is None else prompt_bars
        roll = self.read(groove)
        per_bar = roll.steps_per_bar
        lines = self._find_learned_lines(roll)
        start = len(roll) - len(self._find_lines(roll)) + first_bar * per_bar
        excerpt = lines[first_bar * per_bar : (first_bar + bars) * per_bar]
        prompt, completion = excerpt[: prompt_bars * per_bar], excerpt[prompt_bars * per_bar :]
        if first_bar < 0 or prompt_bars < 0 or not completion:
            raise ValueError(
                f"`groove` must have more bars than the {prompt_bars} of the prompt from bar {first_bar} on; got "
                f"{len(lines) // per_bar} bars with hits."
            )
        prompt_lines = insert_separators(prompt, per_bar, self.separator) or [self.separator]
        written = insert_separators(completion, per_bar, self.separator)
        if (first_bar + bars) * per_bar >= len(lines):
            written = [*(written[:-1] if written[-1] == self.separator else written), self.end]
        grammar = self._get_grammar()
        ids_by_line = [grammar.canonical_ids(line) for line in (*prompt_lines, *written)]
        marks = [line in (self.separator, self.end) for line in (*prompt_lines, *written)]
        ids = [token for line in ids_by_line for token in line]
        steps = slice(start, start + len(excerpt))
        expression = {"velocities": roll.velocities, "offsets": roll.offsets} if roll.is_expressive else {}
        return {
            "input_ids": ids,
            "labels": list(ids),
            "is_mark": [mark for line, mark in zip(ids_by_line, marks, strict=True) for _ in line],
            "prompt_length": sum(map(len, ids_by_line[: len(prompt_lines)])),
            "num_steps": len(completion),
            **{name: values[steps] for name, values in expression.items()},
            **({"known_steps": len(prompt), "bar_steps": per_bar} if expression else {}),
        }

    def count_bars(self, groove: Any) -> int:
        """Bars of a groove that [`~DrumLmProcessor.encode_pair`] can choose from."""
        roll = self.read(groove)
        return len(self._find_learned_lines(roll)) // roll.steps_per_bar

    def _find_learned_lines(self, roll: DrumRoll) -> list[str]:
        """Lines without silence at both ends: what fills up a roll is nothing to learn."""
        lines = self._find_lines(roll)
        return trim_silence(lines, roll.steps_per_bar) if self.trim_empty else lines

    def _find_lines(self, roll: DrumRoll) -> list[str]:
        """Lines of a roll, from its first bar that is not silent on; all if none is."""
        lines = self.build_codec().to_text(roll).splitlines()
        stripped = lines if self.strip_rule is None else strip_silence(lines, roll.steps_per_bar, self.strip_rule)
        return stripped or lines

    def _encode_lines(self, lines: Sequence[str]) -> list[int]:
        return self._get_grammar().encode("\n".join(lines))

    def _get_grammar(self) -> DrumGrammar:
        """The grammar of the present tokenizer, built once."""
        built = getattr(self, "_grammar", None)
        if built is None or built[0] is not self.tokenizer:
            built = self._grammar = (self.tokenizer, self.build_grammar())
        return built[1]

    def to_dict(self) -> dict[str, Any]:
        built = self.__dict__.pop("_grammar", None)  # it holds the tokenizer and is not to be copied
        try:
            return super().to_dict()
        finally:
            if built is not None:
                self._grammar = built

    def read(
        self,
        groove: Any,
        bars: int | None = None,
        tempo: float | None = None,
        *,
        start_bar: int | None = None,
        track: int | None = None,
        strict: bool = True,
        **options: Any,
    ) -> DrumRoll:
        """A groove of any kind as a roll.

        Args:
            groove: [`~decahub.models.drum_lm.midi.codec.DrumRoll`], array or lists of hits `(steps, columns)`, text
                of lines (what has a line end, or nothing but hits and rests), MIDI (path, bytes, file object,
                `symusic.Score`, `pretty_midi.PrettyMIDI`, `(notes, ticks_per_quarter)`,
                [`~decahub.models.drum_lm.midi.performance.DrumPerformance`]), or `None` for a roll without steps.
            bars (`int`, *optional*): Bars that are read of MIDI; by default `bars` of the processor.
            tempo (`float`, *optional*): Quarter notes a minute; by default that of the groove, or 120.
            start_bar (`int`, *optional*): Bar of the groove that the roll begins with, counted from 0; by default the
                first one of its meter.
            track (`int`, *optional*): Track of a MIDI file, with all its channels; by default the drums of all tracks.
            strict (`bool`, defaults to `True`): Whether a text must have the exact characters; `False` also takes `O`
                and `x` for hits, blanks and blank lines anywhere, and bars without the separator after them.
            options: Settings of [`~decahub.models.drum_lm.midi.codec.DrumCodec`] for this groove, in place of those
                of the processor: `pitch_map` (for another kit), `time_signature` (of a groove that states none),
                `allow_empty` (for silence) and others. What is `None` stays that of the processor.

        Raises:
            ValueError: If it cannot be read.
            TypeError: If there is no such option, or `groove` is of another kind.
        """
        codec = self._build_codec_for(options | {"bars": bars})
        performance = self._find_performance(groove, strict, track)
        if performance is not None:
            roll = codec.encode(performance, start_bar)
        else:
            roll = self._read_steps(groove, codec, strict, start_bar or 0)
        return roll if tempo is None else dataclasses.replace(roll, tempo=float(tempo))

    def read_prompt(
        self,
        groove: Any,
        num_bars: int | None = None,
        start_bar: int | None = None,
        *,
        track: int | None = None,
        strict: bool = True,
        **options: Any,
    ) -> DrumRoll:
        """The bars of a groove that are to be continued. What lies beyond them may be anything.

        At most `num_bars` bars are taken, by default `prompt_bars` of the processor; silence after the last hit is
        none of them. They begin with the bar `start_bar`, counted from 0, by default with the first that is not
        silent, by `strip_rule`. All else is as in [`~DrumLmProcessor.read`].

        Raises:
            ValueError: If it cannot be read, or has no bar `start_bar`.
        """
        num_bars = self.prompt_bars if num_bars is None else num_bars
        codec = self._build_codec_for(options)
        performance = self._find_performance(groove, strict, track)
        if performance is None:
            roll = self._read_steps(groove, codec, strict, start_bar or 0)
            roll = self.drop_leading_silence(roll) if start_bar is None else roll
        else:
            first = codec.find_first_bar(performance)
            if first is not None:  # a prompt may be silent where the groove is not
                codec = dataclasses.replace(codec, allow_empty=True)
            if start_bar is None and self.strip_rule == "first_beat":
                roll = self.drop_leading_silence(codec.encode(performance, first))
                first = roll.first_bar
            if start_bar is None and self.strip_rule is not None:
                start_bar = first
            roll = dataclasses.replace(codec, bars=max(num_bars, 1)).encode(performance, start_bar)
        played = (roll.source_bars or 0) - roll.first_bar
        if start_bar and played < 1:
            raise ValueError(f"`start_bar` must be below {roll.source_bars}, the bars of the groove; got {start_bar}.")
        stop = max(0, min(num_bars, played)) * roll.steps_per_bar
        return roll.change_steps(lambda values: values[:stop])

    def _build_codec_for(self, options: dict[str, Any]) -> DrumCodec:
        known = [item.name for item in dataclasses.fields(DrumCodec)]
        for name in options:
            if name not in known:
                raise TypeError(f"`{name}` must be among {', '.join(known)}, which say how a groove is read.")
        return self.build_codec(**{name: value for name, value in options.items() if value is not None})

    def _find_performance(self, groove: Any, strict: bool, track: int | None) -> DrumPerformance | None:
        """What was played, or `None` for a groove that is written in steps."""
        if groove is None or is_text(groove, strict) or is_rows(groove):
            return None
        if isinstance(groove, (torch.Tensor, np.ndarray, DrumRoll)):
            return None
        return read_midi(groove, track=track)

    def _read_steps(self, groove: Any, codec: DrumCodec, strict: bool, start_bar: int) -> DrumRoll:
        """The roll of a text, an array, lists, a roll, or nothing."""
        columns = codec.drum_map.num_columns
        meter = None if isinstance(codec.time_signature, str) else tuple(codec.time_signature)
        steps_per_bar = codec.steps_per_bar or (count_steps(meter) if meter else DEFAULT_STEPS_PER_BAR)
        if groove is None:
            groove = np.zeros((0, columns), dtype=bool)
        if is_text(groove, strict):
            self._check_separators(groove, steps_per_bar, strict)
            groove = codec.parse_text(groove, strict, separator=self.separator, end=self.end)
        if isinstance(groove, torch.Tensor):
            groove = groove.cpu().numpy()
        if is_rows(groove):
            if {len(row) for row in groove} != {columns}:
                raise ValueError(f"`groove` must have rows of {columns} columns; got others, too.")
            groove = np.array(groove)
        roll = groove if isinstance(groove, DrumRoll) else DrumRoll(groove, steps_per_bar, meter)
        if roll.hits.shape[1] != columns:
            raise ValueError(f"`groove` must have {columns} columns; got a roll of shape {roll.hits.shape}.")
        if meter and tuple(roll.time_signature) != meter:
            if roll.steps_per_bar != steps_per_bar:
                own, wanted = ("/".join(map(str, pair)) for pair in (roll.time_signature, meter))
                raise ValueError(f"`time_signature` must be that of the groove, {own}; got {wanted}. Leave it out.")
            roll = dataclasses.replace(roll, time_signature=meter)
        if codec.steps_per_bar:
            check_steps(codec.steps_per_bar, roll.time_signature)
        played = np.flatnonzero(roll.hits.any(1))
        bars = int(played[-1]) // roll.steps_per_bar + 1 if len(played) else 0
        start = start_bar * roll.steps_per_bar
        return roll.change_steps(
            lambda values: values[start:],
            first_bar=roll.first_bar + start_bar,
            source_bars=roll.source_bars or bars,
        )

    def _check_separators(self, text: str, steps_per_bar: int, strict: bool) -> None:
        """Refuse a text whose separators tell of bars of another length; some may be missing unless `strict`."""
        count = 0
        for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
            if line != self.separator:
                count += bool(line)
                continue
            if count not in (0, steps_per_bar) and (strict or count % steps_per_bar):
                raise ValueError(
                    f"`groove` must have {self.separator} after each bar of {steps_per_bar} lines; in line {number} "
                    f"it stands after {count}. If that is a bar, pass `steps_per_bar={count}` or `time_signature`."
                )
            count = 0

    def drop_leading_silence(self, roll: DrumRoll) -> DrumRoll:
        """A roll without the silent bars at its beginning, by `strip_rule`; as it is if there is nothing else."""
        dropped = len(roll.hits) - len(self._find_lines(roll))
        first_bar = roll.first_bar + dropped // roll.steps_per_bar
        return roll.change_steps(lambda values: values[dropped:], first_bar=first_bar)

    # --- Token ids to grooves

    def decode_text(self, ids: Any) -> str:
        """Text of one row of ids up to the end mark, separators included and padding left out."""
        ids = torch.as_tensor(ids).tolist()
        size = len(self.tokenizer)
        outside = [token for token in ids if not 0 <= token < size]
        if outside:
            raise ValueError(f"`ids` must be in [0, {size}); got {outside[0]}.")
        skipped = set(self._get_grammar().leading_ids)
        text = self.tokenizer.decode(
            [token for token in ids if token not in skipped],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return text.partition(self.end)[0]

    def decode_roll(
        self,
        ids: Any,
        strict: bool = True,
        steps_per_bar: int | None = None,
        time_signature: tuple[int, int] | None = None,
    ) -> DrumRoll:
        """The roll that a row of ids of complete lines writes; a line that is none is refused if `strict`.

        Bars have `steps_per_bar` lines, by default those of the meter, of the processor, or 16; the meter is by
        default one of this many lines.
        """
        hits = self.build_codec().parse_text(
            self.decode_text(ids), strict=strict, separator=self.separator, end=self.end
        )
        steps_per_bar = steps_per_bar or (count_steps(time_signature) if time_signature else self.steps_per_bar)
        return DrumRoll(hits, steps_per_bar or DEFAULT_STEPS_PER_BAR, time_signature)

    def to_text(self, roll: Any) -> str:
        """The lines of a groove, whatever [`~DrumLmProcessor.read`] takes, without separators and end mark."""
        return self.build_codec().to_text(self.read(roll))

    def to_midi(
        self,
        roll: Any,
        mode: str = "standard",
        tempo: float | None = None,
        time_signature: tuple[int, int] | None = None,
    ) -> bytes:
        """A MIDI file of a groove, by default at its own tempo and in its own meter; `mode` is as in `write_midi`."""
        groove = self.read(roll, tempo=tempo)
        if time_signature is not None:
            groove = dataclasses.replace(groove, time_signature=tuple(time_signature))
        return self.build_codec().to_midi(groove, mode=mode)

    def to_png(self, roll: Any, prompt_bars: int = 0) -> bytes:
        """A plot of a groove, its first `prompt_bars` bars tinted."""
        from .render.plot import draw_roll

        return draw_roll(self.read(roll), self.build_codec().drum_map, prompt_bars=prompt_bars)

    def to_wav(self, roll: Any, sampling_rate: int = 22050) -> bytes:
        """A sound preview of a groove, as a WAV file."""
        from .render.synthesis import encode_wav, synthesize

        waveform = synthesize(self.read(roll), self.build_codec().drum_map, sampling_rate=sampling_rate)
        return encode_wav(waveform, sampling_rate)


__all__ = ["DrumLmProcessor"]
