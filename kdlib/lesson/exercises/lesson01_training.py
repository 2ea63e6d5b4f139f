"""Exercises of lesson 01 about the training: the loop, and the look-up of the teacher's logits.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits

# ------------------------------------------------------------------------------------ the loop


def _weights_after(train, _student, images, labels, teacher_logits, _loss, epochs, seed):
    """Probe: the weights of a small student that was trained so, with a loss that counts how often it is asked."""
    torch.manual_seed(seed)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    before = torch.nn.utils.parameters_to_vector(student.parameters()).detach().clone()
    asked = []

    def loss(student_logits, teacher_logits, labels):
        asked.append(len(labels))
        divergence = F.kl_div(
            F.log_softmax(student_logits / 2, -1), F.softmax(teacher_logits / 2, -1), reduction="batchmean"
        )
        return 2.8 * divergence + 0.3 * F.cross_entropy(student_logits, labels)

    train(student, images, labels, teacher_logits, loss, epochs, seed)
    after = torch.nn.utils.parameters_to_vector(student.parameters()).detach()
    return {"change of the weights": after - before} if asked else ...


def _loop_cases():
    def case(seed, images, epochs):
        labels = torch.arange(images) % 3
        return None, logits(seed, images, 4), labels, logits(seed + 50, images, 3), None, epochs, seed

    return [case(20, 40, 2), case(21, 70, 1)]


def _loop(batch_loss, *, cleared=True, scheduled=True):
    """The given lines of `train_by_hand` around an inner part that makes one mistake."""

    def train(student, images, labels, teacher_logits, loss, epochs, seed):
        batches = -(-len(images) // 32)
        optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=batches * epochs + 1)
        for epoch in range(epochs):
            torch.manual_seed(seed * 1_000_003 + epoch)
            for rows in torch.randperm(len(images)).tensor_split(batches):
                if cleared:
                    optimizer.zero_grad()
                batch_loss(student, images, labels, teacher_logits, loss, rows).backward()
                optimizer.step()
                if scheduled:
                    schedule.step()

    return train


def _right_batch(student, images, labels, teacher_logits, loss, rows):
    return loss(student(images[rows]), teacher_logits[rows], labels[rows])


def _loop_without_steps(student, images, labels, teacher_logits, loss, epochs, seed):
    loss(student(images), teacher_logits, labels).backward()


@exercise(
    cases=_loop_cases,
    probe=_weights_after,
    tolerance=1e-3,
    hints=[
        "`rows` are the numbers of the images of this batch. What belongs to them: images, labels, and which logits?",
        """Five things, in this order: the student's logits for the batch; the loss; the gradients of the last batch
        away; the new gradients; a step of the optimizer, and one of the schedule.""",
        """`value = loss(student(images[rows]), teacher_logits[rows], labels[rows])`, then `optimizer.zero_grad()`,
        `value.backward()`, `optimizer.step()` and `schedule.step()`.""",
    ],
    mistakes={
        "the gradients of all batches add up: set them to zero before each backward()":
            _loop(_right_batch, cleared=False),
        "the teacher's logits are read by place in the batch; `rows` says which images these are":
            _loop(lambda s, x, y, v, loss, rows: loss(s(x[rows]), v[: len(rows)], y[rows])),
        "the labels are read by place in the batch; `rows` says which images these are":
            _loop(lambda s, x, y, v, loss, rows: loss(s(x[rows]), v[rows], y[: len(rows)])),
        "student and teacher are swapped in the loss: the student's logits come first":
            _loop(lambda s, x, y, v, loss, rows: loss(v[rows], s(x[rows]), y[rows])),
        "each step looks at all images; it should look at those of its batch, `rows`":
            _loop(lambda s, x, y, v, loss, rows: loss(s(x), v, y)),
        "no weight moves: it takes backward() for the gradients and optimizer.step() for the step":
            _loop_without_steps,
        "the learning rate never changes: the schedule wants a step after every batch":
            _loop(_right_batch, scheduled=False),
    },
)  # fmt: skip
def train_by_hand(student, images, labels, teacher_logits, loss, epochs, seed):
    """Train the student in place: one pass after the other, in batches of at most 32 images.

    images: (n, channels, height, width), normalised; labels: (n,); teacher_logits: (n, classes), row by row those of
    the images; loss(student_logits, teacher_logits, labels): a scalar tensor. Nothing is returned.
    """
    batches = -(-len(images) // 32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=batches * epochs + 1)
    for epoch in range(epochs):
        torch.manual_seed(seed * 1_000_003 + epoch)  # as in kdlib: the order follows from seed and epoch
        for rows in torch.randperm(len(images)).tensor_split(batches):
            # --- your code
            value = loss(student(images[rows]), teacher_logits[rows], labels[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            # --- end


# ------------------------------------------------------------------------------------ the cache


def _aligned_cases():
    def case(seed, images, n, batch):
        generator = torch.Generator().manual_seed(seed)
        cached_indices = torch.randperm(images, generator=generator)[:n]
        batch_indices = cached_indices[torch.randperm(n, generator=generator)[:batch]]
        return torch.arange(3.0 * n).reshape(n, 3), cached_indices, batch_indices

    return [case(0, 12, 12, 12), case(1, 12, 12, 5), case(2, 40, 40, 8), case(3, 60_000, 9, 6), case(4, 60_000, 40, 40)]


def _aligned_as_found(cached_logits, cached_indices, batch_indices):
    # --- your code
    return cached_logits[batch_indices]
    # --- end


@exercise(
    cases=_aligned_cases,
    start=_aligned_as_found,
    hints=[
        "Image 41,017 is in the batch. In which row of the cache are its logits?",
        "cached_indices leads from rows to images. You need its inverse, from images to rows.",
        """`row_of = {int(index): row for row, index in enumerate(cached_indices)}`; then look up the row of
        each image of the batch, in the batch's order, and take these rows of cached_logits.""",
    ],
    mistakes={
        "the cache is read by batch order: the first row goes to whichever image comes first":
            lambda logits, cached, batch: logits[: len(batch)],
        "this is right only where the images are numbered 0 to n - 1; their numbers may be any":
            lambda logits, cached, batch: logits[torch.argsort(cached)[batch]],
        "the look-up runs the wrong way: cached_indices leads from rows to images, not from images to rows":
            lambda logits, cached, batch: logits[cached[batch]],
        "the right rows in the cache's order; the batch's order is needed":
            lambda logits, cached, batch: logits[torch.isin(cached, batch)],
        "the right rows sorted by image index; the batch's order is needed":
            lambda logits, cached, batch: logits[[cached.tolist().index(i) for i in sorted(batch.tolist())]],
    },
)  # fmt: skip
def aligned_logits(cached_logits, cached_indices, batch_indices):
    """The teacher's cached logits for the images of a shuffled batch, in the batch's order.

    cached_logits: (n, classes); its row r belongs to the image whose index is cached_indices[r].
    batch_indices: (batch,), the indices of the batch's images. Returns (batch, classes).
    """
    # --- your code
    row_of = {int(index): row for row, index in enumerate(cached_indices)}
    return cached_logits[[row_of[int(index)] for index in batch_indices]]
    # --- end
