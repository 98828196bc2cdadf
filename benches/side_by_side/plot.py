"""Plots the ratios as bars with their quartiles: an SVG for light and dark backgrounds."""

from html import escape

from workloads import TARGETS, WORKLOADS

WIDTH, LEFT, RIGHT, BAR, GAP, TOP, BOTTOM = 860, 250, 70, 14, 14, 52, 12
TITLE = "CPU time per request as a ratio to HAProxy, median and quartiles; pale: the responder's share; less is better"
# Longer bars are cut off, with their value as a label.
LONGEST = 3
# Colours with a contrast of at least 3:1 against white and against near-black.
TEXT, LINE = "#747c85", "#8b949e"
COLOURS = {"gateway": "#d9622b", "nginx": "#2f9e62", "haproxy": "#4f83cc"}
OTHERS = "#8a6fc2"


def colour(target):
    return COLOURS.get(target.partition("-")[0], OTHERS)


def plot(results):
    """Returns the SVG."""
    scale = (WIDTH - LEFT - RIGHT) / LONGEST
    marks, y = [], TOP
    for name, targets in results.items():
        marks.append(text(0, y + BAR - 3, WORKLOADS[name].title, 'font-weight="600"'))
        y += BAR + 4
        for target, row in targets.items():
            marks += bar(y, target, row, scale)
            y += BAR + 4
        y += GAP
    height = y - GAP + BOTTOM
    one = LEFT + scale
    axis = [
        text(0, 14, TITLE, 'font-weight="600"'),
        *(text(LEFT + scale * at, TOP - 16, f"{at:g}", 'text-anchor="middle"') for at in (0, 0.5, 1, 1.5, 2, 2.5, 3)),
        f'<path d="M{one:.1f} {TOP - 10}V{height}" stroke="{LINE}" stroke-dasharray="3 3"/>',
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
    head += f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}" role="img">'
    title = "<title>CPU time per request of sessiongate and its peers, as a ratio to HAProxy</title>"
    return "\n".join([head, title, *axis, *marks, "</svg>", ""])


def bar(y, target, row, scale):
    def at(ratio):
        return LEFT + scale * min(ratio, LONGEST)

    low, ratio, high = row["ratio"]
    end, own = at(ratio), at(ratio - row["responder_ratio"][1] if "responder_ratio" in row else ratio)
    yield text(LEFT - 8, y + BAR - 3, TARGETS[target].replace("`", ""), 'text-anchor="end"')
    yield f'<rect x="{LEFT}" y="{y}" width="{own - LEFT:.1f}" height="{BAR}" rx="2" fill="{colour(target)}"/>'
    if end > own:
        yield f'<rect x="{own:.1f}" y="{y}" width="{end - own:.1f}" height="{BAR}" rx="2" fill="{colour(target)}" opacity="0.5"/>'
    label, beyond = f"{ratio:.2f}", end
    if ratio > LONGEST:
        label += " →"
    elif high > low:
        begin, beyond, middle = at(low), at(high), y + BAR / 2
        ends = "".join(f"M{x:.1f} {middle - 4}v8" for x in (begin, beyond))
        yield f'<path d="M{begin:.1f} {middle}H{beyond:.1f}{ends}" stroke="{LINE}" stroke-width="2" fill="none"/>'
    yield text(max(end, beyond) + 6, y + BAR - 3, label)


def text(x, y, words, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'.replace(" >", ">")
