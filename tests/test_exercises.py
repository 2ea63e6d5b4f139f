"""The exercises and their judge: solutions pass, stubs are unfinished, known mistakes are named."""

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch

import kdlib.losses
import kdlib.metrics
from kdlib.deploy import benchmark, pareto
from kdlib.lesson import exercises
from kdlib.lesson.exercises import _machine

pytestmark = pytest.mark.usefixtures("one_thread")  # tiny tensors: more threads only wait for each other
EXERCISES = {name: exercises.get(name) for name in exercises.names()}


def run_cell(source: str, name: str):
    """What a notebook cell defines under a name."""
    namespace = {}
    exec(source, namespace)  # noqa: S102 - the text under test is code
    return namespace[name]


# -------------------------------------------------------------------- every exercise of the course


def test_solutions_as_shown_in_the_notebook_are_correct():
    for name, exercise in EXERCISES.items():
        verdict = exercises.check(name, run_cell(exercise.solution_source(), name))
        assert verdict.passed and verdict.status == "correct" and verdict.diagnosis is None, verdict


def test_stubs_as_shown_in_the_notebook_are_not_done_yet():
    for name, exercise in EXERCISES.items():
        verdict = exercises.check(name, run_cell(exercise.stub_source(), name))
        assert not verdict.passed and verdict.status == "not done yet", verdict


def test_each_known_mistake_is_named_and_confused_with_no_other():
    for name, exercise in EXERCISES.items():
        for diagnosis, mistake in exercise.mistakes.items():
            verdict = exercises.check(name, mistake)
            assert (verdict.status, verdict.diagnosis) == ("not yet right", diagnosis), name
            assert diagnosis[1:] in verdict.message, name


def test_each_exercise_has_three_hints_and_at_least_three_known_mistakes():
    for name, exercise in EXERCISES.items():
        # The complaints about an open experiment are those of the judge of designs.
        assert len(exercise.hints) == 3 and (exercise.is_open or len(exercise.mistakes) >= 3), name


def test_stubs_keep_signature_and_question_but_not_the_solution():
    for name, exercise in EXERCISES.items():
        stub, solution = exercise.stub_source(), exercise.solution_source()
        for line in inspect.getdoc(exercise.solve).splitlines():
            assert line in stub and line in solution, name
        assert max(len(stub.splitlines()), len(solution.splitlines())) <= 25, name
        assert "# ---" not in stub + solution, name
        assert stub != solution, name
        if exercise.start is None:
            endings = ("return ...  # your code here", "    ...  # your code here", f"{name} = ...  # your answer")
            assert any(line.endswith(endings) for line in stub.splitlines()), name


def test_no_name_shadows_what_lessons_import():
    for name in EXERCISES:
        assert not any(hasattr(module, name) for module in (kdlib.losses, kdlib.metrics, exercises)), name


def test_values_instead_of_behaviour_never_raise():
    answers = (None, ..., "x", [], {}, object(), 3, math.nan, torch.zeros(2), pytest, int, len, print)
    for name in EXERCISES:
        for answer in answers:
            assert not exercises.check(name, answer).passed, (name, answer)


# -------------------------------------------------------------------- independent answers are right


def test_solutions_written_differently_are_correct():
    def soften(logits, temperature):
        z = np.asarray(logits, dtype=np.float64) / temperature
        weights = np.exp(z - z.max(axis=1, keepdims=True))
        return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))

    def kd_loss(student, teacher, labels, T, alpha):
        log_p, log_q = (logits.double().div(T).log_softmax(1) for logits in (student, teacher))
        distill = (log_q.exp() * (log_q - log_p)).sum() / len(labels)
        task = -student.double().log_softmax(1)[range(len(labels)), labels].mean()
        return alpha * T * T * distill + task - alpha * task

    def aligned_logits(cached_logits, cached_indices, batch_indices):
        rows = (batch_indices[:, None] == cached_indices).int().argmax(dim=1)
        return cached_logits[rows]

    assert exercises.check("soften", soften).passed
    assert exercises.check("kd_loss", kd_loss).passed
    assert exercises.check("aligned_logits", aligned_logits).passed


def test_paired_gain_agrees_with_the_librarys_interval():
    for a, b in exercises.get("paired_gain").cases():
        assert exercises.solution("paired_gain")(a, b) == pytest.approx(kdlib.metrics.paired_interval(a, b))


def test_kd_loss_agrees_with_the_librarys():
    for *logits_and_labels, temperature, alpha in exercises.get("kd_loss").cases():
        ours = kdlib.losses.distillation_loss(*logits_and_labels, temperature=temperature, alpha=alpha)
        loss = exercises.solution("kd_loss")(*logits_and_labels, temperature, alpha)
        assert loss.item() == pytest.approx(ours.total.item(), rel=1e-5)


