"""Answers to the repair of lesson 11: how a teacher is asked."""

import torch
import torch.nn.functional as F

from answers import Answers


def in_inference_mode(network, images, size, mean, std, student_mean, student_std):
    pixels = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    with torch.inference_mode():
        return network.eval()((pixels - 255 * mean) / (255 * std))


def one_by_one(network, images, size, mean, std, student_mean, student_std):
    network.train(False)
    rows = []
    for image in images:
        pixels = F.interpolate(image[None] / 255, (size, size), mode="bilinear", antialias=True)
        rows.append(network((pixels - mean) / std).detach())
    return torch.cat(rows)


def put_back(network, images, size, mean, std, student_mean, student_std):
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            scaled = F.interpolate((images / 255 - mean) / std, (size, size), mode="bilinear", antialias=True)
            return network(scaled)
    finally:
        network.train(was_training)


def asks(
    *,
    mean="own",
    std="own",
    evaluates=True,
    detaches=True,
    divisor=255,
    scales=True,
    end=lambda logits: logits,
):
    def ask(network, images, size, own_mean, own_std, student_mean, student_std):
        if evaluates:
            network.eval()
        pixels = images / divisor
        if scales:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        of_mean = {"own": own_mean, "student": student_mean, "none": torch.zeros(3, 1, 1)}[mean]
        of_std = {"own": own_std, "student": student_std, "none": torch.ones(3, 1, 1)}[std]
        logits = network((pixels - of_mean) / of_std)
        return end(logits.detach() if detaches else logits)

    return ask


REPAIR_TEACHER_ANSWERS = Answers(
    wrong={
        "the network answers in training mode": asks(evaluates=False),
        "and leaves a graph for gradients behind it": asks(evaluates=False, detaches=False),
        "by the student's mean and std; the teacher has its own": asks(mean="student", std="student"),
        "by the student's mean and std, and a graph": asks(mean="student", std="student", detaches=False),
        "by the student's mean and std, and the network answers in training mode":
            asks(mean="student", std="student", evaluates=False),
        "the logits come with a graph": asks(detaches=False),
        "the mean is the teacher's and the std the student's": asks(std="student"),
        "the std is the teacher's and the mean the student's": asks(mean="student"),
        "nothing is normalised": asks(mean="none", std="none"),
        "the pixels go from 0 to 255": asks(divisor=1),
        "not scaled to the size": asks(scales=False),
        "probabilities come back": asks(end=lambda logits: logits.softmax(dim=-1)),
        "no table of logits": asks(end=lambda logits: logits.max(dim=1).indices),
        "what comes back is no tensor": asks(end=lambda logits: logits.numpy()),
    },
    right=[in_inference_mode, one_by_one, put_back],
)  # fmt: skip
