"""Open experiments are judged by their design, by what they did in a rehearsal, and not by how they are written."""

import itertools

import numpy as np
from answers.designs import on_test, on_validation

from kdlib.lesson import exercises
from kdlib.lesson.laboratory import Rehearsal
from kdlib.metrics import paired_interval

OPEN = [name for name in exercises.names() if exercises.get(name).is_open]
TEACHER = {"method": "distillation", "temperature": 4, "alpha": 0.9}
HINT = {"features": "hint", "weight": 1}
SILHOUETTES = {"sensor": "silhouettes"}
LIKE_ITSELF = {"method": "distillation", "teacher": "a network like the student"}


def compared(one, other):
    """A plain design: five seeds of either arm, measured on test."""
    return lambda lab: paired_interval(on_test(lab, **one), on_test(lab, **other))


def test_every_question_that_an_exercise_offers_can_be_answered():
    weaker = {"method": "distillation", "teacher": "weaker"}
    questions = {
        "half_the_images": [
            ({"images": 500}, {"images": 1000}),
            ({"epochs": 40}, {"epochs": 20}),
            ({"label_smoothing": 0.1}, {"label_smoothing": 0.0}),
        ],
        "teacher_or_more": [
            ({**TEACHER, **more}, {"method": "labels", **more})
            for more in ({"learning_rate": 0.04}, {"epochs": 60}, {"images": 4000})
        ],
        "temperature_on_trial": [
            ({**TEACHER, "temperature": 2, "epochs": 5}, {**TEACHER, "epochs": 5}),
            ({**TEACHER, "temperature": 1}, {"method": "labels"}),
            ({**TEACHER, "temperature": 16, "alpha": 0.5}, {**TEACHER, "alpha": 0.5}),
        ],
        "alpha_on_trial": [
            ({**weaker, "alpha": 0.25}, {**weaker, "alpha": 0.9}),
            ({**TEACHER, "images": 100, "alpha": 1}, {**TEACHER, "images": 100, "alpha": 0.5}),
            ({**TEACHER, "alpha": 0.25, "temperature": 8}, {**TEACHER, "alpha": 0.25, "temperature": 2}),
        ],
        "feature_on_trial": [
            ({**HINT, "images": 200}, {"features": "none", "images": 200}),
            ({**HINT, "images": 200}, {"features": "hint of an untrained teacher", "images": 200}),
            ({**TEACHER, "temperature": 2, "features": "relational"}, {**TEACHER, "temperature": 2}),
            ({**TEACHER, "images": 100, "features": "relational"}, {**TEACHER, "images": 100}),
        ],
        "my_deployment_experiment": [
            ({"bits": 4}, {"bits": 32}),
            ({**TEACHER, "bits": 4}, {**TEACHER, "bits": 4, "scales": "a layer"}),
            ({**TEACHER, "bits": 3}, {"bits": 3}),
        ],
        "my_compression_experiment": [
            ({**TEACHER, "network": "pruned"}, {**TEACHER, "network": "random start"}),
            ({**TEACHER, "network": "pruned"}, {"network": "pruned"}),
            *(
                ({**TEACHER, "network": name, "epochs": 15}, {**TEACHER, "network": "random start", "epochs": 15})
                for name in ("pruned", "carved")
            ),
        ],
        "my_strategy_experiment": [
            ({**TEACHER, "augment": "my own"}, {**TEACHER, "augment": "none"}),
            ({**TEACHER, "temperature": 10, "temperature_end": 1}, {**TEACHER, "temperature": 5.5}),
            ({**TEACHER, "second_stage": 0.25}, TEACHER),
        ],
        "my_task_experiment": [
            ({**TEACHER, "sensor": "edges", "alpha": 1}, {"sensor": "edges", "method": "labels"}),
            ({**SILHOUETTES, **TEACHER}, {**SILHOUETTES, **TEACHER, "temperature": 1}),
            ({**SILHOUETTES, **TEACHER}, {"sensor": "thumbnails", **TEACHER}),
        ],
        "my_teacherless_experiment": [
            *(({**LIKE_ITSELF, "wrong_labels": w}, {"method": "labels", "wrong_labels": w}) for w in (0.4, 0)),
            ({**LIKE_ITSELF, "teacher": "the course's"}, LIKE_ITSELF),
        ],
        "my_audit": [
            ({**TEACHER, "temperature": 1}, TEACHER),
            ({**TEACHER, "alpha": 0.8}, {**TEACHER, "alpha": 0.3}),
            (TEACHER, {"method": "labels"}),
        ],
        "my_folder_experiment": [
            ({**TEACHER, "wrong_labels": 0.1}, {"method": "labels", "wrong_labels": 0.1}),
            ({"method": "labels", "wrong_labels": 0}, {"method": "labels", "wrong_labels": 0.1}),
            ({"method": "labels", "augment": "crop and flip"}, {"method": "labels", "augment": "none"}),
        ],
    }
    assert set(questions) == set(OPEN)
    for name, arms in questions.items():
        for one, other in arms:
            verdict = exercises.check(name, compared(one, other))
            assert verdict.passed and "5 paired seeds" in verdict.message, (name, one, verdict)


