"""Pipeline "drum-generation": first bars of a groove in, the whole as text, MIDI, plot and sound out."""

import dataclasses
import difflib
import itertools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    Pipeline,
)
from transformers.generation import GenerateDecoderOnlyOutput

from .drum_sampling import EndOfBar, LogProbRecorder, build_generator, build_sampling


OUTPUTS = ("midi", "png", "wav")
READING = (
    "track", "strict", "steps_per_bar", "time_signature", "allow_empty", "pitch_map", "unknown_pitch",
    "pedal_hat", "quantize",
)  # fmt: skip
SAMPLING = ("temperature", "top_k", "top_p", "do_sample")
CONTROLS = ("forbid_columns", "force", "max_hits_per_step", "density_bias", "forbid_repeat")
# transformers 5.24 gave the keys and values of earlier tokens a new name.
CACHE_NAME = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
PARAMETERS = {
    "preprocess": ("bars", "prompt_bars", "start_bar", "tempo", "fill", *READING),
    "forward": (*SAMPLING, "num_return_sequences", "seed", "streamer", "expressive", *CONTROLS),
    "postprocess": ("outputs", "sampling_rate"),
}


@dataclasses.dataclass
class Prompt:
    """A groove as it is to be continued."""

    roll: Any  # the `DrumRoll` of the bars that are given
    bars: int  # of the whole groove
    fill: list[int] = dataclasses.field(default_factory=list)  # bars that are fills

    @property
    def prompt_bars(self) -> int:
        return len(self.roll.hits) // self.roll.steps_per_bar

    @property
    def new_bars(self) -> int:
        return self.bars - self.prompt_bars


@dataclasses.dataclass
class Batch:
    """What a model is asked for at once."""

    input_ids: torch.Tensor  # prompts, padded on the left
    attention_mask: torch.Tensor
    bars: list[int]  # of each row when it is complete, as far as the model sees them
    dropped_bars: list[int]  # first bars of each prompt that the model does not see
    fills: list[list[int]]  # bars of each row that are fills, as the model counts them
    max_new_tokens: int  # enough for the longest continuation


