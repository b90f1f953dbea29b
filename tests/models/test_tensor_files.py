"""Tensors written to files: whole, in order, and none after another failed."""

import errno
import threading
import time

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.tensor_files import TensorFiles, write_tensors


def test_no_tensor_is_written_after_another_failed(tmp_path):
    """Its file is closed by then, and the file's number may be another file's."""
    done = threading.Event()

    def slow():
        time.sleep(0.2)
        yield np.ones((1, 8), np.float32)
        done.set()

    def broken():
        raise OSError(errno.ENOSPC, "no space left")

    tensors = {name: ((1, 8), np.dtype(np.float32)) for name in ("a", "b")}
    with pytest.raises(InputError, match=r"cannot write .*: no space left; free space"):
        write_tensors(tmp_path, tensors, iter([slow, broken]), 10**9)
    assert done.is_set()


def test_a_block_of_another_shape_is_no_part_of_a_tensor(tmp_path):
    turned = np.ones((8, 4), np.float32)
    with pytest.raises(AssertionError):
        write_tensors(tmp_path, {"a": ((4, 8), turned.dtype)}, iter([lambda: [turned]]), 10**9)


def test_a_slice_with_a_step_reads_every_other_entry(tmp_path):
    """As gate and up of gpt-oss alternate in one tensor; safetensors before 0.8 leaves the step out."""
    tensor = np.arange(2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8)
    write_tensors(tmp_path, {"a": (tensor.shape, tensor.dtype)}, iter([lambda: [tensor]]), 10**9)
    index = slice(0, 2), slice(1, 3), slice(1, 6, 2)
    np.testing.assert_array_equal(TensorFiles(tmp_path).read("a", index), tensor[index])
