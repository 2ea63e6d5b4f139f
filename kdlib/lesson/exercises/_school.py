"""A made-up school, in which networks learn nothing: it knows of all weights where they come from."""

from typing import NamedTuple

import torch
from torch import nn

from kdlib.lesson.exercises._observe import Complaint


class Taught(NamedTuple):
    """One training: from which weights it started, and which ones it learned from (None where from the labels)."""

    start: tuple
    teacher: tuple | None


class School:
    """Builds and teaches networks in no time, without teaching them anything: new weights are drawn instead.

    No two draws are equal, so that the weights of a network say where they come from: `origin` has the training that
    led to them, or None where the network was born with them.
    """

    def __init__(self):
        self.origin = {}
        self.faults = []  # of single calls
        self._random = torch.Generator().manual_seed(0)

    def build(self):
        network = nn.Linear(3, 2)
        self._draw(network, None)
        return network

    def train(self, network):
        self._draw(_a_network(network, "train", "network"), Taught(weights_of(network), None))

    def distill(self, student, teacher):
        """The fault of this call is noted, if there is one."""
        _a_network(student, "distill", "student"), _a_network(teacher, "distill", "teacher")
        start, taught_by = weights_of(student), weights_of(teacher)
        if student is teacher:
            self.faults.append(BY_ITSELF)
        elif self.is_born(taught_by):
            self.faults.append(UNTAUGHT_TEACHER if self.is_born(start) else SWAPPED)
        self._draw(student, Taught(start, taught_by))

    def is_born(self, weights):
        return weights in self.origin and self.origin[weights] is None

    def past(self, weights, others):
        """The trainings that led to these weights, the last one first, and the weights with which they began.

        Where these are of `others`, or unknown, what went before does not count.
        """
        trainings = []
        while self.origin.get(weights) and not (trainings and weights in others):
            trainings.append(self.origin[weights])
            weights = trainings[-1].start
        return trainings, weights

    def _draw(self, network, training):
        with torch.no_grad():
            for part in network.parameters():
                part.copy_(torch.randn(part.shape, generator=self._random))
        self.origin[weights_of(network)] = training


def _a_network(given, function, role):
    if not isinstance(given, nn.Module):
        what = "nothing" if given is None else f"a {type(given).__name__}"
        raise Complaint(f"{function} is given {what} as its {role}: build() returns one, train and distill do not")
    return given


def weights_of(network):
    return tuple(nn.utils.parameters_to_vector(network.parameters()).tolist())


# ------------------------------------------------------------------ what may be wrong

BY_ITSELF = "a network is taught by itself: a student is another network than its teacher"
SWAPPED = "student and teacher are exchanged: it is distill(student, teacher), and the student is the one that changes"
UNTAUGHT_TEACHER = "a network teaches before it has learned anything: generation 0 is trained first, then 1 is taught"
NOTHING_TRAINED = "generation 0 has not learned from the labels, which is what train is for"
NO_LIST = "what comes back is no list: all the networks are asked for, in a list, for last = 0 too"
NO_NETWORKS = "not all in the list are networks: build() returns one; train and distill return nothing"
BACKWARDS = "the list begins with the last generation: generation 0 comes first"
WITHOUT_FIRST = "generation 0 is missing from the list: it is the first one"
ONLY_LAST = "only the last generation is in the list: all of them are asked for, from 0 to last"
TOO_FEW = "there are too few generations: from 0 to last they are last + 1, and generation 0 is not one of the students"
TOO_MANY = "there are too many generations: from 0 to last they are last + 1, generation 0 being one of them"
REPEATED = "one network stands in the list several times: each generation is a network of its own"
NOT_TAUGHT = "a generation in the list has not been taught"
ALL_TRAINED = "train is called for a student too: labels train generation 0, and distill all others"
TAUGHT_AGAIN = "a network is taught more than once: labels teach generation 0, and each generation the next, once"
MORE_TAUGHT = "more networks are taught than come back: last + 1 trainings are enough"
LIKE_ITS_TEACHER = "a student starts with the weights of its teacher: it is born with fresh ones, from build()"
LIKE_ANOTHER = "a student starts with the weights of another generation: it is born with fresh ones, from build()"
NOT_FROM_BUILD = "a network starts with weights that build() has not given"
LIKE_ALL = "all generations start with the same fresh weights: call build() for each of them"
BY_FIRST = "generation 0 teaches all of them: each generation learns from the one before it"
BY_ANOTHER = "a generation is taught by another one than the one before it"


def _fault(school, result, last):
    """The first thing that is wrong with the sequence, or None."""
    if not isinstance(result, list | tuple):
        return NO_LIST
    if not all(isinstance(network, nn.Module) for network in result):
        return NO_NETWORKS
    if school.faults:
        return school.faults[0]
    weights = [weights_of(network) for network in result]
    return (
        _of_the_list(school, weights, last) or _of_each(school, weights)
        or (MORE_TAUGHT if sum(map(bool, school.origin.values())) > last + 1 else None)
    )  # fmt: skip


def _of_the_list(school, weights, last):
    """About what is in it, and its order."""
    first, *_ = [*weights, None]
    learned = school.origin.get(first)
    if len(set(weights)) < len(weights):
        return REPEATED
    if len(weights) > last + 1:
        return TOO_MANY
    if len(weights) == 1 < last and learned and learned.teacher:
        return ONLY_LAST
    if len(weights) < last + 1:
        begins_later = learned.teacher if learned else not weights
        return WITHOUT_FIRST if len(weights) == last and begins_later else TOO_FEW
    if not all(map(school.origin.get, weights)):
        return NOTHING_TRAINED if not learned else NOT_TAUGHT
    labelled = [school.origin[one].teacher is None for one in weights]
    if labelled[-1] and not any(labelled[:-1]) and last:
        return BACKWARDS
    return None


def _of_each(school, weights):
    """About how the networks of a whole list began, and who taught them: both are said where both are wrong."""
    pasts = [school.past(one, weights) for one in weights]
    trainings, starts = [past for past, _ in pasts], [start for _, start in pasts]
    if any(one.teacher is None for past in trainings[1:] for one in past):
        return ALL_TRAINED
    if trainings[0][0].teacher is not None:
        return WITHOUT_FIRST
    if max(map(len, trainings)) > 1:
        return TAUGHT_AGAIN
    teachers = [past[0].teacher for past in trainings[1:]]
    about = [_about_starts(school, starts, [None, *teachers], weights), _about_teachers(teachers, weights)]
    return "; and ".join(filter(None, about)) or None


def _about_starts(school, starts, teachers, weights):
    if not all(map(school.is_born, starts)):
        wrong = [pair for pair in zip(starts, teachers, strict=True) if not school.is_born(pair[0])]
        if all(start == teacher for start, teacher in wrong):
            return LIKE_ITS_TEACHER
        return LIKE_ANOTHER if all(start in weights for start, _ in wrong) else NOT_FROM_BUILD
    return LIKE_ALL if len(set(starts)) < len(starts) else None


def _about_teachers(teachers, weights):
    if teachers == weights[:-1]:
        return None
    return BY_FIRST if set(teachers) == {weights[0]} else BY_ANOTHER


def lineage(function, _build, _train, _distill, last):
    """Probe: complains of the first thing that is wrong with the sequence."""
    school = School()
    result = function(school.build, school.train, school.distill, last)
    if result is None or result is ...:
        return result
    fault = _fault(school, result, last)
    if fault:
        raise Complaint(fault)
    return {"number of networks": len(result)}
