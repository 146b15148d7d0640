"""The table as a picture: an SVG of bars, drawn here, readable on light and on dark pages."""
from html import escape

from contest.report import number
from contest.rows import LLAMA, OPENVINO, ROWS, RUNNEL, TRANSFORMERS

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 860, 220, 130
BAR, GAP, ROW_GAP, TOP = 15, 3, 16, 74
GROUPS = [(RUNNEL, "own"), (LLAMA, "first"), (OPENVINO, "second"), (TRANSFORMERS, "second")]
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; } .quiet { fill: #59636e; font-size: 12px; }
.own { fill: #0969da; } .first { fill: #8c959f; } .second { fill: #c4a15a; } .limit { stroke: #cf222e; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; }
  .own { fill: #58a6ff; } .first { fill: #6e7681; } .second { fill: #a98b4a; } .limit { stroke: #ff7b72; }
}
"""


def text(x, y, content, kind="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def draw_row(row, model, y):
    """Bars of one row as lines of SVG, and the height they take. The longest bar or the limit fills the width."""
    values = [(group, kind, model["results"][group][row.name]["value"]) for group, kind in GROUPS
              if row.name in model["results"].get(group, {})]
    limit = model["limits"].get(row.name)
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    scale = room / max([value for _, _, value in values] + ([limit] if limit else []))
    height = len(values) * (BAR + GAP)
    lines = [text(LABEL_WIDTH - 12, y + height / 2 + 3, row.title, anchor="end")]
    own = model["results"][RUNNEL][row.name]["value"]
    for i, (group, kind, value) in enumerate(values):
        top = y + i * (BAR + GAP)
        lines.append(f'<rect x="{LABEL_WIDTH}" y="{top}" width="{max(value * scale, 1):.1f}" height="{BAR}" rx="2" '
                     f'class="{kind}"/>')
        end = LABEL_WIDTH + value * scale
        if limit and 0 < LABEL_WIDTH + limit * scale - end < VALUE_WIDTH:
            end = LABEL_WIDTH + limit * scale  # behind the mark of the limit, not on it
        note = "" if group == RUNNEL else f" (Runnel {own / value:.2f} x)"
        lines.append(text(end + 7, top + BAR - 3, number(value) + note, "" if group == RUNNEL else "quiet"))
    if limit:
        x = LABEL_WIDTH + limit * scale
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + height}" class="limit"/>')
    return lines, height


def draw(record):
    """The first model's rates."""
    model = record["models"][0]
    rows = [row for row in ROWS if row.unit == "tok/s" and row.name in model["results"][RUNNEL]]
    body, y = [], TOP
    for row in rows:
        lines, height = draw_row(row, model, y)
        body += lines
        y += height + ROW_GAP
    machine = record["machine"]
    x, legend = LABEL_WIDTH, []
    for group, kind in GROUPS:
        if group in model["results"]:
            legend += [f'<rect x="{x}" y="44" width="12" height="12" rx="2" class="{kind}"/>', text(x + 18, 55, group)]
            x += 110
    legend += [f'<line x1="{x}" x2="{x}" y1="43" y2="57" class="limit"/>', text(x + 8, 55, "limit of the machine")]
    where = f"{machine['cpu']}, {machine['cores']} cores, medians of {record['rounds']} round{'s' * (record['rounds'] > 1)}, {record['date'][:10]}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 14}" role="img" '
        f'aria-label="{escape(model["name"])}: tokens a second of Runnel and its peers">',
        f"<style>{STYLE}</style>", text(16, 26, f"{model['name']}: tokens a second", "title"),
        text(WIDTH - 16, 26, where, "quiet", "end"), *legend, *body, text(16, y + 4, "Each row has a scale of its own.", "quiet"),
        "</svg>", ""])
