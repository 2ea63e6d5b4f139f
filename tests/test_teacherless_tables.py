"""The tables of lesson 09: their settings were the best on validation, their gains are those of their rows."""

import functools
import itertools

import experiment_tables
import numpy as np
import pandas
import pytest
from experiment_tables import in_place_of_recorded, in_place_of_trainings, invent
from scipy import stats

from kdlib.experiments import (
    choosing,
    gains,
    lesson09_embeddings,
    lesson09_exits,
    lesson09_few,
    lesson09_gains,
    lesson09_ladder,
    lesson09_peers,
    lesson09_self,
    lesson09_several,
    lesson09_two,
)
from kdlib.lesson import results
from kdlib.metrics import Interval
from kdlib.sweeps import map_cells

pytestmark = pytest.mark.usefixtures("one_thread")

TOPICS = {
    "self": lesson09_self, "exits": lesson09_exits, "peers": lesson09_peers, "several": lesson09_several,
    "embeddings": lesson09_embeddings, "two": lesson09_two, "ladder": lesson09_ladder, "few": lesson09_few,
}  # fmt: skip
MEASURED = {
    "self": {"accuracy", "believed"}, "exits": {"exit 1", "exit 2", "exit 3", "mean"},
    "peers": {"accuracy", "ece", "both", "agreement"}, "several": {"accuracy", "ece"},
    "embeddings": {"probe", *(f"{name} {count}" for name in ("probe", "nearest") for count in (10, 100, 1000))},
    "two": {"items met", "angles met", "item", "degrees"}, "ladder": {"accuracy", "agreement", "classes", "sure"},
    "few": {"accuracy"},
}  # fmt: skip
BEST_BY = {"exits": "mean", "embeddings": "probe", "two": "item"}  # all others: accuracy
CONTEXT = {"self": ["wrong"], "ladder": ["images"], "few": ["a_class"]}
SETTINGS = {
    "self": ["alpha", "temperature", "rate"], "exits": ["alpha", "temperature", "rate"],
    "peers": ["weight", "temperature", "rate"], "several": ["alpha", "temperature", "rate"],
    "embeddings": ["rate"], "two": ["rate"], "ladder": ["temperature", "rate"], "few": ["rate"],
}  # fmt: skip
KINDS = ("-labels-tuning", "-tuning", "-edge-tuning", "-later-tuning", "", "-again")  # each asks those before it
AT_CHANCE = (lesson09_ladder.NOISE, lesson09_ladder.SHUFFLED, lesson09_ladder.PHOTOGRAPHS)


def names(topic):
    return [name for kind in KINDS if (name := f"lesson09-{topic}{kind}") in results.registered()]


def all_tried(topic, tables):
    """What was tried on validation, beyond the edges too."""
    tried = [name for name in names(topic) if name.endswith("tuning") and "labels" not in name]
    return pandas.concat([tables[name] for name in tried if name in tables], ignore_index=True)


def means_of(topic, tuning):
    by = BEST_BY.get(topic, "accuracy")
    return experiment_tables.means_of(tuning, CONTEXT.get(topic, []), SETTINGS[topic], lambda arm: by)


def best_of(topic, tuning):
    return {key: max(own, key=own.get) for key, own in means_of(topic, tuning).items()}


def chosen_in(topic, table):
    return experiment_tables.chosen_in(table, CONTEXT.get(topic, []), SETTINGS[topic])


def recorded():
    return experiment_tables.recorded("lesson09")


@pytest.fixture(autouse=True)
def forgotten():
    """What was read from other tables."""
    for cache in (lesson09_self.label_rate, lesson09_gains.rows):
        cache.cache_clear()
    yield
    for cache in (lesson09_self.label_rate, lesson09_gains.rows):
        cache.cache_clear()


@pytest.fixture
def invented(monkeypatch):
    """A table of every experiment: the cells of its own grid, with invented results."""
    return invent(monkeypatch, TOPICS, MEASURED, names)


# ------------------------------------------------------------------ how settings are chosen


