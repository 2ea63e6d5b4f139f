"""In which precision the students of a sweep are computed: measured, since no rule knows every processor."""

import time

import torch
from torch import nn

from kdlib.data import ImageSplit
from kdlib.inference import logits_of
from kdlib.training.precision import computes_bfloat16

# Less gain than this is not worth the coarser numbers; and two measurements, which differ by up to a sixth, must not
# choose differently.
LEAST_GAIN = 1.3
TURNS = 7
SECONDS = 2.0  # after so long, fewer turns must do


def bfloat16_is_faster(network: nn.Module, images: ImageSplit, batch_size: int, members: int) -> bool:
    """Whether a forward and a backward pass take clearly less time in bfloat16 than in float32, on one thread.

    The two take turns, and processor time is counted, so that other work on the machine falls on both. Eight
    students of "tiny-cnn" in one network: a ratio of 0.96 to 1.12 (18 measurements) on an AMD EPYC with AVX512 and its
    own bfloat16 instructions; on another such processor a whole sweep took 1.9 times as long in float32.

    Args:
        network: a student, or several in one network; left as it was, but for its gradients, which are cleared.
        images: some to train on.
        batch_size: images a step.
        members: students in the network, each with channels of its own.
    """
    if not computes_bfloat16():
        return False
    views = images.normalized(torch.arange(min(batch_size, len(images)))).repeat(1, members, 1, 1)
    views = views.contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            return _ratio(network.train(), views) >= LEAST_GAIN
    finally:
        torch.set_num_threads(threads)


def _ratio(network: nn.Module, views: torch.Tensor) -> float:
    """Seconds in float32 over seconds in bfloat16, the shortest of several turns each: other work only adds to it."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    started = time.perf_counter()
    for turn in range(TURNS + 1):
        for bfloat16, taken in seconds.items():
            begun = time.thread_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = logits_of(network(views))
            logits.float().square().mean().backward()
            if turn:  # the first one prepares the kernels
                taken.append(time.thread_time() - begun)
        network.zero_grad(set_to_none=True)
        if turn and time.perf_counter() - started > SECONDS:
            break
    return min(seconds[False]) / min(seconds[True])
