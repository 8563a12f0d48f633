"""Device functions for the instructions of Hopper's warpgroups, as inline PTX.

`wgmma.mma_async` of the PTX manual 9.0: 64 rows of the left tile by all columns of the right one,
16 elements of depth at a time.  A tile's 64 elements of depth are one group, from the fence to the
commit.  What waits for groups takes the sums as well, so that no compiler moves what reads them
before it.
"""

COLUMNS = (64, 128, 256)
_TYPES = {"float16": "f16", "bfloat16": "bf16"}
_STEPS = 4  # of 16 elements, in 128 bytes

# Descriptors of matrices in shared memory ("Matrix Descriptor Format"): the address and both
# offsets in units of 16 bytes, and the swizzle of 128 bytes.  Along the depth, eight rows are 1024
# bytes, and a step is 32 bytes further; by depth, 64 elements of the own axis are 8192 bytes, eight
# steps of the depth 1024, and sixteen 2048.
_HEAD = """
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <int by_depth>
HYBRIDC_INLINE unsigned long long hybridc_descriptor(const void* tile, int step) {
  unsigned long long start = hybridc_shared(tile) + step * (by_depth ? 2048 : 32);
  unsigned long long leading = by_depth ? 8192 >> 4 : 1, stride = 1024 >> 4;
  return (start & 0x3FFFF) >> 4 | leading << 16 | stride << 32 | 1ull << 62;
}
"""
_TAIL = "#endif\n"


def text() -> str:
    """The functions: `hybridc_wgmma_<type>_<columns>` and `hybridc_products_<columns>`.

    The former take which sides are by depth; the latter wait for all but so many groups.
    """
    made = [_function(dtype, columns) for dtype in _TYPES for columns in COLUMNS]
    return "\n".join([_HEAD, *made, *map(_waiting, COLUMNS), _TAIL])


def _waiting(columns: int) -> str:
    count = columns // 2
    outputs = ", ".join(f'"+f"(sums[{i}])' for i in range(count))
    return f"""template <int n>
HYBRIDC_INLINE void hybridc_products_{columns}(float* sums) {{
  asm volatile("wgmma.wait_group.sync.aligned %{count};" : {outputs} : "n"(n) : "memory");
}}
"""


def _function(dtype: str, columns: int) -> str:
    count, short = columns // 2, _TYPES[dtype]
    sums = ", ".join(f"%{i}" for i in range(count))
    sides = [(count + 2 * step, count + 2 * step + 1) for step in range(_STEPS)]
    flags = (count + 2 * _STEPS, count + 2 * _STEPS + 1)
    products = "\n".join(
        f'      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{short}.{short} {{{sums}}}, "\n'
        f'      "%{left}, %{right}, all, 1, 1, %{flags[0]}, %{flags[1]};\\n"'
        for left, right in sides
    )
    outputs = ", ".join(f'"+f"(sums[{i}])' for i in range(count))
    inputs = ", ".join(
        f'"l"(hybridc_descriptor<{side}_by_depth>({side}, {step}))'
        for step in range(_STEPS)
        for side in ("left", "right")
    )
    return f"""// sums[64x{columns}] += left[64x64] right[64x{columns}] of {dtype}, when waited for.
template <int left_by_depth, int right_by_depth>
HYBRIDC_INLINE void hybridc_wgmma_{dtype}_{columns}(float* sums, const void* left,
                                                  const void* right) {{
  asm volatile(
      "{{\\n.reg .pred all;\\nsetp.ne.b32 all, 1, 0;\\nwgmma.fence.sync.aligned;\\n"
{products}
      "wgmma.commit_group.sync.aligned;\\n}}"
      : {outputs}
      : {inputs}, "n"(left_by_depth), "n"(right_by_depth)
      : "memory");
}}
"""
