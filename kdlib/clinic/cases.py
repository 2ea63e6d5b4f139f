"""The case sheets: symptom, the code as it was found, and folded below it the line at fault and its mending."""

import difflib
import html
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kdlib._checks import checked
from kdlib.clinic import loops, losses, schedules, symptoms

_PRE = '<pre style="font-family:monospace">'  # some pages give it the font of their text
BY_DOCTOR, BY_HAND = "by the loss doctor", "by hand"


@dataclass(frozen=True, repr=False)
class Case:
    """A defect of public code.

    Attributes:
        name: as `clinic.case` takes it.
        source: where it was found.
        found, mended: the function or class that holds it, as it was found and mended; a false alarm has the same.
        look: gives the symptom of either.
        by: how it is found.
        finding: what is wrong, and why nobody noticed.
    """

    name: str
    source: str
    found: Any
    mended: Any
    look: Callable[[Any], str]
    by: str
    finding: str

    @property
    def symptom(self) -> str:
        """What is seen of the code as it was found."""
        return self._seen(self.found)

    @property
    def afterwards(self) -> str:
        """The same of the mended code."""
        return self._seen(self.mended)

    def _seen(self, code: Any) -> str:
        # A sheet says the same each time, and leaves the random numbers of a notebook alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.look(code)

    def code(self) -> str:
        """The code as it was found, without a name that gives it away."""
        return _source(self.found)

    def changes(self) -> list[str]:
        """The lines that the mending takes away ("- ...") and puts in ("+ ...")."""
        lines = difflib.ndiff(_source(self.found).splitlines(), _source(self.mended).splitlines())
        return [line for line in lines if line[:2] in ("- ", "+ ")]

    def sheet(self) -> "Sheet":
        """What a notebook shows."""
        return Sheet(self)


@dataclass(frozen=True, repr=False)
class Sheet:
    """A case as it is shown: the mending stays folded until it is asked for."""

    case: Case

    @property
    def number(self) -> int:
        """The place of the case among all, from 1: its name would give it away."""
        return 1 + _CASES.index(self.case)

    def __repr__(self) -> str:
        one = self.case
        return f"Case {self.number}. {one.symptom}\n\n{one.code()}"

    def _repr_html_(self) -> str:
        one, words = self.case, html.escape
        changes = "\n".join(one.changes()) or "(nothing)"
        shown = [
            f"<h4>Case {self.number}</h4><p><b>Seen:</b> {words(one.symptom)}</p>",
            f"{_PRE}{words(one.code())}</pre>",
            "<details><summary>What is it?</summary>",
            f"<p><b>{words(one.name.capitalize())}</b>, found {one.by}; {words(one.source)}.</p>"
            f"<p>{words(one.finding)}</p>{_PRE}{words(changes)}</pre><p><b>Afterwards:</b> {words(one.afterwards)}</p>",
            "</details>",
        ]
        return f'<div style="border-left:4px solid #999;padding-left:12px;margin-bottom:16px">{"".join(shown)}</div>'


def _source(code: Any) -> str:
    """The text of a function or class, with a name and docstring that say nothing about fault or mending."""
    text = inspect.getsource(code).strip()
    for ending in ("_as_found", "_mended", "AsFound", "Mended"):
        text = text.replace(ending, "")
    return text


