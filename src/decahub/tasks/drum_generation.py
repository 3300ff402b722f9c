"""Drum generation: bits per step of what follows a prompt, and continued grooves as MIDI, plot and sound."""

import logging
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles
from .task import STANDARD_ERRORS, TOLERANCE, Task


MAX_VELOCITY = 127
BITS_SPREAD = 0.5  # standard deviation of bits per step over the test grooves of the Groove dataset
SPREADS = {"velocity_error": 6.0, "timing_error": 0.05}  # likewise


class DrumGeneration(Task):
    """The continuation of a drum groove."""

    columns = ("groove", "bars", "tempo", "bars left out", "written to")
    input_kind = "a MIDI file"
    written = ("*_continued.mid", "*_continued_seed*.mid")

    def check_labels(self, model: Any, label_names: Sequence[str] | None) -> list[str]:
        return []

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`], without grooves that have no bar after the prompt."""
        from decahub.data.drum_generation import read_grooves

        return super().measure(model, processor, read_grooves(rows, processor), context)

    def sample_rows(self, rows: Any, limit: int | None) -> Any:
        from decahub.data.sampling import sample_indices

        return rows if limit is None else [rows[index] for index in sample_indices(None, len(rows), limit)]

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Nats of what follows each prompt, when every token is predicted from the true ones before it."""
        import torch

        inputs = {name: value for name, value in batch.items() if name != "is_mark"}
        outputs = model(**inputs, use_cache=False, skip_logits=True)
        losses = outputs.token_losses.double()
        positions = torch.arange(losses.shape[1], device=losses.device)
        # The loss at a position is that of the token after it.
        losses = losses * (positions >= batch["prompt_lengths"][:, None] - 1)
        marks = torch.nn.functional.pad(batch["is_mark"][:, 1:], (0, 1))
        return {
            "nll": losses.sum(1).tolist(),
            "separator_nll": (losses * marks).sum(1).tolist(),
            "num_steps": batch["num_steps"].tolist(),
            **({} if outputs.expression_errors is None else collect_errors(outputs.expression_errors)),
        }

    def get_metric_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_resamples": 0}

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        bits, separators = result["bits_per_step"], result["separator_bits_per_step"]
        expression = {name: result[name] for name in ("velocity_error", "timing_error") if name in result}
        return {"bits_per_step": bits, "bits_per_step_of_lines": bits - separators, **expression}

    def tolerance(self, metric: str, value: float, n: int, is_sample: bool) -> float | None:
        if is_sample:
            return STANDARD_ERRORS * SPREADS.get(metric, BITS_SPREAD) / math.sqrt(n)
        return TOLERANCE * (MAX_VELOCITY if metric == "velocity_error" else 1)

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        if not remote:
            return (
                "from transformers import pipeline\n\n"
                f'compose = pipeline("{self.name}", model="{facts.model_id}"{trust})\n'
                'groove = compose("groove.mid", bars=16, seed=29)[0]\n'
                'open("continued.mid", "wb").write(groove["midi"])\n'
                'print(groove["text"])'
            )
        return REMOTE_USAGE.replace("MODEL", facts.model_id).replace("GRAMMAR", facts.refer_to(GRAMMAR))

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--bars", type=int, default=16, help="bars of the answer, prompt included (default: 16)")
        parser.add_argument("--prompt-bars", type=int, help="bars of a MIDI file to continue; by default the model's")
        parser.add_argument("--start-bar", type=int, help="bar of the input to begin with, counted from 0")
        parser.add_argument("--track", type=int, help="track of a MIDI file to read, with all its channels")
        parser.add_argument("--time-signature", type=meter, help="of a groove that states none, such as 6/8; or last")
        parser.add_argument("--steps-per-bar", type=int, help="sixteenth notes of a bar; by default the meter's")
        parser.add_argument(
            "--pitch-map",
            nargs="+",
            type=pitch,
            metavar="PITCH=DRUM",
            help="drums of another kit, such as 60=tom 62=snare; 60=none leaves a pitch out",
        )
        parser.add_argument("--base-model", help="of an adapter: folder, GGUF file or Hub id of its base")
        parser.add_argument(
            "--fill",
            nargs="*",
            type=int,
            metavar="BAR",
            help="new bars that are fills, counted from 0, such as 7 15; without a number the last one",
        )
        parser.add_argument(
            "--temperature", type=float, default=0.9, help="0 always takes the most probable (default: 0.9)"
        )
        parser.add_argument("--seed", type=int, help="seed of the groove; random by default")

    def list_inputs(self, arguments: Any) -> list[Any]:
        """As [`Task.list_inputs`], with the MIDI files in a folder in place of the folder."""
        inputs: list[str] = []
        for name in arguments.inputs:
            found = [name]
            if Path(name).is_dir():
                paths = (path for path in sorted(Path(name).iterdir()) if path.suffix.lower() in MIDI_ENDINGS)
                found = self.drop_written(paths, name)
                if not found:
                    raise FileNotFoundError(f"`INPUT` must be a MIDI file or a folder with some; {name!r} holds none.")
            inputs += found
        arguments.inputs = inputs
        return super().list_inputs(arguments)

    def build_predictor(self, arguments: Any) -> Any:
        """As [`Task.build_predictor`]; an adapter gets the base that is given."""
        if arguments.base_model is None:
            with naming_options():
                return super().build_predictor(arguments)
        from transformers import pipeline

        from .loading import load_model, load_processor

        with naming_options():
            model = load_model(arguments.model, self.entry.auto_class, base_model=arguments.base_model)
        name: Any = self.name
        return pipeline(name, model=model, processor=load_processor(arguments.model, "AutoProcessor"))

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        seed = "" if arguments.seed is None else f"_seed{arguments.seed}"
        targets = {key: files.choose(item, f"_continued{seed}.{ending}") for ending, key in ENDINGS.items()}
        options = {name: getattr(arguments, name) for name in OPTIONS} | {"pitch_map": dict(arguments.pitch_map or ())}
        options["fill"] = arguments.fill if arguments.fill else arguments.fill is not None
        with naming_options():
            answer = predictor(str(item), **options)[0]
        for key, target in targets.items():
            files.write(target, answer[key])
        written = f"{targets['midi']}, {', '.join(f'.{ending}' for ending in list(ENDINGS)[1:])}"
        counts = zip(answer["dropped_bars"], ("before the answer", "after the prompt"), strict=True)
        left_out = ", ".join(f"{count} {place}" for count, place in counts if count)
        return [(item.name, answer["bars"], round(answer["tempo"]), left_out or "none", written)]


def collect_errors(errors: Any) -> dict[str, list]:
    """The summed errors of velocities and timing of each groove, and its hits, as the metric takes them."""
    velocities, offsets, hits = errors.double().T
    return {
        "velocity_errors": velocities.tolist(), "timing_errors": offsets.tolist(), "num_hits": hits.long().tolist()
    }  # fmt: skip


@contextmanager
def naming_options() -> Iterator[None]:
    """Have errors and warnings of a block name the options of the command in place of the arguments of Python."""
    reader = logging.getLogger(READER)
    reader.addFilter(_name_options_of_record)
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        if len(error.args) == 1:
            error.args = (name_options(str(error)),)
        raise
    finally:
        reader.removeFilter(_name_options_of_record)


def _name_options_of_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = name_options(record.getMessage()), ()
    return True


def name_options(message: str) -> str:
    """A message about arguments as one about options; advice that needs an argument without an option is dropped."""
    problem, *advice = re.split(r"(?<=\.) (?=[A-Z])", message)
    kept = [sentence for sentence in advice if not any(f"`{name}" in sentence for name in WITHOUT_OPTION)]

    def name_option(found: re.Match) -> str:
        value = (found["value"] or "").strip("'\"")
        return f"`--{found['name'].replace('_', '-')}{' ' * bool(value)}{value}`"

    names = "|".join((*OPTIONS, "pitch_map", "base_model", "fill"))
    named = re.sub(f"`(?P<name>{names})(=(?P<value>[^`]*))?`", name_option, " ".join([problem, *kept]))
    return re.sub(r"\{(\d+): '(\w+)'\}", r"\1=\2", named)