def expected_of(topic, tuning):
    """The best of each arm, and the settings of the arms that are not tuned by themselves."""
    expected = best_of(topic, tuning)
    if topic == "self":
        shared = {(wrong, arm): expected[wrong, "generation 1"] for wrong in (0.0, 0.4) for arm in lesson09_self.LATER}
        expected |= shared
    if topic == "exits":
        expected[lesson09_exits.TAUGHT_LONGER,] = expected[lesson09_exits.TAUGHT,]
    if topic == "several":
        more = [(lesson09_several.ONE_OUTSIDE,), (lesson09_several.TWO_OUTSIDE,)]
        shared = {key: (1.0, 4.0, 0.18) for key in (*expected, *more)}
        expected = shared | {("labels",): expected["labels",]}
    if topic == "embeddings":
        fed = ("pixels from 0 to 1", "pixels from -1 to 1", "ImageNet's", "pixels from 0 to 255")
        expected |= {(arm,): expected["standardised",] for arm in fed}
        expected |= {(arm,): (0.0,) for arm in ("untrained student", "raw pixels", "the teacher's own")}
    return expected


def judged_again(topic, expected):
    """What needs a verdict: all that a comparison names."""
    sides = [(one.topic, one.arm, one.where) for one in comparisons()]
    for one in comparisons():
        other, _, where = one.control or (one.topic, one.by, one.where)
        sides.append((other, one.over, where))
    named = {(*where.values(), arm) for of, arm, where in sides if of == topic}
    return {key: one for key, one in expected.items() if key in named}


def test_the_arms_of_a_table_have_the_settings_that_were_best_on_validation(invented):
    for topic in TOPICS:
        tuning, table, again = all_tried(topic, invented), *(invented[name] for name in names(topic)[-2:])
        expected = expected_of(topic, tuning)
        assert chosen_in(topic, table) == expected, topic
        assert chosen_in(topic, again) == judged_again(topic, expected), topic
        assert (tuning["split"] == "validation").all() and (table["split"] == "test").all()
        assert (again["split"] == "test").all(), topic
        for name in names(topic):
            settings = invented[name].drop(columns=list(MEASURED[topic]))
            assert not settings.duplicated().any() and settings.groupby("seed").size().nunique() == 1, name


def test_the_best_follows_the_tuning_and_the_mean_over_its_seeds(invented):
    """One setting is made the best in the mean, though another one is the best with one seed."""
    for topic in TOPICS:
        first, by = invented[f"lesson09-{topic}-tuning"], BEST_BY.get(topic, "accuracy")
        for number in (0, 7):
            invented[f"lesson09-{topic}-tuning"] = tuning = first.copy()
            key, settings = [(key, one) for key, own in means_of(topic, tuning).items() for one in own][number]
            where = pandas.Series(True, index=tuning.index)
            for name, value in zip([*CONTEXT.get(topic, []), "arm"], key, strict=True):
                where &= tuning[name] == value
            of_setting = where.copy()
            for name, value in zip(SETTINGS[topic], settings, strict=True):
                of_setting &= tuning[name] == value
            tuning.loc[of_setting, by] = 5.0
            tuning.loc[where & ~of_setting & (tuning["seed"] == 100), by] = 7.0
            chosen = chosen_in(topic, pandas.DataFrame(TOPICS[topic].cells(range(2))))
            assert topic == "several" and key != ("labels",) or chosen[key] == settings, (topic, key)


def test_generation_0_learns_at_the_rate_that_is_best_for_labels(invented):
    """It is another one for other shares of wrong labels, and stands in each row of that share."""
    tuning = invented["lesson09-self-labels-tuning"]
    for wrong, rate in ((0.0, 0.007), (0.4, 0.54)):
        tuning.loc[(tuning["wrong"] == wrong) & (tuning["rate"] == rate), "accuracy"] = 2.0
    lesson09_self.label_rate.cache_clear()
    for name in names("self")[1:]:
        table = results.registered()[name]()
        assert dict(table.groupby("wrong")["label_rate"].agg(set)) == {0.0: {0.007}, 0.4: {0.54}}, name