def test_softened_entropy_agrees_with_torchs_categorical_distribution():
    for logits, temperature in exercises.get("softened_entropy").cases():
        expected = torch.distributions.Categorical(logits=logits.double() / temperature).entropy()
        entropy = exercises.solution("softened_entropy")(logits, temperature)
        assert entropy.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_temperature_for_entropy_gives_the_wanted_entropy():
    for logits, entropy in exercises.get("temperature_for_entropy").cases():
        temperature = exercises.solution("temperature_for_entropy")(logits, entropy)
        assert 0.02 < temperature < 500
        reached = exercises.solution("softened_entropy")(logits[None], temperature)
        assert reached.item() == pytest.approx(entropy, abs=1e-5)


def test_soft_gradient_agrees_with_autograd():
    for student, teacher, temperature in exercises.get("soft_gradient").cases():
        leaf = student.clone().requires_grad_()
        kdlib.losses.soft_target_loss(leaf, teacher, temperature).backward()
        gradient = exercises.solution("soft_gradient")(student, teacher, temperature)
        assert torch.allclose(gradient, leaf.grad, rtol=1e-4, atol=1e-7)


def test_distill_share_agrees_with_autograd():
    for student, teacher, labels, temperature, alpha in exercises.get("distill_share").cases():
        leaf = student.clone().requires_grad_()
        terms = kdlib.losses.distillation_loss(leaf, teacher, labels, temperature=temperature, alpha=alpha)
        weighted = (alpha * terms.distill, (1 - alpha) * terms.task)
        a, b = (torch.autograd.grad(term, leaf, retain_graph=True)[0].norm().item() for term in weighted)
        share = exercises.solution("distill_share")(student, teacher, labels, temperature, alpha)
        assert share.item() == pytest.approx(a / (a + b), rel=1e-5)


def test_the_repaired_loss_agrees_with_the_librarys():
    for student, teacher, temperature in exercises.get("repair_soft_loss").cases():
        expected = kdlib.losses.soft_target_loss(student, teacher, temperature)
        loss = exercises.solution("repair_soft_loss")(student, teacher, temperature)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_mixed_gradient_and_the_repaired_mixed_loss_agree_with_the_librarys():
    for student, teacher, labels, temperature, alpha in exercises.get("mixed_gradient").cases():
        leaf = student.clone().requires_grad_()
        expected = kdlib.losses.distillation_loss(leaf, teacher, labels, temperature=temperature, alpha=alpha).total
        expected.backward()
        gradient = exercises.solution("mixed_gradient")(student, teacher, labels, temperature, alpha)
        assert torch.allclose(gradient / len(labels), leaf.grad, rtol=1e-4, atol=1e-7)
        loss = exercises.solution("repair_loss_a")(student, teacher, labels, temperature, alpha)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_attention_rows_and_similarity_agree_with_the_librarys():
    for (features,) in exercises.get("attention_rows").cases():
        rows = kdlib.features.attention_map(features).flatten(1)
        expected = rows / rows.norm(dim=1, keepdim=True)
        assert torch.allclose(exercises.solution("attention_rows")(features), expected, rtol=1e-5)
    for student, teacher in exercises.get("repair_similarity").cases():
        expected = kdlib.features.similarity_loss(student, teacher).item()
        assert exercises.solution("repair_similarity")(student, teacher).item() == pytest.approx(
            expected, rel=1e-5
        )


