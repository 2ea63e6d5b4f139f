"""Exercises of lesson 08: a loss of yes-or-no questions to repair, and two answers out of one softmax.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import math

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import value_and_gradient

# ------------------------------------------------------------------------------------ a loss to repair


def _of_questions():
    """Moderate logits, then a student that is sure of no, one that is sure of yes, a sure teacher, and both sure."""
    sure_of_no, sure_of_yes, moderate, sure_teacher = logits(4, 3, 4), logits(5, 3, 4), logits(6, 3, 4), logits(7, 3, 4)
    sure_of_no[0, 1] = sure_of_no[2, :3] = -200.0
    sure_of_yes[1, 0] = sure_of_yes[2, :3] = 200.0
    sure_teacher[0], sure_teacher[2, 1] = torch.tensor([200.0, -200.0, 200.0, -200.0]), 200.0
    both_sure = 200.0 * torch.tensor([[[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], [[-1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]]])
    return [
        (logits(0, 5, 10), logits(1, 5, 10), 4.0), (logits(2, 4, 3), logits(3, 4, 3), 2.5),
        (sure_of_no, moderate, 1.0), (sure_of_yes, moderate, 1.0), (moderate, sure_teacher, 1.0),
        (*both_sure, 1.0),
    ]  # fmt: skip


def _value_and_gradient(function, *given):
    """Probe: as of every loss, but for a loss that is no number: what its gradient then is tells nothing."""
    result = value_and_gradient(function, *given)
    if isinstance(result, dict) and not torch.as_tensor(result["loss"]).isfinite().all():
        result["gradient"] = result["gradient"].clone().fill_(torch.nan)
    return result


def _logs(x):
    """log p and log(1 - p) of p = sigmoid(x)."""
    return F.logsigmoid(x), F.logsigmoid(-x)


def _plain_logs(x):
    return x.sigmoid().log(), (1 - x.sigmoid()).log()


def _no_by_subtraction(x):
    return F.logsigmoid(x), (1 - x.sigmoid()).log()


def _clamped(lowest):
    return lambda x: ((p := x.sigmoid().clamp(lowest, 1 - lowest)).log(), (1 - p).log())


def _stopped(lowest):
    return lambda x: (x.sigmoid().clamp(min=lowest).log(), (1 - x.sigmoid()).clamp(min=lowest).log())


def _no_clamped(x):
    return F.logsigmoid(x), (1 - x.sigmoid()).clamp(min=1e-8).log()


def _divergence(z, v, T, *, of_student=_logs, of_teacher=_logs, student_temperature=None, teacher_temperature=None):
    """By image: the solution by other means, but for what it is told."""
    student, teacher = z / (student_temperature or T), v / (teacher_temperature or T)
    p = teacher.sigmoid()
    pairs = zip((p, 1 - p), of_teacher(teacher), of_student(student), strict=True)
    return T**2 * sum(part * (log_p - log_q) for part, log_p, log_q in pairs).sum(1)


def _entropy(v, T):
    """By image, of the teacher."""
    p, (log_p, log_no) = (v / T).sigmoid(), _logs(v / T)
    return -(T**2) * (p * log_p + (1 - p) * log_no).sum(1)


def _stops():
    """Mistakes by diagnosis: logarithms of small numbers added or clamped, in student and teacher."""
    sentence = "and where the student is sure and wrong there is no gradient; F.logsigmoid needs no clamp"
    return {
        f"the logarithms stop at log({lowest:g}) = {math.log(lowest):.0f}, {sentence}": _with_logs(_stopped(lowest))
        for lowest in (1e-6, 1e-7, 1e-8, 1e-10, 1e-12)
    } | {
        f"the clamp at {lowest:g} and 1 - {lowest:g} stops the logarithms at {math.log(lowest):.0f}, {sentence}":
            _with_logs(_clamped(lowest))
        for lowest in (1e-6, 1e-7)
    }  # fmt: skip


def _with_logs(logs):
    return lambda z, v, T: _divergence(z, v, T, of_student=logs, of_teacher=logs).mean()


def _by_torch_of_probabilities(z, v, T):
    """By image: F.binary_cross_entropy, whose logarithms stop at -100."""
    return T**2 * F.binary_cross_entropy((z / T).sigmoid(), (v / T).sigmoid(), reduction="none").sum(1)


def _one_term(z, v, T, sign=1):
    return T**2 * F.kl_div(F.logsigmoid(sign * z / T), (sign * v / T).sigmoid(), reduction="batchmean")


def _made_to_sum_to_one(z, v, T):
    log_q, log_p = F.logsigmoid(z / T), F.logsigmoid(v / T)
    log_q, log_p = log_q - log_q.logsumexp(1, keepdim=True), log_p - log_p.logsumexp(1, keepdim=True)
    return T**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _exchanged_in_kl_div(z, v, T):
    """In the logarithms of 0 its gradient is lost."""
    return _one_term(v, z, T) + _one_term(v, z, T, sign=-1)


def _softmax_loss(z, v, T):
    return T**2 * F.kl_div((z / T).log_softmax(1), (v / T).softmax(1), reduction="batchmean")


def _one_answer(student_logits, teacher_logits, temperature):
    # --- your code
    log_q = F.logsigmoid(student_logits / temperature)
    p = (teacher_logits / temperature).sigmoid()
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    # --- end


@exercise(
    cases=_of_questions,
    probe=_value_and_gradient,
    start=_one_answer,
    hints=[
        """Run it on a student of logits 20 and a teacher of zeros. What comes out, and may a KL be that? Then ask which
        answers of a question the sum goes over, and which ones it should go over.""",
        """A question has two answers, of probabilities p and 1 - p. Both need their term. 1 - sigmoid(x) is
        sigmoid(-x), so that its logarithm is F.logsigmoid(-x), which overflows nowhere.""",
        """The same once more for no, and add it: `F.kl_div(F.logsigmoid(-student_logits / temperature), 1 - p,
        reduction="batchmean")`.""",
    ],
    mistakes={
        "the gradient is right, but where student and teacher agree it is not 0: this is the cross-entropy, and the "
        "teacher's own logarithms are missing":
            lambda z, v, T: (_divergence(z, v, T) + _entropy(v, T)).mean(),
        "F.binary_cross_entropy_with_logits takes the mean over the classes as well, and is not 0 where both agree":
            lambda z, v, T: (_divergence(z, v, T) + _entropy(v, T)).mean() / z.shape[1],
        "1 - sigmoid rounds to 0 where the student is sure of yes, and its logarithm is -inf: take F.logsigmoid(-x)":
            lambda z, v, T: _divergence(z, v, T, of_student=_no_by_subtraction).mean(),
        "1 - sigmoid rounds to 0 where one is sure of yes, student or teacher; F.logsigmoid(-x) is its logarithm":
            _with_logs(_no_by_subtraction),
        "sigmoids round to 0 and 1 where one is sure, student or teacher, and the logarithm of 0 is -inf: take "
        "F.logsigmoid(x) and F.logsigmoid(-x)":
            _with_logs(_plain_logs),
        "sigmoids round to 0 and 1 where the student is sure, and the logarithm of 0 is -inf: take F.logsigmoid(x) and "
        "F.logsigmoid(-x)":
            lambda z, v, T: _divergence(z, v, T, of_student=_plain_logs).mean(),
        "the logarithm of the teacher's sigmoid is -inf where it rounds to 0, and 0 * -inf is no number":
            lambda z, v, T: _divergence(z, v, T, of_teacher=_plain_logs).mean(),
        "in float32 1 - 1e-8 is 1: the student's clamp does not keep 1 - sigmoid from 0; take F.logsigmoid(-x)":
            lambda z, v, T: _divergence(z, v, T, of_student=_clamped(1e-8)).mean(),
        "in float32 1 - 1e-8 is 1: the clamps do not keep 1 - sigmoid from 0; take F.logsigmoid(-x)":
            _with_logs(_clamped(1e-8)),
        "the clamp stops the logarithm of no at log(1e-8) = -18 and takes the gradient away where the student is sure "
        "of a wrong yes; take F.logsigmoid(-x)":
            _with_logs(_no_clamped),
        "F.binary_cross_entropy of probabilities stops at 100, and where the student is sure and wrong it has no "
        "gradient; its form for logits has both":
            lambda z, v, T: (_by_torch_of_probabilities(z, v, T) - _by_torch_of_probabilities(v, v, T)).mean(),
        "F.binary_cross_entropy takes the mean over the classes too, is not 0 where both agree, and has no gradient "
        "where the student is sure and wrong":
            lambda z, v, T: _by_torch_of_probabilities(z, v, T).mean() / z.shape[1],
        "only the answer yes has a term, as before, and now the mean is taken over the classes too":
            lambda z, v, T: _one_term(z, v, T) / z.shape[1],
        "only the answer no has a term now; a question has both":
            lambda z, v, T: _one_term(z, v, T, sign=-1),
        "the mean is taken over the classes too; sum over them, and take the mean over the batch only":
            lambda z, v, T: _divergence(z, v, T).mean() / z.shape[1],
        "the mean is taken over yes and no and over the classes; sum over both, and take the mean over the batch only":
            lambda z, v, T: _divergence(z, v, T).mean() / (2 * z.shape[1]),
        "summed over the batch; take the mean":
            lambda z, v, T: _divergence(z, v, T).sum(),
        "a number for each image comes back; take their mean":
            lambda z, v, T: _divergence(z, v, T),
        "T^2 is missing":
            lambda z, v, T: _divergence(z, v, T).mean() / T**2,
        "the factor is T and not T^2":
            lambda z, v, T: _divergence(z, v, T).mean() / T,
        "the teacher is not softened: divide its logits by the temperature":
            lambda z, v, T: _divergence(z, v, T, teacher_temperature=1).mean(),
        "the student is not softened: divide its logits by the temperature":
            lambda z, v, T: _divergence(z, v, T, student_temperature=1).mean(),
        "neither is softened: divide both logits by the temperature":
            lambda z, v, T: _divergence(z, v, T, student_temperature=1, teacher_temperature=1).mean(),
        "softmax makes the classes compete for one probability; with sigmoid each class is a question of its own":
            _softmax_loss,
        "the sigmoids are made to sum to 1 over the classes, which makes these compete; what sums to 1 is yes and no":
            _made_to_sum_to_one,
        "the KL goes the other way round: the teacher's probabilities weigh the logarithms":
            lambda z, v, T: _divergence(v, z, T).mean(),
        "the arguments of F.kl_div are exchanged: the student's logarithms come first, then what the teacher says":
            _exchanged_in_kl_div,
        "both terms compare the logarithms of yes; that of no is F.logsigmoid(-x)":
            lambda z, v, T: T**2 * (F.logsigmoid(v / T) - F.logsigmoid(z / T)).sum(1).mean(),
        "squared differences of probabilities have the right minimum, but hardly a gradient where the student is sure "
        "and wrong; the KL is asked for":
            lambda z, v, T: T**2 * ((z / T).sigmoid() - (v / T).sigmoid()).square().sum(1).mean(),
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
            lambda z, v, T: _divergence(z, v, T).mean().detach(),
        **_stops(),
    },
)  # fmt: skip
def repair_sigmoid_loss(student_logits, teacher_logits, temperature):
    """Repair: a teacher's loss for images that may have any number of labels. Each class is a question of its own, with
    the answers yes, of probability sigmoid(logit / T), and no. The loss is T^2 * KL(teacher's answers || student's) of
    a question, summed over the classes, averaged over the batch: 0 where both agree, and nowhere below.

    student_logits, teacher_logits: (batch, classes); temperature: T. Returns one number. Value and gradient stay finite
    for logits of 200 and -200.
    """
    # --- your code
    z, v = student_logits / temperature, teacher_logits / temperature
    p = v.sigmoid()
    yes = p * (F.logsigmoid(v) - F.logsigmoid(z))
    no = (1 - p) * (F.logsigmoid(-v) - F.logsigmoid(-z))
    return temperature**2 * (yes + no).sum(dim=1).mean()
    # --- end


# ------------------------------------------------------------------------------------ two answers out of one softmax


def _items_and_directions():
    # As many items as directions, more of them, fewer; and logits that exp alone does not bear.
    sizes = [(6, 4, 4, 2.0), (5, 6, 4, 2.0), (3, 2, 5, 1.0), (4, 3, 4, 300.0)]
    return [
        (logits(seed, n, items * directions, scale=scale), directions)
        for seed, (n, items, directions, scale) in enumerate(sizes)
    ]


def _table(values, directions):
    """(n, items, directions)"""
    return values.unflatten(1, (-1, directions))


def _joint(values, directions):
    return _table(values.softmax(1), directions)


def _sums(table):
    return table.sum(2), table.sum(1)


def _of_reduced_logits(values, directions, reduce):
    table = _table(values, directions)
    return reduce(table, 2).softmax(1), reduce(table, 1).softmax(1)


def _overflowing(values, directions):
    weights = _table(values.exp(), directions)
    return _sums(weights / weights.sum((1, 2), keepdim=True))


def _other_order(values, directions):
    items = values.shape[1] // directions
    table = values.softmax(1).unflatten(1, (directions, items))
    return table.sum(1), table.sum(2)


def _of_the_likeliest(values, directions):
    """Of each the conditional probabilities, given the likeliest of the other."""
    table = _joint(values, directions)
    item, direction = table.sum(2).argmax(1), table.sum(1).argmax(1)
    rows = torch.arange(len(table))
    of_items, of_directions = table[rows, :, direction], table[rows, item]
    return of_items / of_items.sum(1, keepdim=True), of_directions / of_directions.sum(1, keepdim=True)


@exercise(
    cases=_items_and_directions,
    hints=[
        """The softmax over all classes is one table of probabilities for each clip: items down, directions across. How
        probable is a bag, whatever it does?""",
        """Softmax first, over dim=1; then give the row its two axes, (n, items, directions), as the class number counts
        directions fastest; then a sum along the axis that does not matter.""",
        """`both = logits.softmax(dim=1).reshape(len(logits), -1, directions)`; the items are `both.sum(dim=2)`.""",
    ],
    mistakes={
        "the logits are averaged before the softmax: a mean of logits is no sum of probabilities; softmax comes first":
            lambda z, d: _of_reduced_logits(z, d, torch.mean),
        "the logits are summed before the softmax: a sum of logits is no sum of probabilities; softmax comes first":
            lambda z, d: _of_reduced_logits(z, d, torch.sum),
        "the largest logit stands for its whole row or column, and with it its largest probability; take the softmax "
        "first, and then sums":
            lambda z, d: _of_reduced_logits(z, d, torch.amax),
        "the axes are (directions, items): class = directions * item + direction counts directions fastest, so reshape "
        "to (n, items, directions)":
            _other_order,
        "the largest probability stands for its row or column; take the sum":
            lambda z, d: (_joint(z, d).amax(2), _joint(z, d).amax(1)),
        "the two are exchanged: items come first":
            lambda z, d: _sums(_joint(z, d))[::-1],
        "logarithms come back; probabilities are asked for":
            lambda z, d: tuple(p.log() for p in _sums(_joint(z, d))),
        "averaged: the probabilities of what excludes each other add up":
            lambda z, d: (_joint(z, d).mean(2), _joint(z, d).mean(1)),
        "softmax is taken along one axis at each place of the other, as if these were equally likely; take it over all "
        "classes at once":
            lambda z, d: (_table(z, d).softmax(1).mean(2), _table(z, d).softmax(2).mean(1)),
        "softmax is taken along one axis at each place of the other, so that the sums do not add up to 1; take it over "
        "all classes at once":
            lambda z, d: (_table(z, d).softmax(1).sum(2), _table(z, d).softmax(2).sum(1)),
        "softmax is taken once more; the sums are probabilities already":
            lambda z, d: tuple(p.softmax(1) for p in _sums(_joint(z, d))),
        "softmax is taken over the clips; each clip has probabilities of its own, so over dim=1":
            lambda z, d: _sums(_table(z.softmax(0), d)),
        "these are sums of logits; take the softmax first":
            lambda z, d: _sums(_table(z, d)),
        "the probabilities hold for the likeliest of the other only; whatever the other is, they add up over it":
            _of_the_likeliest,
        "exp of a large logit is inf, and inf / inf no number; torch's softmax bears it":
            _overflowing,
        "the likeliest ones come back; their probabilities are asked for":
            lambda z, d: tuple(p.argmax(1) for p in _sums(_joint(z, d))),
    },
)  # fmt: skip
def item_and_direction(logits, directions):
    """What a network of items that move says of each by itself: how likely each item is, whatever its direction, and
    how likely each direction is, whatever the item.

    logits: (n, items * directions), of the classes directions * item + direction, of which a softmax over all of them
    gives the probabilities; directions: how many there are. Returns two tensors: (n, items) and (n, directions), each
    row of probabilities that sum to 1.
    """
    # --- your code
    both = logits.softmax(dim=1).reshape(len(logits), -1, directions)
    return both.sum(dim=2), both.sum(dim=1)
    # --- end
