"""Exercise of lesson 08: a squared error that counts only where the student is worse than its teacher.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import value_and_gradient


def _outputs():
    """One output and several; students that are their teacher in some images; one that is better than its teacher."""
    cases = [_case(0, 8, 1), _case(1, 6, 3), _case(2, 7, 2), _case(3, 4, 2)]
    student, teacher, labels = cases[2]
    student[[1, 4]] = teacher[[1, 4]]
    student, teacher, labels = cases[3]
    teacher.copy_(labels + 2 * (student - labels))
    return cases


def _case(seed, batch, outputs):
    random = torch.Generator().manual_seed(seed)
    labels = torch.rand(batch, outputs, generator=random)
    student, teacher = labels + torch.randn(2, batch, outputs, generator=random)
    return student, teacher, labels


def _error(outputs, labels):
    return (outputs - labels).square().sum(1)


def _gated(s, t, y, value=None, *, measure=_error):
    """By image: the value where the student's error, by this measure, is larger than the teacher's."""
    value = _error(s, y) if value is None else value
    return value * (measure(s, y) > measure(t, y))


def _mean_where_it_acts(s, t, y):
    acts = _error(s, y) > _error(t, y)
    return _gated(s, t, y).sum() / acts.sum().clamp(min=1)


def _by_output(s, t, y):
    student, teacher = (s - y).square(), (t - y).square()
    return (student * (student > teacher)).sum(1).mean()


def _absolute(s, t, y):
    def measure(outputs, labels):
        return (outputs - labels).abs().sum(1)

    return _gated(s, t, y, measure(s, y), measure=measure).mean()


@exercise(
    cases=_outputs,
    probe=value_and_gradient,
    hints=[
        """Two errors for each image, of the student and of the teacher, each a sum over the outputs. Which of the two
        is learned from, and what is the other one for?""",
        """`asked = of_student > of_teacher` is True or False for each image, and has no gradient of its own. What is
        not asked counts as 0, and the image stays in the mean.""",
        """`of_student = (student_outputs - labels).square().sum(dim=1)`, the teacher's likewise; then
        `(of_student * asked).mean()`.""",
    ],
    mistakes={
        "the mean is taken over the images alone where it acts; the others count as 0, in a mean over the whole batch":
            _mean_where_it_acts,
        "the mean is taken over the images alone where it acts, which is no number where it acts nowhere; the others "
        "count as 0, in a mean over the whole batch":
            lambda s, t, y: _error(s, y)[_error(s, y) > _error(t, y)].mean(),
        "the gate is the other way round: asked is what the student does worse than its teacher":
            lambda s, t, y: _gated(t, s, y, _error(s, y)).mean(),
        "where both errors are equal nothing is asked: the student's must be larger, > and not >=":
            lambda s, t, y: (_error(s, y) * (_error(s, y) >= _error(t, y))).mean(),
        "the gate is missing: this is the squared error of every image":
            lambda s, t, y: _error(s, y).mean(),
        "this is what the student's error has above the teacher's; where it is above, the whole error counts":
            lambda s, t, y: (_error(s, y) - _error(t, y)).clamp(min=0).mean(),
        "the distance to the teacher is what is learned; the teacher only says where, the label says what":
            lambda s, t, y: _gated(s, t, y, _error(s, t)).mean(),
        "absolute errors where squares are asked for":
            _absolute,
        "the root of the squared error is taken; the sum of squares itself is asked for":
            lambda s, t, y: _gated(s, t, y, (s - y).norm(dim=1)).mean(),
        "each output has a gate of its own; there is one for an image, on the sums over its outputs":
            _by_output,
        "there is one gate for the whole batch; each image has its own":
            lambda s, t, y: _error(s, y).mean() * (_error(s, y).mean() > _error(t, y).mean()),
        "the teacher's error is what counts, and the student has no part in it":
            lambda s, t, y: _gated(s, t, y, _error(t, y)).mean(),
        "where the student is better the teacher's error counts, which nobody learns from; 0 is asked for there":
            lambda s, t, y: torch.maximum(_error(s, y), _error(t, y)).mean(),
        "the mean is taken over the outputs too; sum over them, and take the mean over the batch only":
            lambda s, t, y: _gated(s, t, y).mean() / s.shape[1],
        "summed over the batch; take the mean":
            lambda s, t, y: _gated(s, t, y).sum(),
        "a number for each image comes back; take their mean":
            _gated,
        "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
            lambda s, t, y: _gated(s, t, y).mean().detach(),
    },
)  # fmt: skip
def bounded_loss(student_outputs, teacher_outputs, labels):
    """The teacher-bounded squared error (Chen, Choi, Yu, Han & Chandraker 2017). With the error of an image,

        e = sum over outputs of (output - label)^2,

    the loss is the mean over the batch of the student's e where it is larger than the teacher's e, and of 0 elsewhere.

    student_outputs, teacher_outputs, labels: (batch, outputs). Returns one number. No gradient reaches the teacher.
    """
    # --- your code
    of_student = (student_outputs - labels).square().sum(dim=1)
    of_teacher = (teacher_outputs - labels).square().sum(dim=1)
    return (of_student * (of_student > of_teacher)).mean()
    # --- end
