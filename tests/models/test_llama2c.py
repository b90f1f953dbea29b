"""Files of llama2.c that are no models."""

import pytest

from fit_jax.errors import InputError
from fit_jax.models.llama2c import convert


@pytest.mark.parametrize("size", [0, 3, 31])
def test_a_llama2c_file_of_impossible_size_is_told(size, tmp_path):
    folder = tmp_path / ("f" * 200)  # of which the line shows the end
    folder.mkdir()
    (folder / "model.bin").write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"^\.\.\.f+/model\.bin: {size} bytes"):
        convert(folder / "model.bin", tmp_path)
