"""Exercise of lesson 11: labels that a network does not believe.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstring.
"""

import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import Complaint

NO_LIST = "a list of positions is asked for, whole numbers"
MASK = "a mask comes back, an entry an image; the positions of those that are disputed are asked for"
TWICE = "a position stands there twice"
BEYOND = "a position is that of no image"


def _networks():
    """(probabilities, labels): three unlike in how sure they are of which class; all classes have labels."""
    cases = []
    for seed, images, classes, likes in (
        (0, 24, 3, (0.0, 1.5, -1.0)),
        (1, 40, 4, (2.0, 0.0, 0.5, -0.5)),
        (2, 9, 3, (0, 0, 0)),
    ):
        labels = torch.arange(images) % classes
        answers = logits(seed, images, classes, scale=1.5) + torch.tensor(likes, dtype=torch.float32)
        answers[torch.arange(images), labels] += 1.5
        cases.append((answers.softmax(1), labels))
    return cases


def _positions(function, probabilities, labels):
    """Probe: the positions in their order; it complains of what is none."""
    found = function(probabilities, labels)
    if found is None or found is ...:
        return None
    values = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(values, list | tuple):
        raise Complaint(NO_LIST)
    if values and all(isinstance(value, bool) for value in values):
        raise Complaint(MASK)
    if any(isinstance(value, list | tuple | bool) or value != int(value) for value in values):
        raise Complaint(NO_LIST)
    if any(not 0 <= value < len(labels) for value in values):
        raise Complaint(BEYOND)
    if len(set(values)) < len(values):
        raise Complaint(TWICE)
    return {
        "number of disputed images": len(values),
        "list of positions": torch.tensor([int(value) for value in values]),
    }


# ------------------------------------------------------------------ mistakes


def _thresholds(probabilities, labels):
    return torch.stack([probabilities[labels == c, c].mean() for c in range(probabilities.shape[1])])


def _own(probabilities, labels):
    return probabilities.gather(1, labels[:, None])[:, 0]


def _list(
    *,
    thresholds=_thresholds,
    sure=lambda probabilities, thresholds: probabilities >= thresholds,
    order=lambda best, own: -(best - own),
    keeps=lambda best, other, labels: (other != labels) & (best >= 0),
    ordered=True,
):
    """The solution, but for what it is told."""

    def find(probabilities, labels):
        candidates = torch.where(sure(probabilities, thresholds(probabilities, labels)), probabilities, -1.0)
        best, other = candidates.max(dim=1)
        found = torch.nonzero(keeps(best, other, labels))[:, 0]
        if ordered:
            found = found[order(best, _own(probabilities, labels))[found].argsort(stable=True)]
        return found.tolist()

    return find


def _likeliest_is_sure(probabilities, labels):
    """Only the likeliest class of all is compared with its threshold."""
    best, other = probabilities.max(dim=1)
    sure = best >= _thresholds(probabilities, labels)[other]
    found = torch.nonzero((other != labels) & sure)[:, 0]
    return found[(best - _own(probabilities, labels))[found].argsort(descending=True)].tolist()


@exercise(
    cases=_networks,
    probe=_positions,
    hints=[
        """A network may be shy of one class and bold with another, so each class has a threshold of its own: how sure
        is it on average of this class, among the images that are labelled so?""",
        """`probabilities[labels == c, c].mean()` is the threshold of class c. `torch.where(probabilities >=
        thresholds, probabilities, -1.0).max(dim=1)` gives the likeliest of the classes that pass, and -1 where none
        does.""",
        """With `best, other` as above, the margins are `best - probabilities[range(len(labels)), labels]`. Of the
        images with `(other != labels) & (best >= 0)` return the positions, by
        `margins[found].argsort(descending=True)`.""",
    ],
    mistakes={
        "every image is listed that the network would label otherwise; asked for are those where it is at least as "
        "sure as it is on average of that class":
            _list(thresholds=lambda probabilities, labels: torch.zeros(probabilities.shape[1])),
        "only the likeliest class of all is held against its threshold; asked for is the likeliest of those that pass":
            _likeliest_is_sure,
        "the threshold is the mean of a class over all images; asked for is that over the images with its label":
            _list(thresholds=lambda probabilities, labels: probabilities.mean(0)),
        "one threshold is used for all classes; each has its own":
            _list(thresholds=lambda probabilities, labels: _own(probabilities, labels).mean()),
        "the threshold is the median; the mean is asked for":
            _list(thresholds=lambda probabilities, labels: torch.stack(
                [probabilities[labels == c, c].median() for c in range(probabilities.shape[1])])),
        "the threshold is one half, whatever the network is like":
            _list(thresholds=lambda probabilities, labels: torch.full((probabilities.shape[1],), 0.5)),
        "the classes below their thresholds are taken; asked for are those that reach them":
            _list(sure=lambda probabilities, thresholds: probabilities < thresholds),
        "an image where no class reaches its threshold is listed; of it nothing is said":
            _list(keeps=lambda best, other, labels: (other != labels) | (best < 0)),
        "the images whose label is NOT disputed are listed":
            _list(keeps=lambda best, other, labels: (other == labels) & (best >= 0)),
        "the least sure ones come first; the largest margin is to be the first":
            _list(order=lambda best, own: best - own),
        "they come in the order of the probability of the other class; asked for is that of the margin":
            _list(order=lambda best, own: -best),
        "they come in the order of the probability of the label; asked for is that of the margin":
            _list(order=lambda best, own: own),
        "they come in the order of the images; the largest margin is to be the first":
            _list(ordered=False),
        MASK: lambda probabilities, labels: [place in _list()(probabilities, labels) for place in range(len(labels))],
        NO_LIST: lambda probabilities, labels: set(_list()(probabilities, labels)),
        BEYOND: lambda probabilities, labels: [place + len(labels) for place in _list()(probabilities, labels)],
        TWICE: lambda probabilities, labels: 2 * _list()(probabilities, labels),
    },
)  # fmt: skip
def disputed_labels(probabilities, labels):
    """Which labels does a network dispute? The threshold of a class is its mean probability over the images that have
    its label. An image is disputed where, among the classes whose probability reaches their threshold, the likeliest
    one is not its label. Where no class reaches its threshold, nothing is said.

    probabilities: (images, classes), of a network that was not trained on these images; labels: (images,), each class
    being the label of some. Returns a list of positions, in the order of p(the other class) - p(label), largest first.
    """
    # --- your code
    thresholds = torch.stack([probabilities[labels == c, c].mean() for c in range(probabilities.shape[1])])
    best, other = torch.where(probabilities >= thresholds, probabilities, -1.0).max(dim=1)
    margins = best - probabilities[range(len(labels)), labels]
    found = torch.nonzero((other != labels) & (best >= 0))[:, 0]
    return found[margins[found].argsort(descending=True)].tolist()
    # --- end