def test_settings_without_effect_are_no_second_change_and_make_no_second_arm():
    def check(one, other):
        return exercises.check("teacher_or_more", compared(one, other))

    assert check(TEACHER, {**TEACHER, "method": "labels", "temperature": 1}).passed
    assert check({**TEACHER, "alpha": 0.5}, {**TEACHER, "alpha": 0, "temperature": 1}).passed
    inert = check({**TEACHER, "method": "labels"}, {"method": "labels", "temperature": 1})
    assert inert.diagnosis == "no control" and "without effect" in inert.message


def test_a_gain_is_the_teacher_minus_the_labels_but_of_two_temperatures_either_may_be_first():
    cold = {**TEACHER, "temperature": 1}
    for one, other, diagnosis in [
        (TEACHER, {"method": "labels"}, None),
        ({"method": "labels"}, TEACHER, "sign"),
        ({**TEACHER, "alpha": 0}, TEACHER, "sign"),
        (TEACHER, cold, None),
        (cold, TEACHER, None),
    ]:
        assert exercises.check("teacher_or_more", compared(one, other)).diagnosis == diagnosis, (one, other)


def test_a_gain_of_features_is_the_arm_with_them_minus_the_arm_without():
    labels, untrained = {"method": "labels"}, {"features": "hint of an untrained teacher"}
    for one, other, diagnosis in [
        (HINT, labels, None),
        (labels, HINT, "sign"),
        ({**HINT, "weight": 0}, HINT, "sign"),
        ({**TEACHER, **HINT}, TEACHER, None),
        (TEACHER, {**TEACHER, **HINT}, "sign"),
        (HINT, untrained, None),
        (untrained, HINT, None),
        ({**HINT, "weight": 10}, HINT, None),
        ({**TEACHER, **HINT}, labels, "several changes"),
        ({**HINT, "weight": 10}, untrained, "several changes"),
    ]:
        assert exercises.check("feature_on_trial", compared(one, other)).diagnosis == diagnosis, (one, other)
    idle = exercises.check("feature_on_trial", compared({"features": "none"}, {**HINT, "weight": 0}))
    assert idle.diagnosis == "no control"


def test_inherited_weights_are_the_treatment_and_a_random_start_is_their_control():
    pruned, carved, fresh = ({"network": name} for name in ("pruned", "carved", "random start"))
    for one, other, diagnosis in [
        (pruned, fresh, None),
        ({}, fresh, None),
        (fresh, pruned, "sign"),
        ({**fresh, **TEACHER}, {**carved, **TEACHER}, "sign"),
        (pruned, carved, None),
        (carved, pruned, None),
        ({**pruned, **TEACHER}, fresh, "several changes"),
        ({**pruned, "epochs": 5}, {**fresh, "epochs": 15}, "several changes"),
        (pruned, {**fresh, "epochs": 20}, "several changes"),  # the laboratory of lesson 06 trains for 5 by itself
        (pruned, {**pruned, "epochs": 5}, "no control"),
    ]:
        verdict = exercises.check("my_compression_experiment", compared(one, other))
        assert verdict.diagnosis == diagnosis, (one, other, verdict)