def test_the_lowest_is_the_best_where_that_is_asked_for():
    table = pandas.DataFrame({"rate": [1, 1, 2, 2], "alpha": [0, 0, 0, 1], "gap": [1.0, 5.0, 2.0, 4.0]})
    assert choosing.best(table, ["rate", "alpha"], by="gap", lowest=True) == {"rate": 2.0, "alpha": 0.0}
    assert choosing.best(table, ["rate", "alpha"], by="gap") == {"rate": 2.0, "alpha": 1.0}
    assert choosing.best(table, ["alpha"], by="gap") == {"alpha": 1.0}


def test_each_arm_of_a_grid_is_tried_with_each_seed_and_each_value_of_one_more_setting(monkeypatch):
    in_place_of_trainings(monkeypatch, lambda function, cells: pandas.DataFrame(cells))
    grids = {"one": [{"rate": 1}, {"rate": 2}], "other": [{"rate": 3}]}
    table = choosing.tried_for_each(None, grids, [7, 8], images=(10, 20))
    found = sorted(table[["images", "arm", "rate", "seed"]].itertuples(index=False, name=None))
    arms = (("one", 1), ("one", 2), ("other", 3))
    assert found == sorted((images, *arm, seed) for images in (10, 20) for arm in arms for seed in (7, 8))
    assert (table["split"] == "validation").all() and list(table.index) == [*range(12)]


def test_seeds_of_tuning_are_disjoint_from_those_that_are_reported(invented):
    for tables in (invented, recorded()):
        tuned = {seed for name, table in tables.items() if name.endswith("tuning") for seed in table["seed"]}
        assert tuned == {100, 101, 102}
        for name, table in tables.items():
            if not name.endswith("tuning"):
                assert tuned.isdisjoint(table["seed"]) and table["seed"].nunique() == 10, name
            if name.endswith("again"):
                first = tables.get(name.removesuffix("-again"), table.iloc[:0])
                assert set(first["seed"]).isdisjoint(table["seed"]), name


def test_tables_are_made_by_trainings_of_the_cells(monkeypatch):
    """From tuning to the table, with real trainings of labels and of what is taught."""
    monkeypatch.setattr(choosing, "map_cells", functools.partial(map_cells, workers=0, progress=False))
    tables, sizes = {}, {"images": 40, "epochs": 1}
    in_place_of_recorded(monkeypatch, tables)
    for topic, arms in {"exits": ("labels at every exit", "taught by the last exit"), "peers": ("mutual",)}.items():
        module = TOPICS[topic]
        monkeypatch.setattr(module, "GRIDS", {arm: module.GRIDS[arm][-2:] for arm in arms})
        tables[f"lesson09-{topic}-tuning"] = tuning = module.tuning([100], **sizes)
        assert len(tuning) == 2 * len(arms) and MEASURED[topic] <= set(tuning), topic
        table = module.compared([0], **sizes)
        assert MEASURED[topic] <= set(table) and not table.isna().any(axis=None), topic
        assert chosen_in(topic, table) == expected_of(topic, tuning), topic
        numbers = table[sorted(MEASURED[topic])].to_numpy(dtype=float)
        assert np.array_equal(numbers, numbers.round(6))


# ------------------------------------------------------------------ gains


MAKERS = ("_self", "_exits", "_peers", "_several", "_embeddings", "_two", "_ladder", "_few")


def comparisons():
    return [one for name in MAKERS for one in getattr(lesson09_gains, name)()]


def by_seed(tables, topic, kind, arm, by, where):
    table = tables[f"lesson09-{topic}{kind}"]
    for name, value in where.items():
        table = table[table[name] == value]
    table = table[table["arm"] == arm]
    assert len(table) == 10 and table["seed"].nunique() == 10, (topic, kind, arm, where)
    return dict(zip(table["seed"], table[by], strict=True))


