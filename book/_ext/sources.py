"""Takes listings, differences and timelines from the sources into the book.

The directives listing, diff, diffstat and timeline; README.md, one folder up, says how they are used. A file or a
marker that does not exist is an error, and errors end the build.
"""
import difflib
import os
import re
import xml.etree.ElementTree as ElementTree

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# /* [name] */ opens a piece, /* [/name] */ closes it; // and # serve other languages.
MARKER = re.compile(r"\s*(?:/\*|//|#)\s*\[(/?)([\w-]+)\]\s*(?:\*/)?\s*$")

LANGUAGES = {".c": "c", ".h": "c", ".py": "python", ".sh": "sh", ".am": "make", ".patch": "diff"}


def without_markers(lines):
    """Returns the lines that are no markers, and no two blank ones where a marker stood between them."""
    kept = []
    after_marker = False
    for line in lines:
        if MARKER.match(line):
            after_marker = True
            continue
        if not (after_marker and not line.strip() and (not kept or not kept[-1].strip())):
            kept.append(line)
        after_marker = False
    while kept and not kept[-1].strip():
        kept.pop()
    while kept and not kept[0].strip():
        kept.pop(0)
    return kept


def piece(lines, name):
    """Returns the lines between the markers of this name. Raises ValueError if there is not one pair of them."""
    opened = [i for i, line in enumerate(lines) if (m := MARKER.match(line)) and m.groups() == ("", name)]
    closed = [i for i, line in enumerate(lines) if (m := MARKER.match(line)) and m.groups() == ("/", name)]
    if len(opened) != 1 or len(closed) != 1 or closed[0] < opened[0]:
        raise ValueError(f"needs one marker [{name}] and after it one marker [/{name}]")
    return lines[opened[0] + 1 : closed[0]]


def functions(lines, names):
    """Returns the functions of C with these names, in this order, each with the comment above it and a blank line between
    them. Raises ValueError if one is not there."""
    found = []
    for name in names:
        at = next((i for i, line in enumerate(lines) if re.match(rf"[a-z][^;]*\b{name}\([^;]*$", line)), None)
        if at is None:
            raise ValueError(f"has no function {name}()")
        last = lines.index("}", at)
        while at > 0 and re.match(r"/\*| \*", lines[at - 1]):
            at -= 1
        found += [""] * bool(found) + lines[at : last + 1]
    return found


def difference(before, after, context):
    """Returns the unified diff. Before a stretch that was left out there is a line with @@ and the function in which the
    difference goes on, as line numbers would mean nothing here."""
    lines = []
    for line in list(difflib.unified_diff(before, after, n=context, lineterm=""))[2:]:
        hunk = re.match(r"@@ -\d+(?:,\d+)? \+(\d+)", line)
        if not hunk:
            lines.append(line)
        elif int(hunk[1]) > 1:
            above = [text for text in after[: int(hunk[1]) - 1] if re.match(r"[a-z].*\($|[a-z][^;]*\)$", text)]
            lines.append(f"@@ {above[-1]}" if above else "@@")
    return lines


class SourceDirective(SphinxDirective):
    """What the directives have in common: reading a source by its path from the top of the repository."""

    def path(self, name):
        path = os.path.join(TOP, name)
        if not os.path.exists(path):
            raise self.error(f"{name}: no such file in the sources")
        self.env.note_dependency(path)
        return path

    def source(self, name, marker=None, only=()):
        with open(self.path(name), encoding="utf-8") as file:
            lines = file.read().splitlines()
        try:
            lines = without_markers(piece(lines, marker) if marker else lines)
            return functions(lines, only) if only else lines
        except ValueError as error:
            raise self.error(f"{name}: {error}") from None

    def code_block(self, lines, language, caption):
        """A block of code, under its caption unless that is empty."""
        block = nodes.literal_block("\n".join(lines), "\n".join(lines), language=language)
        self.set_source_info(block)
        if not caption:
            return [block]
        title = nodes.caption(caption, caption)
        self.set_source_info(title)
        return [nodes.container("", title, block, literal_block=True, classes=["literal-block-wrapper"])]


class Listing(SourceDirective):
    """listing FILE [MARKER]"""

    required_arguments = 1
    optional_arguments = 1
    option_spec = {"caption": directives.unchanged, "functions": directives.unchanged}

    def run(self):
        name = self.arguments[0]
        marker = self.arguments[1] if len(self.arguments) > 1 else None
        only = self.options.get("functions", "").split()
        language = LANGUAGES.get(os.path.splitext(name)[1], "text")
        return self.code_block(self.source(name, marker, only), language, self.options.get("caption", name))


