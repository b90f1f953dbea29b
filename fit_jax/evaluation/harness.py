"""lm-evaluation-harness on models of this project: import this module only where `lm_eval` is installed.

`HarnessModel` is what `lm_eval.simple_evaluate(model=...)` takes. Prompts are tokenised and truncated as the harness'
own Hugging Face backend does it, so that both give the same scores on the same weights; here the continuations of one
context share the pass over it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate_all
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.focus.templates import end_token_id, prefix_id, render_messages
from fit_jax.models.decoder import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Ways of decoding that are known here; a task that asks for another one is not run otherwise than it asks.
_KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p"}

# A task's (context, continuation), and both as token ids.
Request = tuple[Any, list[int], list[int]]


class HarnessModel(TemplateLM):
    """A decoder and its tokenizer as the harness sees a language model."""

    max_gen_toks = 256  # where a task does not say

    def __init__(
        self, scorer: Scorer, params: Params, tokenizer: "PreTrainedTokenizerBase", sequence_length: int
    ) -> None:
        """A model of the scorer's structure.

        Args:
            scorer: Scores on the model's mesh.
            params: Its states, as `nnx.merge(graphdef, *params)` takes them.
            tokenizer: Its tokenizer.
            sequence_length: Most tokens of a context with its continuation; longer contexts lose their beginning.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self._scorer = scorer
        self._params = params

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return end_token_id(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text."""
        return prefix_id(self.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """Names the harness' cache of requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the tokenizer's chat template writes it."""
        rendered = render_messages(self.tokenizer, chat_history, add_generation_prompt)
        if add_generation_prompt:
            return rendered
        # The last message is to be gone on with: nothing follows it, and its spaces stay where the template keeps them.
        last = chat_history[-1]["content"]
        if (start := rendered.rfind(last.strip())) < 0:
            raise InputError("lm_eval: the chat template does not show the last message; ask without it")
        kept = last.lstrip() if rendered.startswith(last.lstrip(), start) else last.strip()
        return rendered[: start + len(kept)]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Token ids; the tokenizer's own start token is added unless the text begins with it or the caller says so."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._text([self.prefix_token_id]))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts in nats, each token once, with as much context as fits."""
        windows: list[Request] = []
        counts = []
        for (text,) in (request.args for request in requests):
            ids = self.tok_encode(text)
            for pair in utils.get_rolling_token_windows(ids, self.prefix_token_id, self.sequence_length, context_len=1):
                context, continuation = utils.make_disjoint_window(pair)
                windows.append((None, context, continuation))
            counts.append(len(windows))
        scores = [log_prob for log_prob, _ in self._loglikelihood_tokens(windows)]
        totals = [float(np.sum(scores[start:end])) for start, end in zip([0, *counts], counts)]
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first of each request's stop texts, greedy unless it asks for draws.

        Raises:
            InputError: A task asks for a way of decoding that is not here, or for more tokens than the model has.
        """
        asked = [(r.arguments[0], _Decoding.of(r.arguments[1], self.max_gen_toks)) for r in requests]
        texts: dict[int, str] = {}
        for how in dict.fromkeys(how for _, how in asked):
            limit = self.sequence_length - how.tokens
            if limit < 1:
                raise InputError(f"lm_eval: {how.tokens} tokens to write leave no context of {self.sequence_length}")
            numbers = [number for number, (_, other) in enumerate(asked) if other == how]
            prompts = [np.array(self.tok_encode(asked[n][0])[-limit:], np.int32) for n in numbers]
            sampling = SamplingParams(
                tokens=how.tokens,
                temperature=how.temperature,
                top_p=how.top_p,
                stop=(self.eot_token_id, *self._tokens_with(how.until)),
            )
            scorer = self._scorer
            made = generate_all(scorer.graphdef, self._params, prompts, sampling, scorer.rows, jax.random.key(0))
            for number, ids in zip(numbers, made):
                texts[number] = _cut(self._text(ids, skip_special_tokens=True), how.until)
                self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
        return [texts[number] for number in range(len(asked))]

    def _loglikelihood_tokens(self, requests: Iterable[Request], **_: object) -> list[tuple[float, bool]]:
        """log p in nats of each continuation after its context, and whether greedy decoding would write it."""
        groups = [self._prompt(same) for same in of_one_context(requests)]
        found: list[tuple[float, bool]] = []
        for scores in self._scorer.score(self._params, groups):
            for score in scores:
                found += [(float(p), bool(greedy)) for p, greedy in zip(score.log_prob, score.greedy)]
        return found

    def _prompt(self, requests: Sequence[Request]) -> list[EncodedPrompt]:
        """Requests of one context: one prompt with its answers, or, where some are too long, prompts of their own."""
        _, context, _ = requests[0]
        limits = [self.sequence_length + 1 - len(continuation) for _, _, continuation in requests]
        if min(limits) < 1:
            longest = max(len(continuation) for _, _, continuation in requests)
            raise InputError(f"lm_eval: a continuation of {longest} tokens does not fit into {self.sequence_length}")
        answers = [np.array(continuation, np.int32) for _, _, continuation in requests]
        ids = np.array(context, np.int32)
        if min(limits) >= len(ids):
            return [EncodedPrompt(ids, tuple(answers))]
        return [EncodedPrompt(ids[-limit:], (answer,)) for limit, answer in zip(limits, answers)]

    def _text(self, ids: list[int] | np.ndarray, **how: bool) -> str:
        """One sequence of tokens as text."""
        text = self.tokenizer.decode(ids, **how)
        assert isinstance(text, str), "of one sequence"
        return text

    def _tokens_with(self, texts: Sequence[str]) -> Iterator[int]:
        """The tokens that hold one of the texts: what comes after them would be cut off anyway."""
        if texts:
            pieces = self.tokenizer.batch_decode([[number] for number in range(len(self.tokenizer))])
            for number, piece in enumerate(pieces):
                if any(text in piece for text in texts):
                    yield number


def of_one_context(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Runs of requests with one context, cut where all together would be twice as long as any of them alone."""
    run: list[Request] = []
    size = longest = 0
    for request in requests:
        _, context, continuation = request
        alone = len(context) + len(continuation)
        if run and (context != run[0][1] or size + len(continuation) > 2 * max(longest, alone)):
            yield run
            run, longest = [], 0
        size = size + len(continuation) if run else alone
        longest = max(longest, alone)
        run.append(request)
    if run:
        yield run


class _Decoding(NamedTuple):
    """How a request wants its continuation: as `SamplingParams`, and the texts at which it ends."""

    tokens: int
    temperature: float
    top_p: float
    until: tuple[str, ...]

    @classmethod
    def of(cls, options: dict[str, Any], tokens: int) -> "_Decoding":
        asked: dict[str, Any] = dict(normalize_gen_kwargs(options, tokens))
        if unknown := sorted(asked.keys() - _KNOWN):
            raise InputError(f"lm_eval: a task decodes with {', '.join(unknown)}, which is not supported; leave it out")
        until = tuple(text for text in asked.get("until") or () if text)
        return cls(asked["max_gen_toks"], asked.get("temperature", 0.0), asked.get("top_p", 1.0), until)


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    return min((text.split(stop)[0] for stop in until), key=len, default=text)
