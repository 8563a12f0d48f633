"""Device functions for the instructions of Hopper's warpgroups, as inline PTX.

`wgmma.mma_async` of the PTX manual 9.0: 64 rows of the left tile by all columns of the right one,
16 elements of depth at a time.  A tile's 64 elements of depth are one group, from the fence to the
commit.  What waits for groups takes the sums as well, so that no compiler moves what reads them
before it.
"""

import re

_PRODUCTS = re.compile(r"hybridc_wgmma_(held_)?(b?float16)_(\d+)")
_WAITS = re.compile(r"hybridc_products_(\d+)")
_TYPES = {"float16": "f16", "bfloat16": "bf16"}
_STEPS = 4  # of 16 elements, in 128 bytes

# Descriptors of matrices in shared memory ("Matrix Descriptor Format"): the address and both
# offsets in units of 16 bytes, and the swizzle of 128 bytes.  Along the depth, eight rows are 1024
# bytes, and a step is 32 bytes further; by depth, 64 elements of the own axis are 8192 bytes, eight
# steps of the depth 1024, and sixteen 2048.
HEAD = """
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <int by_depth>
HYBRIDC_INLINE unsigned long long hybridc_descriptor(const void* tile, int step) {
  constexpr unsigned long long leading = by_depth ? 8192 >> 4 : 1, stride = 1024 >> 4;
  constexpr unsigned long long rest = leading << 16 | stride << 32 | 1ull << 62;
  // An address tells in its upper bits which block of a cluster it is of.  Steps differ by an
  // addition alone: tiles end below 256 KiB, where the 14 bits of an address do.
  return ((hybridc_shared(tile) & 0x3FFFF) >> 4 | rest) + step * (by_depth ? 2048 >> 4 : 32 >> 4);
}
"""
_TAIL = "#endif\n"


def text(code: str) -> str:
    """The functions that some code calls.

    `hybridc_wgmma_<type>_<columns>` take which sides are by depth, and whether the sums begin;
    `hybridc_wgmma_held_<type>_<columns>`, whose left side is in registers, whether the right is so;
    `hybridc_products_<columns>` wait for all but so many groups.
    """
    made = [
        (_held if held else _function)(dtype, int(columns))
        for held, dtype, columns in sorted(set(_PRODUCTS.findall(code)))
    ]
    waiting = [_waiting(int(columns)) for columns in sorted(set(_WAITS.findall(code)))]
    return "\n".join([HEAD, *made, *waiting, _TAIL])


def _waiting(columns: int) -> str:
    count = columns // 2
    outputs = ", ".join(f'"+f"(sums[{i}])' for i in range(count))
    return f"""template <int n>
HYBRIDC_INLINE void hybridc_products_{columns}(float* sums) {{
  asm volatile("wgmma.wait_group.sync.aligned %{count};" : {outputs} : "n"(n) : "memory");
}}
"""


def _function(dtype: str, columns: int) -> str:
    count = columns // 2
    left, right, begins = count, count + _STEPS, count + 2 * _STEPS
    flags = begins + 1, begins + 2
    products = [
        (f"%{left + step}, %{right + step}", "1, 1, %{}, %{}".format(*flags))
        for step in range(_STEPS)
    ]
    inputs = [
        f'"l"(hybridc_descriptor<{side}_by_depth>({side}, {step}))'
        for side in ("left", "right")
        for step in range(_STEPS)
    ]
    inputs += ['"n"(!begins)', '"n"(left_by_depth)', '"n"(right_by_depth)']
    return f"""// sums[64x{columns}] += left[64x64] right[64x{columns}], once waited for; = if new.
template <int left_by_depth, int right_by_depth, int begins = 0>
HYBRIDC_INLINE void hybridc_wgmma_{dtype}_{columns}(float* sums, const void* left,
                                                  const void* right) {{
{_asm(dtype, columns, products, inputs, f"%{begins}")}
}}
"""


def _held(dtype: str, columns: int) -> str:
    count = columns // 2
    left, right = count, count + 4 * _STEPS
    flag = right + _STEPS
    products = [
        (
            f"{{{', '.join(f'%{left + 4 * step + i}' for i in range(4))}}}, %{right + step}",
            f"1, 1, %{flag}",
        )
        for step in range(_STEPS)
    ]
    inputs = [f'"r"(left[{i}])' for i in range(4 * _STEPS)]
    inputs += [f'"l"(hybridc_descriptor<right_by_depth>(right, {step}))' for step in range(_STEPS)]
    inputs.append('"n"(right_by_depth)')
    return f"""// The same with the left side in registers: of 16 columns four, as `mma` takes them.
template <int right_by_depth>
HYBRIDC_INLINE void hybridc_wgmma_held_{dtype}_{columns}(float* sums, const unsigned* left,
                                                       const void* right) {{
{_asm(dtype, columns, products, inputs, "1")}
}}
"""


def _asm(
    dtype: str, columns: int, products: list[tuple[str, str]], inputs: list[str], first: str
) -> str:
    """A group of products, each of its operands and flags; the sums count if `first` is not 0."""
    count, short = columns // 2, _TYPES[dtype]
    sums = ", ".join(f"%{i}" for i in range(count))
    lines = "\n".join(
        f'      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{short}.{short} {{{sums}}}, "\n'
        f'      "{operands}, {"all" if step else "first"}, {flags};\\n"'
        for step, (operands, flags) in enumerate(products)
    )
    outputs = ", ".join(f'"+f"(sums[{i}])' for i in range(count))
    return f"""  asm volatile(
      "{{\\n.reg .pred all, first;\\nsetp.ne.b32 all, 1, 0;\\nsetp.ne.b32 first, {first}, 0;\\n"
      "wgmma.fence.sync.aligned;\\n"
{lines}
      "wgmma.commit_group.sync.aligned;\\n}}"
      : {outputs}
      : {", ".join(inputs)}
      : "memory");"""
