"""Labels that a trained network disputes."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from kdlib._checks import checked
from kdlib._checks import logits as logits_rule
from kdlib.data.splits import ImageSplit, is_split


@checked(logits=logits_rule, split=is_split)
def disputed(
    logits: Float[Tensor, "n classes"], split: ImageSplit, classes: list[str] | None = None
) -> pd.DataFrame:
    """The images whose label the logits dispute, the surest first.

        t[j] = the mean of p(j | image) over the images labelled j          how sure it is where the label says j
        J    = the classes j with p(j | image) >= t[j];  an image is disputed where the likeliest class in J is
               another one than its label (where J is empty, nothing is said of it)

    Confident learning: C. G. Northcutt, L. Jiang, I. L. Chuang 2021 (arXiv 1911.00068), its joint of labels and
    classes, of which these are the images off the diagonal; here in the order of p(that class) - p(label).

    The logits must be OUT OF SAMPLE: of a network that has not been trained on these images, as one that has may have
    learned their wrong labels by heart. Those of a cross-validation are; those of a teacher on its own training images
    are not.

    Args:
        logits: a row for each image of `split`.
        split: images with one class each.
        classes: their names; where not given, numbers.

    Returns:
        A table of `row` (in the split), `label`, `other` (the class in dispute), `p_label`, `p_other`, `margin`.

    Raises:
        ValueError: logits of another number of images or too few classes, or images of several labels.
    """
    if not split.has_classes:
        raise ValueError("split must have one class an image, got labels for each class")
    labels = split.labels
    if len(logits) != len(labels) or int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"logits must have a row for each of the {len(labels)} images and a column for each class (the highest "
            f"label is {int(labels.max())}), got shape {tuple(logits.shape)}"
        )
    probabilities = logits.double().softmax(dim=1)
    sums = torch.zeros(logits.shape[1], logits.shape[1], dtype=torch.float64).index_add_(
        0, labels, probabilities
    )
    counts = labels.bincount(minlength=logits.shape[1])
    thresholds = torch.where(counts > 0, sums.diagonal() / counts.clamp(min=1), torch.inf)
    confident = probabilities.masked_fill(probabilities < thresholds, -1)
    best, others = confident.max(dim=1)
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    rows = torch.nonzero((best >= 0) & (others != labels))[:, 0]
    rows = rows[(best - of_label)[rows].argsort(descending=True, stable=True)]
    named = list(range(logits.shape[1])) if classes is None else classes
    return pd.DataFrame({
        "row": rows.tolist(),
        "label": [named[label] for label in labels[rows]],
        "other": [named[other] for other in others[rows]],
        "p_label": of_label[rows].tolist(),
        "p_other": best[rows].tolist(),
        "margin": (best - of_label)[rows].tolist(),
    })  # fmt: skip
