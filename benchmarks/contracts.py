"""Contracts: what they come to beside peers, whether certificates stand, and others with limits.

    python benchmarks/contracts.py speed                       ResNet-50 and BERT-base
    python benchmarks/contracts.py ladder --models digits      contracts of rising difficulty
    python benchmarks/contracts.py unseen --samples 100        six small trained networks
    python benchmarks/contracts.py rivals                      NNCF and Olive
    python benchmarks/contracts.py rivals --rivals /tmp/rivals/bin/python

`speed`: the fastest candidate within a limit on the cosine, beside ONNX Runtime in fp32 and
OpenVINO as it is.  `ladder`: of each contract that is certified, all limits are measured again on
data of the same kind that nothing has seen.  `unseen`: networks that nothing was made for, under
ever tighter limits on the cosine.  `rivals`: one model, data and limit for all; they may
be installed in an environment of their own: `python -m venv /tmp/rivals && /tmp/rivals/bin/pip
install nncf openvino olive-ai onnxruntime requests "pydantic<2.12"` (Olive 0.13 fails with later
ones).
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import command_line
import contracts_ladder
import contracts_rivals
import contracts_speed
import contracts_unseen
import data
import markdown
from command_line import count

PARTS: Mapping[str, Callable[[argparse.Namespace], Iterable[str]]] = MappingProxyType(
    {
        "speed": lambda options: contracts_speed.run(
            options.models or contracts_speed.MODELS, options
        ),
        "ladder": lambda options: contracts_ladder.run(options.models or data.LADDER, options),
        "unseen": lambda options: contracts_unseen.run(options.models or data.TRAINED, options),
        "rivals": lambda options: contracts_rivals.run(
            options.models or contracts_rivals.MODELS, options.rivals
        ),
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one part and print its section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--models", type=lambda text: text.split(","), help="with commas between")
    parser.add_argument("--contracts", type=count, default=20, help="ladder: rungs of each model")
    parser.add_argument("--samples", type=count, default=64, help="of each kind of data")
    parser.add_argument("--rivals", metavar="PYTHON", help="rivals: the interpreter that has them")
    options = parser.parse_args(arguments)
    markdown.show(PARTS[options.part](options))


if __name__ == "__main__":
    command_line.run(main)
