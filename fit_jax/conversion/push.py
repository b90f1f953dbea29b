"""A run's model on the Hugging Face hub: weights, tokenizer, card, prompts and metrics, in one commit or not at all."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fit_jax.conversion.convert import export_adapter, export_merged
from fit_jax.conversion.hub_card import hub_card
from fit_jax.errors import InputError, RunFailed, reason
from fit_jax.foreign import named, read_text, shown
from fit_jax.models.adapter_config import CONFIG as ADAPTER_CONFIG
from fit_jax.runs.parts import one_task
from fit_jax.runs.run import open_run
from fit_jax.runs.run_folder import CARD, saved_config

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What is copied besides, by the name that it gets: no example of the data is among it.
_METRICS = {"metrics.jsonl": "metrics.jsonl", "report/focus_accuracy.jsonl": "focus_accuracy.jsonl"}

# What to do about the hub's refusals, which are the user's to fix, and about its failures, by status.
_REFUSED = {
    401: "the hub does not take the token; log in again with `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there; take a name of your own, or a token with the right to write",
    404: "the hub knows no such user or organisation, or the token may not see it; check --to",
}
_AGAIN = "check the connection, then start the same command again"
_FAILED = {
    409: "something else was pushed there meanwhile, and this was not; start the same command again",
    412: "something else was pushed there meanwhile, and this was not; start the same command again",
}


class Pushed(NamedTuple):
    """What was pushed.

    Attributes:
        address: Of the commit.
        adapter: Whether it is the adapter alone.
        base: The model that the adapter stands on, where that is a folder of this machine; else None.
    """

    address: str
    adapter: bool
    base: str | None


def push(folder: Path, name: str, merged: bool = False, private: bool = False, trust_code: bool = False) -> Pushed:
    """Pushes the model of a run's best checkpoint in a single commit.

    The adapter where one was trained on a pretrained model, and the whole model otherwise.

    Args:
        folder: The run folder.
        name: The repository, `USER/NAME`; made where it is not there.
        merged: The whole model in any case, adapters merged.
        private: Whether a repository that is made is private.
        trust_code: As `fit_jax.runs.run.set_up`'s.

    Raises:
        InputError: There is no such run or no report of it, no token, or the hub refuses token or name.
        RunFailed: The hub cannot be reached, fails, or has had another commit meanwhile.
    """
    from huggingface_hub import HfApi, get_token

    if not _NAME.fullmatch(name) or "--" in name or ".." in name:
        raise InputError(
            f"--to {shown(name)}: write USER/NAME, of letters, digits, single dashes, dots and underscores"
        )
    config = saved_config(folder)
    if not (folder / CARD).is_file():
        raise InputError(
            f"{named(folder)}: has no {CARD} yet, since it was not evaluated; let `fit-jax train` end first"
        )
    if not get_token():
        raise InputError("no token of the hub here; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    adapter = not merged and config.lora.rank > 0 and config.model.pretrained is not None
    with _hub(name):
        api.whoami()  # before minutes of writing
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / "model"
        base = write_upload(folder, made, name, adapter, trust_code)
        message = f"The {'adapter' if adapter else 'model'} of a run of fit_jax"
        with _hub(name):
            api.create_repo(name, private=private or None, exist_ok=True)
            commit = api.upload_folder(repo_id=name, folder_path=made, commit_message=message)
    return Pushed(str(commit.commit_url), adapter, base)


def write_upload(folder: Path, made: Path, name: str, adapter: bool, trust_code: bool = False) -> str | None:
    """Writes all that is pushed; returns the adapter's base where that is a folder of this machine."""
    run = one_task(
        open_run(folder, trust_code), None, "export it with python -m fit_jax.convert and push that yourself"
    )
    base = None
    if adapter:
        export_adapter(str(folder), made, trust_code)
        base = json.loads((made / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    else:
        export_merged(str(folder), made, trust_code=trust_code)
    for source, target in _METRICS.items():
        if (folder / source).is_file():
            shutil.copy(folder / source, made / target)
    card = read_text(made / CARD)
    (made / CARD).unlink()
    (made / "README.md").write_text(hub_card(card, run, name, adapter), encoding="utf-8")
    return base if base is not None and Path(base).exists() else None


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Tells in one line what the hub refuses, or that it is away."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in _REFUSED:
            raise InputError(f"{name}: {_REFUSED[status]} ({status})") from error
        why = _FAILED.get(status, f"the hub answers {reason(error)!r}; start the same command again later")
        raise RunFailed(f"{name}: {why} ({status})") from error
    except (errors.HTTPError, OSError) as error:  # pyright: ignore[reportPrivateImportUsage]  # the HTTP library's
        raise RunFailed(f"{name}: the hub cannot be reached ({reason(error)}); {_AGAIN}") from error
    except RuntimeError as error:  # a large file that did not get there
        raise RunFailed(f"{name}: the upload failed ({reason(error.__cause__ or error)}); {_AGAIN}") from error  # pyright: ignore[reportArgumentType]
