"""Exercise of lesson 07: the loss on stored targets, of which only the teacher's largest probabilities are kept.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import value_and_gradient


def _stored(teacher_logits, k, temperature):
    kept = F.log_softmax(teacher_logits / temperature, dim=-1).topk(k)
    return kept.values, kept.indices


def _cases():
    def case(seed, batch, classes, k, T):
        return logits(seed, batch, classes), *_stored(logits(seed + 1, batch, classes, scale=2.0 * T), k, T), T

    return [case(0, 5, 10, 3, 4.0), case(2, 4, 6, 2, 2.0), case(4, 3, 5, 4, 3.0), _with_empty_buckets()]


def _with_empty_buckets():
    """Sure of class 0, so that 1 - sum is 0 in float32: in row 1 the student, in row 2 the teacher too.

    Where the teacher's bucket is empty, the student's is as well, so that no result tells how small "empty" is.
    """
    student, teacher = logits(6, 3, 5), logits(7, 3, 5)
    student[[1, 2], 0] += 60
    teacher[2, 0] += 120
    teacher[1] = torch.tensor([2.0, -1.0, 1.0, 0.5, 0.0])
    return student, *_stored(teacher, 2, 2.0), 2.0


# ------------------------------------------------------------------------------------ mistakes


def _rest(log_kept):
    """The logarithm of what is left of 1, where something is left."""
    tiny = torch.finfo(log_kept.dtype).tiny
    return (1 - log_kept.exp().sum(1, keepdim=True)).clamp(min=tiny).log()


def _student(z, classes, T, bucket=torch.logsumexp):
    """The student's log-probabilities of the kept classes and, by `bucket`, of all others."""
    log_q = F.log_softmax(z / T, dim=-1)
    others = torch.ones_like(z, dtype=torch.bool).scatter(1, classes, False)
    return torch.cat([log_q.gather(1, classes), bucket(log_q[others].view(len(z), -1), 1)[:, None]], 1)


def _kl(log_p, log_q, T):
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def _loss(z, kept, classes, T, *, bucket=torch.logsumexp, student_temperature=None, reverse=False):
    """The solution by other means, but for what it is told."""
    log_p = torch.cat([kept, _rest(kept)], 1)
    log_q = _student(z, classes, student_temperature or T, bucket)
    return _kl(log_q, log_p, T) if reverse else _kl(log_p, log_q, T)


def _mean_probability(log_q, dim):
    return log_q.exp().mean(dim).log()


def _of_kept_only(z, kept, classes, T, *, student_too):
    """Renormalised: the teacher's kept probabilities, and, if told so, the student's of these classes."""
    log_q = F.log_softmax(z / T, dim=-1).gather(1, classes)
    return _kl(kept.log_softmax(1), log_q.log_softmax(1) if student_too else log_q, T)


def _without_its_term(z, kept, classes, T):
    return _kl(kept, F.log_softmax(z / T, dim=-1).gather(1, classes), T)


def _spread(z, kept, classes, T):
    """The teacher's rest in equal parts on the classes that are not kept."""
    others = z.shape[1] - kept.shape[1]
    each = (_rest(kept) - torch.tensor(others).log()).expand(-1, z.shape[1])
    return _kl(each.scatter(1, classes, kept), F.log_softmax(z / T, dim=-1), T)


def _one_minus(z, kept, classes, T):
    """The student's bucket by subtraction."""
    log_q = F.log_softmax(z / T, dim=-1).gather(1, classes)
    log_q = torch.cat([log_q, (1 - log_q.exp().sum(1, keepdim=True)).log()], 1)
    return _kl(torch.cat([kept, _rest(kept)], 1), log_q, T)


def _empty_unforeseen(z, kept, classes, T):
    rest = (1 - kept.exp().sum(1, keepdim=True)).log()
    return _kl(torch.cat([kept, rest], 1), _student(z, classes, T), T)


def _entropy(kept):
    log_p = torch.cat([kept, _rest(kept)], 1)
    return -(log_p.exp() * log_p).sum(1).mean()


def _zeros_for_others(z, kept, classes, T):
    """The kept logarithms among zeros, as if these were logits."""
    filled = torch.zeros_like(z).scatter(1, classes, kept)
    return _kl(filled.log_softmax(1), F.log_softmax(z / T, dim=-1), T)


def _first_classes(classes):
    return torch.arange(classes.shape[1]).expand_as(classes)


