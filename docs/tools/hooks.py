"""What MkDocs calls while it builds the site. Each hook hands over to a plain function of this folder."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # MkDocs loads this file by its path

from docs.tools import mathematics, method_pages, outline, svg_figures, tutorials

BOOSTS = {"start": 2.0, "how_to": 2.0, "tutorials": 1.5, "methods": 1.5, "concepts": 1.5, "reference": 0.6}
NAMESAKES = {"methods/alpaca.md", "methods/maml.md"}  # whose names are parts of the titles of others
LEAST = 0.3  # of the rest: benchmarks, design, changelog


def on_files(files: Files, *, config: Any) -> Files:
    """Tutorials become pages and notebooks; the files of KaTeX join the site."""
    try:
        for path, content in mathematics.assets().items():
            files.append(File.generated(config, path, content=content))
        for name in tutorials.names():
            files.append(File.generated(config, f"tutorials/{name}.md", content=tutorials.page(name)))
            files.append(File.generated(config, f"tutorials/{name}.ipynb", content=tutorials.notebook(name)))
    except (mathematics.MathematicsError, tutorials.TutorialError, svg_figures.FigureError) as error:
        raise PluginError(str(error)) from None
    return files


def on_env(env: Any, *, config: Any, files: Files) -> Any:
    """The table of contents for programs that read the site."""
    made = outline.outline(config.site_name, config.site_description, outline.pages(files.documentation_pages()))
    Path(config.site_dir).mkdir(parents=True, exist_ok=True)  # of a first build: pages are written after this
    Path(config.site_dir, "llms.txt").write_text(made)
    return env


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Generated parts of pages; and which pages a search shows first."""
    section = page.file.src_uri.partition("/")[0]
    if "search" not in page.meta:
        boost = 3.0 if page.file.src_uri in NAMESAKES else BOOSTS.get(section, 2.0 if page.is_homepage else LEAST)
        page.meta["search"] = {"boost": boost}
    markdown = method_pages.with_heads(markdown, page.file.src_uri)
    return markdown.replace("<!-- gallery -->", tutorials.gallery()) if "<!-- gallery -->" in markdown else markdown


def on_page_content(html: str, *, page: Any, config: Any, **_: Any) -> str:
    """Figures stand in the page itself."""
    try:
        # images are named from the page's address
        return svg_figures.figures_in(html, Path(config.docs_dir) / page.url)
    except svg_figures.FigureError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Formulas, after the search index has taken their TeX."""
    try:
        return mathematics.mathematics(output)
    except mathematics.MathematicsError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None
