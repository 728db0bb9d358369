"""Blocks → one self-contained HTML page, or Markdown with its drawings and pictures as files beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

from bench.report.document import Block, Figure, Heading, Paragraph, Table
from bench.tables import markdown

_STYLE = """
body{margin:0 auto;max-width:60rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff}
h1{font-size:1.7rem;line-height:1.2}h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.82rem}
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
th{vertical-align:bottom;white-space:normal;min-width:4rem}td.long{white-space:normal;min-width:14rem}
.texts th,.texts td{text-align:left}
figure{margin:1.2rem 0;max-width:40rem}figure svg,figure img{width:100%;height:auto;display:block}
figcaption{font-size:.85rem;color:#555}code{background:#f2f2f2;padding:0 .2em;overflow-wrap:anywhere}
"""
_LONG = 40


def html(title: str, blocks: Sequence[Block]) -> str:
    """One page that needs nothing else."""
    body = "\n".join(_html_block(block) for block in blocks)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    page = f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    return f'<!doctype html><html lang="en"><head>{head}{page}'


def _html_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return "<p>" + re.sub("`([^`]+)`", r"<code>\1</code>", escape(block.text)) + "</p>"
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in block.head)
        rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in block.rows)
        texts = ' class="texts"' if any(len(cell) > _LONG for row in block.rows for cell in row) else ""
        return f'<div class="wide"><table{texts}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if isinstance(block, Figure):
        return f"<figure>{block.svg}<figcaption>{escape(block.caption)}</figcaption></figure>"
    kind = {".png": "png", ".jpg": "jpeg"}[block.suffix]
    data = base64.b64encode(block.data).decode()
    image = f'<img src="data:image/{kind};base64,{data}" alt="{escape(block.caption)}">'
    return f"<figure>{image}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _html_cell(cell: str) -> str:
    return f'<td class="long">{escape(cell)}</td>' if len(cell) > _LONG else f"<td>{escape(cell)}</td>"


def markdown_files(blocks: Sequence[Block]) -> Mapping[str, bytes]:
    """`report.md` and the files it shows, by their paths beside it."""
    files: dict[str, bytes] = {}
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Table):
            parts.append(markdown(block.head, block.rows))
        else:
            suffix = ".svg" if isinstance(block, Figure) else block.suffix
            path = f"figures/{block.name}{suffix}"
            files[path] = block.svg.encode() if isinstance(block, Figure) else block.data
            parts.append(f"![{block.caption}]({path})\n\n*{block.caption}*")
    return {"report.md": ("\n\n".join(parts) + "\n").encode(), **files}
