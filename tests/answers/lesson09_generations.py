"""Answers to the repair of lesson 09: sequences of networks, each with a slip of its own."""

import copy
import functools

from answers import Answers

# ------------------------------------------------------------------ right


def built_beforehand(build, train, distill, last):
    networks = [build() for _ in range(last + 1)]
    train(networks[0])
    for teacher, student in zip(networks, networks[1:], strict=False):
        distill(student, teacher)
    return networks


def by_recursion(build, train, distill, last):
    before = by_recursion(build, train, distill, last - 1) if last else []
    network = build()
    if before:
        distill(network, before[-1])
    else:
        train(network)
    return [*before, network]


def by_number(build, train, distill, last):
    networks = {}
    for number in range(0, last + 1):
        networks[number] = build()
        if number == 0:
            train(network=networks[number])
        else:
            distill(teacher=networks[number - 1], student=networks[number])
    return tuple(networks.values())


def copies_are_kept(build, train, distill, last):
    """What comes back are copies, and the teacher is a frozen one."""
    network, kept = build(), []
    train(network)
    for _ in range(last):
        kept.append(copy.deepcopy(network))
        network = build()
        distill(network, copy.deepcopy(kept[-1]).requires_grad_(False).eval())
    return [*kept, network]


def fresh_weights_are_loaded(build, train, distill, last):
    """The student is a copy of its teacher, which then gets the weights of a new network."""
    generations = [build()]
    train(generations[-1])
    while len(generations) <= last:
        student = copy.deepcopy(generations[-1])
        student.load_state_dict(build().state_dict())
        distill(student, generations[-1])
        generations.append(student)
    return generations


def by_reduce(build, train, distill, last):
    first = build()
    train(first)

    def one_more(generations, _):
        student = build()
        distill(student, generations[-1])
        return generations + [student]

    return functools.reduce(one_more, range(last), [first])


# ------------------------------------------------------------------ wrong


def as_it_was_given_with_other_words(build, train, distill, last):
    teacher = build()
    train(teacher)
    students = [copy.deepcopy(teacher) for _ in range(last)]
    for student in students:
        distill(student, teacher)
    return [teacher] + students


def teacher_moves_on_but_students_are_copies(build, train, distill, last):
    teacher = build()
    train(teacher)
    generations = [teacher]
    for _ in range(last):
        student = build()
        student.load_state_dict(teacher.state_dict())
        distill(student, teacher)
        generations.append(student)
        teacher = student
    return generations


def students_are_fresh_but_the_teacher_stays(build, train, distill, last):
    teacher = build()
    train(teacher)
    generations = [teacher]
    for _ in range(last):
        student = build()
        distill(student, teacher)
        generations.append(student)
    return generations


def copies_of_the_first(build, train, distill, last):
    first = build()
    train(first)
    generations = [first]
    for number in range(last):
        generations.append(copy.deepcopy(first))
        distill(generations[number + 1], generations[number])
    return generations


def one_network_is_built(build, train, distill, last):
    generations = [copy.deepcopy(blank) for blank in [build()] * (last + 1)]
    train(generations[0])
    for number in range(1, last + 1):
        distill(generations[number], generations[number - 1])
    return generations


def one_too_few(build, train, distill, last):
    return built_beforehand(build, train, distill, max(last - 1, 0))


def one_too_many(build, train, distill, last):
    return built_beforehand(build, train, distill, last + 1)


def the_last_one(build, train, distill, last):
    return built_beforehand(build, train, distill, last)[last]


def a_list_of_the_last_one(build, train, distill, last):
    return built_beforehand(build, train, distill, last)[last:]


def students_alone(build, train, distill, last):
    teacher = build()
    train(teacher)
    students = []
    for _ in range(last):
        student = build()
        distill(student, teacher)
        students.append(student)
        teacher = student
    return students


def last_one_first(build, train, distill, last):
    generations = built_beforehand(build, train, distill, last)
    generations.reverse()
    return generations


def each_sees_labels_first(build, train, distill, last):
    generations = []
    for number in range(last + 1):
        generations.append(build())
        train(generations[-1])
        if number:
            distill(generations[-1], generations[-2])
    return generations


def each_sees_labels_alone(build, train, distill, last):
    networks = [build() for _ in range(last + 1)]
    for network in networks:
        train(network)
    return networks


