"""Training loops as they were found in public code, in our own lines, and mended.

All loops have the same bones: `batches` gives (epoch, number of the batch in its epoch, positions of its images), and
`step` takes one step of the optimizer. Images are normalised tensors; `loss` is a function of student's and teacher's
logits.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Images = Float[Tensor, "n channels height width"]
Positions = Int[Tensor, "batch"]
Loss = Callable[[Tensor, Tensor], Tensor]


def batches(
    images: int, epochs: int, seed: int, batch_size: int = 32
) -> Iterator[tuple[int, int, Positions]]:
    """All batches of a training: every epoch goes through the images in another order."""
    random = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        order = torch.randperm(images, generator=random)
        for number, positions in enumerate(order.split(batch_size)):
            yield epoch, number, positions


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# ------------------------------------------------------------------ the cache


def cache_as_found(student, teacher, images, loss, optimizer, all_batches) -> None:
    stored = {}
    for _, number, positions in all_batches:
        if number not in stored:
            with torch.no_grad():
                stored[number] = teacher(images[positions])
        step(optimizer, loss(student(images[positions]), stored[number]))


def cache_mended(student, teacher, images, loss, optimizer, all_batches) -> None:
    with torch.no_grad():
        stored = teacher(images)
    for _, _, positions in all_batches:
        step(optimizer, loss(student(images[positions]), stored[positions]))


# ------------------------------------------------------------------ the teacher's mode


def mode_as_found(student, teacher, images, loss, optimizer, all_batches) -> None:
    both = nn.ModuleDict({"student": student, "teacher": teacher})
    both.train()
    for _, _, positions in all_batches:
        with torch.no_grad():
            answers = teacher(images[positions])
        step(optimizer, loss(student(images[positions]), answers))


def mode_mended(student, teacher, images, loss, optimizer, all_batches) -> None:
    both = nn.ModuleDict({"student": student, "teacher": teacher})
    both.train()
    teacher.eval()
    for _, _, positions in all_batches:
        with torch.no_grad():
            answers = teacher(images[positions])
        step(optimizer, loss(student(images[positions]), answers))


# ------------------------------------------------------------------ the best weights


def best_as_found(student, one_epoch, validate, epochs: int) -> float:
    best, highest = None, -1.0
    for epoch in range(epochs):
        one_epoch(student, epoch)
        accuracy = validate(student)
        if accuracy > highest:
            best, highest = student.state_dict(), accuracy
    student.load_state_dict(best)
    return highest


def best_mended(student, one_epoch, validate, epochs: int) -> float:
    best, highest = None, -1.0
    for epoch in range(epochs):
        one_epoch(student, epoch)
        accuracy = validate(student)
        if accuracy > highest:
            best, highest = copy.deepcopy(student.state_dict()), accuracy
    student.load_state_dict(best)
    return highest


# ------------------------------------------------------------------ the adversary


def harder(images: Images, student: nn.Module, teacher: nn.Module, size: float) -> Images:
    """The images, moved by `size` in each pixel towards where student and teacher disagree more."""
    images = images.detach().requires_grad_()
    student.eval()  # its batch norm must not learn from a look
    disagreement = (student(images) - teacher(images)).abs().mean()
    (gradient,) = torch.autograd.grad(disagreement, images)
    return (images + size * gradient.sign()).detach()


def adversary_as_found(student, teacher, images, loss, optimizer, all_batches, size) -> None:
    for _, _, positions in all_batches:
        moved = harder(images[positions], student=teacher, teacher=teacher, size=size)
        with torch.no_grad():
            answers = teacher(moved)
        step(optimizer, loss(student.train()(moved), answers))


def adversary_mended(student, teacher, images, loss, optimizer, all_batches, size) -> None:
    for _, _, positions in all_batches:
        moved = harder(images[positions], student=student, teacher=teacher, size=size)
        with torch.no_grad():
            answers = teacher(moved)
        step(optimizer, loss(student.train()(moved), answers))


# ------------------------------------------------------------------ the split


def report_as_found(train, accuracy, splits) -> float:
    student = train(splits["validation"])
    return accuracy(student, splits["validation"])


def report_mended(train, accuracy, splits) -> float:
    student = train(splits["train"])
    return accuracy(student, splits["validation"])


# ------------------------------------------------------------------ two networks at once


def together_as_found(student, teacher, images, labels, optimizers, all_batches) -> None:
    for _, _, positions in all_batches:
        seen, truth = images[positions], labels[positions]
        of_student, of_teacher = student(seen), teacher(seen)
        step(optimizers["teacher"], F.cross_entropy(of_teacher, truth))
        apart = ((of_student - of_teacher) ** 2).sum()
        step(optimizers["student"], F.cross_entropy(of_student, truth) + 0.1 * apart)


def together_mended(student, teacher, images, labels, optimizers, all_batches) -> None:
    for _, _, positions in all_batches:
        seen, truth = images[positions], labels[positions]
        of_student = student(seen)
        of_teacher = teacher(seen.expand(-1, 3, -1, -1))[:, : of_student.shape[1]]
        step(optimizers["teacher"], F.cross_entropy(of_teacher, truth))
        apart = ((of_student - of_teacher.detach()) ** 2).sum()
        step(optimizers["student"], F.cross_entropy(of_student, truth) + 0.1 * apart)


# ------------------------------------------------------------------ a temperature that is learned


def learned_temperature(student, teacher, images, optimizer, all_batches, decay) -> float:
    """A student beside a temperature that is trained against it: its gradient is multiplied by `decay(epoch)`."""
    raw = torch.zeros(1, requires_grad=True)
    of_temperature = torch.optim.SGD([raw], lr=0.05)
    with torch.no_grad():
        stored = teacher(images)
    for epoch, _, positions in all_batches:
        temperature = 1 + 20 * raw.sigmoid()
        loss = _soft_targets(student(images[positions]), stored[positions], temperature)
        of_temperature.zero_grad()
        step(optimizer, loss)
        raw.grad *= decay(epoch)
        of_temperature.step()
    return 1 + 20 * raw.detach().sigmoid().item()


def _soft_targets(student_logits: Tensor, teacher_logits: Tensor, temperature: Tensor) -> Tensor:
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits / temperature, dim=1)
    return temperature.squeeze() ** 2 * F.kl_div(log_q, p, reduction="batchmean")
