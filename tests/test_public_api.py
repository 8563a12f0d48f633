"""`import hybridc`: light, and complete."""

import pytest
from child_runs import run_child


def test_importing_the_package_is_light() -> None:
    code = "import sys, hybridc; print(hybridc.__version__, {'numpy', 'tvm'} & set(sys.modules))"
    assert run_child(code).stdout.endswith(" set()\n")
    code = "import sys, hybridc; hybridc.Artifact, hybridc.Contract; print('tvm' in sys.modules)"
    assert run_child(code).stdout == "False\n"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import hybridc

    with pytest.raises(AttributeError, match="nonsense"):
        _ = hybridc.nonsense
    assert set(dir(hybridc)) >= {"Artifact", "Contract", "InferenceSession", "compile"}
