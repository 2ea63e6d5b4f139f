"""Answers to the exercises of lesson 10."""

import torch

from answers import Answers
from answers.lesson10_repair import REPAIR_CO_TRAINING
from answers.lesson10_search import GAIN_OF_SEARCH
from answers.lesson10_study import FLAWED_STUDY, STUDY_CONCLUSION

# ------------------------------------------------------------------ lowest_logits: right


def with_a_parameter(loss, teacher_logits, start):
    student = torch.nn.Parameter(start.detach().clone())
    teacher = teacher_logits.detach()
    optimizer = torch.optim.Adam([student], lr=1e-1, foreach=False)
    history = [loss(student, teacher).item()]  # asked once more, to be looked at
    for _ in range(500):
        value = loss(student_logits=student, teacher_logits=teacher)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(value.item())
    return student.data


def by_gradients(loss, teacher_logits, start):
    """The gradient of the student's logits alone is asked for: the teacher's logits need no detach."""
    logits = torch.nn.parameter.Parameter(torch.empty_like(start).copy_(start))
    optimizer = torch.optim.Adam(params=[{"params": logits, "lr": 0.1}])
    for _ in range(500):
        (logits.grad,) = torch.autograd.grad(loss(logits, teacher_logits), logits)
        optimizer.step()
    return logits.detach().clone()


def with_a_closure(loss, teacher_logits, start):
    logits = torch.tensor(start.tolist(), requires_grad=True)
    teacher = teacher_logits.detach().clone()
    optimizer = torch.optim.AdamW([logits], lr=0.1, weight_decay=0.0)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        value = loss(logits, teacher)
        value.backward()
        return value

    for _ in range(500):
        optimizer.step(closure)
    with torch.no_grad():
        return logits * 1


def adam_by_hand(loss, teacher_logits, start):
    logits, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    slope = torch.func.grad(loss)
    for step in range(1, 501):
        gradient = slope(logits, teacher_logits.detach())
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        logits = logits - 0.1 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    return logits


# ------------------------------------------------------------------ lowest_logits: wrong


def descends(ask, *, begin=None, steps=500, moved_by=torch.optim.Adam, rate=0.1, clears=True, result=None):
    """ask(loss, the logits that move, the teacher's, start)"""

    def search(loss, teacher_logits, start):
        logits = torch.nn.Parameter(start.clone() if begin is None else begin(teacher_logits, start))
        moves = moved_by([logits], lr=rate)
        for _ in range(steps):
            if clears:
                moves.zero_grad()
            ask(loss, logits, teacher_logits, start).backward()
            moves.step()
        return logits.detach() if result is None else result(logits)

    return search


def as_it_is(loss, logits, teacher_logits, start):
    return loss(logits, teacher_logits.detach())


def start_itself(loss, teacher_logits, start):
    start.requires_grad_()
    optimizer = torch.optim.Adam([start], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss(start, teacher_logits.detach()).backward()
        optimizer.step()
    return start.detach()


def both_move(loss, teacher_logits, start):
    logits, teacher = start.clone().requires_grad_(), teacher_logits.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits, teacher], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss(logits, teacher).backward()
        optimizer.step()
    return logits.detach()


def steps_before_backward(loss, teacher_logits, start):
    """The gradients are gone before the optimizer sees them."""
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(500):
        loss(logits, teacher_logits.detach()).backward()
        optimizer.zero_grad()
        optimizer.step()
    return logits.detach()


def start_comes_back(loss, teacher_logits, start):
    descends(as_it_is)(loss, teacher_logits, start)
    return start


def its_loss(loss, teacher_logits, start):
    return as_it_is(loss, descends(as_it_is)(loss, teacher_logits, start), teacher_logits, start)


def row_by_row(loss, teacher_logits, start):
    rows = zip(teacher_logits.split(1), start.split(1), strict=True)
    return torch.cat([descends(as_it_is)(loss, teacher, one) for teacher, one in rows])


LOWEST_LOGITS = Answers(
    wrong={
        "the arguments of the loss are exchanged": descends(
            lambda loss, z, teacher, start: loss(teacher.detach(), z)),
        "begins at the teacher's logits": descends(as_it_is, begin=lambda teacher, start: teacher.detach().clone()),
        "the loss is handed probabilities": descends(
            lambda loss, z, teacher, start: loss(z.softmax(-1), teacher.detach().softmax(-1))),
        "or their logarithms": descends(
            lambda loss, z, teacher, start: loss(z.log_softmax(-1), teacher.detach())),
        "the loss is first asked about other numbers": descends(as_it_is, begin=lambda teacher, start: (
            torch.zeros_like(start))),
        "than start and teacher_logits as they are": descends(
            lambda loss, z, teacher, start: loss(z / 4, teacher.detach() / 4)),
        "hand it the whole batch at once": row_by_row,
        "the teacher's logits move": descends(
            lambda loss, z, teacher, start: loss(start, z), begin=lambda teacher, start: teacher.detach().clone()),
        "the teacher's stay as they are": both_move,
        "a gradient flows into the teacher's logits": descends(
            lambda loss, z, teacher, start: loss(z, teacher)),
        "start itself is moved": start_itself,
        "begin at a copy": lambda loss, teacher, start: descends(as_it_is, begin=lambda teacher, start: start)(
            loss, teacher, start),
        "the loss is asked about logits that never move": steps_before_backward,
        "hand it those that the optimizer holds": descends(
            lambda loss, z, teacher, start: loss(start, teacher.detach())),
        "take a step after each backward()": descends(as_it_is, rate=0.0),
        "the logits climb": descends(lambda loss, z, teacher, start: -loss(z, teacher.detach())),
        "the gradients of all steps add up": descends(as_it_is, clears=False),
        "no tensor of logits": descends(as_it_is, steps=40, result=lambda z: z.detach().numpy()),
        "the loss comes back": its_loss,
        "another shape than start": descends(as_it_is, steps=40, result=lambda z: z.detach().flatten()),
        "still require a gradient": descends(as_it_is, steps=40, result=lambda z: z.clone()),
        "probabilities come back": descends(as_it_is, steps=40, result=lambda z: z.detach().softmax(-1)),
        "the loss was never asked": lambda loss, teacher, start: start.detach().clone(),
        "start comes back; the logits that the optimizer has moved": start_comes_back,
        "only one step is taken": descends(as_it_is, steps=1),
        "is not one of Adam with a rate of 0.1": descends(as_it_is, moved_by=torch.optim.SGD),
        "which moves a logit by 0.1 on any slope": descends(as_it_is, rate=0.02),
        "the logits took 100 steps where 500": descends(as_it_is, steps=100),
        "a divergence of sigmoids contains": descends(as_it_is, moved_by=torch.optim.Adamax),
        "It stops with": lambda loss, teacher, start: descends(as_it_is)(loss, teacher, start.tolist()),
    },
    right=[with_a_parameter, by_gradients, with_a_closure, adam_by_hand],
)  # fmt: skip

ANSWERS = {
    "lowest_logits": LOWEST_LOGITS,
    "gain_of_search": GAIN_OF_SEARCH,
    "repair_co_training": REPAIR_CO_TRAINING,
    "flawed_study": FLAWED_STUDY,
    "study_conclusion": STUDY_CONCLUSION,
}
