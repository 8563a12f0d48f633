"""The named pipelines: passes in order, each with the reason why it stands where it stands."""

Pipeline = tuple[tuple[str, str], ...]

DEFAULT: Pipeline = (
    ("simplify-inference", "drop what only training needs, so that later patterns are plain"),
    ("fold-constants", "shapes and weights computed from constants become constants"),
    ("fold-batch-norm", "a scale and shift behind a convolution move into its weights"),
    ("fuse-norms", "layouts pass through a normalisation, but not through its pieces"),
    ("fold-padding", "a zero pad before a convolution or pooling becomes its own padding"),
    ("eliminate-common-subexpressions", "exporters repeat masks, casts and shapes"),
    ("eliminate-dead-code", "what folding left without a user is not laid out or scheduled"),
    ("merge-transposes", "exporters write transposes in pairs; without them attention shows"),
    ("combine-projections", "one product reads what queries, keys and values are made from"),
    ("fuse-attention", "scores stay in the cache; has to see matrix products before packing"),
    ("lift-conv1d", "one kind of convolution; batch norms and pads are in their weights by now"),
    ("lift-conv3d", "slices along the depth become channels of images, whose kernels are fast"),
    ("integer-arithmetic", "quantised products in integers; weights are plain constants by now"),
    ("depthwise-planes", "what no other convolution is near stays as it lies; before layouts turn"),
    ("layout", "channels last: convolutions then read and write whole vectors"),
    ("sink-transposes", "operators without a layout, such as where, else have two each"),
    ("merge-transposes", "what sank meets the transpose that undoes it"),
    ("subpixel-convolution", "transposed convolutions become plain ones, in the layout just made"),
    ("split-to-slices", "parts are read where they lie; axes are final, operators still named"),
    ("merge-transposes{views=true}", "pairs that attention and layout put between neighbours"),
    ("eliminate-common-subexpressions", "branches transpose what they share, each for itself"),
    ("fold-constants", "the transposes that the layout put on weights"),
    ("pack-weights", "constant weights in the order in which the kernels read them"),
    ("widen-types", "types that code generation lacks; casts would hide patterns from the above"),
    ("legalize", "every remaining operator becomes a loop nest"),
    ("fuse", "epilogues join the kernel that feeds them: fewer trips to memory"),
    (
        "fuse-depthwise",
        "expansion, window and projection in one cache; their epilogues are in by now",
    ),
    ("schedule", "each kernel gets its rule's default point; needs the fused loop nests"),
    ("allocate", "kernels write into buffers given to them, which can then be larger ones"),
    (
        "avoid-copies",
        "concatenated tensors are computed in place; after rules, which know no boxes",
    ),
    ("schedule", "the copies that are left between concatenations"),
    ("start-at-infinity", "maxima of infinities; TVM schedules by the finite numbers it put there"),
    (
        "lower-bfloat16",
        "16 bits in memory, float32 in registers; rules look for the types as named",
    ),
    ("fast-math", "exp, erf, tanh as polynomials that vectorise; rules inline plain calls best"),
    ("saturating-casts", "quantised results: rounded and cast by one addition; after scheduling"),
    ("propagate-nan", "as models mean it; rules and saturating-casts know maxima as they were"),
    ("guard-division", "integers divided by 0 would stop the process; rules know plain divisions"),
    ("wrap-integers", "TVM's lowering takes them for unbounded; behind what guards divisions"),
    (
        "shield-floats",
        "TVM's lowering takes floats for integers; nothing matches them later",
    ),
    ("plan-memory", "intermediate buffers share storage; last, when all buffers are known"),
)

