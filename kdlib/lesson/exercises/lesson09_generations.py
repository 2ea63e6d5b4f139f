"""Exercise of lesson 09: a born-again sequence to repair, judged by who was taught by whom.

The functions carry no annotations, because their text is the stub that a learner reads: what things are stands in the
docstring.
"""

import copy

from kdlib.lesson.exercises import _school
from kdlib.lesson.exercises._core import exercise

MADE_UP = "a made-up one"  # build, train and distill, as messages name them

# ------------------------------------------------------------------ mistakes


def _sequence(build, train, distill, last, *, born=None, teacher=-1, learn=None, returned=None):
    """The solution, but for what it is told.

    Args:
        born: gives a student from the generations that there are, with the one that build() gave first.
        teacher: the place of the teacher among the generations that there are.
        learn: teaches a student, instead of distill.
        returned: makes the result of the list.
    """
    generations = [build()]
    blank = copy.deepcopy(generations[0])
    train(generations[0])
    for _ in range(last):
        student = build() if born is None else born([blank, *generations])
        (distill if learn is None else learn)(student, generations[teacher])
        generations.append(student)
    return generations if returned is None else returned(generations)


def _mistaken(**changed):
    return lambda build, train, distill, last: _sequence(build, train, distill, last, **changed)


def _other_number(more):
    return lambda build, train, distill, last: _sequence(build, train, distill, last + more)


def _with_learning(learn):
    """learn(train, distill, student, teacher)"""

    def sequence(build, train, distill, last):
        return _sequence(
            build, train, distill, last, learn=lambda student, teacher: learn(train, distill, student, teacher)
        )

    return sequence


def _trained_too(train, distill, student, teacher):
    distill(student, teacher)
    train(student)


def _twice(train, distill, student, teacher):
    distill(student, teacher)
    distill(student, teacher)


def _one_alone(build, train, distill, last):
    network = build()
    train(network)
    generations = [network]
    for _ in range(last):
        distill(network, network)
        generations.append(network)
    return generations


def _one_too_many(build, train, distill, last):
    return _sequence(build, train, distill, last + 1)[:-1]


def _without_training(build, train, distill, last):
    return _sequence(build, lambda network: None, distill, last)


def _teacher_of_teacher(build, train, distill, last):
    generations = [build()]
    train(generations[0])
    for _ in range(last):
        student = build()
        distill(student, generations[-2:][0])
        generations.append(student)
    return generations


def _half(networks):
    """A network of fresh weights that are drawn halfway to those of the last one."""
    student = copy.deepcopy(networks[-1])
    for part, fresh in zip(student.parameters(), networks[0].parameters(), strict=True):
        part.data.lerp_(fresh.data, 0.5)
    return student


def _as_found(build, train, distill, last):
    # --- your code
    teacher = build()
    train(teacher)
    generations = [teacher]
    for _ in range(last):
        student = copy.deepcopy(teacher)
        distill(student, teacher)
        generations.append(student)
    return generations
    # --- end


@exercise(
    cases=lambda: [(MADE_UP, MADE_UP, MADE_UP, last) for last in (3, 1, 0, 6)],
    probe=_school.lineage,
    start=_as_found,
    hints=[
        """Draw it for last = 2: three networks, and for each of them two arrows, one from where its first weights come
        and one from who teaches it. Then draw what the docstring says, and compare.""",
        """A sequence of generations needs a name that moves on: the one who teaches next is the one who was taught
        last. And what is it that build() gives, whenever it is called?""",
        """In the loop, `student = build()`; after `generations.append(student)` comes `teacher = student`.""",
    ],
    mistakes={
        _school.BY_FIRST: _mistaken(teacher=0),
        _school.LIKE_ITS_TEACHER: _mistaken(born=lambda networks: copy.deepcopy(networks[-1])),
        _school.LIKE_ANOTHER: _mistaken(born=lambda networks: copy.deepcopy(networks[1])),
        _school.LIKE_ALL: _mistaken(born=lambda networks: copy.deepcopy(networks[0])),
        _school.NOT_FROM_BUILD: _mistaken(born=_half),
        f"{_school.LIKE_ALL}; and {_school.BY_FIRST}":
            _mistaken(born=lambda networks: copy.deepcopy(networks[0]), teacher=0),
        _school.BY_ANOTHER: _teacher_of_teacher,
        _school.TOO_FEW: _other_number(-1),
        _school.TOO_MANY: _other_number(1),
        _school.MORE_TAUGHT: _one_too_many,
        _school.NO_LIST: _mistaken(returned=lambda generations: generations[-1]),
        _school.ONLY_LAST: _mistaken(returned=lambda generations: generations[-1:]),
        _school.WITHOUT_FIRST: _mistaken(returned=lambda generations: generations[1:]),
        _school.BACKWARDS: _mistaken(returned=lambda generations: generations[::-1]),
        _school.ALL_TRAINED: _with_learning(_trained_too),
        _school.TAUGHT_AGAIN: _with_learning(_twice),
        _school.SWAPPED: _with_learning(lambda train, distill, student, teacher: distill(teacher, student)),
        _school.BY_ITSELF: _one_alone,
        _school.REPEATED: _mistaken(returned=lambda generations: generations[-1:] * len(generations)),
        _school.UNTAUGHT_TEACHER: _without_training,
        _school.NOT_TAUGHT: _with_learning(lambda train, distill, student, teacher: None),
    },
)  # fmt: skip
def repair_generations(build, train, distill, last):
    """Repair: networks that are born again (Furlanello, Lipton, Tschannen, Itti & Anandkumar 2018). Generation 0 learns
    from the labels. Then, generation after generation, up to number `last`: each is a network of the same kind, born
    with fresh weights, that learns from the generation before it.

    build() gives a network with fresh weights; train(network) trains it in place, on the labels; distill(student,
    teacher) trains the student in place, on what the teacher says. Returns the list of all last + 1 networks,
    generation 0 first. last is at least 0.
    """
    # --- your code
    teacher = build()
    train(teacher)
    generations = [teacher]
    for _ in range(last):
        student = build()
        distill(student, teacher)
        generations.append(student)
        teacher = student
    return generations
    # --- end
