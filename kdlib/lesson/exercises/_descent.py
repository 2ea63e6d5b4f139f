"""A loss that watches its own minimisation: what it is asked about, and where the logits go from there.

It is several losses side by side, one for each kind of row, so that 500 steps judge all of them: the steps of Adam know
nothing of other rows. One row has a slope that never changes, where length and direction of each step can be read.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._observe import Complaint, is_unfinished

TEMPERATURE, RATE, STEPS = 2.0, 0.1, 500
FIXED = (1.5, -0.5, 0.0, 2.0)
SLOPES = (2.0, -0.5, 0.0, 0.0)  # of the last row; in two of its classes there is nothing to be gained
CLOSELY_WATCHED = 8  # calls: by then the mistakes of a step have shown


def rows_of_several_kinds(student_logits, teacher_logits):
    """(6, 4), (6, 4) -> a number: of each kind of row its own loss."""
    z, v = student_logits, teacher_logits
    divergence = F.kl_div(
        (z[:2] / TEMPERATURE).log_softmax(1), (v[:2] / TEMPERATURE).softmax(1), reduction="batchmean"
    )
    of_sigmoids = (v[2].sigmoid() * (F.logsigmoid(v[2]) - F.logsigmoid(z[2]))).mean()
    squares = (z[3] - v[3]).square().mean()
    without_teacher = (z[4] - z.new_tensor(FIXED)).square().mean()
    return divergence + of_sigmoids + squares + without_teacher + z[5] @ z.new_tensor(SLOPES)


def load_optimizers():
    """The first optimizer of a process loads much of PyTorch, which is not to count as time of the learner's."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


# ------------------------------------------------------------------ what may be wrong

EXCHANGED = "the arguments of the loss are exchanged: it is loss(student_logits, teacher_logits)"
FROM_TEACHER = "the search begins at the teacher's logits, where nothing is left to be found: begin at start"
PROBABILITIES = "the loss is handed probabilities or their logarithms: it is asked as it is, about logits"
ELSEWHERE = "the loss is first asked about other numbers than start and teacher_logits as they are"
NOT_WHOLE = "the loss is asked about logits of another shape than start's: hand it the whole batch at once"
TEACHER_MOVES = "the teacher's logits move: the student's are searched, and the teacher's stay as they are"
TEACHER_GRADIENT = "a gradient flows into the teacher's logits: .detach() makes them a target"
START_MOVES = "start itself is moved, which spoils the caller's data: begin at a copy, start.clone()"
STAYS = (
    "the loss is asked about logits that never move: hand it those that the optimizer holds, and take a step after "
    "each backward()"
)
UPHILL = "the logits climb: the loss is to be made small, so no minus belongs in front of it"
PILED = "the gradients of all steps add up: optimizer.zero_grad() belongs before each backward()"
NO_TENSOR = "what comes back is no tensor of logits"
LOSS_COMES_BACK = "the loss comes back; where it is low is asked for, the logits"
ANOTHER_SHAPE = "what comes back has another shape than start: the logits are asked for, (batch, classes)"
GRAPH = "the logits that come back still require a gradient: .detach() takes them out of the graph"
RETURNS_PROBABILITIES = "probabilities come back; the logits are asked for"
NOT_ASKED = "start comes back and the loss was never asked"
RETURNS_START = "start comes back; the logits that the optimizer has moved are asked for"
ONE_STEP = "only one step is taken: backward() and optimizer.step() stand in a loop of 500"
OTHER_STEPS = "the first step is not one of Adam with a rate of 0.1, which moves a logit by 0.1 on any slope"