def test_advice_is_the_treatment_and_a_student_that_does_not_follow_it_is_the_control():
    falling, rising = (
        {**TEACHER, "temperature": start, "temperature_end": end} for start, end in ((10, 1), (1, 10))
    )
    constant, own, staged = {**TEACHER, "temperature": 5.5}, {"augment": "my own"}, {**TEACHER, "second_stage": 0.25}
    for one, other, diagnosis in [
        (own, {}, None),
        ({}, own, "sign"),
        (TEACHER, {**TEACHER, **own}, "sign"),
        (own, {"augment": "crop and flip"}, None),
        ({"augment": "crop and flip"}, own, None),
        ({**TEACHER, **own}, {}, "several changes"),
        ({**own, "epochs": 48}, {}, "several changes"),
        (falling, constant, None),
        (constant, falling, "sign"),
        (falling, rising, None),
        (rising, falling, None),
        (falling, {**constant, "alpha": 0.5}, "several changes"),
        ({**falling, "second_stage": 0.25}, constant, "several changes"),
        ({**constant, "temperature_end": 5.5}, constant, "no control"),
        (staged, TEACHER, None),
        (TEACHER, staged, "sign"),
        (staged, {**TEACHER, "second_stage": 0.5}, None),
        (staged, {"method": "labels"}, None),
        ({"method": "labels", "second_stage": 0.25}, {}, "no control"),
    ]:
        verdict = exercises.check("my_strategy_experiment", compared(one, other))
        assert verdict.diagnosis == diagnosis, (one, other, verdict)


def test_a_temperature_that_moves_is_one_setting_and_another_mean_than_the_constants_is_remarked():
    falling = {**TEACHER, "temperature": 10, "temperature_end": 1}
    for constant, remark in ((5.5, ""), (4, "is 5.5 on average, and the constant one is 4; of the same mean only the")):
        verdict = exercises.check("my_strategy_experiment", compared(falling, {**TEACHER, "temperature": constant}))
        arms = f"temperature=10.0 to 1.0 against temperature={float(constant)}, 5 paired seeds"
        assert verdict.passed and arms in verdict.message, verdict
        assert remark in verdict.message and ("remark" in verdict.message) == bool(remark), verdict

    def tuned(lab):
        courses = ((10, 1), (6, 2), (3, 1))
        ends = {c: {**TEACHER, "temperature": c[0], "temperature_end": c[1]} for c in courses}
        best = max(ends, key=lambda course: on_validation(lab, range(90, 93), **ends[course]))
        return compared(ends[best], {**TEACHER, "temperature": sum(best) / 2})(lab)

    assert exercises.check("my_strategy_experiment", tuned).passed


def test_whether_a_teacher_gains_more_from_an_augmentation_than_labels_is_a_difference_of_differences():
    def gain(lab, **arm):
        return np.subtract(on_test(lab, augment="my own", **arm), on_test(lab, augment="none", **arm))

    def of_gains(lab):
        return paired_interval(gain(lab, **TEACHER), gain(lab))

    verdict = exercises.check("my_strategy_experiment", of_gains)
    assert verdict.passed and "that difference for two values of method" in verdict.message, verdict


def test_whether_a_sensor_that_sees_less_gains_more_from_the_teacher_is_a_difference_of_differences():
    def gain(lab, sensor, **more):
        return np.subtract(on_test(lab, sensor=sensor, **TEACHER, **more), on_test(lab, sensor=sensor, **more))

    def of_gains(lab):
        return paired_interval(gain(lab, "silhouettes"), gain(lab, "edges"))

    def of_other_images(lab):
        return paired_interval(gain(lab, "silhouettes", images=500), gain(lab, "edges"))

    verdict = exercises.check("my_task_experiment", of_gains)
    assert verdict.passed and "that difference for two values of sensor" in verdict.message, verdict
    assert not exercises.check("my_task_experiment", of_other_images).passed


