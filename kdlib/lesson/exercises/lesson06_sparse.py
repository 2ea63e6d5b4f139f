"""The repair of lesson 06: a pruned weight that is trained on.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

from dataclasses import dataclass

import torch

from kdlib.lesson.exercises._core import exercise


def _numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Gradient:
    """The gradient in the weight of a linear layer's mean squared error, on made-up inputs and targets."""

    seed: int

    def __call__(self, weight):
        inputs, targets = _numbers(self.seed, 20, weight.shape[1]), _numbers(self.seed + 1, 20, len(weight))
        return 2 * (inputs @ weight.T - targets).T @ inputs / targets.numel()

    def __repr__(self) -> str:
        return "that of a mean squared error"


def _cases():
    def case(seed, outputs, inputs, steps):
        weight, velocity = _numbers(seed, outputs, inputs), 0.3 * _numbers(seed + 1, outputs, inputs)
        mask = (weight.abs() >= weight.abs().median()).double()
        mask[0, 0], weight[0, 0] = 1, 0  # one that stays although it happens to be 0
        return weight, mask, velocity, Gradient(seed + 2), steps, 0.1

    return [case(0, 4, 6, 5), case(10, 3, 8, 1), case(20, 5, 5, 12)]


def _given(weight, mask, velocity, gradient, steps, learning_rate):
    # --- your code
    weight = weight * mask
    for _ in range(steps):
        alive = weight != 0
        velocity = 0.9 * velocity + gradient(weight) * alive
        weight = weight - learning_rate * velocity
    return weight
    # --- end


def _keep(weight, mask):
    return weight * mask


def _leave(weight, mask):
    return weight


def _choose_anew(weight, mask):
    """As many as the mask keeps, the largest of the moment."""
    smallest = weight.abs().flatten().sort(descending=True).values[int(mask.sum()) - 1]
    return weight * (weight.abs() >= smallest)


def _whole(gradient, weight, mask):
    return gradient


def _of_the_living(gradient, weight, mask):
    return gradient * (weight != 0)


def _of_the_kept(gradient, weight, mask):
    return gradient * mask


def _loop(*, before=_keep, after=_keep, at_the_end=_leave, part=_whole, momentum=torch.clone):
    """The repaired loop, but for what happens to weight, gradient or velocity at one of its places."""

    def train(weight, mask, velocity, gradient, steps, learning_rate):
        weight, velocity = before(weight, mask), momentum(velocity)
        for _ in range(steps):
            velocity = 0.9 * velocity + part(gradient(weight), weight, mask)
            weight = after(weight - learning_rate * velocity, mask)
        return at_the_end(weight, mask)

    return train


def _with_one_gradient_for_all_steps(weight, mask, velocity, gradient, steps, learning_rate):
    return _loop()(weight, mask, velocity, lambda _: gradient(weight * mask), steps, learning_rate)


@exercise(
    cases=_cases,
    start=_given,
    hints=[
        """Print, after every step, how many of the weights with mask 0 are not 0. What moves the first of them, and why
        does `alive` not hold it after that?""",
        """A step moves a weight by its velocity, and that did not begin at 0. And `alive` asks the weight, which may be
        0 by chance: what says which weights stay?""",
        """No `alive`: the whole gradient goes into the velocity, and after every step the mask holds the zeros:
        `weight = (weight - learning_rate * velocity) * mask`.""",
    ],
    mistakes={
        "the gradient of the pruned weights is 0 now, but their velocity is not: it goes on moving them":
            _loop(after=_leave, part=_of_the_kept),
        "nothing holds the zeros any more: every step moves them":
            _loop(after=_leave),
        "the mask comes again only after the last step: in all steps between, the weights that are gone took part":
            _loop(after=_leave, at_the_end=_keep),
        "the mask comes again only after the last step, and a gradient still counts only where the weight is not 0":
            _loop(after=_leave, at_the_end=_keep, part=_of_the_living),
        "the mask comes again only after the last step; a masked gradient does not hold the zeros before it":
            _loop(after=_leave, at_the_end=_keep, part=_of_the_kept),
        "the zeros stay; but a weight that stays and happens to be 0 gets no gradient: the mask says which ones stay":
            _loop(part=_of_the_living),
        "the zeros stay; but the velocity begins at 0: the momentum of the training before is lost":
            _loop(momentum=torch.zeros_like),
        "the first gradient is that of the whole weight: the mask must hold before the first step too":
            _loop(before=_leave),
        "the largest weights are chosen anew in each step; which ones stay is the mask's to say":
            _loop(after=_choose_anew),
        "the zeros stay; but the gradient is that of the weight at the beginning, in every step":
            _with_one_gradient_for_all_steps,
    },
)  # fmt: skip
def repair_sparse_training(weight, mask, velocity, gradient, steps, learning_rate):
    """Repair: a pruned weight is trained on by SGD with momentum. Where mask is 0, the weight is 0 whenever its
    gradient is asked for, and at the end. Where mask is 1, every step is, for any value that the weight has there,

        velocity = 0.9 * velocity + gradient(weight),    weight = weight - learning_rate * velocity

    weight, mask (0 or 1), velocity (as the training before the pruning left it): (outputs, inputs), which stay as
    they are; gradient: a function of the weight. Returns the weight after all steps.
    """
    # --- your code
    weight = weight * mask
    for _ in range(steps):
        velocity = 0.9 * velocity + gradient(weight)
        weight = (weight - learning_rate * velocity) * mask
    return weight
    # --- end
