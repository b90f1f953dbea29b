"""Writes `own_data_reference.md`: every field of a description of one's own data and of the task config, from the code.

python docs/own_data_reference.py
"""

from pathlib import Path

from fit_jax.config import TaskConfig
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.options import field_texts

PAGE = Path(__file__).with_suffix(".md")
_HEAD = """# Reference: fields of one's own data

Written from the code by `docs/own_data_reference.py`; [your own data](own_data.md) shows how they are used.
"""
_SECTIONS = (
    ("The description", "A YAML file, named by `--task.file`.", OwnData),
    ("A feature", "An item of `features` in the description.", FeatureConfig),
    ("The task config", "Options `--task.FIELD` of every command, or the section `task` of a config.", TaskConfig),
)


def page() -> str:
    """The page as it should stand."""
    parts = [_HEAD]
    for title, where, cls in _SECTIONS:
        parts += [
            f"\n## {title}\n\n{where} {cls.__doc__}\n\n",
            "| field | value | default | meaning |\n|---|---|---|---|\n",
        ]
        for f in field_texts(cls):
            default = "needed" if f.default is None else f"`{f.default}`"
            cells = (f"`{f.name}`", f"`{f.kind.replace('FeatureConfig', 'feature')}`", default, f.about)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
