"""What PyTorch's tutorial on knowledge distillation trains, and how: its networks, data set and loss.

Written again from its published description
(docs.pytorch.org/tutorials/beginner/knowledge_distillation_tutorial.html); the other benchmarks compare with it.
"""

from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

from kdlib.data import ImageSplit

BATCH_SIZE = 128
TEMPERATURE = 2.0
ALPHA = 0.25
PADDING = 4  # of the random crop


def deep_network(classes: int = 10) -> nn.Module:
    """The tutorial's teacher, DeepNN, for images of 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, classes),
    )  # fmt: skip


def light_network(classes: int = 10) -> nn.Module:
    """The tutorial's student, LightNN, for images of 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, classes),
    )  # fmt: skip


def check_sizes() -> None:
    """The networks are the published ones, to the parameter."""
    for network, published in ((deep_network(), 1_186_986), (light_network(), 267_738)):
        parameters = sum(p.numel() for p in network.parameters())
        assert parameters == published, f"{parameters} parameters, the tutorial has {published}"


def as_colour_images(split: ImageSplit, like: ImageSplit | None = None) -> ImageSplit:
    """The images as 3x32x32, normalised by their own statistics or those of `like`."""
    images = transforms.functional.resize(split.images, [32, 32], antialias=True).expand(-1, 3, -1, -1)
    own = ImageSplit(images, split.labels, split.indices)
    return ImageSplit(images, split.labels, split.indices, like.mean, like.std) if like else own


class PictureDataset(Dataset):
    """Arrays in memory, a PIL image and its transforms at every access: what torchvision's CIFAR10 does."""

    def __init__(self, split: ImageSplit, augmented: bool):
        self.arrays = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = split.labels.tolist()
        random = [transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()]
        fixed = [transforms.ToTensor(), transforms.Normalize(split.mean.tolist(), split.std.tolist())]
        self.transform = transforms.Compose(random + fixed if augmented else fixed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def tutorial_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The tutorial's way to the value of `kdlib.losses.distillation_loss`."""
    soft_targets = (teacher_logits / TEMPERATURE).softmax(dim=-1)
    log_student = (student_logits / TEMPERATURE).log_softmax(dim=-1)
    divergence = (soft_targets * (soft_targets.log() - log_student)).sum() / len(labels)
    return ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * F.cross_entropy(student_logits, labels)
