"""The page of an audit: one HTML file with its images inside."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image


ZOOM, CARD_ZOOM = 4, 2  # screen pixels of a small image's pixel, and of one in the file of a card
MAX_SHOWN = 100
EXPLANATION = """<p>Rates are shares of test images: <em>cta</em> clean accuracy; <em>asr</em> triggered images that go
to the target class, <em>asr_non_target</em> those of other classes; <em>clean_target_rate</em> clean images of other
classes that go there; <em>asr_quantized</em> with the trigger as an image of 8 bits; <em>asr_control</em> the same
trigger on a network of a clean set.</p>"""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }
.verdict { background: #f3f3f3; border-left: 4px solid #888; padding: .7rem 1rem; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; }
figcaption { font-size: 13px; color: #555; max-width: 24rem; }
img { image-rendering: pixelated; border: 1px solid #ccc; }
"""


def draw_images(distilled: Any, results: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Pixels in [0, 1] of what the page shows: the images of the set, its trigger, and what defenses found."""
    config = distilled.config
    images = {"synthetic images, one class a row": arrange(distilled)}
    if config.attack is not None:
        black = torch.zeros_like(distilled.trigger)
        black = distilled.apply_trigger((black - _column(config.image_mean)) / _column(config.image_std))[0]
        pixels = black * _column(config.image_std) + _column(config.image_mean)
        images["trigger as an image file keeps it"] = pixels.clamp(0, 1)
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            stretched = (pixels - low) / max(high - low, 1e-12)
            images[f"trigger, stretched from [{low:.3g}, {high:.3g}] to [0, 1]"] = stretched
    for result in results:
        images |= {f"{result.name}: {name}": pixels for name, pixels in result.images.items()}
    return images


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(list(values)).view(-1, 1, 1)


def arrange(distilled: Any) -> torch.Tensor:
    """Images of the set in a grid, a row for each class, at most a hundred."""
    pixels, labels = distilled.to_pixels(), distilled.synthetic_labels
    rows = [pixels[labels == label] for label in labels.unique().tolist()]
    per_row = max(1, min(min(map(len, rows)), MAX_SHOWN // len(rows) or 1))
    return torch.cat([torch.cat(list(row[:per_row]), dim=2) for row in rows], dim=1)


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Pixels in [0, 1], `(num_channels, height, width)`, as an image of 8 bits."""
    data = pixels.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    data = data.expand(3, -1, -1) if data.shape[0] == 1 else data[:3]
    return Image.fromarray(data.permute(1, 2, 0).contiguous().numpy())


def draw_set(distilled: Any, folder: Path) -> list[Path]:
    """Write the images of a set, one class a row, as a PNG for its card."""
    image = to_image(arrange(distilled).cpu())
    path = folder / "synthetic_images.png"
    image.resize((CARD_ZOOM * image.width, CARD_ZOOM * image.height), Image.Resampling.NEAREST).save(path)
    return [path]


def encode_image(pixels: torch.Tensor) -> str:
    """A PNG of pixels in [0, 1], `(num_channels, height, width)`, as an address with the file in it."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(report: Any) -> str:
    """The HTML of an [`AuditReport`]."""
    from .doorping_audit import LIMITS, describe_verdict, format_value

    facts = {name: value for name, value in report.facts.items() if value is not None}
    names = list(report.networks[0])
    networks = [[format_value(row[name]) for name in names] for row in report.networks]
    defenses = [
        [result.name, result.level, describe_verdict(result), result.reason, _describe_scores(result.scores)]
        for result in report.defenses
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>Audit of a distilled dataset</title>',
            f"<style>{STYLE}</style></head><body>",
            "<h1>Audit of a distilled dataset</h1>",
            f'<p class="verdict"><strong>{html.escape(report.verdict)}</strong><br>{html.escape(LIMITS)}</p>',
            _write_table(["", ""], [[name, str(value)] for name, value in facts.items()]),
            "<h2>Networks trained on it</h2>",
            _write_table(names, networks),
            EXPLANATION,
            "<h2>Defenses</h2>",
            _write_table(["defense", "level", "verdict", "remark", "numbers"], defenses),
            "<h2>Images</h2>",
            *[_write_figure(name, pixels) for name, pixels in report.images.items()],
            "</body></html>\n",
        ]
    )


def _describe_scores(scores: Mapping[str, float]) -> str:
    shown = {name: value for name, value in scores.items() if "class_" not in name}
    return ", ".join(f"{name} {value:.3g}" for name, value in shown.items() if not math.isnan(value))


def _write_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if any(names) else f"<table>{body}</table>"


def _write_figure(name: str, pixels: torch.Tensor) -> str:
    width = pixels.shape[-1] * (ZOOM if pixels.shape[-1] < 64 else 2)
    image = f'<img src="{encode_image(pixels)}" width="{width}" alt="{html.escape(name)}">'
    return f"<figure>{image}<figcaption>{html.escape(name)}</figcaption></figure>"


__all__ = ["arrange", "draw_images", "encode_image", "write_page"]
