"""A hook of mkdocs: what the pages link to outside docs/ is on the site as well."""

from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
# What links begin with as they stand in the repository, and on the site.
_OUTSIDE = {"../CONTRIBUTING.md": "contributing.md", "../notebooks/": "notebooks/"}


def added() -> dict[str, str]:
    """The content of what the site holds beside docs/, by its place there."""
    guide = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")
    notebooks = {f"notebooks/{path.name}": path.read_text(encoding="utf-8") for path in _ROOT.glob("notebooks/*.ipynb")}
    return {"contributing.md": guide, **notebooks}


def on_files(files: Any, config: Any) -> Any:
    """Adds it to mkdocs' files."""
    from mkdocs.structure.files import File  # of the extra `docs`

    for place, content in added().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's links as they are on the site."""
    for there, here in _OUTSIDE.items():
        markdown = markdown.replace(f"]({there}", f"]({here}")
    return markdown
