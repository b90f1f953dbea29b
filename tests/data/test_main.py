"""`python -m fit_jax.data`: what it prints, what it refuses."""

import json
import shutil

import pytest

from fit_jax.data import describing
from fit_jax.data.__main__ import main
from fit_jax.data.builders import FitBuilder
from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import train_tokenizer

from .ticket_tables import tickets, write_csv

SMALL = ["--task.train_examples", "80", "--task.validation_examples", "20", "--task.test_examples", "40"]
TINY = [*SMALL, "--tokenizer.vocab_size", "300"]


def test_inspect_as_json(capsys):
    main(["inspect", "--task", "demo", "--json", "--prompts", "1", *TINY])
    told = json.loads(capsys.readouterr().out)
    assert told["splits"]["train"]["labels"] == {"negative": 40, "positive": 40}
    assert told["splits"]["high"]["rho"]["keyword"]["Marlin"] == {"asked": 0.9, "realised": 0.9, "count": 20}
    assert told["prompts"][0].startswith("Is this review negative or positive?\nReview: ")


def test_inspect_bbq_counts_slices(capsys, data_dir):
    folder = ["--task.data_dir", str(data_dir), "--task.categories", "[Gender_identity]"]
    main(["inspect", "--task", "bbq", "--json", *folder, *TINY])
    told = json.loads(capsys.readouterr().out)
    assert told["dropped"] == {"Gender_identity: no stereotyped answer can be determined": 16}
    assert set(told["splits"]["iid"]["slices"]["polarity"]) == {"neg", "nonneg"}


def test_tables_in_the_terminal(capsys):
    main(["inspect", "--task", "demo", *TINY])
    shown = capsys.readouterr().out
    assert "Feature values" in shown
    assert "Tundra" in shown


def test_audit_shows_prompts_and_targets(capsys, tmp_path):
    page = tmp_path / "audit.html"
    main(["audit", "--task", "demo", "--html", str(page), *TINY])
    shown = capsys.readouterr().out
    assert "focus(keyword) & ignore(core)" in shown
    assert "<eos>] <- target" in shown
    assert page.read_text().count("<mark>") == 6
    main(["audit", "--task", "demo", "--json", *TINY])
    assert json.loads(capsys.readouterr().out)["unit"] == "tokens"
    with pytest.raises(InputError, match="nothing is overwritten"):
        main(["audit", "--task", "demo", "--html", str(page), *TINY])


def test_prompts_are_encoded_as_a_run_of_the_config_would(capsys, tmp_path, imported):
    train_tokenizer(["ab"], 258).save_pretrained(model := shutil.copytree(imported, tmp_path / "model"))  # bytes alone

    def longest(*options: str) -> int:
        main(["audit", "--task", "demo", "--json", *SMALL, *options])
        return json.loads(capsys.readouterr().out)["lengths"]["train"][-1][0]

    of_model = longest("--model.pretrained", str(model))
    assert of_model == longest("--tokenizer.path", str(model))
    assert of_model > longest()
    with pytest.raises(InputError, match="made for a pretrained model"):
        longest("--lora.adapter", "nowhere")


def test_build_prints_no_json():
    with pytest.raises(InputError, match="--json: there is no such option"):
        main(["build", "--task", "demo", "--json"])


def test_a_description_written_meanwhile_stays(monkeypatch, tmp_path):
    table, out = write_csv(tmp_path / "t.csv", tickets(90)), tmp_path / "own.yaml"
    found = describing.describe(table, out)

    def other_is_first(*given):
        out.write_text("theirs")
        return found

    monkeypatch.setattr(describing, "describe", other_is_first)
    with pytest.raises(InputError, match=r"own\.yaml: is there already; nothing is overwritten"):
        main(["describe", str(table), "--out", str(out)])
    assert out.read_text() == "theirs"


def test_two_builds_of_one_data_set_are_told(monkeypatch, tmp_path):
    def other_was_first(builder):
        raise FileExistsError("Cannot rename it")

    monkeypatch.setattr(FitBuilder, "download_and_prepare", other_was_first)
    with pytest.raises(InputError, match="another process has written the same data set there meanwhile; use it"):
        main(["build", "--task", "demo", "--out", str(tmp_path), *SMALL])


def test_build_writes_records(capsys, caplog, tmp_path):
    main(["build", "--task", "demo", "--out", str(tmp_path), *SMALL])
    assert "--task.source array_record" in capsys.readouterr().out
    assert not [record for record in caplog.records if record.name == "absl"]  # which would be on standard error
    main(
        [
            "inspect",
            "--json",
            "--task",
            "demo",
            "--task.source",
            "array_record",
            "--task.data_dir",
            str(tmp_path),
            *TINY,
        ]
    )
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["examples"] == 80


def test_help_wherever_it_stands(capsys):
    for arguments, said in ((["--help"], "look for shortcuts"), (["audit", "--task", "demo", "-h"], "--html FILE")):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["bild"], "no command 'bild'; did you mean 'build'"),
        (["inspect", "--task", "dmo"], "did you mean 'demo'"),
        (["inspect", "--prompts", "many"], "--prompts: invalid int value: 'many'"),
        (["inspect", "--prompts", "-1"], "must be 0 or more"),
        (["inspect", "--task"], "--task: expected one argument"),
        (["audit", "--task.nme", "x"], "did you mean '--task.name'"),
    ],
)
def test_wrong_commands(arguments, message):
    with pytest.raises(InputError, match=message):
        main(arguments)
