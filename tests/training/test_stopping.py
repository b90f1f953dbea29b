from fit_jax.training.stopping import Stopping


def feed(stopping: Stopping, name: str, values: list[float]) -> list[bool]:
    """Whether each value was the best so far."""
    best = []
    for step, value in enumerate(values, start=1):
        stopping.update(10 * step, {name: value})
        best.append(stopping.best_step == 10 * step and stopping.waited == 0)
    return best


def test_loss_is_best_when_low():
    stopping = Stopping("loss", patience=2)
    assert feed(stopping, "validation_loss", [3.0, 2.0, 2.5]) == [True, True, False]
    assert (stopping.best_step, stopping.best_value, stopping.exhausted) == (20, 2.0, False)
    assert feed(stopping, "validation_loss", [2.0]) == [False]  # as good is no better
    assert stopping.exhausted


def test_focus_accuracy_is_best_when_high():
    stopping = Stopping("focus_accuracy", patience=1)
    assert feed(stopping, "validation_focus_accuracy", [0.5, 0.75]) == [True, True]
    assert not stopping.exhausted


def test_without_patience_training_never_stops_early():
    stopping = Stopping("loss", patience=None)
    feed(stopping, "validation_loss", [1.0] * 50)
    assert not stopping.exhausted


def test_it_is_the_same_after_a_round_trip():
    stopping = Stopping("loss", patience=3)
    feed(stopping, "validation_loss", [0.1, 0.3])
    assert Stopping(**stopping.to_json()) == stopping


def test_the_worst_group_is_better_when_higher():
    stopping = Stopping("worst_group", patience=2)
    assert feed(stopping, "validation_worst_group", [0.2, 0.5, 0.4]) == [True, True, False]
    assert stopping.best_step == 20
