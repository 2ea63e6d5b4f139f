"""Exercise of lesson 11: a teacher that is asked in a wrong way, to be repaired.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstring.
"""

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import Complaint, is_unfinished

NO_TENSOR = "what comes back is no tensor"
NOT_LOGITS = "what comes back is no table of logits, a row an image"


class _Small(nn.Module):
    """A teacher with batch norm and dropout, as it comes out of its training: in training mode."""

    def __init__(self, seed):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(6, 4),
        )  # fmt: skip
        random = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=random)
        norm = self.layers[1]
        norm.running_mean = torch.randn(6, generator=random)
        norm.running_var = 0.5 + torch.rand(6, generator=random)

    def forward(self, images):
        return self.layers(images)


def _channels(*numbers):
    return torch.tensor(numbers).view(3, 1, 1)


def _questions():
    """(network, images, size, mean, std, student_mean, student_std): larger, smaller, and as the teacher sees them."""
    own = (_channels(0.48, 0.46, 0.41), _channels(0.23, 0.22, 0.24))
    students = (_channels(0.31, 0.62, 0.5), _channels(0.4, 0.11, 0.3))
    return [
        (seed, _pictures(seed, side), size, *own, *students)
        for seed, side, size in ((0, 12, 20), (1, 24, 16), (2, 9, 9))
    ]


def _pictures(seed, side):
    random = torch.Generator().manual_seed(100 + seed)
    return torch.randint(0, 256, (5, 3, side, side), generator=random).to(torch.uint8)


def _asked(function, seed, *given):
    """Probe: its answers, in one batch and image by image, and what the asking has changed in the network."""
    network = _Small(seed)
    before = [number.clone() for number in network.state_dict().values()]
    torch.manual_seed(seed)
    logits = function(network, *given)
    if is_unfinished(logits):
        return logits
    if not isinstance(logits, torch.Tensor):
        raise Complaint(NO_TENSOR)
    if logits.ndim != 2 or len(logits) != len(given[0]):
        raise Complaint(NOT_LOGITS)
    pairs = zip(before, network.state_dict().values(), strict=True)
    changed = sum(not torch.equal(old, new) for old, new in pairs)
    return {
        "table of logits": logits,
        "number of tensors that the asking has changed in the network": changed,
        "number of gradients that the logits ask for": int(logits.requires_grad),
    }


def _as_found(network, images, size, mean, std, student_mean, student_std):
    # --- your code
    pixels = F.interpolate(images / 255, (size, size), mode="bilinear", antialias=True)
    pixels = (pixels - student_mean) / student_std
    return network(pixels)
    # --- end


def _answers(
    *,
    mode=lambda network: network.eval(),
    scaled=lambda images, size: F.interpolate(images / 255, (size, size), mode="bilinear", antialias=True),
    normalised=lambda pixels, mean, std, student_mean, student_std: (pixels - mean) / std,
    graph=False,
    returned=lambda logits: logits,
):
    """The solution, but for what it is told."""

    def ask(network, images, size, mean, std, student_mean, student_std):
        mode(network)
        with torch.set_grad_enabled(graph):
            pixels = normalised(scaled(images, size), mean, std, student_mean, student_std)
            return returned(network(pixels))

    return ask


def _students(pixels, mean, std, student_mean, student_std):
    return (pixels - student_mean) / student_std


def _stays(network):
    return network


@exercise(
    cases=_questions,
    probe=_asked,
    start=_as_found,
    hints=[
        """Follow an image from the file to the logits, and ask at each line: is this what the teacher was trained on?
        Then ask twice for the same image, once alone and once beside others: is it the same answer?""",
        """There are three things to mend. The numbers in the second line belong to somebody else. A network has two
        modes, and comes out of its training in the wrong one for this. And whoever is only asked needs no gradient.""",
        """`network.eval()`; `with torch.no_grad():` around the rest; and `(pixels - mean) / std`.""",
    ],
    mistakes={
        "the network answers in training mode: it normalises each image by the others of its batch, drops some "
        "numbers at random, and asking moves its statistics": _answers(mode=_stays),
        "the network answers in training mode, and leaves a graph for gradients behind it":
            _answers(mode=_stays, graph=True),
        "the images are normalised by the student's mean and std; the teacher has its own":
            _answers(normalised=_students),
        "the images are normalised by the student's mean and std, and a graph for gradients is left behind":
            _answers(normalised=_students, graph=True),
        "the images are normalised by the student's mean and std, and the network answers in training mode":
            _answers(normalised=_students, mode=_stays),
        "the logits come with a graph for gradients, which holds all of the teacher's features in memory":
            _answers(graph=True),
        "the mean is the teacher's and the std the student's: both are to be the teacher's":
            _answers(normalised=lambda pixels, mean, std, student_mean, student_std: (pixels - mean) / student_std),
        "the std is the teacher's and the mean the student's: both are to be the teacher's":
            _answers(normalised=lambda pixels, mean, std, student_mean, student_std: (pixels - student_mean) / std),
        "the images are normalised twice, by the teacher's and by the student's numbers":
            _answers(normalised=lambda pixels, mean, std, *of_student: (
                _students((pixels - mean) / std, None, None, *of_student))),
        "the mean and the std are exchanged":
            _answers(normalised=lambda pixels, mean, std, *_: (pixels - std) / mean),
        "nothing is normalised":
            _answers(normalised=lambda pixels, *_: pixels),
        "the pixels go from 0 to 255, and the mean and std are for pixels from 0 to 1":
            _answers(scaled=lambda images, size: (
                F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True))),
        "the images are not scaled to the size that the teacher was trained with":
            _answers(scaled=lambda images, size: images / 255),
        "probabilities come back; logits are asked for":
            _answers(returned=lambda logits: logits.softmax(1)),
        NOT_LOGITS: _answers(returned=lambda logits: logits.argmax(1)),
        NO_TENSOR: _answers(returned=lambda logits: logits.tolist()),
    },
)  # fmt: skip
def repair_teacher_answers(network, images, size, mean, std, student_mean, student_std):
    """Repair: what a finished teacher says of photographs, so that it can be kept and given to a student.

    network: the teacher, as it comes out of its training, which was on images of size x size normalised by its own mean
    and std, (3, 1, 1) each, for pixels from 0 to 1. images: uint8 (batch, 3, height, width), which the student sees
    normalised by student_mean and student_std. Returns logits (batch, classes) without gradients. What is said of an
    image does not depend on the others, and asking changes nothing that the teacher has learned.
    """
    # --- your code
    network.eval()
    with torch.no_grad():
        pixels = F.interpolate(images / 255, (size, size), mode="bilinear", antialias=True)
        pixels = (pixels - mean) / std
        return network(pixels)
    # --- end