def by_hand(tables, one, kind):
    """(mean, low, high) of the paired t interval."""
    own = by_seed(tables, one.topic, kind, one.arm, one.by, one.where)
    other = by_seed(tables, *_control(one, kind))
    assert own.keys() == other.keys()
    gaps = np.array([own[seed] - other[seed] for seed in own])
    gaps = -gaps if one.by in ("ece", "degrees") else gaps  # the smaller, the better
    low, high = stats.t.interval(0.95, 9, loc=gaps.mean(), scale=gaps.std(ddof=1) / 10**0.5)
    return gaps.mean(), low, high


def _control(one, kind):
    topic, by, where = one.control or (one.topic, one.by, one.where)
    return topic, kind, one.over, by, where


def test_every_comparison_is_the_paired_t_interval_of_rows_that_the_tables_have(invented):
    rows = lesson09_gains.rows()
    assert not rows.duplicated(["topic", "arm", "over", "of"]).any() and set(rows["topic"]) == set(TOPICS)
    assert len(comparisons()) == len(rows)
    for one, row in zip(comparisons(), rows.to_dict("records"), strict=True):
        assert (one.topic, one.arm, one.over, one.of) == (row["topic"], row["arm"], row["over"], row["of"])
        found = [row["gain"], row["gain of other seeds"]]
        for kind, gain in zip(("", "-again"), found, strict=True):
            assert (gain.mean, gain.low, gain.high) == pytest.approx(by_hand(invented, one, kind)), one
        above, below = all(gain.low > 0 for gain in found), all(gain.high < 0 for gain in found)
        assert row["verdict"] == ("helps" if above else "hurts" if below else "not told apart"), one
        assert row["unit"] == ("degrees" if one.by == "degrees" else "points"), one
        assert lesson09_gains.gain(one.topic, one.arm, one.over, one.of) == row["gain"]
    turned = {one.by for one in comparisons() if one.by in ("ece", "degrees")}
    assert turned == {"ece", "degrees"}
    controls = {one.control[0] for one in comparisons() if one.control}
    assert controls == {"few", "ladder", "peers"}, "tables of other topics"


def test_the_recorded_gains_are_those_of_the_recorded_rows():
    tables = recorded()
    for one in comparisons():
        for kind in ("", "-again"):
            if {f"lesson09-{topic}{kind}" for topic in (one.topic, _control(one, kind)[0])} <= tables.keys():
                gain = one.gain(kind)
                assert (gain.mean, gain.low, gain.high) == pytest.approx(by_hand(tables, one, kind), abs=1e-9), one


def test_a_smaller_error_is_a_gain(invented):
    """Of calibration and of degrees, where all else of the row stays as it is."""
    of = {
        "several": (lesson09_several.LOGITS, lesson09_several.PROBABILITIES, "calibration", "ece"),
        "two": (lesson09_two.STANDARDISED, lesson09_two.AS_THEY_ARE, "degrees", "degrees"),
    }  # fmt: skip
    for topic, (arm, over, words, by) in of.items():
        for kind in ("", "-again"):
            table = invented[f"lesson09-{topic}{kind}"]
            table.loc[table["arm"] == over, by] = 0.5 + 0.001 * table["seed"]
            table.loc[table["arm"] == arm, by] = 0.2 + 0.002 * table["seed"]
        lesson09_gains.rows.cache_clear()
        gain = lesson09_gains.gain(topic, arm, over, words)
        assert gain.mean == pytest.approx(0.3 - 0.001 * 4.5) and 0.29 < gain.low < gain.mean < gain.high < 0.31
        row = lesson09_gains.rows().query("topic == @topic and arm == @arm and over == @over and of == @words")
        assert row["verdict"].tolist() == ["helps"]


def test_a_verdict_needs_two_sets_of_seeds_that_agree_and_intervals_without_0():
    above, below, across = Interval(2, 1, 3), Interval(-2, -3, -1), Interval(1, -1, 3)
    touching, from_below = Interval(1, 0, 2), Interval(-1, -2, 0)
    for both, words in [
        ((above, above), "helps"), ((below, below), "hurts"), ((above, below), "not told apart"),
        ((above, across), "not told apart"), ((across, below), "not told apart"), ((across, across), "not told apart"),
        ((above, touching), "not told apart"), ((below, from_below), "not told apart"),
    ]:  # fmt: skip
        assert gains.verdict(*both) == gains.verdict(*reversed(both)) == words


