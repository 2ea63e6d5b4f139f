"""The lessons of the course: which question each asks, and which of them are here."""

from pathlib import Path

from kdlib.lesson import course

QUESTIONS = {
    "00_start_here": "Can this machine run the course, and how does a lesson work?",
    "01_principle": "What does a teacher add that the labels do not already say?",
    "02_temperature": "What does the temperature change in what a student learns, and which one should you take?",
    "03_loss_balancing": "How much should the student trust the teacher, and how much the labels?",
    "04_feature_distillation": "Is there knowledge between the layers that the logits lack?",
    "05_deployment": "What does it take to turn a student into something that can be shipped?",
    "06_compression": "How small does a network become by pruning, low rank, carving and search, and at what price?",
    "07_training_strategies": "Which of the advice on how to train a student survives a constant beside it?",
    "08_other_tasks": "What changes for several labels, detection, video, another modality or regression?",
    "09_without_labels_or_data": "What remains of distillation without labels, data or a larger teacher?",
    "10_claims_and_bugs": "Which claims of common tutorials hold, and which bugs hide in their code?",
    "11_your_own_images": "How do you get from a folder of photographs to a student on a web page?",
}


def table(repository: Path | None) -> str:
    """The lessons in Markdown, each with its question and whether it is here: "yes", "not yet", or "?".

    A lesson is linked where its notebook lies in the current folder, which is that of the notebook that asks: so a
    learner's copy leads to the learner's copies.

    Args:
        repository: the course's folder; None where it was not found, upon which the notebooks that came with an
            installed kdlib are looked at.
    """
    repository = repository or course.packaged()
    here = "?" if repository is None else "not yet"
    lines = ["| lesson | its question | here? |", "|:--|:--|:--|"]
    for name, question in QUESTIONS.items():
        file = f"{name}.ipynb"
        is_here = repository is not None and (repository / "notebooks" / file).is_file()
        title = f"[{name}]({file})" if Path(file).is_file() else name
        lines.append(f"| {title} | {question} | {'yes' if is_here else here} |")
    return "\n".join(lines)
