"""What the tests of several lessons' experiments share: tables by plain counting, and experiments without trainings."""

import itertools

import numpy as np
import pandas
import torch

from kdlib.experiments import choosing
from kdlib.lesson import results

read, all_recorded = results.read, results.recorded  # as they are, also where a test replaces them


def recorded(lesson):
    return {name: read(name) for name in all_recorded() if name.startswith(lesson)}


def in_place_of_trainings(patch, table):
    """Let the experiments make their tables by table(function, cells)."""
    patch.setattr(choosing, "map_cells", table)


def in_place_of_recorded(patch, tables):
    patch.setattr(results, "read", lambda name: tables[name].copy())
    patch.setattr(results, "recorded", lambda: [*tables])


def invent(patch, topics, measured, names):
    """A table of every experiment: the cells of its own grid, with invented results.

    topics: topic -> module; measured: topic -> columns; names: topic -> its experiments, tunings first.
    """
    random, tables = np.random.default_rng(0), {}

    def table(function, cells):
        (topic,) = (topic for topic, module in topics.items() if function.func is module.on_split)
        return pandas.DataFrame([one | {name: random.random() for name in sorted(measured[topic])} for one in cells])

    in_place_of_trainings(patch, table)
    in_place_of_recorded(patch, tables)
    for name in itertools.chain(*map(names, topics)):
        tables[name] = results.registered()[name]()
    return tables


def means_of(tuning, context, settings, judged_by):
    """(context, arm) -> settings -> mean over the seeds, by plain counting. judged_by: arm -> column."""
    found = {}
    for row in tuning.to_dict("records"):
        key = (*(row[name] for name in context), row["arm"])
        own = found.setdefault(key, {}).setdefault(tuple(row[name] for name in settings), [])
        own.append(row[judged_by(row["arm"])])
    return {key: {one: sum(values) / len(values) for one, values in own.items()} for key, own in found.items()}


def chosen_in(table, context, settings):
    """(context, arm) -> the settings of the reported rows, one for all seeds."""
    found = {}
    for row in table.to_dict("records"):
        key = (*(row[name] for name in context), row["arm"])
        found.setdefault(key, set()).add(tuple(row[name] for name in settings))
    assert all(len(settings) == 1 for settings in found.values())
    return {key: settings.pop() for key, settings in found.items()}


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def alike(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