def test_a_comparison_that_is_not_made_is_named(invented):
    with pytest.raises(KeyError, match="no comparison of 'nobody' over 'labels' in 'self' with 'nothing'"):
        lesson09_gains.gain("self", "nobody", "labels", "nothing")


def test_gains_are_shown_in_points_or_degrees_without_minus_0():
    table = pandas.DataFrame(
        {"topic": "two", "arm": ["a", "b"], "over": "c", "of": "", "verdict": "helps", "unit": ["points", "degrees"],
         "gain": [Interval(0.0123, -0.0001, 0.02), Interval(1.23, -0.5, 2)],
         "gain of other seeds": [Interval(-0.5, -1, 0), Interval(0, 0, 0)]}
    )  # fmt: skip
    shown = gains.shown(table)
    assert shown["gain"].tolist() == ["+1.2 [+0.0, +2.0]", "+1.2° [-0.5, +2.0]"]
    assert shown["gain of other seeds"].tolist() == ["-50.0 [-100.0, +0.0]", "+0.0° [+0.0, +0.0]"]
    assert list(shown.index) == ["a", "b"] and set(shown) == {"over", "gain", "gain of other seeds", "verdict"}
    assert "of" in gains.shown(table.assign(of=["", "test"]))


# ------------------------------------------------------------------ what is recorded


def test_every_table_of_the_lesson_is_recorded_and_nothing_else():
    registered = {name for name in results.registered() if name.startswith("lesson09")}
    assert set(itertools.chain(*map(names, TOPICS))) == registered
    assert recorded().keys() == registered


def test_the_recorded_tables_have_the_cells_of_the_grids_as_they_are_now(monkeypatch):
    """In their order, and with the settings that the recorded tunings choose."""
    in_place_of_trainings(monkeypatch, lambda function, cells: pandas.DataFrame(cells))
    for name, table in recorded().items():
        cells = results.registered()[name]()
        pandas.testing.assert_frame_equal(table[list(cells)], cells, check_dtype=False, obj=name)
        assert MEASURED[name.split("-")[1]] | {*cells} == set(table) and not table.isna().any(axis=None), name


def test_a_setting_that_was_tried_twice_gave_the_same_twice():
    tables = recorded()
    for topic in TOPICS:
        tuning = all_tried(topic, tables)
        settings = [name for name in tuning if name not in MEASURED[topic]]
        again = tuning[tuning.duplicated(settings, keep=False)]
        assert len(again.drop_duplicates()) == len(again.drop_duplicates(settings)), topic


def test_rungs_that_are_left_out_are_within_five_points_of_chance_and_all_others_far_above():
    """Of ten classes, all equally often: ten in a hundred. The best of many tries on validation lies a bit above."""
    tables = recorded()
    best = {key: max(own.values()) for key, own in means_of("ladder", all_tried("ladder", tables)).items()}
    for (images, arm), value in best.items():
        assert value < 0.15 if arm in AT_CHANCE else value > 0.2, (images, arm)
    kept = {*lesson09_ladder.RUNGS} - {*AT_CHANCE}
    assert kept == {*lesson09_ladder.ABOVE_CHANCE} and {arm for _, arm in best} == {*AT_CHANCE, *kept, "real, labels"}
    for name in {"lesson09-ladder", "lesson09-ladder-again"} & tables.keys():
        for (images, arm), own in tables[name].groupby(["images", "arm"]):
            low, high = stats.t.interval(0.95, 9, loc=own["accuracy"].mean(), scale=stats.sem(own["accuracy"]))
            assert 0.05 < low <= high < 0.15 if arm in AT_CHANCE else low > 0.2, (name, images, arm)


