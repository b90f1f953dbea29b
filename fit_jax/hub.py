"""Models by name: a folder on this machine, or an id on the Hugging Face hub."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fit_jax.errors import InputError
from fit_jax.foreign import exists, named

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

# The commit of each hub id that this process has used or is to use: what a name stands for may change at any moment.
commits_of_ids: dict[str, str] = {}


class NotAtHand(InputError):
    """A model that is neither on this machine nor available from the hub."""


def pin(revisions: Mapping[str, str]) -> None:
    """Has these hub ids stand for these commits from now on."""
    commits_of_ids.update(revisions)


def pinned() -> dict[str, str]:
    """The commits of the hub ids used or pinned so far."""
    return dict(commits_of_ids)


def local_folder(name: str | Path, patterns: Sequence[str], what: str) -> Path:
    """The path itself where it exists; else the folder of the hub's files of that id, downloaded where not yet here.

    All calls for one id give files of one commit: the pinned one, or the newest at the first call.

    Args:
        name: Path, or hub id such as `Qwen/Qwen2.5-1.5B-Instruct`.
        patterns: File names wanted from the hub, of no folder within; `*` stands for anything.
        what: What an error calls it ("tokenizer").

    Raises:
        NotAtHand: There is no such path, and the hub has no such id, wants a login, or cannot be reached.
    """
    path = Path(name)
    if exists(path):
        return path
    if not _HUB_ID.fullmatch(str(name)):
        raise NotAtHand(
            f"{what} {named(name)}: there is no such path; name a folder, or a hub id such as Qwen/Qwen2.5-1.5B"
        )
    from huggingface_hub import snapshot_download

    try:
        revision = commits_of_ids.get(str(name))
        # Folders within hold the same weights in other forms, as gpt-oss' `original/` does.
        folder = Path(
            snapshot_download(str(name), revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
        )
    except (OSError, ValueError) as error:  # what huggingface_hub raises when offline, unknown, gated or no id at all
        reason = " ".join(str(error).split())[:200]
        raise NotAtHand(
            f"{what} {named(name)}: neither a local folder nor available from the hub; "
            f"check the name and the connection, or give a downloaded folder ({reason})"
        ) from error
    if folder.parent.name == "snapshots":  # the hub's cache: snapshots/COMMIT
        pin({str(name): folder.name})
    return folder