class Watched:
    """The loss as the learner's function gets it.

    It complains at once of what no right answer does. `points` holds how many different logits in a row it was asked
    about, `path` where the first ones lay.
    """

    def __init__(self, teacher_logits, start):
        self.teacher_logits, self.start = teacher_logits, start
        self.calls, self.points, self.path, self.has_graph = 0, 0, [], True

    def watch(self, given_teacher, given_start):
        """What the learner's function is given, which is to stay as it is."""
        self.given_teacher, self.given_start = given_teacher, given_start
        self.values_of_teacher, self.values_of_start = given_teacher.tolist(), given_start.tolist()

    def __call__(self, student_logits, teacher_logits):
        if not all(isinstance(part, torch.Tensor) for part in (student_logits, teacher_logits)):
            raise Complaint("the loss is asked about something else than two tensors of logits")
        if not student_logits.shape == teacher_logits.shape == self.start.shape:
            raise Complaint(NOT_WHOLE)
        self.calls += 1
        self.has_graph = student_logits.requires_grad
        self._follow(student_logits.tolist())
        if self.calls == 1:
            self._look_at_first(values(student_logits), values(teacher_logits))
        elif self.calls <= CLOSELY_WATCHED:
            self._look_at_next(values(teacher_logits))
        return rows_of_several_kinds(student_logits, teacher_logits)

    def _follow(self, logits):
        if not self.path or logits != self.path[-1]:
            self.points += 1
            # Of the later ones only the last is needed, to tell the next from it.
            self.path = [*self.path[:3], logits]

    def _look_at_first(self, student, teacher):
        start, of_teacher = values(self.start), values(self.teacher_logits)
        if near(student, start) and near(teacher, of_teacher):
            return
        if near(student, of_teacher):
            raise Complaint(EXCHANGED if near(teacher, start) else FROM_TEACHER)
        softened = any(near(part.sum(1), 1) or near(part.logsumexp(1), 0) for part in (student, teacher))
        raise Complaint(PROBABILITIES if softened else ELSEWHERE)

    def _look_at_next(self, teacher):
        self.look_at_given()
        if not near(teacher, values(self.teacher_logits)):
            raise Complaint(TEACHER_MOVES)
        if self.calls == CLOSELY_WATCHED and self.points == 1:
            raise Complaint(STAYS)
        first, second = self.step(0), self.step(1)
        if first and first[0] > 0 > first[1]:
            raise Complaint(UPHILL)
        if second and abs(second[0] / first[0] - _ratio_of_piled_steps()) < 1e-3:
            raise Complaint(PILED)

    def look_at_given(self):
        if self.given_start.tolist() != self.values_of_start:
            raise Complaint(START_MOVES)
        if self.given_teacher.tolist() != self.values_of_teacher:
            raise Complaint(TEACHER_MOVES)

    def step(self, number):
        """How far the logits on the two constant slopes went in that step; None where there was none to be seen."""
        if len(self.path) < number + 2:
            return None
        before, after = (self.path[place][-1] for place in (number, number + 1))
        moved = [after[place] - before[place] for place in (0, 1)]
        return moved if all(moved) else None


def values(tensor):
    """In float64, outside of any graph or transformation that the tensor is part of."""
    return torch.tensor(tensor.tolist(), dtype=torch.float64)


def near(tensor, other):
    return torch.allclose(tensor, torch.as_tensor(other, dtype=tensor.dtype), rtol=1e-5, atol=1e-5)


def _ratio_of_piled_steps():
    """Adam's second step over its first one where it is given the gradients 1 and 1 + 1."""
    mean = (0.9 * 0.1 + 0.1 * 2) / (1 - 0.9**2)
    square = (0.999 * 0.001 + 0.001 * 4) / (1 - 0.999**2)
    return mean / square**0.5


def minimised(function, _loss, teacher_logits, start):
    """Probe: where the logits have come, or a complaint about the way."""
    loss = Watched(teacher_logits, start)
    # As from a network: the teacher's logits would take a gradient if they were let.
    loss.watch(teacher_logits.clone().requires_grad_(), start.clone())
    try:
        logits = function(loss, loss.given_teacher, loss.given_start)
    except RuntimeError as error:
        if type(error) is RuntimeError and not loss.has_graph:
            raise Complaint(STAYS) from error
        raise
    if is_unfinished(logits):
        return logits
    fault = _fault(loss, logits)
    if fault:
        raise Complaint(fault)
    softened = (logits[:2] / TEMPERATURE).softmax(1)
    return {
        "softmax of the first two rows, whose loss is a divergence at a temperature of 2,": softened,
        "row of logits whose loss is a divergence of sigmoids": logits[2],
        "row of logits whose loss is their squared difference from the teacher's": logits[3],
        "row of logits whose loss does not look at the teacher": logits[4],
        "row of logits whose loss has the same slope everywhere": logits[5],
    }


def _fault(loss, logits):
    """The first thing that is wrong with the result or the way there, or None."""
    if not isinstance(logits, torch.Tensor):
        return NO_TENSOR
    if logits.shape != loss.start.shape:
        return LOSS_COMES_BACK if logits.numel() == 1 else ANOTHER_SHAPE
    loss.look_at_given()
    if loss.given_teacher.grad is not None:
        return TEACHER_GRADIENT
    if logits.requires_grad:
        return GRAPH
    logits = values(logits)
    if near(logits.sum(1), 1) and bool((logits >= 0).all()):
        return RETURNS_PROBABILITIES
    if near(logits, values(loss.start)):
        if not loss.calls:
            return NOT_ASKED
        return RETURNS_START if loss.points > 1 else STAYS
    return _fault_of_steps(loss, logits)


def _fault_of_steps(loss, logits):
    moved = (logits - values(loss.start))[-1, :2]
    if torch.allclose(moved.abs(), torch.full_like(moved, RATE * STEPS), rtol=0.01):
        return None
    if loss.points < 2:
        return ONE_STEP
    first = loss.step(0)
    if first is None or not all(abs(abs(one) / RATE - 1) < 0.01 for one in first):
        return OTHER_STEPS
    if abs(loss.points / STEPS - 1) > 0.01:
        return f"the logits took {loss.points} steps where {STEPS} are asked for"
    return None
