"""ResNet50 (He et al., 2015, arXiv:1512.03385; stride in the 3x3 as torchvision has it) and what is made of its end.

Names are those of torchvision's `resnet50`, so that its state_dict loads as it is.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from zoo.resnet50.pixels import PAD

CLASSES = 1000
EMBEDDING = 2048
PARAMETERS = 25_557_032
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# Channels inside the bottlenecks, number of blocks, stride of the first.
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, plus what came in."""

    def __init__(self, incoming: int, width: int, stride: int):
        super().__init__()
        outgoing = width * _EXPANSION
        self.conv1 = nn.Conv2d(incoming, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outgoing, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outgoing)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or incoming != outgoing:
            self.downsample = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity: torch.Tensor = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class ResNet50(nn.Module):
    """Normalised float `[B,3,H,W]` to logits `[B,1000]` and the embedding `[B,2048]` that they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        incoming = 64
        stages = []
        for width, blocks, stride in _STAGES:
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(incoming, width, stride if block == 0 else 1))
                incoming = width * _EXPANSION
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(EMBEDDING, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding = torch.flatten(self.avgpool(x), 1)
        return self.fc(embedding), embedding


class Pixels(nn.Module):
    """uint8 crops `[B,100,100,3]` to what the network takes, float `[B,3,224,224]`: black around, then normalised."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1))

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        x = crop.to(torch.float32).permute(0, 3, 1, 2)
        x = functional.pad(x, (PAD, PAD, PAD, PAD))
        return (x / 255 - self.mean) / self.std


class NormStatistics(nn.Module):
    """Mean and unbiased variance of each row, `[B,N]` to `[B,2]`: what a norm computes, and kept FP32 as norms are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(1, keepdim=True)
        # Two passes: the difference of mean square and squared mean would lose what is asked for.
        variance = (x - mean).square().sum(1, keepdim=True) / (x.shape[1] - 1)
        return torch.cat([mean, variance], 1)


class Classifier(nn.Module):
    """uint8 crops `[B,100,100,3]` to logits `[B,1000]`, embedding `[B,2048]`, and its mean and variance `[B,2]`."""

    def __init__(self, network: ResNet50):
        super().__init__()
        # By its name export keeps it FP32.
        self.pixels_in = Pixels()
        self.network = network
        self.statistics = NormStatistics()

    def forward(self, crop: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, embedding = self.network(self.pixels_in(crop))
        return logits, embedding, self.statistics(embedding)
