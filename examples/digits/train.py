"""Train a small network on scikit-learn's handwritten digits, and export it.

Writes `digits.onnx`, and the held-out images and labels, beside this file.  They are kept in the
repository, so that compiling and running the network needs neither torch nor scikit-learn.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
HELD_OUT = 360  # a fifth of the 1797 images
EPOCHS = 30
BATCH = 64
SEED = 0

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Network(nn.Module):
    """Three convolutions and a linear layer: images [N, 1, 8, 8] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _block(1, 16),
            _block(16, 32),
            nn.MaxPool2d(2),
            _block(32, 64),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        logits: torch.Tensor = self.layers(image)
        return logits


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def main() -> None:
    """Train, say how good the network is, and write the files."""
    torch.manual_seed(SEED)
    train_images, test_images, train_labels, test_labels = read_digits()
    network = Network()
    train(network, train_images, train_labels)
    network.eval()
    with torch.no_grad():
        found = network(torch.from_numpy(test_images)).argmax(1).numpy()
    print(f"accuracy on {len(test_labels)} held-out images: {np.mean(found == test_labels):.4f}")
    export(network, HERE / "digits.onnx")
    np.savez_compressed(HERE / "digits-test.npz", image=test_images)
    np.savez_compressed(HERE / "digits-test-labels.npz", label=test_labels)


def read_digits() -> tuple[Floats, Floats, Labels, Labels]:
    """Give the images [N, 1, 8, 8], scaled to 0..1, and labels: for training, and held out."""
    digits: Any = load_digits()
    images = (digits.data / 16).astype(np.float32).reshape(-1, 1, 8, 8)  # 16 is the brightest
    labels = digits.target
    parts: Any = train_test_split(
        images, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels
    )
    train_images, test_images, train_labels, test_labels = parts
    return train_images, test_images, train_labels, test_labels


def train(network: Network, images: Floats, labels: Labels) -> None:
    """Train for `EPOCHS` passes over the images, shuffled anew each time."""
    data = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    batches = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    for _ in range(EPOCHS):
        for image, label in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(image), label).backward()
            optimiser.step()


def export(network: Network, path: Path) -> None:
    """Write the network as one ONNX file that takes one image at a time."""
    program = torch.onnx.export(
        network,
        (torch.zeros(1, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    for part in (*program.model.graph, *program.model.graph.initializers.values()):
        part.metadata_props.clear()  # stack traces, which hold the paths of this machine
    program.save(path, external_data=False)


if __name__ == "__main__":
    main()
