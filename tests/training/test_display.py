"""What a person sees of a training run."""

import pytest

from fit_jax.training.display import Display


@pytest.mark.parametrize("on_terminal", [False, True])
def test_words_of_the_data_do_not_command_the_terminal(on_terminal, capsys, monkeypatch):
    if on_terminal:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    display = Display(2, 0)
    display.note("tied to a\x1b[31m | \u202eb")
    display.close()
    shown = capsys.readouterr().out
    assert "tied to a\\u001b[31m | \\u202eb" in shown
    assert "\u202e" not in shown
    assert "\x1b[31m" not in shown
