"""Arrays become ONNX Runtime's values and come back, whatever their elements."""

import numpy as np
import pytest

from hybridc.compiler.delegation.runtime_values import ELEMENTS, ort_value, to_array


@pytest.mark.parametrize("kind", ELEMENTS)
def test_elements_of_every_type_come_back(kind: str) -> None:
    array = np.array([[0, 1, 2], [0, 1, 4]]).astype(np.dtype(kind))
    for given in (array, array[:0], array[1, 1:2].reshape(())):
        value = ort_value(np.array(given))
        assert value.element_type() == ELEMENTS[kind]
        back = to_array(value)
        assert (back.dtype, back.shape) == (given.dtype, given.shape)
        np.testing.assert_array_equal(back.astype(float), given.astype(float))
