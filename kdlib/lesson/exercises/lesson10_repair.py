"""Exercise of lesson 10: a program that cannot run, for more reasons than one, to be repaired.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstring.
"""

import re

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.lesson.exercises import _descent
from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import Complaint, is_unfinished

MADE_UP, OPTIMIZER = "a small one", "SGD"  # both networks and their optimizers, as messages name them

# ------------------------------------------------------------------ two steps

NOT_TWO = "two numbers are asked for, the teacher's loss and the student's, in this order"
TENSORS = "the losses come back as tensors, which hold the graph of the step: .item() makes numbers of them"
OTHER_LAYERS = "the weights of a network have another shape than before: the networks stay as they are"


def _batches():
    _descent.load_optimizers()
    return [_batch(0, 6), _batch(1, 5)]


def _batch(seed, images):
    pixels = logits(seed, images, 16, scale=1.0).view(images, 1, 4, 4)
    return MADE_UP, MADE_UP, OPTIMIZER, OPTIMIZER, pixels, (7 * torch.arange(images) + 2) % 10


def _weights_after_two_steps(step, *given):
    """Probe: both losses and how both networks have moved, after one step and after another on the mirrored images."""
    *_, images, labels = given
    torch.manual_seed(len(images))
    networks = {
        # Of two layers: the way back through a teacher that has made its step stops with an error, as in a large one.
        "teacher": nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1000)
        ),
        "student": nn.Sequential(nn.Flatten(), nn.Linear(16, 10)),
    }
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.05) for network in networks.values()]
    before = {name: _weights(network) for name, network in networks.items()}
    seen = {}
    for when, shown in (("first", images), ("second", images.flip(-1))):
        losses = _without_an_error(step, *networks.values(), *optimizers, shown, labels)
        if is_unfinished(losses):
            return losses
        of_step = _two_numbers(losses)
        for (name, network), loss in zip(networks.items(), of_step, strict=True):
            after = _weights(network)
            if after.shape != before[name].shape:
                raise Complaint(OTHER_LAYERS)
            seen[f"{name}'s loss in the {when} step"] = loss
            seen[f"list of changes of the {name}'s weights up to the {when} step"] = after - before[name]
    return seen


def _without_an_error(step, *given):
    """What it returns. A RuntimeError is told by what it says: this program has more than one."""
    try:
        return step(*given)
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # NotImplementedError, RecursionError
            raise
        first_sentence = re.split(r"\. |\n", str(error))[0]
        raise Complaint(f"it stops with 'RuntimeError: {first_sentence}'") from error


def _two_numbers(losses):
    if not isinstance(losses, tuple | list) or len(losses) != 2:
        raise Complaint(NOT_TWO)
    if any(isinstance(loss, torch.Tensor) for loss in losses):
        raise Complaint(TENSORS)
    return losses


def _weights(network):
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


# ------------------------------------------------------------------ mistakes


def _in_each_channel(images):
    return images.repeat(1, 3, 1, 1)


def _in_one_channel(images):
    return F.pad(images, (0, 0, 0, 0, 0, 2))


def _squares(student, teacher):
    return (student - teacher).square().sum()


def _student_loss(student, teacher, labels):
    return F.cross_entropy(student, labels) + 0.1 * _squares(student, teacher)


def _padded(student):
    return F.pad(student, (0, 990))


def _step(
    *,
    seen=_in_each_channel,
    classes=slice(0, 10),
    of_teacher=lambda all_logits, labels: F.cross_entropy(all_logits[:, :10], labels),
    of_student=_student_loss,
    all_targets=False,
    connected=False,
    late=False,
    moving=(True, True),
    cleared=(True, True),
    returned=lambda of_teacher, of_student: (of_teacher.item(), of_student.item()),
):
    """The repaired step, but for what it is told.

    Args:
        seen: what the teacher sees of the images.
        classes: the teacher's outputs that are targets.
        of_teacher, of_student: the losses.
        all_targets: whether all outputs of the teacher are handed to the student's loss.
        connected: whether the student's loss reaches into the teacher.
        late: whether the targets are asked for when the teacher has made its step.
        moving: whether the teacher makes its step, and the student.
        cleared: whether the gradients of the last step are cleared, of both.
        returned: makes the result of both losses.
    """

    def step(teacher, student, teacher_optimizer, student_optimizer, images, labels):
        optimizers = teacher_optimizer, student_optimizer
        for optimizer, clears in zip(optimizers, cleared, strict=True):
            if clears:
                optimizer.zero_grad()
        all_logits = teacher(seen(images))
        teacher_loss = of_teacher(all_logits, labels)
        if late:
            teacher_loss.backward()
            teacher_optimizer.step()
            all_logits, teacher_loss = teacher(seen(images)), teacher_loss.detach()
        targets = all_logits if all_targets else all_logits[:, classes]
        student_loss = of_student(student(images), targets if connected else targets.detach(), labels)
        (teacher_loss + student_loss).backward()
        for optimizer, moves in zip(optimizers, moving, strict=True):
            if moves and not (late and optimizer is teacher_optimizer):
                optimizer.step()
        return returned(teacher_loss, student_loss)

    return step