_CASES = (
    Case(
        "reduction", "haitongli/knowledge-distillation-pytorch, labml", losses.reduction_as_found,
        losses.reduction_mended, symptoms.of_reduction, BY_DOCTOR,
        "The mean goes over images and classes, so the teacher's term is ten times too small with ten classes and a "
        "hundred times with a hundred: an alpha that nobody wrote down.",
    ),
    Case(
        "weights", "vit-pytorch#91 and many texts", losses.weights_as_found, losses.weights_mended,
        symptoms.of_weights, BY_DOCTOR,
        "alpha is called the teacher's weight and multiplies the labels. At 0.5, the usual default, nobody can tell.",
    ),
    Case(
        "sigmoids", "DIST_KD#4, KD_methods_with_TF#9", losses.sigmoids_as_found, losses.sigmoids_mended,
        symptoms.of_sigmoids, BY_DOCTOR,
        "Each class has two outcomes, yes and no, and only the yes is summed. What is left falls on and on as the "
        "student says yes.",
    ),
    Case(
        "clamp", "penghui-yang/L2D, mld.py", losses.clamp_as_found, losses.clamp_mended, symptoms.of_clamp, BY_DOCTOR,
        "1 - 1e-8 is 1 in float32, so nothing is clamped above; below, the clamp takes the gradient away just where "
        "the student is most wrong.",
    ),
    Case(
        "logarithm", "the PyTorch tutorial on distillation, in float32 at T = 2, where it takes a gap of 220",
        losses.logarithm_as_found, losses.logarithm_mended,
        symptoms.of_logarithm, BY_DOCTOR,
        "0 log 0 is computed as 0 times minus infinity, which is no number: a small probability of the teacher became "
        "0 when it was stored in 16 bits. The gradient is right all the same, as the teacher's logarithm is constant. "
        "F.kl_div and torch.xlogy know that 0 log 0 is 0.",
    ),
    Case(
        "cache", "haitongli/knowledge-distillation-pytorch", loops.cache_as_found, loops.cache_mended,
        symptoms.of_cache, BY_HAND,
        "Answers are stored by the number of the batch; in the next epoch the same number stands for other images.",
    ),
    Case(
        "mode", "IntelLabs/distiller, and wrappers that call train()", loops.mode_as_found, loops.mode_mended,
        symptoms.of_mode, BY_HAND,
        "train() on what holds both networks switches the teacher, too. Its batch norm then answers by the batch, and "
        "its running statistics follow the student's images.",
    ),
    Case(
        "best", "code that keeps a best epoch; NVlabs/DeepInversion has it with its best images", loops.best_as_found,
        loops.best_mended, symptoms.of_best, BY_HAND,
        "state_dict() holds the weights themselves, not a copy: they go on learning. What comes back as the best is "
        "the last, beside the best figure.",
    ),
    Case(
        "false alarm", "CTKD#24", schedules.CosineDecay, schedules.CosineDecay, symptoms.of_decay, BY_HAND,
        "There is nothing to mend: the report is wrong. (1 + cos 0) / 2 is 1, so it begins at its upper value, 0, and "
        "ends at -1, as in the paper.",
    ),
    Case(
        "adversary", "Fast-Datafree, datafree_kd.py, where a generator is trained; here pixels are moved",
        loops.adversary_as_found, loops.adversary_mended, symptoms.of_adversary, BY_HAND,
        "student=teacher: the teacher is compared with itself. The disagreement is 0 everywhere, and so is its "
        "gradient.",
    ),
    Case(
        "training on validation", "tutorial D", loops.report_as_found,
        loops.report_mended, symptoms.of_report, BY_HAND,
        "The split that is reported is the one that was learned.",
    ),
    Case(
        "schedule", "tutorial B", schedules.FallingAsFound, schedules.FallingMended,
        symptoms.of_schedule, BY_HAND,
        "The end is never stored: as it is printed, the class has not been run.",
    ),
    Case(
        "together", "tutorial C", loops.together_as_found, loops.together_mended, symptoms.of_together, BY_HAND,
        "1: one channel meets a first layer for three. 2: 1,000 outputs meet ten. 3: the student's loss reaches into a "
        "graph that the teacher's backward pass has freed (kept, it meets weights that have changed). 4, which stops "
        "nothing: the student would send gradients into its teacher.",
    ),
)  # fmt: skip


def cases() -> tuple[Case, ...]:
    """All cases; one of them is a false alarm."""
    return _CASES


def _known(name: str, value: Any) -> Any:
    names = [one.name for one in _CASES]
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")
    return value


@checked(name=_known)
def case(name: str) -> Case:
    """The case of this name.

    Raises:
        ValueError: there is none; the message names all.
    """
    return next(one for one in _CASES if one.name == name)