def test_wrong_labels_are_a_change_like_any_other_and_neither_of_two_teachers_is_the_control():
    wrong = {"wrong_labels": 0.4}
    for one, other, diagnosis in [
        ({**LIKE_ITSELF, **wrong}, wrong, None),
        (wrong, {**LIKE_ITSELF, **wrong}, "sign"),
        ({**LIKE_ITSELF, **wrong}, {}, "several changes"),
        ({**LIKE_ITSELF, **wrong}, LIKE_ITSELF, None),
        (LIKE_ITSELF, {"method": "distillation", "teacher": "the course's"}, None),
        ({**LIKE_ITSELF, **wrong}, {"method": "distillation", "teacher": "the course's"}, "several changes"),
        (LIKE_ITSELF, {**LIKE_ITSELF, "wrong_labels": 0}, "no control"),
    ]:
        verdict = exercises.check("my_teacherless_experiment", compared(one, other))
        assert verdict.diagnosis == diagnosis, (one, other, verdict)


def test_whether_a_teacher_gains_more_where_labels_are_wrong_is_a_difference_of_differences():
    def gain(lab, share):
        return np.subtract(on_test(lab, wrong_labels=share, **LIKE_ITSELF), on_test(lab, wrong_labels=share))

    def of_gains(lab):
        return paired_interval(gain(lab, 0.4), gain(lab, 0.0))

    verdict = exercises.check("my_teacherless_experiment", of_gains)
    assert verdict.passed and "that difference for two values of wrong_labels" in verdict.message, verdict


def test_a_sensor_is_a_change_like_any_other_and_neither_of_two_is_the_control():
    taught = {**SILHOUETTES, **TEACHER}
    for one, other, diagnosis in [
        (SILHOUETTES, {"sensor": "edges"}, None),
        ({"sensor": "edges"}, SILHOUETTES, None),
        ({"sensor": "edges"}, {}, "no control"),  # the first one is taken where nothing is said
        (taught, SILHOUETTES, None),
        (SILHOUETTES, taught, "sign"),
        (taught, {}, "several changes"),
        ({**SILHOUETTES, "images": 500}, {"sensor": "edges"}, "several changes"),
        ({**taught, "images": 4000, "alpha": 1}, SILHOUETTES, "several changes"),
    ]:
        verdict = exercises.check("my_task_experiment", compared(one, other))
        assert verdict.diagnosis == diagnosis, (one, other, verdict)


def test_bits_and_their_scales_are_two_changes_but_scales_come_with_the_bits():
    for one, other, diagnosis in [
        ({"bits": 4}, {}, None),
        ({}, {"bits": 4}, None),
        ({"bits": 4, "scales": "a layer"}, {"bits": 32}, None),
        ({"bits": 4}, {"bits": 4, "scales": "a layer"}, None),
        ({"bits": 4}, {"bits": 3, "scales": "a layer"}, "several changes"),
        ({**TEACHER, "bits": 3}, {"bits": 32}, "several changes"),
        ({"bits": 32}, {"bits": 32, "scales": "a layer"}, "no control"),
    ]:
        verdict = exercises.check("my_deployment_experiment", compared(one, other))
        assert verdict.diagnosis == diagnosis, (one, other, verdict)


def test_whether_one_kind_of_student_loses_less_than_another_is_a_difference_of_differences():
    def losses(lab, **arm):
        return np.subtract(on_test(lab, bits=32, **arm), on_test(lab, bits=3, **arm))

    def of_losses(lab):
        return paired_interval(losses(lab), losses(lab, **TEACHER))

    def of_other_bits(lab):
        other = np.subtract(on_test(lab, bits=32), on_test(lab, bits=4))
        return paired_interval(losses(lab, **TEACHER), other)

    verdict = exercises.check("my_deployment_experiment", of_losses)
    assert verdict.passed and "that difference for two values of method" in verdict.message, verdict
    assert not exercises.check("my_deployment_experiment", of_other_bits).passed