def _as_found(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    # --- your code
    teacher_logits = teacher(images)
    teacher_loss = F.cross_entropy(teacher_logits, labels)
    teacher_optimizer.zero_grad()
    teacher_loss.backward()
    teacher_optimizer.step()

    student_logits = student(images)
    distance = ((student_logits - teacher_logits) ** 2).sum()
    student_loss = F.cross_entropy(student_logits, labels) + 0.1 * distance
    student_optimizer.zero_grad()
    student_loss.backward()
    student_optimizer.step()
    return teacher_loss.item(), student_loss.item()
    # --- end


def _with_loss(loss):
    """loss(student_logits, targets, labels)"""
    return _step(of_student=loss)


@exercise(
    cases=_batches,
    probe=_weights_after_two_steps,
    start=_as_found,
    hints=[
        """Run it and read the last line of the error; mend that, and run it again. Write down the shape of everything
        on the way. And when it runs: does each network learn from its own loss alone?""",
        """The first two errors are about shapes: what does the teacher take, and which of its outputs has the student
        an answer for? For the third, follow the student's loss backwards: where should its way end?""",
        """`teacher_logits = teacher(images.repeat(1, 3, 1, 1))[:, :10]`, and the student is compared with
        `teacher_logits.detach()`, which ends the way back into the teacher.""",
    ],
    mistakes={
        "the student's loss sends a gradient into the teacher: .detach() makes targets of the teacher's logits":
            _step(connected=True),
        "the gradient stops at the student's logits, so that it learns nothing from the teacher: .detach() belongs on "
        "the targets":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * _squares(z.detach(), v)),
        "the targets come from the teacher after its step: those that it gave before are asked for":
            _step(late=True),
        "the teacher sees the image in one of its channels; it is to see it in all three":
            _step(seen=_in_one_channel),
        "each of the three channels has a third of the image; each is to have the image as it is":
            _step(seen=lambda images: _in_each_channel(images) / 3),
        "the teacher's last ten outputs are compared; its classes are the first ten":
            _step(classes=slice(990, 1000)),
        "the teacher's cross-entropy goes over all its outputs; its logits are the first ten":
            _step(of_teacher=F.cross_entropy),
        "the student is compared with all 1,000 outputs, its own being filled up: the first ten are the classes":
            _step(all_targets=True, of_student=lambda z, v, y: (
                F.cross_entropy(z, y) + 0.1 * _squares(_padded(z), v))),
        "the mean of the squared differences; their sum is asked for":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * F.mse_loss(z, v)),
        "the sum of the squared differences is divided by the number of images; it is asked for as it is":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * _squares(z, v) / len(y)),
        "the square root of the sum is taken; the sum of the squared differences is asked for":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * _squares(z, v).sqrt()),
        "the differences are not squared":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * (z - v).abs().sum()),
        "probabilities are compared; the squared differences of logits are asked for":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + 0.1 * _squares(z.softmax(1), v.softmax(1))),
        "the squared differences lack their factor, 0.1":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y) + _squares(z, v)),
        "the factor 0.1 stands before the student's cross-entropy too":
            _with_loss(lambda z, v, y: 0.1 * F.cross_entropy(z, y) + 0.1 * _squares(z, v)),
        "the student does not learn from the labels: its cross-entropy is missing":
            _with_loss(lambda z, v, y: 0.1 * _squares(z, v)),
        "the student does not learn from the teacher: the squared differences are missing":
            _with_loss(lambda z, v, y: F.cross_entropy(z, y)),
        "the teacher does not learn: it has a loss and an optimizer of its own":
            _step(moving=(False, True)),
        "the student does not learn: its optimizer makes no step":
            _step(moving=(True, False)),
        "no gradients are cleared, so that those of both steps add up in the second":
            _step(cleared=(False, False)),
        "the teacher's gradients are not cleared, so that those of both steps add up in the second":
            _step(cleared=(False, True)),
        "the student's gradients are not cleared, so that those of both steps add up in the second":
            _step(cleared=(True, False)),
        "the losses come back in the wrong order: the teacher's is the first":
            _step(returned=lambda of_teacher, of_student: (of_student.item(), of_teacher.item())),
        NOT_TWO: _step(returned=lambda of_teacher, of_student: (of_teacher + of_student).item()),
        TENSORS: _step(returned=lambda *losses: losses),
    },
)  # fmt: skip
def repair_co_training(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    """Repair: a step in which teacher and student learn side by side, each from its own loss alone. The teacher, made
    for colour images, sees a grey one in all three of its channels. Its first ten outputs are its logits.

    The teacher's loss is cross-entropy with the labels; the student's is cross-entropy + 0.1 * the sum, over images and
    classes, of the squared differences from the logits that the teacher gave before this step changed it. Each
    optimizer makes one step with the gradient of this batch. images: (batch, 1, height, width); labels: (batch,);
    teacher((batch, 3, height, width)): (batch, 1000); student(images): (batch, 10). Returns both losses, two floats.
    """
    # --- your code
    teacher_logits = teacher(images.repeat(1, 3, 1, 1))[:, :10]
    teacher_loss = F.cross_entropy(teacher_logits, labels)
    teacher_optimizer.zero_grad()
    teacher_loss.backward()
    teacher_optimizer.step()

    student_logits = student(images)
    distance = ((student_logits - teacher_logits.detach()) ** 2).sum()
    student_loss = F.cross_entropy(student_logits, labels) + 0.1 * distance
    student_optimizer.zero_grad()
    student_loss.backward()
    student_optimizer.step()
    return teacher_loss.item(), student_loss.item()
    # --- end
