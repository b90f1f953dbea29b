"""Training steps here and in TRL, timed after the first ones."""

import tempfile
import time
from collections.abc import Iterable
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """What the timed steps trained on; `tokens` are those that are no padding."""

    seconds: float
    tokens: int
    examples: int


def own_steps(step: Any, state: Any, batches: Iterable[Any], mesh: Any, skipped: int) -> Timed:
    """A compiled train step over batches in this host's memory, timed after `skipped` of them."""
    import jax

    from fit_jax.parallel.processes import to_global

    tokens = examples = 0
    start, metrics = 0.0, None
    for number, batch in enumerate(batches):
        state, metrics = step(state, to_global(batch, mesh))
        if number == skipped - 1:
            jax.block_until_ready(metrics)
            start = time.perf_counter()
        elif number >= skipped:
            tokens += int((batch.visible_until > 0).sum())
            examples += int(batch.examples)
    jax.block_until_ready(metrics)
    return Timed(time.perf_counter() - start, tokens, examples)


def matrix_peak() -> float:
    """FLOP/s of XLA's own product of two fp32 matrices on this machine, the best of several."""
    import jax
    import jax.numpy as jnp

    size, best = 2048, float("inf")
    matrix, product = jnp.ones((size, size)), jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def trl_steps(model: Any, examples: list[dict[str, Any]], skipped: int, steps: int, **options: Any) -> Timed:
    """TRL's SFTTrainer over token ids (`taken_apart` of `benchmarks.training`), timed after `skipped` steps.

    Args:
        model: The model, with its adapters.
        examples: Token ids, and how many of the last are the answer.
        skipped: Steps before the timed ones.
        steps: Timed steps.
        options: Fields of `SFTConfig` that are not to keep their defaults.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]  (an extra)

    class Counting(SFTTrainer):
        tokens = examples = 0

        def training_step(self, model, inputs, *rest):
            if self.state.global_step >= skipped:
                if "attention_mask" in inputs:
                    self.tokens += inputs["attention_mask"].sum()
                    self.examples += len(inputs["input_ids"])
                else:  # packed rows, end to end and without padding
                    self.tokens += inputs["input_ids"].numel()
                    self.examples += (inputs["position_ids"] == 0).sum()
            return super().training_step(model, inputs, *rest)

    class Clock(TrainerCallback):
        start = end = 0.0

        def on_step_end(self, args, state, control, **_):
            if state.global_step in (skipped, skipped + steps) and torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step == skipped:
                self.start = time.perf_counter()
            self.end = time.perf_counter()

    rows = []
    for example in examples:
        row = {"input_ids": example["input_ids"]}
        if options.get("completion_only_loss"):
            length, answer = len(example["input_ids"]), example["answer"]
            row["completion_mask"] = [0] * (length - answer) + [1] * answer
        rows.append(row)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            max_steps=skipped + steps,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **options,
        )
        data, clock = Dataset.from_list(rows), Clock()
        trainer = Counting(model, arguments, train_dataset=data, processing_class=_pad_tokenizer(), callbacks=[clock])
        trainer.train()
    return Timed(clock.end - clock.start, int(trainer.tokens), int(trainer.examples))


def _pad_tokenizer():
    """A tokenizer for the pad token alone; the examples are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), eos_token="</s>", pad_token="<unk>"
    )
