"""Register tiles: what fits the registers of a target, with its operands."""

from dataclasses import replace

import pytest
from kernel_builders import PACKED, constant, floats, op, operator

from hybridc.compiler import target
from hybridc.compiler.hardware.machine import Machine
from hybridc.schedules.depthwise_conv2d import DepthwiseConv2d
from hybridc.schedules.products import depthwise, registers, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem

AVX2, AVX512 = (target.parse(cpu, threads=2) for cpu in ("avx2", "avx512"))


def test_tiles_leave_registers_to_their_operands() -> None:
    for cpu in (AVX2, AVX512):
        for rows, vectors in registers.tiles(cpu):
            assert rows * vectors + vectors + 1 <= cpu.vector_registers
        for rows, vectors in registers.tiles(cpu, parts=2):
            assert rows * vectors + 2 * vectors + 2 <= cpu.vector_registers


def test_what_is_broadcast_for_one_vector_takes_registers_without_embedded_broadcasts() -> None:
    assert max(rows for rows, vectors in registers.tiles(AVX2) if vectors == 1) == 7
    assert max(rows for rows, vectors in registers.tiles(AVX512) if vectors == 1) == 16


@pytest.mark.parametrize(("shared", "most"), [(0, 4), (8, 1), (16, 2), (24, 3)])
def test_tiles_stay_within_a_group_of_channels(shared: int, most: int) -> None:
    problem = Problem(1, 28, 28, 48, 72, 1024, 800_000, AVX2.lanes(), shared=shared)
    assert max(tiling.space(problem, AVX2)["vectors"]) >= most
    width = tiling.default(problem, AVX2)["vectors"] * AVX2.lanes()
    assert not shared or shared % width == 0


@pytest.mark.parametrize(
    ("cpu", "pixels", "columns", "itemsize", "wanted"),
    [
        (AVX2, 4, 96, 4, 2),  # two vectors of 8 lanes are a line
        (AVX512, 8, 96, 4, 1),
        (AVX2, 4, 8, 4, 1),  # no more channels
        (AVX2, 4, 96, 1, 1),  # bytes are widened: a line of them is too much
    ],
)
def test_depthwise_tiles_take_whole_lines(
    cpu: target.Target, pixels: int, columns: int, itemsize: int, wanted: int
) -> None:
    assert depthwise.vectors(pixels, columns, cpu.lanes(), itemsize) == wanted


@pytest.mark.parametrize(
    ("cpu", "depth", "wanted"), [(AVX512, 64, 1), (AVX512, 512, 2), (AVX2, 64, 2)]
)
def test_shallow_products_are_tiled_by_one_vector_where_it_hides_the_epilogue(
    cpu: target.Target, depth: int, wanted: int
) -> None:
    size = 4 * depth
    problem = Problem(1, 1, 3136, 256, depth, size, 3136 * size, cpu.lanes())
    assert tiling.default(problem, cpu)["vectors"] == wanted


def test_a_tile_of_a_whole_image_row_has_accumulators_to_spare() -> None:
    problem = Problem(1, 4, 4, 512, 4608, 4096, 165_888, AVX512.lanes())
    tile = tiling.default(problem, AVX512)
    assert tile["rows"] * tile["vectors"] > 4  # as many are under way, but for those at the ends


@pytest.mark.parametrize("rows", [100, 120, 196])
def test_threads_have_as_many_rows_where_weights_are_near(rows: int) -> None:
    depth, columns = 144, 432
    problem = Problem(1, 1, rows, columns, depth, 4 * depth, rows * 4 * depth, AVX512.lanes())
    point = tiling.default(problem, replace(AVX512, near=True))
    units, panels = problem.units(point["rows"]), problem.panels(point["vectors"])
    tasks = units // point["chunk"] * (panels // point["panels"])
    most = -(-tasks // AVX512.threads) * point["chunk"] * point["rows"] * point["panels"]
    assert most * AVX512.threads <= 1.04 * rows * panels


@pytest.mark.parametrize(
    ("columns", "vectors", "width", "lanes"),
    [
        (40, 3, 1, 8),  # a panel that is alone
        (45, 3, 1, 16),  # and whose columns have no divisor in common with a vector
        (48, 3, 1, 16),
        (40, 2, 2, 16),  # the last panel is a loop of its own
        (40, 2, 1, 8),  # or is not, where tasks share the panels
    ],
)
def test_lanes_that_are_stored(columns: int, vectors: int, width: int, lanes: int) -> None:
    problem = Problem(1, 54, 54, columns, 180, 80, 233_280, 16)
    assert problem.stored(vectors, width) == lanes


@pytest.mark.parametrize(("columns", "most"), [(45, 25), (40, 32)])
def test_columns_that_are_stored_one_by_one_leave_registers_free(columns: int, most: int) -> None:
    problem = Problem(1, 54, 54, columns, 180, 80, 233_280, 16, halo_bytes=8960)
    tile = tiling.default(problem, replace(AVX512, machine=Machine(fma_per_cycle=2.0)))
    assert tile["vectors"] == 3
    assert (tile["rows"] + 1) * tile["vectors"] < most


def test_a_task_of_one_tile_has_all_rows_or_whole_columns() -> None:
    problem = Problem(1, 1, 100, 200, 300, 1200, 120_000, 16, divided=True)
    for cpu in (AVX512, replace(AVX512, machine=Machine(fma_per_cycle=2.0))):
        for tile in tiling.fitting_tiles(problem, cpu):
            for chunk, width in tiling.possible_tasks(problem, tile, cpu):
                masked = tile[1] > 1 and 200 % problem.stored(tile[1], width)
                assert not (masked and chunk == 1 and 100 % tile[0])


@pytest.mark.parametrize("rows", [40, 41])
@pytest.mark.parametrize("units", [1.0, 2.0])
def test_tiles_of_written_out_rows_divide_them(units: float, rows: int) -> None:
    """Groups of eight channels, a window of eight: each multiply-add would ask for its row."""
    problem = Problem(1, 1, rows, 32, 64, 128, 6016, 16, shared=8)
    assert problem.ordered
    cpu = replace(AVX512, machine=Machine(fma_per_cycle=units))
    assert rows % tiling.default(problem, cpu)["rows"] == 0


@pytest.mark.parametrize(("units", "size", "wanted"), [(2.0, 14, 2), (2.0, 40, 2), (1.0, 14, 1)])
def test_two_units_have_multiply_adds_of_two_vectors_under_way(
    units: float, size: int, wanted: int
) -> None:
    cpu = replace(AVX512, machine=Machine(fma_per_cycle=units))
    weight = constant(96, 1, 3, 3)
    build = operator(
        lambda x: op.nn.conv2d(x, weight, padding=1, groups=96),
        *floats([1, 96, size, size]),
        passes=PACKED,
    )
    rule = DepthwiseConv2d()
    matches = [rule.match(func, cpu) for func in build(cpu)]
    (match,) = [found for found in matches if isinstance(found, Contraction)]
    assert rule.default(match, cpu)["vectors"] == wanted
