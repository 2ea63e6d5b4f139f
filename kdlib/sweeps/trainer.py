"""The students of a sweep: trained alone or several together, and measured."""

import copy
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import metrics
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits, preprocessing_of
from kdlib.losses import soft_target_loss
from kdlib.sweeps.backends import Cell, Failure, Group, Outcome
from kdlib.sweeps.grouped import GroupedNetwork, distill_together
from kdlib.sweeps.journal import Row, describe
from kdlib.sweeps.precision import bfloat16_is_faster
from kdlib.training import distill
from kdlib.training.loop import Recipe, diverged
from kdlib.training.objectives import Loss, TaskLoss

Builder = Callable[[], nn.Module]

# Measured with benchmarks/sweep.py: more members gain little, and larger students gain nothing.
MOST_TOGETHER = 8
MOST_WEIGHTS = 50_000
# What no sweep sets; left out of its settings, files of results stay valid that were begun before it existed.
NOT_SWEPT = ("rates", "accumulate", "clip_norm")


@dataclass(frozen=True)
class StudentTrainer:
    """Trains and measures the students of a group of cells; travels to the workers once."""

    build: Builder
    teacher: nn.Module | Tensor
    split: ImageSplit
    test: ImageSplit
    test_logits: Tensor | None
    recipe: Recipe  # of all students but for the seed
    loss: Loss = soft_target_loss
    task_loss: TaskLoss = F.cross_entropy
    together: bool = False  # train the students of a group as one network

    def __call__(self, group: Group) -> Outcome:
        # The convolution of a single group is another kernel, with another rounding: a student on its own is
        # trained beside a copy of itself, so that a cell's result does not depend on the grid around it.
        members = [*group, *group] if self.together and len(group) == 1 else group
        students = [self.new(cell["seed"]) for cell in members]
        torch.optim.AdamW(students[0].parameters())  # the first one imports for seconds, not counted below
        started = time.thread_time()
        losses = self._together(students, members) if self.together else self._alone(students, members)
        seconds = (time.thread_time() - started) / len(members)
        trained = list(zip(students, losses, strict=True))[: len(group)]
        return [self._measured(student, loss, seconds) for student, loss in trained]

    def new(self, seed: int) -> nn.Module:
        """A fresh student; the seed fixes its weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def settings(self) -> Row:
        """What decides the rows, for the file of results."""
        recipe = self._arguments(0) | {"student": self.new(0)}
        images = {"teacher": self.teacher, "split": self.split, "test": self.test}
        losses = {"loss": self.loss, "task_loss": self.task_loss}
        return describe(recipe | losses | images | {"test_logits": self.test_logits})

    def _arguments(self, seed: int) -> Row:
        """The recipe as arguments of `distill`."""
        recipe = vars(replace(self.recipe, seed=seed))
        return {name: value for name, value in recipe.items() if name not in NOT_SWEPT}

    def can_be_grouped(self) -> bool:
        """Whether several students can be trained as one network, and are faster so.

        Only with the usual losses, which are computed for all members at once; a student of another loss is trained
        alone, so that its numbers are those of `kdlib.training.distill`.
        """
        if (self.loss, self.task_loss) != (soft_target_loss, F.cross_entropy) or not self.split.has_classes:
            return False
        pair = [self.new(0), self.new(1)]
        live = self.recipe.augment is not None or self.recipe.mix is not None
        if live or preprocessing_of(pair[0]) or sum(p.numel() for p in pair[0].parameters()) > MOST_WEIGHTS:
            return False
        try:
            GroupedNetwork(pair, self.split.normalized(slice(8)))
        except ValueError:
            return False
        return True

    def faster_in_bfloat16(self) -> bool:
        """Whether these students train faster in bfloat16, on this processor, in the groups that they will form."""
        if not self.together:
            return bfloat16_is_faster(self.new(0), self.split, self.recipe.batch_size, 1)
        network = GroupedNetwork([self.new(0)] * MOST_TOGETHER, self.split.normalized(slice(8)))
        network = network.to(memory_format=torch.channels_last)
        return bfloat16_is_faster(network, self.split, self.recipe.batch_size, MOST_TOGETHER)

    def _alone(self, students: list[nn.Module], group: Group) -> list[float]:
        [student], [cell] = students, group
        loss, task_loss = (_anew(one) for one in (self.loss, self.task_loss))
        history = distill(
            student, self.teacher, self.split, temperature=cell["temperature"] or 1.0, alpha=cell["alpha"],
            loss=loss, task_loss=task_loss, progress=False, device="cpu",
            **self._arguments(cell["seed"]),
        )  # fmt: skip
        return [history.records[-1]["loss"]]

    def _together(self, students: list[nn.Module], group: Group) -> list[float]:
        return distill_together(
            students, self.teacher, self.split, temperatures=[cell["temperature"] or 1.0 for cell in group],
            alphas=[cell["alpha"] for cell in group], seeds=[cell["seed"] for cell in group],
            recipe=self.recipe,
        )  # fmt: skip

    def _measured(self, student: nn.Module, loss: float, seconds: float) -> Row | Failure:
        logits = predict_logits(student, self.test, device="cpu")
        if not (math.isfinite(loss) and logits.isfinite().all()):
            return Failure.of(diverged(loss, self.recipe, self.recipe.epochs - 1))
        return self._scores(logits) | {"seconds": seconds}

    def _scores(self, logits: Tensor) -> Row:
        if not self.test.has_classes:
            return {
                "mean_average_precision": metrics.mean_average_precision(logits, self.test),
                "roc_auc": metrics.roc_auc(logits, self.test),
            }
        known = self.test_logits is not None
        return {
            "accuracy": metrics.accuracy(logits, self.test),
            "ece": metrics.calibration_error(logits, self.test),
            "agreement": metrics.agreement(logits, self.test_logits, self.test) if known else float("nan"),
        }


def _anew(loss: Callable) -> Callable:
    """A loss whose parameters begin anew for each student, where it is a module that has some."""
    module = getattr(loss, "func", loss)
    return copy.deepcopy(loss) if isinstance(module, nn.Module) else loss


def even_groups(cells: Sequence[Cell], processes: int, most: int) -> list[Group]:
    """The cells in groups of at most `most`, as equal as can be, and as many for each process."""
    rounds = math.ceil(len(cells) / (processes * most))
    count = min(len(cells), rounds * processes)
    bounds = [len(cells) * number // count for number in range(count + 1)]
    return [cells[start:end] for start, end in itertools.pairwise(bounds)]