@exercise(
    cases=_cases,
    probe=value_and_gradient,
    hints=[
        """k + 1 outcomes: the k classes that are kept, and "another one". For each of them you need the logarithm of
        the teacher's probability and of the student's; then it is the KL that you know.""",
        """`log_q.gather(1, kept_classes)` are the student's k. Its bucket is the logsumexp over the others: put -inf in
        the places of the kept ones with `scatter` first. The teacher's bucket may round to 0: clamp it before the
        logarithm.""",
        """`rest_q = log_q.scatter(1, kept_classes, -torch.inf).logsumexp(dim=1, keepdim=True)` and
        `rest_p = (1 - kept_log_probs.exp().sum(dim=1, keepdim=True)).clamp(min=1e-30).log()`; torch.cat each to its
        kept ones.""",
    ],
    mistakes={
        "there is no bucket: the kept probabilities are made to sum to 1, the teacher's and the student's":
            lambda *given: _of_kept_only(*given, student_too=True),
        "there is no bucket: the teacher's kept probabilities are made to sum to 1, which they do not":
            lambda *given: _of_kept_only(*given, student_too=False),
        "the bucket's own term is missing: the sum goes over k + 1 outcomes":
            _without_its_term,
        "the teacher's rest is spread over the other classes in equal parts, which it need not be: one bucket for both":
            _spread,
        "the classes that were not kept got logit 0, which is more than the logarithm of any probability":
            _zeros_for_others,
        "the student's bucket holds the mean of its other probabilities; take their sum":
            lambda *given: _loss(*given, bucket=_mean_probability),
        "the student's bucket adds up logarithms; it is the logarithm of the sum of probabilities: logsumexp":
            lambda *given: _loss(*given, bucket=torch.sum),
        "the student's bucket holds the mean of its logarithms; it is the logarithm of a sum: logsumexp":
            lambda *given: _loss(*given, bucket=torch.mean),
        "the student's bucket holds its largest other class only; take the sum of all of them":
            lambda *given: _loss(*given, bucket=torch.amax),
        "1 - sum rounds to 0 where the student is sure, and its logarithm is -inf: logsumexp over the other classes":
            _one_minus,
        "the teacher's bucket rounds to 0 where it is sure, and 0 * log 0 is no number: clamp it before the logarithm":
            _empty_unforeseen,
        "T^2 is missing":
            lambda z, kept, classes, T: _loss(z, kept, classes, T) / T**2,
        "the factor is T and not T^2":
            lambda z, kept, classes, T: _loss(z, kept, classes, T) / T,
        "the mean is taken over the outcomes too; sum over them, and take the mean over the batch only":
            lambda z, kept, classes, T: _loss(z, kept, classes, T) / (kept.shape[1] + 1),
        "summed over the batch; take the mean":
            lambda z, kept, classes, T: _loss(z, kept, classes, T) * len(z),
        "the student is not softened: divide its logits by the temperature":
            lambda *given: _loss(*given, student_temperature=1.0),
        "the teacher is softened twice: its logarithms are stored at that temperature":
            lambda z, kept, classes, T: _loss(z, kept / T, classes, T),
        "the KL goes the other way round: the teacher's probabilities weigh the logarithms":
            lambda *given: _loss(*given, reverse=True),
        "the gradient is right, but this is the cross-entropy: the teacher's own logarithms are missing":
            lambda z, kept, classes, T: _loss(z, kept, classes, T) + T**2 * _entropy(kept),
        "the student's first k classes are compared with the kept ones; which ones these are, kept_classes says":
            lambda z, kept, classes, T: _loss(z, kept, _first_classes(classes), T),
        "the student's own k largest probabilities are compared with the kept ones; take the classes in kept_classes":
            lambda z, kept, classes, T: _loss(z, kept, z.topk(classes.shape[1]).indices, T),
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
            lambda *given: _loss(*given).detach(),
    },
)  # fmt: skip
def stored_target_loss(student_logits, kept_log_probs, kept_classes, temperature):
    """The soft-target loss on stored targets. Of each image's soft targets p the k largest are kept; what is left of 1
    is one more outcome, the bucket. The student's bucket holds the probabilities q of all classes not kept.

        T^2 * mean over batch of sum over the k + 1 outcomes of p * (log p - log q),   q = softmax(student_logits / T)

    student_logits: (batch, classes); kept_log_probs: (batch, k), log p at temperature T; kept_classes: (batch, k),
    whose they are; k < classes. Value and gradient stay finite where a bucket is so small that 1 - sum rounds to 0.
    """
    # --- your code
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    rest_q = log_q.scatter(1, kept_classes, -torch.inf).logsumexp(dim=1, keepdim=True)
    rest_p = (1 - kept_log_probs.exp().sum(dim=1, keepdim=True)).clamp(min=1e-30).log()
    log_p = torch.cat([kept_log_probs, rest_p], dim=1)
    log_q = torch.cat([log_q.gather(1, kept_classes), rest_q], dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    # --- end
