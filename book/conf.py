# Sphinx reads this. How the pages are written and built: README.md, beside this file.
import os
import sys

from sphinx.errors import ConfigError

sys.dont_write_bytecode = True  # the sources may be read-only
sys.path.insert(0, os.path.abspath("_ext"))

for module, package in (("myst_parser", "python3-myst-parser"), ("furo", "furo")):
    try:
        __import__(module)
    except ImportError:
        raise ConfigError(f"{module} is missing: ./bootstrap --book, or install {package}") from None

project = "Seven Servers"
author = "The Seven Servers authors"
copyright = "2026 The Seven Servers authors. Prose CC BY 4.0, code MIT"
language = "en"

extensions = ["myst_parser", "sources"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["README.md", "_ext", "html", "epub", "doctrees", "figures"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # options such as --port must stay what one can type

highlight_language = "c"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = "Seven Servers"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_js_files = ["book.js"]

# All of furo's dark colours, and not the changed ones only: Debian's furo lost those for a reader whose system is dark.
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1d5fa8",
        "color-brand-content": "#1d5fa8",
        "book-removed": "#fdeaea",
        "book-added": "#e4f6ea",
        "book-code": "#24292f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7db8f0",
        "color-brand-content": "#7db8f0",
        "book-removed": "#4a2326",
        "book-added": "#173b27",
        "book-code": "#d5dbe1",
        "color-problematic": "#ee5151",
        "color-foreground-primary": "#ffffffcc",
        "color-foreground-secondary": "#9ca0a5",
        "color-foreground-muted": "#81868d",
        "color-foreground-border": "#666666",
        "color-background-primary": "#131416",
        "color-background-secondary": "#1a1c1e",
        "color-background-hover": "#1e2124ff",
        "color-background-hover--transparent": "#1e212400",
        "color-background-border": "#303335",
        "color-background-item": "#444",
        "color-highlighted-background": "#083563",
        "color-highlight-on-target": "#333300",
        "color-admonition-background": "#18181a",
    },
}

epub_basename = "SevenServers"
epub_title = project
epub_description = "One TCP echo server, written seven times: blocking, non-blocking, readiness and completion"
epub_publisher = author
epub_copyright = copyright
epub_show_urls = "no"
epub_css_files = ["book.css"]
epub_exclude_files = ["_static/opensearch.xml"]
