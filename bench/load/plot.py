"""Lines over time as an SVG, drawn here, readable on light and on dark pages."""
import math
from html import escape

WIDTH, LEFT, RIGHT, HEIGHT, TOP, GAP = 860, 64, 150, 150, 64, 50
LABEL_PX = 15  # between the names of two lines
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; } .quiet { fill: #59636e; font-size: 12px; }
.grid { stroke: #d1d9e0; } .mark { stroke: #cf222e; stroke-opacity: 0.35; } path { fill: none; stroke-width: 1.6; }
.l0 { stroke: #0969da; } .l1 { stroke: #bc4c00; } .l2 { stroke: #1a7f37; } .l3 { stroke: #8250df; } .l4 { stroke: #59636e; }
.l5 { stroke: #bf3989; }
.t0 { fill: #0969da; } .t1 { fill: #bc4c00; } .t2 { fill: #1a7f37; } .t3 { fill: #8250df; } .t4 { fill: #59636e; }
.t5 { fill: #bf3989; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; } .mark { stroke: #ff7b72; }
  .l0 { stroke: #58a6ff; } .l1 { stroke: #f0883e; } .l2 { stroke: #56d364; } .l3 { stroke: #bc8cff; } .l4 { stroke: #9198a1; }
  .l5 { stroke: #ff7ad9; }
  .t0 { fill: #58a6ff; } .t1 { fill: #f0883e; } .t2 { fill: #56d364; } .t3 { fill: #bc8cff; } .t4 { fill: #9198a1; }
  .t5 { fill: #ff7ad9; }
}
"""
N_COLOURS = 6


def text(x, y, content, kind="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def round_step(largest, n_steps=4):
    """1, 2 or 5 times a power of ten, of which at most n_steps reach the largest value."""
    rough = max(largest, 1e-9) / n_steps
    power = 10 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def spread(heights):
    """Heights of names, in their order, moved down where one would stand on another."""
    order, placed, last = sorted(range(len(heights)), key=lambda i: heights[i]), [0.0] * len(heights), -1e9
    for i in order:
        last = placed[i] = max(heights[i], last + LABEL_PX)
    return placed


class Panel:
    """One scale: title with its unit, lines as (name, [(seconds, value)])."""

    def __init__(self, title, lines):
        self.title, self.lines = title, [(name, points) for name, points in lines if points]

    def draw(self, top, n_seconds, marks):
        """Lines of SVG, HEIGHT high."""
        largest = max((value for _, points in self.lines for _, value in points), default=1)
        step = round_step(largest)
        highest = max(math.ceil(largest / step - 1e-9), 1) * step
        width, bottom = WIDTH - LEFT - RIGHT, top + HEIGHT

        def place(at, value):
            return LEFT + at / n_seconds * width, bottom - value / highest * HEIGHT

        drawn = [text(LEFT, top - 10, self.title)]
        for i in range(round(highest / step) + 1):
            _, y = place(0, i * step)
            drawn += [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>',
                      text(LEFT - 8, y + 4, f"{i * step:,.10g}", "quiet", "end")]
        for at in marks:
            x, _ = place(at, 0)
            drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" class="mark"/>')
        names = spread([place(*points[-1])[1] for _, points in self.lines])
        for i, (name, points) in enumerate(self.lines):
            way = "L".join("{:.1f} {:.1f}".format(*place(at, value)) for at, value in points)
            drawn += [f'<path d="M{way}" class="l{i % N_COLOURS}"/>',
                      text(WIDTH - RIGHT + 8, names[i] + 4, name, f"t{i % N_COLOURS}")]
        return drawn


def draw(title, where, panels, n_seconds, marks, what_marks_are):
    """Panels below each other over the same time; vertical lines at the marks."""
    body, top = [], TOP + 24
    for panel in panels:
        body += panel.draw(top, n_seconds, marks)
        top += HEIGHT + GAP
    step = round_step(n_seconds / 60, 6)
    width = WIDTH - LEFT - RIGHT
    y = top - GAP + 18
    for i in range(int(n_seconds / 60 / step + 1e-9) + 1):
        body.append(text(LEFT + i * step * 60 / n_seconds * width, y, f"{i * step:g}", "quiet", "middle"))
    body += [text(WIDTH - RIGHT, y + 22, "minutes", "quiet", "end"), text(LEFT, y + 22, what_marks_are, "quiet")]
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 36:.0f}" role="img" '
                      f'aria-label="{escape(title)}">', f"<style>{STYLE}</style>", text(16, 26, title, "title"),
                      text(16, 46, where, "quiet"), *body, "</svg>", ""])
