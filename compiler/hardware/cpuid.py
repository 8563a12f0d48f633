"""Instruction sets by the CPU's own word, where /proc/cpuinfo does not tell them.

The C library asks the CPU as a program starts, and leaves out what the system does not enable.  It
tells of that since glibc 2.33 (`sys/platform/x86.h`).
"""

import ctypes

# Where the answers lie: the number that glibc gives to a leaf of CPUID, and the register.
_EBX, _ECX, _EDX, _EAX = 1, 2, 3, 0
_LEAF_1, _LEAF_7, _LEAF_80000001, _LEAF_7_1 = 0, 1, 2, 6
_WORDS = 4  # registers of a leaf; those with what may be used follow upon those with what there is
_BITS = {
    (_LEAF_1, _ECX): {"fma": 12, "sse4.2": 20, "movbe": 22, "popcnt": 23, "avx": 28, "f16c": 29},
    (_LEAF_7, _EBX): {
        "bmi": 3,
        "avx2": 5,
        "bmi2": 8,
        "avx512f": 16,
        "avx512dq": 17,
        "avx512ifma": 21,
        "avx512cd": 28,
        "avx512bw": 30,
        "avx512vl": 31,
    },
    (_LEAF_7, _ECX): {
        "avx512vbmi": 1,
        "avx512vbmi2": 6,
        "gfni": 8,
        "vaes": 9,
        "vpclmulqdq": 10,
        "avx512vnni": 11,
        "avx512bitalg": 12,
        "avx512vpopcntdq": 14,
    },
    (_LEAF_7, _EDX): {"avx512fp16": 23},
    (_LEAF_7_1, _EAX): {"avxvnni": 4, "avx512bf16": 5},
    (_LEAF_80000001, _ECX): {"lzcnt": 5, "sse4a": 6},
}
NAMES = frozenset(name for bits in _BITS.values() for name in bits)


def features() -> frozenset[str]:
    """Those of `NAMES`, which are LLVM's, that this process may use; none if nobody tells."""
    try:
        leaf = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (OSError, AttributeError):  # another C library, or an older one
        return frozenset()
    leaf.restype, leaf.argtypes = ctypes.c_void_p, [ctypes.c_uint]
    found: set[str] = set()
    for (number, register), bits in _BITS.items():
        if place := leaf(number):
            word = (ctypes.c_uint32 * (2 * _WORDS)).from_address(place)[_WORDS + register]
            found |= {name for name, bit in bits.items() if word >> bit & 1}
    return frozenset(found)
