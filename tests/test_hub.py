"""Models and data on the Hugging Face hub: the commit that they stay at."""

import sys
from types import SimpleNamespace

import pytest

from fit_jax import hub
from fit_jax.hub import NotAtHand
from fit_jax.runs.inputs import Inputs, read_inputs, write_inputs


def test_a_hub_id_stays_at_the_commit_it_had_first(tmp_path, monkeypatch):
    asked = []

    def download(name, revision, allow_patterns, ignore_patterns):
        asked.append(revision)
        folder = tmp_path / "snapshots" / (revision or f"newest{len(asked)}")
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))
    hub.pin({"a/kept": "commit"})
    folders = [hub.local_folder(name, ["*"], "model").name for name in ("a/kept", "a/new", "a/new")]
    assert folders == ["commit", "newest2", "newest2"]
    assert asked == ["commit", None, "newest2"]
    write_inputs(tmp_path, Inputs({}, hub.pinned()))
    kept = read_inputs(tmp_path)
    assert kept is not None
    assert kept.revisions["a/new"] == "newest2"


@pytest.mark.parametrize(
    ("name", "told"), [("n" * 300, "nor available"), ("n" * 300 + "/n/n", "there is no such path")]
)
def test_a_name_that_no_folder_can_have_is_told_with_what_it_names(name, told):
    with pytest.raises(NotAtHand, match=rf"^model \.\.\.[n/]{{64}}: .*{told}"):
        hub.local_folder(name, ["*"], "model")
