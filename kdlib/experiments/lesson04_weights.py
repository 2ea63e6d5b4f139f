"""How lesson 04 chooses the weight of a feature loss: a grid that grows while a winner is on its edge."""

from collections.abc import Callable, Iterable, Mapping

import pandas

ALONE = "distillation"  # what a feature loss of weight 0 is; its rows are those of weight 0 for every method
_ROUNDS = 5


def positive_means(tried: pandas.DataFrame, method: str) -> pandas.Series:
    """The mean accuracy of each weight above 0 that was tried."""
    own = tried[(tried["method"] == method) & (tried["weight"] > 0)]
    return own.groupby("weight")["accuracy"].mean()


def best_weight(tried: pandas.DataFrame, method: str) -> float:
    """The weight above 0 with the highest mean accuracy."""
    return float(positive_means(tried, method).idxmax())


def beyond(tried: pandas.DataFrame, method: str) -> list[float]:
    """The next weights to try: ten times or a tenth, where the best of the positive weights lies on the edge."""
    means = positive_means(tried, method)
    best, step = float(means.idxmax()), {means.index.min(): 0.1, means.index.max(): 10.0}
    return [float(f"{best * step[best]:.6g}")] if best in step else []


def searched(
    run: Callable[[list[tuple[str, float]]], pandas.DataFrame], start: Mapping[str, Iterable[float]]
) -> pandas.DataFrame:
    """`run` on these weights of each method, and then on those beyond the edges, until no method's best lies on one.

    Raises:
        RuntimeError: a method whose accuracy still rises towards an edge after five rounds.
    """
    tried = pandas.DataFrame()
    wanted = [(method, weight) for method, weights in start.items() for weight in weights]
    for _ in range(_ROUNDS):
        tried = pandas.concat([tried, run(wanted)], ignore_index=True)
        wanted = [(method, weight) for method in start for weight in beyond(tried, method)]
        if not wanted:
            return tried
    raise RuntimeError(f"after {_ROUNDS} rounds these still lie on an edge: {wanted}")


def no_weight_is_best(tried: pandas.DataFrame, method: str, alone: str) -> bool:
    """Whether no weight above 0 has a higher mean accuracy than the rows of `alone`, which is weight 0."""
    return bool(tried.loc[tried["method"] == alone, "accuracy"].mean() >= positive_means(tried, method).max())