def test_a_weight_that_validation_chose_for_the_features_is_no_second_change():
    def chosen(lab, weights, **arm):
        return max(weights, key=lambda weight: on_validation(lab, range(90, 93), weight=weight, **arm))

    def against_labels(lab):
        weight = chosen(lab, (0.1, 1, 10), features="hint")
        return compared({"features": "hint", "weight": weight}, {"method": "labels"})(lab)

    verdict = exercises.check("feature_on_trial", against_labels)
    assert verdict.passed and "features='hint' against features='none'" in verdict.message

    names = ("hint", "hint of an untrained teacher")
    weights = next(
        pair
        for pair in itertools.combinations(range(1, 30), 2)
        if len({chosen(Rehearsal(features=names), pair, features=name) for name in names}) == 2
    )

    def both_chosen(lab):
        on_validation(lab, range(90, 93))  # an arm that has no weight was looked at too
        return compared(*({"features": n, "weight": chosen(lab, weights, features=n)} for n in names))(lab)

    def one_chosen(lab):
        best = chosen(lab, (30, 100), features=names[0])
        return compared({"features": names[0], "weight": best}, {"features": names[1], "weight": 1})(lab)

    assert exercises.check("feature_on_trial", both_chosen).passed
    assert exercises.check("feature_on_trial", one_chosen).diagnosis == "tuned on one side"


def test_a_temperature_that_validation_chose_for_the_teacher_is_no_second_change():
    def tuned(lab):
        means = {T: on_validation(lab, range(90, 93), method="distillation", temperature=T) for T in (1, 2, 4, 8)}
        best = max(means, key=means.get)
        return compared({"method": "distillation", "temperature": best}, {"method": "labels"})(lab)

    verdict = exercises.check("teacher_or_more", tuned)
    assert verdict.passed and "remark" not in verdict.message.lower()


def tuned_arms(rates, arms):
    """A design that chooses the learning rate of each arm on validation, among these."""

    def design(lab):
        best = [max(rates, key=lambda r: on_validation(lab, range(90, 93), learning_rate=r, **arm)) for arm in arms]
        return compared(*({"learning_rate": r, **arm} for r, arm in zip(best, arms, strict=True)))(lab)

    return design


def rates_whose_best_differs(arms):
    """Rates of which validation chooses another for one arm than for the other: a matter of luck in a rehearsal."""
    for rates in itertools.combinations(np.linspace(0.01, 0.05, 21).round(4).tolist(), 3):
        lab = Rehearsal()
        means = [{r: on_validation(lab, range(90, 93), learning_rate=r, **arm) for r in rates} for arm in arms]
        if len({max(mine, key=mine.get) for mine in means}) == 2:
            return rates
    raise AssertionError("the same rate is the best for both arms, always")


def test_a_rate_that_both_arms_chose_on_validation_among_the_same_values_may_differ():
    arms = (TEACHER, {"method": "labels"})
    rates = rates_whose_best_differs(arms)
    verdict = exercises.check("teacher_or_more", tuned_arms(rates, arms))
    assert verdict.passed and "method='distillation', learning_rate=" in verdict.message, verdict


def test_seeds_that_chose_and_report_are_accepted_with_a_remark():
    def same_seeds(lab):
        means = {T: on_validation(lab, method="distillation", temperature=T) for T in (1, 2, 4, 8)}
        best = max(means, key=means.get)
        return compared({"method": "distillation", "temperature": best}, {"method": "labels"})(lab)

    verdict = exercises.check("teacher_or_more", same_seeds)
    assert verdict.passed and "fresh ones" in verdict.message


def test_smoothing_that_was_chosen_for_the_labels_is_their_counterpart_to_the_temperature():
    def both_tuned(lab):
        smoothing = max((0.1, 0.2), key=lambda s: on_validation(lab, range(90, 93), label_smoothing=s))
        T = max((1, 2, 8), key=lambda T: on_validation(lab, range(90, 93), method="distillation", temperature=T))
        teacher = {"method": "distillation", "temperature": T}
        return compared(teacher, {"method": "labels", "label_smoothing": smoothing})(lab)

    assert exercises.check("teacher_or_more", both_tuned).passed
    untried = compared(TEACHER, {"method": "labels", "label_smoothing": 0.1})
    assert exercises.check("teacher_or_more", untried).diagnosis == "several changes"


