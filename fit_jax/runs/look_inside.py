"""A look inside a run's model: after which layer it switches between features, and how much of that one direction does.

Two prompts about one text, which ask for the core and for the spurious feature, exchange the residual stream at their
last tokens (`fit_jax.methods.switch`), all of it, along the layer's learnt direction, or along random ones. Directions
are learnt on validation examples and measured on a test split, in held-out paraphrases.
"""

import io
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import answer
from fit_jax.evaluation.figures import STYLES, figure, inline_svg
from fit_jax.evaluation.metrics import kind_of, share_of
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.report import print_table, write_lines
from fit_jax.files import make_folder, replace_with, write_text
from fit_jax.foreign import named, shown
from fit_jax.html import as_html, page
from fit_jax.markdown import as_text
from fit_jax.methods.intervention import Intervention
from fit_jax.methods.knob import Direction, best_knob, found_directions, layers_that_carry
from fit_jax.methods.steering import nothing, opposed
from fit_jax.methods.switch import exchanges, opposite_pairs, switched, unit_vectors
from fit_jax.methods.training_free import Base
from fit_jax.parallel.processes import on_lead
from fit_jax.runs.parts import one_task
from fit_jax.runs.run import Run, load_model
from fit_jax.tables import Table, share, share_in

RANDOM = 8  # random directions that a learnt one is compared with
WHOLE, LEARNT, DRAWN = "whole residual stream", "learnt direction", "random directions"


class Inside(NamedTuple):
    """What was found.

    Attributes:
        rows: By layer and what is exchanged, the share of answers that follow the other instruction then.
        followed: The share that follow their own instruction, where nothing is exchanged.
        strayed: The share that follow the other one already then.
        knob: What the knob in the place of instructions reaches, and which it is.
    """

    rows: list[dict[str, Any]]
    followed: float
    strayed: float
    knob: str

    def carried(self, switched: float) -> float:
        """The part of the switch by instructions that an exchange brings about: 1 is all of it."""
        return (switched - self.strayed) / (self.followed - self.strayed)


def check_inside(run: Run, split: str) -> None:
    """Refuses a split that the run's task does not have, and a run of several tasks.

    Raises:
        InputError: It has none of this name, or there are several tasks.
    """
    one_task(run, None, "look inside the run of one")
    if split not in run.task.test_splits:
        raise InputError(
            f"--inside {shown(split)}: the task has no such test split; it has {', '.join(run.task.test_splits)}"
        )


def report_inside(run: Run, which: int | Literal["best", "last"], split: str, folder: Path) -> Inside:
    """Looks inside a checkpoint's model; prints the table and writes `inside.jsonl`, tables, picture and page.

    Args:
        run: The run.
        which: The checkpoint.
        split: The test split that is measured on (`check_inside`).
        folder: Where the report goes.

    Raises:
        InputError: There is no such checkpoint, no example in it whose labels differ, a model of one layer, or
            one whose answers do not depend on the instruction.
    """
    model = load_model(run, which)
    base = Base(model.graphdef, model.params, run.mesh, run.encoder, run.config.evaluation.batch_size)
    inside = _look(run, base, split)
    on_lead(lambda: _write(folder, run, split, inside))
    return inside


def _look(run: Run, base: Base, split: str) -> Inside:
    seed = run.config.seed
    L, D = nothing(base).vectors.shape
    if L == 1:
        raise InputError(
            f"{named(run.folder)}: a model of one layer has no inside; look into one of two layers or more"
        )
    learn = opposite_pairs(run.task, "validation", "train", seed)
    asked = opposite_pairs(run.task, split, "heldout", run.config.evaluation_seed)
    (own,) = switched(base, asked, {"": exchanges(base)}).values()
    strayed = share_of(own).value
    followed = float(np.mean([p.correct for ps in answer(asked, base.plain()) for p in ps]))
    if followed <= strayed:
        raise InputError(
            f"{named(run.folder)}: its answers do not depend on the instruction ({followed:.3f} follow it, "
            f"{strayed:.3f} the contrary one); look inside a run that follows instructions"
        )
    directions = found_directions(base, learn, layers_that_carry(base, learn), seed)
    # All in one call each, for which one program is compiled.
    whole = switched(base, asked, {str(layer): exchanges(base, [layer]) for layer in range(L - 1)})
    rows = [_row(layer, WHOLE, answers) for layer, answers in enumerate(whole.values())]
    drawn = unit_vectors(RANDOM, D, seed)
    options = {
        f"{d.layer} {n}": _along(base, d.layer, vector)
        for d in directions
        for n, vector in enumerate((d.vector, *drawn))
    }
    along = iter(switched(base, asked, options).values())
    for direction in directions:
        learnt, *others = islice(along, 1 + RANDOM)
        rows.append(_row(direction.layer, LEARNT, learnt))
        rows.append(_row(direction.layer, DRAWN, [p for answers in others for p in answers]))
    rows.sort(key=lambda r: r["layer"])
    return Inside(rows, followed, strayed, turned_by_knob(run, base, split, directions))


