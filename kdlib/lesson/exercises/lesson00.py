"""The exercise of lesson 00, small enough to learn how exercises work.

The function carries no annotations, because its text is the stub that a learner reads.
"""

import torch

from kdlib.lesson.exercises import _inputs
from kdlib.lesson.exercises._core import exercise


def _share_correct_cases():
    eight_of_ten = _inputs.logits(0, 10, 4).argmax(dim=1)
    eight_of_ten[:2] = (eight_of_ten[:2] + 1) % 4
    square = 2.0 * torch.eye(4) + _inputs.logits(3, 4, 4, scale=0.1)
    return [
        (_inputs.logits(0, 10, 4), eight_of_ten),
        (_inputs.logits(1, 6, 3), torch.tensor([2, 0, 1, 1, 0, 2])),
        (_inputs.logits(2, 5, 5), torch.tensor([4, 1, 0, 3, 2])),
        (square, torch.tensor([0, 1, 3, 3])),
    ]


def _hits(logits, labels):
    return logits.argmax(dim=1) == labels


@exercise(
    cases=_share_correct_cases,
    hints=[
        "For each image, which class has the largest logit? Compare that class with the label.",
        "`logits.argmax(dim=1)` gives one class an image. `==` with the labels gives True or False an image.",
        "Turn True and False into 1 and 0 with `.float()`, and take the `.mean()`.",
    ],
    mistakes={
        "these are percent; a fraction between 0 and 1 is asked for":
            lambda logits, labels: 100 * _hits(logits, labels).float().mean(),
        "this is the number of right images; divide it by the number of images":
            lambda logits, labels: _hits(logits, labels).sum(),
        "this is the share of wrong images; the share of right ones is asked for":
            lambda logits, labels: 1 - _hits(logits, labels).float().mean(),
        "dim=0 runs over the images; the largest logit is sought among the classes, dim=1":
            lambda logits, labels: (logits.argmax(dim=0) == labels).float().mean(),
        "the label is compared with the largest logit itself; compare it with that logit's class (argmax)":
            lambda logits, labels: (logits.max(dim=1).values == labels).float().mean(),
        "True or False an image is only half the way: take their mean":
            _hits,
    },
)  # fmt: skip
def share_correct(logits, labels):
    """The fraction of images whose largest logit is that of their label.

    logits: (images, classes); labels: (images,), whole numbers. Returns a number between 0 and 1.
    """
    # --- your code
    predicted = logits.argmax(dim=1)
    return (predicted == labels).float().mean()
    # --- end