def exchanged(build, train, distill, last):
    return built_beforehand(build, train, lambda student, teacher: distill(teacher, student), last)


def taught_by_itself(build, train, distill, last):
    network = build()
    train(network)
    snapshots = [copy.deepcopy(network)]
    for _ in range(last):
        distill(network, network)
        snapshots.append(copy.deepcopy(network))
    return snapshots


def one_network_learns_on(build, train, distill, last):
    """The student is the same network each time, and so it stands in the list again and again."""
    teacher, student = build(), build()
    train(teacher)
    generations = [teacher]
    for _ in range(last):
        distill(student, generations[-1] if len(generations) == 1 else copy.deepcopy(student))
        generations.append(student)
    return generations


def nobody_is_trained(build, train, distill, last):
    return built_beforehand(build, lambda network: None, distill, last)


def backwards(build, train, distill, last):
    """The last student is taught first."""
    networks = [build() for _ in range(last + 1)]
    for number in range(last, 0, -1):
        distill(networks[number], networks[number - 1])
    train(networks[0])
    return networks


def by_all_that_went_before(build, train, distill, last):
    generations = [build()]
    train(generations[0])
    for _ in range(last):
        student = build()
        for teacher in generations:
            distill(student, teacher)
        generations.append(student)
    return generations


def only_labels_for_the_first_and_nothing_more(build, train, distill, last):
    networks = [build() for _ in range(last + 1)]
    train(networks[0])
    return networks


def a_spare_one_is_taught(build, train, distill, last):
    generations = built_beforehand(build, train, distill, last)
    distill(build(), generations[-1])
    return generations


def what_training_returns(build, train, distill, last):
    teacher = train(build())
    generations = [teacher]
    for _ in range(last):
        generations.append(distill(build(), generations[-1]))
    return generations


def skips_one(build, train, distill, last):
    generations = [build()]
    train(generations[0])
    for number in range(last):
        generations.append(build())
        distill(generations[-1], generations[max(number - 1, 0)])
    return generations


def halfway_to_the_teacher(build, train, distill, last):
    generations = [build()]
    train(generations[0])
    for _ in range(last):
        student = build()
        for own, given in zip(student.parameters(), generations[-1].parameters(), strict=True):
            own.data = own.data * 0.1 + given.data
        distill(student, generations[-1])
        generations.append(student)
    return generations


REPAIR_GENERATIONS = Answers(
    wrong={
        "It still does what it did": as_it_was_given_with_other_words,
        "starts with the weights of its teacher": teacher_moves_on_but_students_are_copies,
        "generation 0 teaches all of them": students_are_fresh_but_the_teacher_stays,
        "with the weights of another generation": copies_of_the_first,
        "start with the same fresh weights": one_network_is_built,
        "with weights that build() has not given": halfway_to_the_teacher,
        "there are too few generations": one_too_few,
        "there are too many generations": one_too_many,
        "more networks are taught than come back": a_spare_one_is_taught,
        "what comes back is no list": the_last_one,
        "only the last generation is in the list": a_list_of_the_last_one,
        "generation 0 is missing from the list": students_alone,
        "generation 0 comes first": last_one_first,
        "train is called for a student too": each_sees_labels_first,
        "labels train generation 0, and distill all others": each_sees_labels_alone,
        "student and teacher are exchanged": exchanged,
        "a network is taught by itself": taught_by_itself,
        "one network stands in the list several times": one_network_learns_on,
        "generation 0 is trained first, then 1": nobody_is_trained,
        "teaches before it has learned anything": backwards,
        "a network is taught more than once": by_all_that_went_before,
        "a generation in the list has not been taught": only_labels_for_the_first_and_nothing_more,
        "distill is given nothing as its teacher": what_training_returns,
        "by another one than the one before it": skips_one,
        "no list: all the networks are asked for": lambda build, train, distill, last: {
            number: network for number, network in enumerate(by_reduce(build, train, distill, last))},
        "build() returns one; train and distill return nothing": lambda build, train, distill, last: [
            *by_reduce(build, train, distill, last)[:-1], "the last one"],
        "It stops with": lambda build, train, distill, last: by_reduce(build(), train, distill, last),
    },
    right=[
        built_beforehand, by_recursion, by_number, copies_are_kept, fresh_weights_are_loaded, by_reduce,
    ],
)  # fmt: skip