def _along(base: Base, layer: int, vector: np.ndarray) -> Intervention:
    return exchanges(base, directions=nothing(base).vectors.at[layer].set(vector))


def _row(layer: int, exchanged: str, answers: Sequence[Prediction]) -> dict[str, Any]:
    given = share_of(answers)
    low, high = given.share_interval()
    figures = {"switched": given.value, "ci_low": low, "ci_high": high, "count": given.examples}
    return {"layer": layer + 1, "exchanged": exchanged, **figures}


def turned_by_knob(run: Run, base: Base, split: str, directions: Sequence[Direction]) -> str:
    """A sentence on what the best knob of these directions reaches on a split, in the place of instructions."""
    subject, note = best_knob(base, run.task, directions, run.config.seed)
    answers = [p for ps in answer(opposed(run.task, split, run.config.evaluation_seed, "heldout"), subject) for p in ps]
    core, spurious = (share_of(p for p in answers if kind_of(p.focus) == kind).value for kind in ("core", "spurious"))
    return (
        f"Set in the place of an instruction, the direction after {note.partition(' (')[0]}, steers {core:.3f} of "
        f"{split}'s answers to the core and {spurious:.3f} to the spurious feature where the two differ."
    )


def _table(split: str, inside: Inside) -> Table:
    rows = [
        (
            f"layer {r['layer']}",
            r["exchanged"],
            str(r["count"]),
            share_in(r["switched"], r["ci_low"], r["ci_high"], r["count"]),
            share(inside.carried(r["switched"])),
        )
        for r in inside.rows
    ]
    caption = (
        f"Two prompts about one text of {split}, in held-out paraphrases, ask for the core and for the spurious "
        "feature, whose labels differ. Their last tokens exchange the residual stream after a layer: all of it, its "
        f"component along the direction learnt for that, or along {RANDOM} random ones. Switched is the share of "
        "answers that follow the other prompt's instruction then, with its 95 % interval over clusters of examples; "
        f"without an exchange {inside.followed:.3f} follow their own and {inside.strayed:.3f} the other. The last "
        "column is the part of what exchanging the instructions themselves would do. The last layer is left out: after "
        "it, only the answer is left."
    )
    header = ("after", "exchanged", "examples (n)", "switched", "part of the switch")
    return Table("Where the model switches between features", caption, header, rows, "inside", texts=2)


def _write(folder: Path, run: Run, split: str, inside: Inside) -> None:
    make_folder(folder)
    method, task = run.config.train.method, run.task.text.name
    table = _table(split, inside)
    asked = {"method": method, "seed": run.config.seed, "task": task, "split": split}
    write_lines(folder / "inside.jsonl", [{**asked, **r, "part": inside.carried(r["switched"])} for r in inside.rows])
    title = f"A look inside: {method} on {task}, seed {run.config.seed}"
    write_text(folder / "summary.md", f"# {as_text(title)}\n\n{as_text(inside.knob)}\n\n{table.markdown()}\n")
    for kind in ("svg", "png"):
        replace_with(folder / f"inside.{kind}", partial(draw_inside, inside, kind=kind))
    picture = io.BytesIO()
    draw_inside(inside, picture)
    svg = inline_svg(picture.getvalue().decode(), "inside-", f"{title}: the table below holds the numbers")
    body = f'<section class="card"><p class="verdict">{as_html(inside.knob)}</p><figure>{svg}</figure></section>\n'
    write_text(folder / "index.html", page(title, "Exchanges of the residual stream.", body + table.html()))
    print_table(table.terminal())
    print(inside.knob)
    print(f"report: {folder / 'index.html'}", flush=True)


def draw_inside(inside: Inside, target: Path | BinaryIO, kind: str = "svg") -> None:
    """Draws the part of the switch that each exchange carries, by layer.

    Args:
        inside: What was found.
        target: Where to, a path or an open file.
        kind: `svg` or `png`.
    """
    with figure((5.2, 3.2), target, kind) as drawn:
        drawn.set_layout_engine("constrained")
        axes = drawn.add_subplot()
        for name, (colour, line, marker) in zip((WHOLE, LEARNT, DRAWN), STYLES):
            rows = [r for r in inside.rows if r["exchanged"] == name]
            layers, parts = [r["layer"] for r in rows], [inside.carried(r["switched"]) for r in rows]
            axes.plot(layers, parts, color=colour, linestyle=line, marker=marker, markerfacecolor="none", label=name)
        axes.set_xlabel("exchanged after layer")
        axes.set_ylabel("part of the switch")
        axes.set_ylim(-0.05, 1.05)
        axes.set_xticks(sorted({r["layer"] for r in inside.rows}))
        axes.grid(color="#d0d0d0", linewidth=0.6)
        axes.legend(frameon=False)
