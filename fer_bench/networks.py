"""What anyone's network must be to be trained and judged here, and what is wrong with one that is not."""

from __future__ import annotations

import numpy as np

from fer_bench.errors import TrainingError, UserError
from fer_bench.metrics import NOT_LOGITS, are_probabilities


def check_answers(name: str, answers: np.ndarray, epoch: int, keeps: str, fresh: bool) -> None:
    """Raise UserError for answers (N, K) that are probabilities, TrainingError for some that are not finite.

    keeps: the folder that holds the last good checkpoint. fresh: whether the network has not been trained at all, so
    that no learning rate can be to blame and nothing is kept.
    """
    if are_probabilities(answers):
        raise UserError(f"{name} {NOT_LOGITS}")
    if np.isfinite(answers).all():
        return
    if fresh:
        raise TrainingError(
            f"{name} gives answers that are not finite before it is trained; mend how its builder sets its weights, or "
            "its input's mean and std."
        )
    raise TrainingError(
        f"{name} gives answers that are not finite in epoch {epoch}; {keeps} keeps the last good checkpoint, train "
        "with a lower learning rate."
    )