SMALLEST = "with ten images the curve is flat: a lower rate is no other training"
SAME_FOR_ALL = "all ways of asking three teachers have one setting, that is within a point of each one's best"
LIMIT = "where all logits over T are small, T changes the loss no more"
AS_GENERATION_1 = "it has the temperatures of generation 1, which is worse at 10"
# (topic, context, arm, setting): why its edge is one.
ON_AN_EDGE = {
    **{("few", 1, arm, "rate"): SMALLEST for arm in (lesson09_few.HARD, lesson09_few.HARD_VIEWS, lesson09_few.SOFT)},
    **{
        ("several", arm, name): SAME_FOR_ALL
        for arm in (lesson09_several.ONE, lesson09_several.PROBABILITIES, lesson09_several.LOGITS,
                    lesson09_several.LOSSES, lesson09_several.IN_TURN)
        for name in ("temperature", "rate")
    },
    ("peers", lesson09_peers.MUTUAL, "temperature"): LIMIT,
    ("ladder", 9000, lesson09_ladder.DIGITS, "temperature"): LIMIT,
    ("self", 0.0, lesson09_self.FROM_SHORTER, "temperature"): AS_GENERATION_1,
}  # fmt: skip


def edges_of(topic, tables):
    """(topic, context, arm, setting) of what was chosen at the end of what was tried, but for natural ends.

    A rate has one tried on either side, with the same other settings or, with others, one that is always worse. Alpha
    and weight have one on either side, with whatever else; 0 (for alpha that is the arm of labels) and 1 are ends by
    themselves, as 1 is for temperatures.
    """
    found = {}
    for (*context, arm), own in means_of(topic, all_tried(topic, tables)).items():
        chosen = max(own, key=own.get)
        for place, name in enumerate(SETTINGS[topic]):
            values = {settings[place] for settings in own}
            if name == "rate":
                inside = all(_worse_beyond(own, place, chosen[place], side) for side in (-1, 1))
            else:
                ends = {"temperature": {1.0}, "alpha": {0.0, 1.0}, "weight": {0.0}}[name]
                values |= {0.0} if name == "alpha" else set()
                inside = chosen[place] in ends or min(values) < chosen[place] < max(values)
            if not inside:
                found[(topic, *context, arm, name)] = chosen[place], own
    return found


def _worse_beyond(means, place, value, side):
    """Whether a further value was tried with the settings that were chosen, or always was worse where it was."""
    chosen, pairs = max(means, key=means.get), []
    for settings in means:
        if side * (settings[place] - value) > 0:
            if settings[:place] + settings[place + 1 :] == chosen[:place] + chosen[place + 1 :]:
                return True
            nearer = (*settings[:place], value, *settings[place + 1 :])
            if nearer in means:
                pairs.append(means[settings] < means[nearer])
    return bool(pairs) and all(pairs)


def test_no_chosen_setting_lies_on_the_edge_of_what_was_tried_for_its_arm_but_for_named_ones():
    """Of arms above chance. Of a named one it holds what its reason says."""
    tables, found = recorded(), {}
    for topic in TOPICS:
        found |= edges_of(topic, tables)
    found = {key: one for key, one in found.items() if key[-2] not in AT_CHANCE}
    assert set(found) <= set(ON_AN_EDGE), "beyond these nothing was tried, and something there may be better"
    for key, (value, own) in found.items():
        if ON_AN_EDGE[key] == SMALLEST:
            assert value == min(own)[0] and own[value,] - own[sorted(own)[1]] < 0.01, key
        if ON_AN_EDGE[key] == LIMIT:
            assert value >= 30, key
    generation_1 = means_of("self", all_tried("self", tables))[0.0, lesson09_self.BORN]
    best = {T: max(mean for one, mean in generation_1.items() if one[1] == T) for T in (4, 10)}
    assert best[10] < best[4]


def test_the_setting_of_all_ways_of_asking_is_within_a_point_of_each_ones_best():
    shared = tuple(lesson09_several.SHARED[name] for name in SETTINGS["several"])
    means = means_of("several", all_tried("several", recorded()))
    assert len(means) == 6
    for (arm,), own in means.items():
        assert arm == lesson09_several.LABELS or own[shared] >= max(own.values()) - 0.01, arm