class Diff(SourceDirective):
    """diff OLD NEW [MARKER]"""

    required_arguments = 2
    optional_arguments = 1
    option_spec = {"caption": directives.unchanged, "context": directives.nonnegative_int}

    def run(self):
        old, new = self.arguments[:2]
        marker = self.arguments[2] if len(self.arguments) > 2 else None
        context = self.options.get("context", 3)
        lines = difference(self.source(old, marker), self.source(new, marker), context)
        if not lines:
            raise self.error(f"{old} and {new} do not differ{' in ' + marker if marker else ''}")
        return self.code_block(lines, "diff", self.options.get("caption", f"{old} → {new}"))


class Diffstat(SourceDirective):
    """diffstat OLD NEW, two folders: a table of what became of each C file in them"""

    required_arguments = 2

    def run(self):
        old, new = self.arguments
        here = {f for f in os.listdir(self.path(old)) if f.endswith((".c", ".h"))}
        there = {f for f in os.listdir(self.path(new)) if f.endswith((".c", ".h"))}
        rows = [(name, self.fate(name, old, new, name in here, name in there)) for name in sorted(here | there)]
        table = nodes.table(align="left")
        group = nodes.tgroup(cols=2)
        group += [nodes.colspec(colwidth=1), nodes.colspec(colwidth=2)]
        group += nodes.thead("", self.row("file", f"from {old} to {new}"))
        group += nodes.tbody("", *(self.row(nodes.literal(name, name), fate) for name, fate in rows))
        table += group
        return [table]

    def fate(self, name, old, new, was, is_there):
        if not is_there:
            return f"gone ({len(self.source(f'{old}/{name}'))} lines)"
        after = self.source(f"{new}/{name}")
        if not was:
            return f"new ({len(after)} lines)"
        before = self.source(f"{old}/{name}")
        if before == after:
            return "the same bytes"
        changes = [line[0] for line in difflib.ndiff(before, after)]
        return f"changed: {changes.count('-')} lines less, {changes.count('+')} more"

    @staticmethod
    def row(*cells):
        row = nodes.row()
        for cell in cells:
            inside = cell if isinstance(cell, nodes.Node) else nodes.Text(cell)
            row += nodes.entry("", nodes.paragraph("", "", inside))
        return row


class svg_image(nodes.image):
    """An image that HTML pages hold as text: so it follows their theme, and a pointer on a call shows its title."""


def visit_svg_image_html(writer, node):
    if writer.builder.name != "html":
        return writer.visit_image(node)
    with open(node["path"], encoding="utf-8") as file:
        svg = file.read()
    writer.body.append(f'<div class="timeline-scroll" tabindex="0">{svg[svg.index("<svg"):]}</div>')
    return None


def depart_svg_image_html(writer, node):
    if writer.builder.name != "html":
        writer.depart_image(node)


class Figure(SourceDirective):
    """What figures have in common: they are drawings, and the content is the caption."""

    has_content = True

    def figure(self, path):
        described = ElementTree.parse(path).find("{http://www.w3.org/2000/svg}desc")
        image = svg_image(
            uri="/" + os.path.relpath(path, self.env.srcdir), path=path, alt=described.text if described is not None else ""
        )
        figure = nodes.figure("", image, classes=["timeline"])
        self.set_source_info(figure)
        if self.content:
            parsed = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, parsed)
            figure += nodes.caption("", "", *parsed[0].children)
        return [figure]


class Timeline(Figure):
    """timeline MODEL, and the caption: a figure that is drawn from a real run while the book is built"""

    required_arguments = 1

    def run(self):
        model = self.arguments[0]
        path = os.path.join(self.config.figures, f"trace-{model}.svg")
        if not os.path.exists(path):
            raise self.error(f"{path}: no such figure; is {model} drawn in book/Makefile.am?")
        self.env.note_dependency(path)
        return self.figure(path)


class Drawing(Figure):
    """drawing FILE, and the caption: a figure from the sources"""

    required_arguments = 1

    def run(self):
        return self.figure(self.path(self.arguments[0]))


def setup(app):
    app.add_config_value("figures", os.path.join(app.outdir, "..", "figures"), "env", [str])
    app.add_node(
        svg_image,
        html=(visit_svg_image_html, depart_svg_image_html),
        latex=(lambda self, node: self.visit_image(node), lambda self, node: self.depart_image(node)),
        text=(lambda self, node: self.visit_image(node), lambda self, node: None),
    )
    app.add_directive("listing", Listing)
    app.add_directive("diff", Diff)
    app.add_directive("diffstat", Diffstat)
    app.add_directive("timeline", Timeline)
    app.add_directive("drawing", Drawing)
    # All pages are read again when this file has changed.
    return {"env_version": int(os.path.getmtime(__file__)), "parallel_read_safe": True, "parallel_write_safe": True}
