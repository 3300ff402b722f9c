"""Drawings as HTML that needs no other file: images as data URIs, plots as SVG in the colors of the page."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from PIL import Image


def to_data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def draw_image(image: Image.Image, alt: str, *, is_photo: bool = False) -> Markup:
    buffer = io.BytesIO()
    kind = "JPEG" if is_photo else "PNG"
    image.save(buffer, kind, quality=88)
    pixelated = "" if is_photo else ' class="pixelated"'
    uri = to_data_uri(buffer.getvalue(), f"image/{kind.lower()}")
    return Markup(f'<img src="{uri}" alt="{escape(alt)}" width="{image.width}" height="{image.height}"{pixelated}>')


def draw_tiles(tiles: Sequence[tuple[Markup, str]]) -> Markup:
    """Small images in a grid, each with a caption."""
    items = "".join(f"<li>{image}<span>{escape(caption)}</span></li>" for image, caption in tiles)
    return Markup(f'<ul class="tiles">{items}</ul>')


def draw_answers(answers: Sequence[tuple[str, float, bool]]) -> Markup:
    """Label, probability and whether it is right, in the same grid as `draw_tiles`."""
    items = "".join(
        f'<li class="answer{"" if is_right else " wrong"}"><b>{escape(label)}</b>'
        f'<span class="meter"><i style="width:{score:.0%}"></i></span>'
        f"<span>{score:.0%} {'&#10003;' if is_right else '&#10007;'}</span></li>"
        for label, score, is_right in answers
    )
    return Markup(f'<ul class="tiles">{items}</ul>')


def draw_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return Markup(f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>')


def draw_audio(wav: bytes, label: str) -> Markup:
    return Markup(f'<audio controls src="{to_data_uri(wav, "audio/wav")}" aria-label="{escape(label)}"></audio>')


def draw_svg(content: str, width: float, height: float, alt: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(alt)}">{content}</svg>')


def draw_graph(edges: np.ndarray, labels: Sequence[int], alt: str, *, is_colored: bool) -> Markup:
    """Nodes on a circle, with their class in digits, and edges as chords; color is optional."""
    size, radius = 360, 150
    angles = [2 * math.pi * (index + 0.5) / len(labels) - math.pi / 2 for index in range(len(labels))]
    places = [(size / 2 + radius * math.cos(angle), size / 2 + radius * math.sin(angle)) for angle in angles]
    middle = f"{size / 2:g},{size / 2:g}"
    chords = "".join(
        '<path class="edge" d="M{:.1f},{:.1f} Q{} {:.1f},{:.1f}"/>'.format(*places[source], middle, *places[target])
        for source, target in edges.T
    )
    nodes = "".join(
        f'<circle class="{f"fill-{label}" if is_colored else "hollow"}" cx="{x:.1f}" cy="{y:.1f}" r="14"/>'
        f'<text class="{"on-fill" if is_colored else "node"}" x="{x:.1f}" y="{y + 4.5:.1f}">{label}</text>'
        for (x, y), label in zip(places, labels, strict=True)
    )
    return draw_svg(chords + nodes, size, size, alt)


def draw_rates(groups: Sequence[tuple[str, Sequence[tuple[str, float, float]]]], alt: str) -> Markup:
    """Two dots a row and the gap between them, on a scale from 0 to 100 percent.

    Args:
        groups: title of a group of rows, and its rows of a name, the rate of men and the rate of women.
        alt: what a reader who cannot see the plot needs to know.
    """
    left, right, row_height = 78, 400, 40

    def place(rate: float) -> float:
        return left + rate * (right - left)

    parts, y = [], 20.0
    for title, rows in groups:
        parts.append(f'<text class="heading" x="0" y="{y:g}">{escape(title)}</text>')
        for name, men, women in rows:
            y += row_height
            parts.append(
                f'<text x="0" y="{y + 4:g}">{escape(name)}</text>'
                f'<line class="axis" x1="{left}" x2="{right}" y1="{y:g}" y2="{y:g}"/>'
                f'<line class="gap" x1="{place(men):.1f}" x2="{place(women):.1f}" y1="{y:g}" y2="{y:g}"/>'
                f'<circle class="fill-0" cx="{place(men):.1f}" cy="{y:g}" r="7"/>'
                f'<rect class="fill-3" x="{place(women) - 6.5:.1f}" y="{y - 6.5:g}" width="13" height="13"/>'
                f'<text class="end" x="{right + 70}" y="{y + 4:g}">{100 * abs(men - women):.1f} points</text>'
            )
        y += row_height + 14
    y -= 6
    parts += [f'<text class="tick" x="{place(rate):g}" y="{y:g}">{rate:.0%}</text>' for rate in (0, 0.5, 1)]
    parts.append(
        f'<circle class="fill-0" cx="7" cy="{y + 24:g}" r="7"/><text x="20" y="{y + 28:g}">men</text>'
        f'<rect class="fill-3" x="62" y="{y + 17.5:g}" width="13" height="13"/>'
        f'<text x="81" y="{y + 28:g}">women</text>'
    )
    return draw_svg("".join(parts), right + 72, y + 36, alt)


def draw_roll(roll: Sequence[Sequence[int]], names: Sequence[str], num_given: int, alt: str) -> Markup:
    """A groove in lines of two bars, one row a drum: hits that were given are gray, those of the model colored."""
    bar, per_line, step, row_height, left = 16, 32, 9, 13, 48
    height, gap = row_height * len(names), 26
    parts = []
    for line, start in enumerate(range(0, len(roll), per_line)):
        top = line * (height + gap)
        given = min(max(num_given - start, 0), per_line)
        parts.append(f'<rect class="given" x="{left}" y="{top}" width="{step * given}" height="{height}"/>')
        for row, name in enumerate(names):
            parts.append(f'<text class="drum" x="0" y="{top + row * row_height + 10}">{escape(name)}</text>')
            parts += [
                f'<rect class="{"hit-given" if index < given else "hit"}" x="{left + index * step + 1}" '
                f'y="{top + row * row_height + 2}" width="{step - 2}" height="{row_height - 4}" rx="2"/>'
                for index, hits in enumerate(roll[start : start + per_line])
                if hits[row]
            ]
        for index in range(0, per_line + 1, bar):
            parts.append(f'<path class="bar" d="M{left + step * index},{top}v{height}"/>')
        for index in range(0, per_line, bar):
            x, number = left + step * (index + bar / 2), (start + index) // bar + 1
            parts.append(f'<text class="tick drum" x="{x:g}" y="{top + height + 13}">{number}</text>')
    lines = -(-len(roll) // per_line)
    return draw_svg("".join(parts), left + step * per_line + 1, lines * (height + gap) - 10, alt)


def draw_curve(points: Sequence[tuple[int, float]], alt: str) -> Markup:
    """Training loss over steps."""
    width, height, left, bottom = 460, 230, 40, 200
    steps, losses = zip(*points, strict=True)
    highest = max(losses) * 1.08
    line = " ".join(
        f"{left + (width - left - 8) * step / max(steps):.1f},{bottom - (bottom - 10) * loss / highest:.1f}"
        for step, loss in points
    )
    last_x, last_y = line.split()[-1].split(",")
    ticks = np.arange(0, highest, 0.5 if highest < 4 else 1)
    parts = [
        f'<path class="bar" d="M{left},{(y := bottom - (bottom - 10) * value / highest):.1f}H{width - 8}"/>'
        f'<text class="end" x="{left - 8}" y="{y + 4:.1f}">{value:g}</text>'
        for value in ticks
    ]
    first_x = line.split()[0].split(",")[0]
    parts.append(f'<polygon class="area" points="{first_x},{bottom} {line} {last_x},{bottom}"/>')
    parts.append(
        f'<polyline class="curve" points="{line}"/><circle class="fill-0" cx="{last_x}" cy="{last_y}" r="5"/>'
    )
    parts.append(
        f'<text class="tick" x="{left}" y="{bottom + 20}">0</text>'
        f'<text class="tick" x="{(left + width - 8) / 2:g}" y="{bottom + 20}">training step</text>'
        f'<text class="end" x="{width - 8}" y="{bottom + 20}">{max(steps)}</text>'
    )
    return draw_svg("".join(parts), width, height, alt)
