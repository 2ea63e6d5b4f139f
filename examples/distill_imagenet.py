"""ResNet-18 teaches MobileNetV2 x0.35 on ImageNet, for somebody who has ImageNet as folders of images.

    python examples/distill_imagenet.py --data /path/to/imagenet --out runs/imagenet

DATA/train and DATA/val hold one folder a class (n01440764, n01443537, ...): the teacher's outputs are in the
alphabetical order of these names. The archive of the validation images has no folders: sort it into some first.

What the student learns from and what it is judged by are kept apart. It learns from train/, less one image in a
hundred; these are looked at after every epoch. val/ is used once, at the very end, and for no decision.

What it costs: train/ has 1,281,167 images, so an epoch takes 1,281,167 / (images a second) seconds, and ten epochs
at 1,000 images a second take three and a half hours. Early in every epoch the script prints your images a second
and the time that is left: stop it there if that is too long. Every image is decoded, cut, and shown to both
networks; where a fast GPU waits for its images, more --workers help.

Every epoch ends with a checkpoint in OUT. The same command with --resume goes on from it, and ends with the weights
of a run that was never stopped (on a CPU to the last bit).
"""

import argparse
import copy
import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights, mobilenet_v2, resnet18
from torchvision.transforms import v2

from kdlib import _files
from kdlib.inference import pick_device
from kdlib.losses import distillation_loss
from kdlib.training import bfloat16_helps, checkpoints