def test_the_hint_agrees_with_the_librarys_loss_behind_its_regressor():
    torch.manual_seed(0)
    hint = exercises.solution("hint_with_regressor")(4, 9)
    regressor = kdlib.features.Regressor(4, 9)
    assert sum(p.numel() for p in hint.parameters()) == 4 * 9 + 9
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 9, 5, 5)
    for mine, theirs in zip(hint.parameters(), regressor.parameters(), strict=True):
        theirs.data.copy_(mine.data)
    expected = kdlib.features.hint_loss(regressor(student), teacher).item()
    assert hint(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_recall_at_one_agrees_with_a_loop_over_the_images():
    for embeddings, labels in exercises.get("recall_at_one").cases():
        rows = embeddings.double().numpy()
        hits = 0
        for i, row in enumerate(rows):
            cosines = rows @ row / np.linalg.norm(rows, axis=1)
            others = [j for j in np.argsort(cosines) if j != i]
            hits += labels[others[-1]].item() == labels[i].item()
        share = exercises.solution("recall_at_one")(embeddings, labels)
        assert share.item() == pytest.approx(hits / len(rows))


def test_fair_latencies_are_the_medians_of_the_undisturbed_model_and_any_order_in_a_round_is_right():
    def backwards(models, clock, warm_up, rounds):
        for _ in range(warm_up):
            for model in models:
                model()
        times = np.zeros((rounds, len(models)))
        for number in range(rounds):
            for place in reversed(range(len(models))):
                start = clock()
                models[place]()
                times[number, place] = clock() - start
        return np.median(times, axis=0)

    assert exercises.check("fair_latencies", backwards).passed
    for models, _, warm_up, rounds in exercises.get("fair_latencies").cases():
        machine = _machine.Machine(models, warm_up, rounds)
        found = exercises.solution("fair_latencies")(machine.runs, machine.clock, warm_up, rounds)
        alone = [model.milliseconds for model in models]
        # Without warm-up and busy phase a call takes 1 to 1.12 times as long.
        assert all(mine <= median <= 1.121 * mine for mine, median in zip(alone, found, strict=True))


def test_pick_model_agrees_with_the_librarys():
    for accuracies, sizes, milliseconds, alike, *most in exercises.get("pick_model").cases():
        table = pd.DataFrame({"accuracy": accuracies, "bytes": sizes, "milliseconds": milliseconds})
        budgets = {"bytes": most[0], "milliseconds": most[1]}
        chosen = pareto.cheapest_alike(table, pd.DataFrame(alike), price="bytes", **budgets)
        assert exercises.solution("pick_model")(accuracies, sizes, milliseconds, alike, *most) == chosen.name


def test_quantise_per_channel_agrees_with_torchs_own_for_every_number_of_bits():
    quantise = exercises.solution("quantise_per_channel")
    for weight, _ in exercises.get("quantise_per_channel").cases():
        for bits in range(2, 9):
            most = 2 ** (bits - 1) - 1
            scales = torch.tensor([max(row.max(), -row.min(), 1e-9) / most for row in weight.flatten(1)])
            no_zero_point = torch.zeros(len(weight), dtype=torch.int32)
            expected = torch.fake_quantize_per_channel_affine(weight, scales, no_zero_point, 0, -most, most)
            found = quantise(weight, bits)
            assert found.dtype == weight.dtype and torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
            assert all(len(row.unique()) <= 2 * most + 1 for row in found)
    assert quantise(torch.randn(3, 4, dtype=torch.float64), 8).dtype == torch.float64


def test_repaired_speedup_agrees_with_the_librarys_ratio():
    for slow, fast, slow_size, fast_size, warm_up in exercises.get("repair_speedup").cases():
        columns = {"slow": np.divide(slow, slow_size), "fast": np.divide(fast, fast_size)}
        rounds = pd.DataFrame(columns)[warm_up:]
        found = benchmark.ratio(benchmark.Latencies(rounds, (1, 28, 28), 1, 1, "made up"), "slow", "fast")
        speedup = exercises.solution("repair_speedup")(slow, fast, slow_size, fast_size, warm_up)
        assert speedup == pytest.approx(found.median)


# -------------------------------------------------------------------- what the learner sees


def test_unknown_exercise_is_an_error_that_lists_the_known():
    for ask in (exercises.hint, exercises.solution, lambda name: exercises.check(name, None)):
        with pytest.raises(ValueError, match="unknown exercise 'sotfen'; there are: .*soften"):
            ask("sotfen")


def test_hints_come_one_by_one_and_the_last_one_stays(monkeypatch):
    monkeypatch.setattr(exercises, "_hints_shown", {})
    shown = [exercises.hint("soften") for _ in range(4)]
    assert [hint.number for hint in shown] == [1, 2, 3, 3]
    assert [hint.text for hint in shown[:3]] == exercises.get("soften").hints
    assert exercises.hint("kd_loss").number == 1
    assert repr(shown[0]).startswith("Hint 1 of 3: ") and 'solution("soften")' in repr(shown[2])
    assert shown[0]._repr_markdown_() == repr(shown[0])


def test_solution_displays_its_source_and_is_accepted_as_an_answer():
    shown = exercises.solution("soften")
    assert "return torch.softmax(logits / temperature, dim=-1)" in repr(shown)
    assert shown._repr_markdown_().startswith("```python\nimport torch\n")
    assert exercises.check("soften", shown).passed


def test_verdict_says_in_words_what_its_colour_says_and_escapes_what_it_quotes():
    def answer(logits, temperature):
        raise ValueError("<script>")

    verdict = exercises.check("soften", answer)
    page = verdict._repr_html_()
    assert "not yet right" in page and "&lt;script&gt;" in page and "<script>" not in page
    assert repr(verdict).startswith("✗ soften: not yet right. ")