class DrumGenerationPipeline(Pipeline):
    """Continues drum grooves, or writes new ones.

    Whatever the weights and the temperature, each answer has exactly the bars that were asked for: the writing is
    constrained by its grammar. A groove is a MIDI file (path, bytes, file object), a score of symusic or pretty_midi,
    notes with their ticks, a text, a roll, or `None` or `""` for a groove without a given beginning. A list of grooves
    or a column of a dataset is a batch, which is computed together; `batch_size` splits it. From an iterator,
    `batch_size` grooves (by default one) are taken at a time and answered before the next.

    Args of a call:
        bars (`int`, defaults to 16): Bars of the answer, those given included.
        prompt_bars (`int`, *optional*): First bars of the groove that are given, silence where it is shorter; by
            default the number that the model was trained with, or all if the groove is shorter. By default, too,
            silent bars at its beginning are dropped as they were in training, by the `strip_rule` of the processor.
        temperature (`float`, defaults to 0.9): The lower, the more predictable; 0 always takes the most probable. From
            1e-6 to 1e6 otherwise.
        top_k (`int`, *optional*): Choose among this many most probable tokens; 0 for all.
        top_p (`float`, *optional*): Choose among the most probable tokens that together have this probability.
        do_sample (`bool`, defaults to `True`): `False` is the temperature 0.
        num_return_sequences (`int`, defaults to 1): Answers for each groove.
        seed (`int`, *optional*): The same seed gives the same answers to the same call, in any thread. The global
            random generators stay as they are.
        start_bar (`int`, *optional*): Bar of the groove that the answer begins with, counted from 0; by default the
            first that is not silent, or 0 with `prompt_bars`.
        tempo (`float`, *optional*): Quarter notes a minute; by default that where the answer begins.
        time_signature (`tuple[int, int]` or `"last"`, *optional*): Meter of a groove that does not state one: a text,
            a roll, a MIDI file without one, or nothing. A stated one stays; `"last"` takes the last for the whole.
        pitch_map (`dict[int, str]`, *optional*): Columns of pitches of another kit, such as `{60: "tom"}`; `None`
            drops a pitch. By default the pitches 35 to 59 of General MIDI, 22 and 26 are known; others, such as
            the percussion of 60 to 81, are counted in `dropped_pitches`.
        track, strict, steps_per_bar, allow_empty, unknown_pitch, pedal_hat, quantize (*optional*): How a
            groove is read, as in `DrumLmProcessor.read`.
        outputs (`Sequence[str]`, defaults to `("midi", "png", "wav")`): Files to make.
        sampling_rate (`int`, defaults to 22050): Of the sound.
        streamer (`BaseStreamer`, *optional*): Gets the tokens as they are written; see also `stream`.
        forbid_columns (`Sequence[int | str]`, *optional*): Drums that stay silent, such as `"crash"`.
        force (array of shape `(num_steps, columns)`, *optional*): 1 for a hit, 0 for a rest, -1 for what the model
            decides, from the first step of the answer on; or one such array for each groove.
        max_hits_per_step (`int`, *optional*): Most drums at once.
        density_bias (`float` or `Sequence[float]`, *optional*): Added to the log odds of a hit, for each drum.
        forbid_repeat (`bool`, defaults to `False`): No bar is the same as the one before.
        fill (`bool` or `Sequence[int]`, *optional*): New bars of the answer, counted from 0, that are fills, such as
            `[7, 15]` or `range(14, 16)`; `True` for the last one. In the second half of a fill, of two steps in a row
            at least one differs from that of the bar before.
        expressive (`bool`, *optional*): Whether the answer has velocities and timing, in the MIDI file and the sound
            as well; by default if the model gives them (`config.expression`). The prompt keeps its own. The lower the
            `temperature`, the closer they are to their means.

    Returns for each groove:
        `list[dict]`: for each answer `text` (`str`), `roll` (`list[list[int]]`, a row of zeros and ones for each
        step), `bars` (`int`), `prompt_bars` (`int`), `valid` (`bool`), `log_prob` (`float`, of the bars that were
        written, in nats at temperature 1), `tempo` (`float`), `time_signature` (`list[int]`), `start_bar` (`int`, the
        bar of the groove that the answer begins with), `input_bars` (`int`, bars of the groove up to its last note),
        `dropped_bars` (`list[int]`, how many of them lie before the answer, and how many after the prompt, which the
        new bars replace), `dropped_pitches` (`dict[str, int]`, pitches of the prompt without a column and how often
        each was struck), and of `midi`, `png` and `wav` those asked for (`bytes`). An expressive answer also has
        `velocities` (`list[list[int]]`, for each step and column 1 to 127, 0 without a hit) and `offsets`
        (`list[list[float]]`, how late each hit is in sixteenth notes, negative if early).

    Args of the constructor, besides those of a call, which become defaults:
        base_model (`str`, `os.PathLike` or `PreTrainedModel`, *optional*): Of an adapter: its base, a folder, the path
            of a GGUF file, or a model. `pipeline("drum-generation", model=..., base_model=...)` passes it on.

    Raises:
        ValueError: If an argument is out of range or the groove cannot be read; the message names the groove of a
            batch.
        OSError: If there is no such file, or the base of an adapter is not found.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> compose = pipeline("drum-generation", model="model_cards/drum-lm-small-groove")
    >>> groove = compose("groove.mid", bars=16, seed=29)[0]
    >>> open("continued.mid", "wb").write(groove["midi"])
    ```
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = False

    def __init__(self, model: Any, *args: Any, base_model: Any = None, **kwargs: Any):
        if isinstance(model, PendingModel):
            model = model.load(base_model)
        elif base_model is not None:
            raise ValueError("`base_model` must be left out with a model that is loaded; got both.")
        super().__init__(model, *args, **kwargs)
        self._grammars: dict[int, Any] = {}

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **kwargs: Any) -> Any:
        from decahub.models.drum_lm.arguments import check_numbers
        from decahub.models.drum_lm.processing_drum_lm import is_batch

        batch_size = self._batch_size if batch_size is None else batch_size
        if batch_size is not None:
            check_numbers({"batch_size": batch_size})
        parameters = self._merge_parameters(kwargs)
        parameters[1]["generator"] = build_generator(parameters[1].pop("seed", None), self.device)
        if isinstance(inputs, Iterator) and not hasattr(inputs, "read"):
            return self._answer_iterator(inputs, batch_size or 1, parameters)
        if not is_batch(inputs):
            return self._answer([inputs], 1, parameters, is_single=True)[0]
        if not len(inputs):
            raise ValueError("`inputs` must hold at least one groove; got an empty list. Give `None` for a new one.")
        return self._answer(list(inputs), batch_size or len(inputs), parameters)

    def _answer_iterator(
        self, grooves: Iterator[Any], batch_size: int, parameters: list[dict[str, Any]]
    ) -> Iterator[list[dict[str, Any]]]:
        while batch := list(itertools.islice(grooves, batch_size)):
            yield from self._answer(batch, batch_size, parameters)

    def _answer(
        self, grooves: list[Any], batch_size: int, parameters: list[dict[str, Any]], is_single: bool = False
    ) -> list[list[dict[str, Any]]]:
        preprocess, forward, postprocess = parameters
        from decahub.models.drum_lm.processing_drum_lm import read_each

        def read(groove: Any) -> Prompt:
            return self.preprocess(groove, **preprocess)

        prompts = [read(grooves[0])] if is_single else read_each(grooves, read)
        answers: list[Any] = [None] * len(prompts)
        for rows in split_by_meter(prompts, batch_size):
            arguments = self._select_force(forward, rows, len(prompts))
            outputs = self.forward([prompts[row] for row in rows], **arguments)
            for row, output in zip(rows, outputs, strict=True):
                answers[row] = self.postprocess(output, **postprocess)
        return answers

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and the processor: a folder that `pipeline` loads. `kwargs` go to both."""
        # That of the base class knows of no processor, and has the folder ask for this module as remote code.
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def stream(self, groove: Any = None, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Continues one groove and yields each new bar as soon as it is written.

        Bar for bar it is the groove that a call gives with the same arguments and the same seed;
        `num_return_sequences`, `outputs`, `streamer` and `expressive` are left to a call. Between two bars nothing is
        computed, and the global random generators are the caller's.

        Yields:
            `dict`: `bar` (`int`, counted from 0 at the beginning of the groove), `text` (`str`) and `roll`
            (`list[list[int]]`).
        """
        for name in ("num_return_sequences", "outputs", "sampling_rate", "streamer", "expressive"):
            if name in kwargs:
                raise TypeError(f"`{name}` must be left to a call of the pipeline; `stream` does not take it.")
        preprocess, forward, _ = self._merge_parameters(kwargs)
        return self._stream(self.preprocess(groove, **preprocess), **pick(forward, ("seed", *SAMPLING, *CONTROLS)))

    def _merge_parameters(self, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of the constructor, overridden by those of a call."""
        from decahub.models.drum_lm.grammar.controls import read_force

        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        given = self._sanitize_parameters(**kwargs)
        preprocess, forward, postprocess = ({**fixed, **new} for fixed, new in zip(own, given, strict=True))
        if "force" in forward:
            columns = self.processor.build_codec().drum_map.num_columns
            forward["force"] = read_force(forward["force"], columns)
        return [preprocess, forward, postprocess]

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        from decahub.models.drum_lm.arguments import check_arguments

        known = [name for names in PARAMETERS.values() for name in names]
        for name in parameters:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean `{nearest[0]}`?" if nearest else f" Known are {', '.join(known)}."
                raise TypeError(f"`{name}` must be an argument of this pipeline; it is not.{hint}")
        given = {name: value for name, value in parameters.items() if value is not None}
        check_arguments(given, OUTPUTS)
        preprocess, forward, postprocess = (pick(given, names) for names in PARAMETERS.values())
        return preprocess, forward, postprocess

    def preprocess(
        self,
        groove: Any,
        bars: int = 16,
        prompt_bars: int | None = None,
        tempo: float | None = None,
        start_bar: int | None = None,
        fill: bool | Sequence[int] = False,
        **reading: Any,
    ) -> Prompt:
        from decahub.models.drum_lm.midi.writer import convert_tempo

        if isinstance(groove, str) and not groove.strip():
            groove = None
        if start_bar is None and prompt_bars is not None:
            start_bar = 0
        roll = self.processor.read_prompt(groove, prompt_bars, start_bar, **reading)
        if prompt_bars is None:
            prompt_bars = roll.num_bars
        if prompt_bars >= bars:
            raise ValueError(
                f"`bars` must be more than the {prompt_bars} bars that are given, which it includes; got {bars}."
            )
        missing = prompt_bars * roll.steps_per_bar - len(roll)
        roll = roll.change_steps(
            lambda values: np.pad(values, ((0, missing), (0, 0))), tempo=roll.tempo if tempo is None else float(tempo)
        )
        convert_tempo(roll.tempo)  # refuses one that a file cannot state
        return Prompt(roll, bars, choose_fills(fill, max(prompt_bars, 1), bars))

    def _forward(
        self,
        prompts: list[Prompt],
        num_return_sequences: int = 1,
        generator: torch.Generator | None = None,
        streamer: Any = None,
        expressive: bool | None = None,
        **parameters: Any,
    ) -> list[list[dict[str, Any]]]:
        from decahub.models.drum_lm.grammar.jump_forward import jump_forward

        expressive = self._check_expressive(expressive)
        grammar = self._get_grammar(prompts[0].roll.steps_per_bar)
        batch = self.build_batch(prompts, grammar)
        config = self.build_generation_config(batch, grammar)
        sampling = build_sampling(generator, **pick(parameters, SAMPLING))
        if num_return_sequences > 1 and not sampling:
            raise ValueError(
                f"`num_return_sequences` must be 1 without sampling, where all are alike; got {num_return_sequences}."
            )
        recorder = LogProbRecorder(grammar)
        sequences = self.model.generate(
            batch.input_ids.repeat_interleave(num_return_sequences, 0),
            attention_mask=batch.attention_mask.repeat_interleave(num_return_sequences, 0),
            generation_config=config,
            logits_processor=[self.build_grammar_processor(batch, grammar, parameters), recorder, *sampling],
            streamer=streamer,
            custom_generate=jump_forward if streamer is None else None,
        )
        log_probs = recorder.finish(sequences).tolist()
        texts = [self._decode(ids) for ids in sequences[:, batch.input_ids.shape[1] :]]
        owners = [prompt for prompt in prompts for _ in range(num_return_sequences)]
        rolls = [self._join(prompt, text) for prompt, text in zip(owners, texts, strict=True)]
        if expressive:
            temperature = float(parameters.get("temperature", 0.9)) if sampling else 0.0
            rolls = self._play(owners, rolls, temperature, generator)
        answers = [
            {"prompt": prompt, "roll": roll, "log_prob": value}
            for prompt, roll, value in zip(owners, rolls, log_probs, strict=True)
        ]
        return [answers[first:][:num_return_sequences] for first in range(0, len(answers), num_return_sequences)]

    def _check_expressive(self, expressive: bool | None) -> bool:
        """Whether answers are played with velocities and timing; refused where the model has none."""
        has_expression = getattr(self.model.config, "expression", None) is not None
        if expressive and not has_expression:
            raise ValueError(
                "`expressive` must be left out with a model without `config.expression`, which has learned hits only."
            )
        return has_expression if expressive is None else expressive

    def _join(self, prompt: Prompt, text: str) -> Any:
        """The prompt and what was written, as one roll of hits."""
        hits = np.concatenate([prompt.roll.hits, self._parse(text, prompt)])
        return dataclasses.replace(prompt.roll, hits=hits, velocities=None, offsets=None)

    def _play(
        self, prompts: list[Prompt], rolls: list[Any], temperature: float, generator: torch.Generator | None
    ) -> list[Any]:
        """Rolls with velocities and timing: those of the prompts where they are known, and others by the model."""
        shape = (len(rolls), max(map(len, rolls)), rolls[0].hits.shape[1])
        hits = np.zeros(shape, bool)
        velocities, offsets = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        known_steps = [len(prompt.roll) if prompt.roll.is_expressive else 0 for prompt in prompts]
        for row, (prompt, roll, known) in enumerate(zip(prompts, rolls, known_steps, strict=True)):
            hits[row, : len(roll)] = roll.hits
            if known:
                velocities[row, :known], offsets[row, :known] = prompt.roll.velocities, prompt.roll.offsets
        bar_steps = [roll.steps_per_bar for roll in rolls]
        arrays = (hits, velocities, offsets, known_steps, bar_steps)
        tensors = (torch.as_tensor(values, device=self.device) for values in arrays)
        drawn = self.model.expression.sample(*tensors, temperature=temperature, generator=generator)
        drawn_velocities, drawn_offsets = (values.cpu().numpy() for values in drawn)
        return [
            dataclasses.replace(
                roll, velocities=drawn_velocities[row, : len(roll)], offsets=drawn_offsets[row, : len(roll)]
            )
            for row, roll in enumerate(rolls)
        ]

    def _stream(self, prompt: Prompt, seed: int | None = None, **parameters: Any) -> Iterator[dict[str, Any]]:
        from decahub.models.drum_lm.grammar.jump_forward import jump_forward

        grammar = self._get_grammar(prompt.roll.steps_per_bar)
        batch = self.build_batch([prompt], grammar)
        config = self.build_generation_config(batch, grammar)
        config.return_dict_in_generate = True
        sampling = build_sampling(build_generator(seed, self.device), **pick(parameters, SAMPLING))
        processors = [self.build_grammar_processor(batch, grammar, parameters), *sampling]
        stops = [EndOfBar(grammar.canonical_ids(grammar.separator))]
        cache, ids = DynamicCache(), batch.input_ids.to(self.device)
        for bar in range(prompt.prompt_bars, prompt.bars):
            with torch.no_grad():
                outputs = self.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    logits_processor=processors,
                    stopping_criteria=stops,
                    custom_generate=jump_forward,
                    **{CACHE_NAME: cache},
                )
            text = self._decode(outputs.sequences[0, ids.shape[1] :])
            ids, cache = outputs.sequences, outputs[CACHE_NAME]
            hits = self._parse(text, prompt)
            yield {"bar": bar, "text": self._write(hits, prompt), "roll": hits.astype(int).tolist()}

    def postprocess(
        self,
        answers: list[dict[str, Any]],
        outputs: Sequence[str] = OUTPUTS,
        sampling_rate: int = 22050,
    ) -> list[dict[str, Any]]:
        return [self._describe(outputs=outputs, sampling_rate=sampling_rate, **answer) for answer in answers]

    def _describe(
        self, prompt: Prompt, roll: Any, log_prob: float, outputs: Sequence[str], sampling_rate: int
    ) -> dict[str, Any]:
        bars, rest = divmod(len(roll.hits), roll.steps_per_bar)
        result = {
            "text": self._write(roll.hits, prompt),
            "roll": roll.hits.astype(int).tolist(),
            "bars": bars,
            "prompt_bars": prompt.prompt_bars,
            "valid": rest == 0 and bars == prompt.bars,
            "log_prob": log_prob,
            "tempo": float(roll.tempo),
            "time_signature": list(roll.time_signature),
            "start_bar": roll.first_bar,
            "input_bars": roll.source_bars,
            "dropped_bars": [roll.first_bar, max(0, roll.source_bars - roll.first_bar - prompt.prompt_bars)],
            "dropped_pitches": {str(pitch): count for pitch, count in roll.dropped_pitches.items()},
        }
        if roll.is_expressive:
            result |= {"velocities": roll.velocities.tolist(), "offsets": roll.offsets.round(3).tolist()}
        writers = {
            "midi": lambda: self.processor.to_midi(roll),
            "png": lambda: self.processor.to_png(roll, prompt_bars=prompt.prompt_bars),
            "wav": lambda: self.processor.to_wav(roll, sampling_rate=sampling_rate),
        }
        return result | {name: writers[name]() for name in OUTPUTS if name in outputs}

    def build_batch(self, prompts: list[Prompt], grammar: Any) -> Batch:
        """Token ids of prompts; of those too long for the model, of their latest bars.

        Raises:
            ValueError: If the context of the model cannot hold the new bars.
        """
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        rows, dropped = [], []
        for prompt in prompts:
            room = context - grammar.count_tokens(prompt.new_bars)
            bars = [*self._encode_bars(prompt, grammar)]
            first = 0
            while first < len(bars) and sum(map(len, bars[first:])) > room:
                first += 1
            opening = [] if first < len(bars) else grammar.canonical_ids(grammar.separator)
            if len(opening) > room or (bars and first == len(bars)):
                raise ValueError(
                    f"`bars` must be so few that a prompt and the {prompt.new_bars} new ones fit into the {context} "
                    f"tokens of the model's context; they may take {grammar.count_tokens(prompt.new_bars)}."
                )
            rows.append([*opening, *(token for bar in bars[first:] for token in bar)])
            dropped.append(first)
        if any(dropped):
            warnings.warn(
                f"`prompt_bars` is more than a context of {context} tokens holds beside the new bars; the model sees "
                f"the latest bars only, without the first {max(dropped)}, which the answer keeps.",
                stacklevel=2,
            )
        input_ids = pad_left(rows, self._find_padding())
        return Batch(
            input_ids=input_ids.to(self.device),
            attention_mask=pad_left([[1] * len(row) for row in rows], 0).to(self.device),
            bars=[prompt.bars - first for prompt, first in zip(prompts, dropped, strict=True)],
            dropped_bars=dropped,
            fills=[[bar - first for bar in prompt.fill] for prompt, first in zip(prompts, dropped, strict=True)],
            max_new_tokens=max(grammar.count_tokens(prompt.new_bars) for prompt in prompts),
        )

    def _encode_bars(self, prompt: Prompt, grammar: Any) -> Iterator[list[int]]:
        steps = prompt.roll.steps_per_bar
        separator = grammar.canonical_ids(grammar.separator)
        for first in range(0, len(prompt.roll.hits), steps):
            yield grammar.encode(self._write(prompt.roll.hits[first : first + steps], prompt)) + separator

    def build_generation_config(self, batch: Batch, grammar: Any) -> GenerationConfig:
        """Length and ends, and nothing from the configuration of the base model; [`build_sampling`] chooses tokens."""
        ends = {*grammar.closing_ids, *([] if grammar.stop_id is None else [grammar.stop_id])}
        return GenerationConfig(
            max_new_tokens=batch.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=sorted(ends),
            pad_token_id=self._find_padding(),
            use_cache=True,
        )

    def build_grammar_processor(self, batch: Batch, grammar: Any, parameters: dict[str, Any]) -> LogitsProcessor:
        """The constraint on what may be written, and the further wishes."""
        from decahub.models.drum_lm.grammar.constraint import DrumGrammarLogitsProcessor

        controls = pick(parameters, CONTROLS)
        if "forbid_columns" in controls:
            drum_map = self.processor.build_codec().drum_map
            controls["forbid_columns"] = [
                drum_map.find_column(column) if isinstance(column, str) else column
                for column in controls["forbid_columns"]
            ]
        if "force" in controls:
            controls["force"] = shift_force(controls["force"], batch.dropped_bars, grammar.steps_per_bar)
        if any(batch.fills):
            controls["fill_bars"] = batch.fills
        starts = (batch.attention_mask == 0).sum(1)  # whatever token pads
        return DrumGrammarLogitsProcessor(grammar, batch.bars, batch.bars, starts=starts, **controls)

    def _select_force(self, forward: dict[str, Any], rows: list[int], num_prompts: int) -> dict[str, Any]:
        """The arguments for some of the prompts."""
        if "force" not in forward:
            return forward
        force = forward["force"]
        if force.dim() == 3:
            if len(force) != num_prompts:
                raise ValueError(f"`force` must have one array for each of {num_prompts} grooves; got {len(force)}.")
            force = force[rows]
        return {**forward, "force": force}

    def _get_grammar(self, steps_per_bar: int) -> Any:
        if steps_per_bar not in self._grammars:
            self._grammars[steps_per_bar] = self.processor.build_grammar(steps_per_bar=steps_per_bar)
        return self._grammars[steps_per_bar]

    def _find_padding(self) -> int:
        """A token to pad with that the model knows; a tokenizer may have none, or have got one of its own."""
        tokenizer, vocab_size = self.processor.tokenizer, self.model.config.get_text_config().vocab_size
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        return next((token for token in candidates if token is not None and token < vocab_size), 0)

    def _decode(self, ids: torch.Tensor) -> str:
        """Text of new tokens up to the end mark."""
        text = self.processor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.partition(self.processor.end)[0]

    def _parse(self, text: str, prompt: Prompt) -> np.ndarray:
        codec = self.processor.build_codec(steps_per_bar=prompt.roll.steps_per_bar)
        return codec.parse_text(text, separator=self.processor.separator, end=self.processor.end)

    def _write(self, hits: np.ndarray, prompt: Prompt) -> str:
        return self.processor.build_codec().to_text(hits)