TEMPERATURE, ALPHA = 5.0, 0.7  # alpha weighs the teacher, 1 - alpha the labels
HELD_OUT = 100  # one training image in so many
TIMED_STEPS = 50
NORMALISED = [
    v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    checkpoint = options.out / "checkpoint.pt"
    if checkpoint.exists() and not options.resume:
        raise ValueError(f"{checkpoint} is there already: add --resume to go on from it, or name another --out")
    torch.manual_seed(options.seed)
    train, held_out, val, classes = splits(options.data, options.image_size)
    if len(train) < options.batch_size:
        raise ValueError(f"--batch-size {options.batch_size} is more than the {len(train)} images to learn from")
    device = pick_device()
    teacher = load_teacher(options.teacher_weights, classes).to(device, memory_format=torch.channels_last)
    student = mobilenet_v2(width_mult=0.35, num_classes=classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(student.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)

    parts = {"student": student, "optimizer": optimizer, "schedule": schedule}
    names = ("epochs", "batch_size", "learning_rate", "image_size", "seed")
    settings = {name: getattr(options, name) for name in names} | {"classes": classes, "images": len(train)}
    done = resume(checkpoint, settings, parts)
    _files.writable_folder(options.out)

    def loader(images, **more) -> DataLoader:
        in_pinned_memory = device.type == "cuda"
        return DataLoader(images, options.batch_size, num_workers=options.workers, pin_memory=in_pinned_memory, **more)

    seen = accuracy(teacher, loader(held_out), device)
    print(f"The teacher is right on {seen:.1%} of the held-out images (near 0: the folders are not in its order)")
    for epoch in range(done, options.epochs):
        torch.manual_seed(options.seed + epoch + 1)  # the order and the cuts of this epoch, also after a stop
        batches = timed(loader(train, shuffle=True, drop_last=True), options.epochs - epoch)
        loss = one_epoch(student, teacher, batches, optimizer, device)
        schedule.step()
        state = {name: part.state_dict() for name, part in parts.items()}
        checkpoints.save(checkpoint, {"settings": settings, "epoch": epoch + 1, **state})
        seen = accuracy(student, loader(held_out), device)
        print(f"epoch {epoch + 1}: loss {loss:.3f}, held-out accuracy {seen:.1%}", flush=True)

    result = {"student": accuracy(student, loader(val), device), "teacher": accuracy(teacher, loader(val), device)}
    _files.write(options.out / "student.pt", lambda file: torch.save(student.state_dict(), file))
    _files.write(options.out / "result.json", json.dumps(result | settings, indent=2).encode())
    print(f"val/, used once: student {result['student']:.2%}, teacher {result['teacher']:.2%}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="the folder for checkpoint, weights and result")
    parser.add_argument("--teacher-weights", type=Path, help="a state dict of ResNet-18; else torchvision's is fetched")
    parser.add_argument("--epochs", type=whole(1), default=10)
    parser.add_argument("--batch-size", type=whole(2), default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam, falling to 0 along a cosine")
    parser.add_argument("--image-size", type=whole(32), default=224, help="pixels that both networks see")
    parser.add_argument("--workers", type=whole(0), default=8, help="processes that read and cut images")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT, where there is one")
    return parser.parse_args(arguments)


def whole(least: int):
    """A type of arguments: whole numbers of at least this."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return number


def splits(data: Path, size: int) -> tuple[Subset, Subset, ImageFolder, int]:
    """The images to learn from, those held out of train/, those of val/, and the number of classes."""
    for name in ("train", "val"):
        if not (data / name).is_dir():
            raise FileNotFoundError(f"there is no folder {data / name}: --data must hold train/ and val/")
    plain = v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), *NORMALISED])
    known, val = ImageFolder(data / "train", plain), ImageFolder(data / "val", plain)
    if known.classes != val.classes:
        odd = sorted(set(known.classes) ^ set(val.classes))
        raise ValueError(f"train/ and val/ must have the same folders; only one of them has {', '.join(odd[:5])}")
    learned = copy.copy(known)  # the same files, found once
    learned.transform = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *NORMALISED])
    order = torch.randperm(len(known)).tolist()
    aside = max(1, len(known) // HELD_OUT)
    return Subset(learned, order[aside:]), Subset(known, order[:aside]), val, len(known.classes)


def load_teacher(weights: Path | None, classes: int) -> nn.Module:
    """ResNet-18 with these weights, or torchvision's own; frozen."""
    if weights is None:
        state = ResNet18_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
    elif not weights.is_file():
        raise FileNotFoundError(f"there is no file --teacher-weights {weights}")
    try:
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)  # data only: loading runs no code
        known = len(state["fc.bias"])
        teacher = resnet18(num_classes=known)
        teacher.load_state_dict(state)
    except (RuntimeError, LookupError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"--teacher-weights {weights} is no state dict of torchvision's resnet18: {error}") from error
    if known != classes:
        raise ValueError(f"the teacher knows {known} classes, but train/ has {classes} folders")
    return teacher.eval().requires_grad_(False)


def resume(checkpoint: Path, settings: dict, parts: dict) -> int:
    """Put the parts back as the checkpoint has them; the number of epochs that are done."""
    state = checkpoints.load(checkpoint, settings)
    if state is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epoch"]


def one_epoch(student, teacher, batches, optimizer, device) -> float:
    """One pass over the images; the mean loss."""
    student.train()
    total, count = torch.zeros((), device=device), 0
    for images, labels in batches:
        images, labels = placed(images, device), labels.to(device, non_blocking=True)
        with torch.no_grad(), computing(device, teacher):
            teacher_logits = teacher(images)
        with computing(device, student):
            student_logits = student(images)
        terms = distillation_loss(
            student_logits.float(), teacher_logits.float(), labels, temperature=TEMPERATURE, alpha=ALPHA
        )
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        optimizer.step()
        total, count = total + terms.total.detach() * len(labels), count + len(labels)
    return total.item() / count


def timed(batches: DataLoader, epochs_left: int) -> Iterator:
    """The batches; early on it prints what the rest will take at the pace of the steps so far."""
    for step, batch in enumerate(batches):
        if step == 0:
            started = time.perf_counter()  # once the workers run
        if step == TIMED_STEPS:
            pace = step / (time.perf_counter() - started)
            hours = (epochs_left * len(batches) - step) / pace / 3600
            print(f"{pace * len(batch[1]):.0f} images a second: about {hours:.1f} hours to the end", flush=True)
        yield batch


def accuracy(network: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """The share of images whose label is the network's first choice."""
    network.eval()
    right = count = 0
    with torch.inference_mode(), computing(device, network):
        for images, labels in batches:
            right += (network(placed(images, device)).argmax(dim=1).cpu() == labels).sum().item()
            count += len(labels)
    return right / count


def placed(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device, memory_format=torch.channels_last, non_blocking=True)


def computing(device: torch.device, network: nn.Module) -> torch.autocast:
    """In bfloat16 where this network is faster so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_helps(network, device))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
