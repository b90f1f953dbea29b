"""What only one process of a job meets is told by all, and none goes on alone."""

import json
import shutil
from contextlib import closing

import pytest

from fit_jax.config import load_config
from fit_jax.focus.tokenizers import save_tokenizer
from fit_jax.runs.run import open_checkpoints, set_up, starting_state
from fit_jax.runs.run_folder import claimed
from fit_jax.training.progress import Progress
from fit_jax.training.stopping import Stopping
from tests.processes import Job

SMALL = """
task: {train_examples: 16, validation_examples: 8, test_examples: 4}
focus: {branches: 1}
train: {steps: 1, batch_size: 8, sequence_length: 280, validate_every: null}
rehearsal: {files: [rehearsed.jsonl], rows: 8}
mesh: {timeout: 20}
"""


@pytest.mark.timeout(300)
def test_processes_that_meet_different_things_end_together(imported, adapter, encoder, tmp_path, monkeypatch):
    """Process 1 does not see the file that was rehearsed, which the report can do without; then process 0 alone cannot
    write the adapter, which it cannot, and the one from before stays."""
    monkeypatch.chdir(tmp_path)
    save_tokenizer(encoder.tokenizer, shutil.copytree(imported, "model"))
    (tmp_path / "run.yaml").write_text(SMALL)
    rows = [json.dumps({"text": f"a lamp and {n} tents"}) for n in range(40)]
    (tmp_path / "rehearsed.jsonl").write_text("\n".join(rows))
    run = tmp_path / "run"
    options = ["--run_dir", str(run), "--model.pretrained", "model", "--lora.adapter", str(adapter)]
    with claimed(config := load_config(["--config", "run.yaml", *options])):
        opened = set_up(config, trains=True)
        with closing(open_checkpoints(opened, cleans=True)) as checkpoints:
            progress = Progress(Stopping("loss", None), step=1, finished="steps")
            checkpoints.save(1, starting_state(opened, None).state, progress.to_json(), best=None)
    shutil.copytree(adapter, run / "adapter")
    before = {path.name: path.read_bytes() for path in (run / "adapter").iterdir()}

    lead, other = Job(tmp_path, [str(run)], 2, module="tests.runs.unlike_machines").end()
    assert (lead.status, other.status) == (2, 2), (lead, other)
    assert "does not measure what was rehearsed: another process of the job cannot" in lead.output
    assert "adapter" in lead.errors
    assert "File too large; free space" in lead.errors
    assert "process 0 of the job tells what is wrong" in other.errors
    assert lead.errors.count("\n") == other.errors.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (run / "adapter").iterdir()} == before
    assert not [path.name for path in run.glob(".partial-*")]