def pick(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the values that have one of these names."""
    return {name: values[name] for name in names if name in values}


def choose_fills(fill: bool | Sequence[int], first: int, bars: int) -> list[int]:
    """The bars that are fills, which must be new ones."""
    chosen = [bars - 1] if fill is True else [] if fill is False else sorted({int(bar) for bar in fill})
    outside = [bar for bar in chosen if not first <= bar < bars]
    if outside:
        raise ValueError(
            f"`fill` must be new bars of the answer, from {first} to {bars - 1}, counted from 0; got {outside[0]}. "
            "The bars before are given, or follow no other."
        )
    return chosen


def pad_left(rows: list[list[int]], value: int) -> torch.Tensor:
    """Rows of one length, filled up at their beginnings."""
    length = max(map(len, rows))
    return torch.tensor([[value] * (length - len(row)) + row for row in rows])


def split_by_meter(prompts: list[Prompt], batch_size: int) -> Iterator[list[int]]:
    """Rows of batches in which all bars have the same number of steps, since one grammar serves a batch."""
    for steps_per_bar in dict.fromkeys(prompt.roll.steps_per_bar for prompt in prompts):
        rows = [row for row, prompt in enumerate(prompts) if prompt.roll.steps_per_bar == steps_per_bar]
        for first in range(0, len(rows), batch_size):
            yield rows[first : first + batch_size]


def shift_force(force: torch.Tensor, dropped_bars: list[int], steps_per_bar: int) -> torch.Tensor:
    """Cells of each row without those of bars that the model does not see."""
    if not any(dropped_bars):
        return force
    force = force.expand(len(dropped_bars), *force.shape[-2:])
    kept = [cells[first * steps_per_bar :] for cells, first in zip(force, dropped_bars, strict=True)]
    length = max(map(len, kept))
    return torch.stack([torch.nn.functional.pad(cells, (0, 0, 0, length - len(cells)), value=-1) for cells in kept])


class PendingModel:
    """A model that is to be loaded once its pipeline knows the base; an error then reaches the user as it is."""

    device = None

    def __init__(self, source: str, **kwargs: Any):
        self.source, self.kwargs = source, kwargs

    def load(self, base_model: Any = None) -> Any:
        given = {} if base_model is None else {"base_model": base_model}
        return AutoModelForCausalLM.from_pretrained(self.source, **self.kwargs, **given)


class ModelLoader(AutoModelForCausalLM):
    """What transformers' `pipeline` calls to load a model; see [`PendingModel`]."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *model_args: Any, **kwargs: Any) -> Any:
        return PendingModel(pretrained_model_name_or_path, **kwargs)


__all__ = ["DrumGenerationPipeline"]
