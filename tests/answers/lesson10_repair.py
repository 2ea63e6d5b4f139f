"""Answers to the repair of lesson 10: steps of a teacher and a student side by side."""

import torch
import torch.nn.functional as F

from answers import Answers

# ------------------------------------------------------------------ right


def one_way_back(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    said = teacher(torch.cat([images, images, images], dim=1)).narrow(1, 0, 10)
    own = student(images)
    teacher_loss = F.cross_entropy(said, labels)
    student_loss = F.cross_entropy(own, labels) + (own - said.detach()).pow(2).sum() / 10
    for optimizer in (teacher_optimizer, student_optimizer):
        optimizer.zero_grad(set_to_none=False)
    torch.autograd.backward([teacher_loss, student_loss])
    student_optimizer.step()
    teacher_optimizer.step()
    return [float(teacher_loss), float(student_loss)]


def student_first(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    """The teacher is asked twice, and gradients are cleared when they have been used."""
    colour = images.expand(-1, 3, -1, -1)
    with torch.no_grad():
        targets = teacher(colour)[:, :10]
    own = student(images)
    student_loss = F.nll_loss(own.log_softmax(1), labels) + 0.1 * torch.dist(own, targets) ** 2
    student_loss.backward()
    student_optimizer.step()
    teacher_loss = F.nll_loss(teacher(colour)[:, :10].log_softmax(1), labels)
    teacher_loss.backward()
    teacher_optimizer.step()
    student_optimizer.zero_grad()
    teacher_optimizer.zero_grad()
    return teacher_loss.item(), student_loss.item()


def by_single_gradients(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    """The teacher's logits keep their graph, and nobody asks it for the gradient of the student's loss."""
    said = teacher(images.repeat_interleave(3, dim=1))[..., :10]
    own = student(images)
    teacher_loss = F.cross_entropy(said, labels)
    student_loss = F.cross_entropy(own, labels) + 0.1 * F.mse_loss(own, said, reduction="sum")
    for network, loss in ((student, student_loss), (teacher, teacher_loss)):
        parts = [*network.parameters()]
        for part, gradient in zip(parts, torch.autograd.grad(loss, parts, retain_graph=True), strict=True):
            part.grad = gradient
    teacher_optimizer.step()
    student_optimizer.step()
    return teacher_loss.item(), student_loss.item()


# ------------------------------------------------------------------ wrong


def partly_repaired(*, channels=True, ten=True, retain=False, before_steps=False):
    """The program as it was found, with some of its faults mended, the last one by retain_graph at the most."""

    def step(teacher, student, teacher_optimizer, student_optimizer, images, labels):
        said = teacher(images.repeat(1, 3, 1, 1) if channels else images)
        said = said[:, :10] if ten else said
        teacher_loss = F.cross_entropy(said, labels)
        teacher_optimizer.zero_grad()
        teacher_loss.backward(retain_graph=retain)
        if not before_steps:
            teacher_optimizer.step()
        own = student(images)
        student_loss = F.cross_entropy(own, labels) + 0.1 * ((own - said) ** 2).sum()
        student_optimizer.zero_grad()
        student_loss.backward()
        if before_steps:
            teacher_optimizer.step()
        student_optimizer.step()
        return teacher_loss.item(), student_loss.item()

    return step


def asked_again(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    """The targets are those of the teacher after its step."""
    colour = images.repeat(1, 3, 1, 1)
    teacher_loss = learned(teacher, teacher_optimizer, F.cross_entropy(teacher(colour)[:, :10], labels))
    with torch.no_grad():
        targets = teacher(colour)[:, :10]
    own = student(images)
    return teacher_loss, learned(
        student, student_optimizer, F.cross_entropy(own, labels) + 0.1 * ((own - targets) ** 2).sum()
    )


def learned(network, optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def mended(student_loss=None, *, colour=None, teachers_part=None, outputs=None, steps="both", clears="both"):
    """A repaired program. student_loss(own, targets, labels); outputs(all the teacher's logits) gives its targets."""

    def step(teacher, student, teacher_optimizer, student_optimizer, images, labels):
        optimizers = {"teacher": teacher_optimizer, "student": student_optimizer}
        everything = teacher(images.repeat(1, 3, 1, 1) if colour is None else colour(images))
        of_teacher = F.cross_entropy(
            everything[:, :10] if teachers_part is None else teachers_part(everything), labels
        )
        targets = (everything[:, :10] if outputs is None else outputs(everything)).detach()
        of_student = (summed if student_loss is None else student_loss)(student(images), targets, labels)
        for name, optimizer in optimizers.items():
            if clears in ("both", name):
                optimizer.zero_grad()
        of_teacher.backward()
        of_student.backward()
        for name, optimizer in optimizers.items():
            if steps in ("both", name):
                optimizer.step()
        return of_teacher.item(), of_student.item()

    return step


def summed(own, targets, labels):
    return F.cross_entropy(own, labels) + 0.1 * ((own - targets) ** 2).sum()


def filled_up(own, targets, labels):
    all_own = torch.cat([own, own.new_zeros(len(own), 990)], dim=1)
    return F.cross_entropy(own, labels) + 0.1 * ((all_own - targets) ** 2).sum()


def another_first_layer(teacher, student, teacher_optimizer, student_optimizer, images, labels):
    """The teacher's first layer is made to take grey images."""
    first = teacher[0]
    if first.weight.shape[1] == 3:
        first.weight = torch.nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    return mended(colour=lambda grey: grey)(
        teacher, student, teacher_optimizer, student_optimizer, images, labels
    )


def only_black(images):
    return torch.cat([images, torch.zeros_like(images), torch.zeros_like(images)], dim=1)


def as_tensors(*given):
    return torch.tensor(one_way_back(*given)).unbind()


REPAIR_CO_TRAINING = Answers(
    wrong={
        "It still does what it did when you got it": partly_repaired(channels=False, ten=False),
        "find the bug": partly_repaired(channels=False),
        "must match the size of tensor b (1000)": partly_repaired(ten=False),
        "Trying to backward through the graph a second time": partly_repaired(),
        "modified by an inplace operation": partly_repaired(retain=True),
        "the student's loss sends a gradient into the teacher": partly_repaired(retain=True, before_steps=True),
        "the gradient stops at the student's logits": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * ((own.detach() - targets) ** 2).sum())),
        "the targets come from the teacher after its step": asked_again,
        "the teacher sees the image in one of its channels": mended(colour=only_black),
        "a third of the image": mended(colour=lambda images: images.div(3).expand(-1, 3, -1, -1)),
        "the teacher's last ten outputs": mended(outputs=lambda everything: everything[:, -10:]),
        "the teacher's cross-entropy goes over all its outputs": mended(teachers_part=lambda everything: everything),
        "its own being filled up": mended(filled_up, outputs=lambda everything: everything),
        "the mean of the squared differences": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * ((own - targets) ** 2).mean())),
        "divided by the number of images": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * ((own - targets) ** 2).sum(1).mean())),
        "the square root of the sum": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * torch.norm(own - targets))),
        "the differences are not squared": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * F.l1_loss(own, targets, reduction="sum"))),
        "probabilities are compared": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.1 * (F.softmax(own, 1) - F.softmax(targets, 1)).pow(2).sum())),
        "lack their factor": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + ((own - targets) ** 2).sum())),
        "before the student's cross-entropy too": mended(lambda own, targets, labels: (
            0.1 * (F.cross_entropy(own, labels) + ((own - targets) ** 2).sum()))),
        "the student does not learn from the labels": mended(lambda own, targets, labels: (
            0.1 * ((own - targets) ** 2).sum())),
        "the student does not learn from the teacher": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels))),
        "the teacher does not learn": mended(steps="student"),
        "the student does not learn: its optimizer makes no step": mended(steps="teacher"),
        "no gradients are cleared": mended(clears=""),
        "the teacher's gradients are not cleared": mended(clears="student"),
        "the student's gradients are not cleared": mended(clears="teacher"),
        "the losses come back in the wrong order": lambda *given: one_way_back(*given)[::-1],
        "two numbers are asked for": lambda *given: sum(one_way_back(*given)),
        "the losses come back as tensors": as_tensors,
        "the weights of a network have another shape": another_first_layer,
        "the student's loss in the first step contains": mended(lambda own, targets, labels: (
            F.cross_entropy(own, labels) + 0.3 * ((own - targets) ** 2).sum())),
    },
    right=[one_way_back, student_first, by_single_gradients],
)  # fmt: skip