# What is needed for a model to run at all, and nothing that is there for speed.
MINIMAL: Pipeline = (
    ("simplify-inference", "drop what only training needs, which has no loop nests"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("widen-types", "types that code generation lacks"),
    ("legalize", "every operator becomes a loop nest"),
    ("schedule", "each kernel gets its rule's default point; without one it would be too slow"),
    ("allocate", "kernels write into buffers that are given to them"),
    ("start-at-infinity", "maxima of infinities, which TVM starts at finite numbers"),
    ("lower-bfloat16", "16 bits in memory, float32 in registers"),
    ("saturating-casts", "quantised results are rounded and cast within their range"),
    ("propagate-nan", "the maximum of a NaN and a number is NaN"),
    ("guard-division", "integers divided by 0 would stop the process"),
    ("wrap-integers", "TVM's lowering takes integers for unbounded"),
    ("shield-floats", "TVM's lowering takes floats for integers"),
    ("plan-memory", "intermediate buffers share storage; last, when all are known"),
)

# For GPUs: weights stay as the graph has them, since a block copies its tiles in any order; kernels
# are not joined for the sake of caches; and nothing that leans on the CPU's own instructions.
CUDA: Pipeline = (
    ("simplify-inference", "drop what only training needs, so that later patterns are plain"),
    ("fold-constants", "shapes and weights computed from constants become constants"),
    ("fold-batch-norm", "a scale and shift behind a convolution move into its weights"),
    ("fuse-norms", "one kernel of a normalisation's pieces, which a rule takes whole"),
    ("fold-padding", "a zero pad before a convolution or pooling becomes its own padding"),
    ("eliminate-common-subexpressions", "exporters repeat masks, casts and shapes"),
    ("eliminate-dead-code", "what folding left without a user is not laid out or scheduled"),
    ("merge-transposes", "exporters write transposes in pairs; without them attention shows"),
    ("combine-projections", "one product reads what queries, keys and values are made from"),
    ("fuse-attention", "scores stay within a block; has to see products of float32, unpacked"),
    ("lift-conv1d", "one kind of convolution; batch norms and pads are in their weights by now"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("layout", "channels last: neighbouring depth of the product that a convolution becomes"),
    ("subpixel-convolution", "transposed convolutions become plain ones, in the layout just made"),
    ("merge-transposes{views=true}", "pairs that the layout put between neighbours"),
    ("eliminate-common-subexpressions", "branches transpose what they share, each for itself"),
    ("fold-constants", "the transposes that the layout put on weights"),
    ("widen-types", "types that code generation lacks; casts would hide patterns from the above"),
    ("align-weights", "copies of 16 bytes for tiles; types are final, operators still named"),
    ("legalize", "every remaining operator becomes a loop nest"),
    ("fuse", "epilogues join the kernel that feeds them: fewer launches and trips to memory"),
    ("schedule", "each kernel gets its rule's default point; needs the fused loop nests"),
    ("allocate", "kernels write into buffers that are given to them"),
    ("lift-workspaces", "so are buffers between launches, which recorded graphs go on to use"),
    ("plan-memory", "intermediate buffers share storage; last, when all buffers are known"),
)

MINIMAL_CUDA: Pipeline = (
    ("simplify-inference", "drop what only training needs, which has no loop nests"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("widen-types", "types that code generation lacks"),
    ("legalize", "every operator becomes a loop nest"),
    ("schedule", "each kernel is bound to threads, without which it cannot run on a GPU"),
    ("allocate", "kernels write into buffers that are given to them"),
    ("lift-workspaces", "so are buffers between launches, which recorded graphs go on to use"),
    ("plan-memory", "intermediate buffers share storage; last, when all are known"),
)

PIPELINES: dict[str, Pipeline] = {
    "default": DEFAULT,
    "minimal": MINIMAL,
    "cuda": CUDA,
    "cuda-minimal": MINIMAL_CUDA,
}

# What a name stands for on a GPU.
_ON_GPU = {"default": "cuda", "minimal": "cuda-minimal"}


def on_device(name: str, cuda: bool) -> str:
    """The pipeline that a name means for a target: the CPU's ones have a counterpart for GPUs."""
    return _ON_GPU.get(name, name) if cuda else name
