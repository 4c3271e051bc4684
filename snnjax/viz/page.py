"""Output of pictures: one file each, or one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page", "save"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fbfbfa; --faint: #5c5c60; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #17181a; --faint: #a8a8ad; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.5rem; }
p { color: var(--faint); max-width: 44rem; white-space: pre-line; overflow-wrap: anywhere; }
figure { margin: 0.75rem 0 0; padding: 0.75rem; border-radius: 0.5rem; background: #fff;
  border: 1px solid rgb(128 128 128 / 35%); }
img { display: block; width: 100%; height: auto; }
"""


def page(title: str, sections: Sequence[tuple[str, str, Figure | None]]) -> str:
    """Makes one HTML page that needs no other file, for light and dark displays.

    Args:
        title: Title of the page.
        sections: `(heading, text, figure)` per section; an empty line in `text` starts a new
            paragraph, and the figure may be None.

    Returns:
        The page, to be written as UTF-8.

    Example:
        html = page("digits", [("Learning", "80 epochs.", learning_curve(records))])
        pathlib.Path("report.html").write_text(html, encoding="utf-8")
    """
    heading = html.escape(title)  # names of runs and layers may contain HTML
    body = "\n".join(_section(*section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{heading}</h1>\n{body}\n</body>\n</html>\n"
    )


def save(figure: Figure, path: str | pathlib.Path) -> pathlib.Path:
    """Writes a figure in the format of the path's suffix (png, svg, pdf) and creates its folder.

    Equal pictures give equal bytes of PNG.

    Args:
        figure: The figure.
        path: Path of the file.

    Returns:
        The path.

    Raises:
        ValueError: If matplotlib does not write the format of the suffix.
    """
    path = pathlib.Path(path)
    # Matplotlib does not create folders.
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _section(heading: str, text: str, figure: Figure | None) -> str:
    parts = [f"<h2>{html.escape(heading)}</h2>"]
    parts += [f"<p>{html.escape(p.strip())}</p>" for p in text.split("\n\n") if p.strip()]
    if figure is not None:
        # Pictures describe themselves in their label, for readers who do not see them.
        alt = html.escape(str(figure.get_label()) or heading)
        width, height = (round(n) for n in figure.bbox.size)
        parts.append(
            f'<figure><img alt="{alt}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{_png(figure)}"></figure>'
        )
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _png(figure: Figure) -> str:
    # Embedded as base64: the page remains one file that can be mailed.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