def meter(text: str) -> str | tuple[int, ...]:
    """A time signature of the command line, such as 6/8 or "last"."""
    if text != "last" and not re.fullmatch(r"\d+/\d+", text):
        raise ArgumentTypeError(f"must be a time signature such as 6/8, or last; got {text!r}.")
    return text if text == "last" else tuple(map(int, text.split("/")))


def pitch(text: str) -> tuple[int, str | None]:
    """A pitch of another kit and its drum, such as 60=tom; the drum "none" leaves it out."""
    if not re.fullmatch(r"\d+=\w+", text):
        raise ArgumentTypeError(f"must be a pitch and a drum such as 60=tom, or 60=none; got {text!r}.")
    number, drum = text.split("=")
    return int(number), None if drum == "none" else drum


OPTIONS = (
    "bars", "prompt_bars", "start_bar", "track", "time_signature", "steps_per_bar", "temperature", "seed"
)  # fmt: skip
WITHOUT_OPTION = ("allow_empty", "unknown_pitch", "pedal_hat", "quantize", "strict")
READER = "decahub.models.drum_lm.midi.codec"  # logs what it leaves out of a file
MIDI_ENDINGS = (".mid", ".midi")
GRAMMAR = "decahub.models.drum_lm.grammar.constraint.DrumGrammarLogitsProcessor"
ENDINGS = {"mid": "midi", "png": "png", "wav": "wav"}
REMOTE_USAGE = """\
from transformers import AutoModelForCausalLM, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

model = AutoModelForCausalLM.from_pretrained("MODEL", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("MODEL", trust_remote_code=True)
constraint = get_class_from_dynamic_module("GRAMMAR", "MODEL")
roll = processor.read("groove.mid")
grammar = processor.build_grammar(steps_per_bar=roll.steps_per_bar)
inputs = processor(roll, return_tensors="pt")
ids = model.generate(
    **inputs,
    do_sample=True,
    temperature=0.9,
    top_k=0,
    max_new_tokens=grammar.count_tokens(16),
    eos_token_id=[token for token in [*grammar.closing_ids, grammar.stop_id] if token is not None],
    logits_processor=[constraint(grammar, bars_min=16)],
)
groove = processor.decode_roll(ids[0], steps_per_bar=roll.steps_per_bar, time_signature=roll.time_signature)
open("continued.mid", "wb").write(processor.to_midi(groove, tempo=roll.tempo))"""
