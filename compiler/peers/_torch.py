"""Load a `.pt2` file for the torch peers; nothing in it is unpickled or run that is not checked."""

from pathlib import Path
from typing import Any

from hybridc.compiler.measurement.peer import renamed
from hybridc.compiler.model import Feed


def load(path: Path, feed: Feed, threads: int) -> tuple[Any, list[Any], dict[str, Any]]:
    """The module, and the positional and keyword arguments that the feed makes."""
    import torch
    from torch.utils._pytree import tree_unflatten

    from hybridc.compiler.frontends.torch_model import Constant, export

    torch.set_num_threads(threads)
    program = export(path, None)
    by_name = renamed(feed, program.inputs)
    leaves = [
        argument.value if isinstance(argument, Constant) else torch.from_numpy(by_name[argument])
        for argument in program.arguments
    ]
    positional, keyword = tree_unflatten(leaves, program.exported.call_spec.in_spec)
    return program.original(), positional, keyword
