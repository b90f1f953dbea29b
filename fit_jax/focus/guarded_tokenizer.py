"""A tokenizer that gives up on a text tells so in one line.

The regular expressions of a `tokenizer.json` are another's. One that would try too many ways to match a text is ended
by its library, written in Rust, with a panic: no `Exception` in Python, and pages of its stack on standard error.
"""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

from fit_jax.errors import InputError
from fit_jax.foreign import shown, silent

_READING = ("encode", "encode_batch", "encode_batch_fast", "decode", "decode_batch")


class GuardedTokenizer:
    """A `tokenizers.Tokenizer`, to be put in its place: encoding and decoding raise `InputError` where it panics."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """`name` is what errors call it."""
        object.__setattr__(self, "_guarded", (tokenizer, name))

    def __getattr__(self, attribute: str) -> Any:
        """The tokenizer's own."""
        tokenizer, name = object.__getattribute__(self, "_guarded")
        value = getattr(tokenizer, attribute)
        return _guarded_call(value, name) if attribute in _READING else value

    def __setattr__(self, attribute: str, value: Any) -> None:
        """Sets the tokenizer's own."""
        setattr(object.__getattribute__(self, "_guarded")[0], attribute, value)

    def __reduce__(self) -> tuple[type, tuple[Any, str]]:
        """For copies and pickles."""
        return GuardedTokenizer, object.__getattribute__(self, "_guarded")


def _guarded_call(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # Standard error is the whole process's: other threads leave it alone.
        quiet = silent() if threading.current_thread() is threading.main_thread() else nullcontext()
        try:
            with quiet:
                return method(*args, **kwargs)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # which no module offers
                raise
            raise InputError(
                f"tokenizer '{shown(name)}': gives up on a text ({shown(str(error))}); fetch its tokenizer.json again, "
                "or take another tokenizer"
            ) from error

    return guarded