def test_a_rate_that_one_arm_chose_and_the_other_did_not_is_unfair():
    def design(lab):
        rate = max((0.02, 0.03, 0.04), key=lambda r: on_validation(lab, range(90, 93), learning_rate=r, **TEACHER))
        return compared({**TEACHER, "learning_rate": rate}, {"method": "labels"})(lab)

    verdict = exercises.check("teacher_or_more", design)
    assert verdict.diagnosis == "tuned on one side" and "try the same values for both" in verdict.message


def test_an_arm_that_lacks_one_of_the_changed_settings_may_have_been_looked_at_on_validation():
    def design(lab):
        on_validation(lab, method="labels")
        return compared({**TEACHER, "temperature": 2, "alpha": 0.5}, TEACHER)(lab)

    assert exercises.check("teacher_or_more", design).diagnosis == "several changes"


def test_pairs_are_made_by_seed_and_not_by_place():
    def crossed(lab):
        return paired_interval(on_test(lab, range(5), images=500), on_test(lab, [4, 2, 3, 0, 1], images=1000))

    def in_another_order(lab):
        seeds = [4, 2, 3, 0, 1]
        few, many = (dict(zip(s, on_test(lab, s, images=n), strict=True)) for s, n in [(seeds, 500), (range(5), 1000)])
        return paired_interval([few[seed] for seed in seeds], [many[seed] for seed in seeds])

    assert exercises.check("half_the_images", crossed).diagnosis == "another interval"
    assert exercises.check("half_the_images", in_another_order).passed


def test_what_is_wrong_with_a_call_of_the_laboratory_is_said_in_its_words():
    for settings, words in [
        ({"temprature": 2}, "unknown setting 'temprature'"),
        ({"temperature": -1, "method": "distillation"}, "temperature must be from 0.1 to 100, got -1"),
        ({"temperature": 2}, 'say method="distillation" as well'),
        ({"method": "hints"}, "method must be one of labels, distillation; got 'hints'"),
    ]:
        verdict = exercises.check("teacher_or_more", compared(settings, {}))
        assert verdict.status == "not yet right" and words in verdict.message, verdict


def test_unfinished_experiments_are_not_done_yet_and_odd_ones_get_a_verdict():
    def half_done(lab):
        accuracies = ...
        return accuracies[0]

    for answer in (lambda lab: None, lambda lab: ..., half_done, ...):
        assert exercises.check("half_the_images", answer).status == "not done yet"
    for answer in (
        lambda lab: lab,
        lambda lab: lab.student(0),
        lambda lab: on_test(lab),
        lambda lab: 1 / 0,
        lambda lab: [*on_test(lab), "text"],
        lambda lab: (float("nan"), *on_test(lab)[:2]),
        lambda: None,
    ):
        assert exercises.check("half_the_images", answer).status == "not yet right"


def test_many_arms_on_test_are_judged_in_reasonable_time():
    def everything(lab):
        arms = [on_test(lab, epochs=epochs) for epochs in range(1, 41)]
        return paired_interval(arms[3], arms[17])

    assert exercises.check("half_the_images", everything).diagnosis == "chosen on test"


def test_an_interval_of_no_two_of_several_arms_is_told_so():
    def mean_of_all(lab):
        arms = np.array([on_test(lab, epochs=epochs) for epochs in (10, 20, 40)])
        return paired_interval(arms.mean(axis=0), arms[0])

    assert exercises.check("half_the_images", mean_of_all).diagnosis == "no comparison"


def test_solutions_are_short_and_the_questions_are_three():
    for name in OPEN:
        exercise = exercises.get(name)
        assert len(exercise.solution_source().splitlines()) - len(exercise.stub_source().splitlines()) <= 20, name
        assert exercise.stub_source().count("\n    - ") == 3, name
