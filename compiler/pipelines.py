"""The built-in pipelines: passes in order, each with the reason why it is where it is."""

Pipeline = tuple[tuple[str, str], ...]

DEFAULT: Pipeline = (
    ("simplify-inference", "drop what only training needs, so that later patterns are simple"),
    ("block-weights", "integers of a model's own become kernels before folding unpacks them"),
    ("fold-constants", "shapes and weights computed from constants become constants"),
    ("fold-batch-norm", "a scale and shift after a convolution move into its weights"),
    ("fuse-norms", "layouts pass through a normalisation, but not through its pieces"),
    ("fold-padding", "a zero pad before a convolution or pooling becomes its own padding"),
    ("merge-convolutions", "branches of one tensor become one; their norms and pads are folded"),
    ("eliminate-common-subexpressions", "exporters repeat masks, casts and shapes"),
    ("eliminate-dead-code", "what folding left unused needs no layout and no schedule"),
    ("merge-transposes", "exporters write transposes in pairs, which would hide attention"),
    ("combine-projections", "one product computes queries, keys and values from their input"),
    ("fuse-attention", "scores stay in cache; must see matrix products before they are packed"),
    ("clip-windows", "rows of a window on nothing but padding; all pads are folded by now"),
    ("lift-conv1d", "one kind of convolution for all; batch norms and pads are folded by now"),
    ("lift-conv3d", "slices along the depth become channels of images, whose kernels are fast"),
    ("fold-constants", "weights of convolutions that were just lifted; int8 must know them"),
    ("integer-arithmetic", "quantised products use integers; weights are plain constants by now"),
    ("depthwise-planes", "isolated depthwise convolutions keep their layout; before it changes"),
    ("pointwise-planes", "isolated 1x1 convolutions keep their layout; before it changes"),
    ("layout", "channels last: convolutions then read and write whole vectors"),
    ("sink-transposes", "operators without a layout, such as where, would have two each"),
    ("merge-transposes", "a transpose that sank meets the one that undoes it"),
    ("subpixel-convolution", "transposed convolutions become plain ones, in the layout just made"),
    ("split-to-slices", "parts are read in place; axes are final, and operators still have names"),
    ("merge-transposes{views=true}", "pairs that attention and layout put between neighbours"),
    ("eliminate-common-subexpressions", "branches that share a tensor each transpose it"),
    ("fold-constants", "the transposes that the layout put on weights"),
    ("pack-weights", "constant weights in the order in which the kernels read them"),
    (
        "widen-types",
        "types that code generation lacks; casts would hide patterns from the passes above",
    ),
    ("legalize", "every remaining operator becomes a loop nest"),
    ("fuse", "epilogues join the kernel that feeds them: fewer trips to memory"),
    (
        "fuse-depthwise",
        "expansion, window and projection stay in cache; their epilogues are fused by now",
    ),
    ("schedule", "each kernel gets its rule's default point; needs the fused loop nests"),
    (
        "allocate",
        "kernels write into buffers that are passed in, which can be parts of larger ones",
    ),
    (
        "avoid-copies",
        "concatenated tensors are computed in place; after rules, which expect whole tensors",
    ),
    ("schedule", "the copies that remain between concatenations"),
    (
        "start-at-infinity",
        "maxima of infinities; after scheduling, which matches TVM's finite start values",
    ),
    (
        "lower-bfloat16",
        "16 bits in memory, float32 in registers; after rules, which match the types",
    ),
    (
        "fast-math",
        "exp, erf, tanh as polynomials that vectorise; after rules, which inline calls best",
    ),
    (
        "saturating-casts",
        "quantised results are rounded and cast by one addition; after scheduling",
    ),
    (
        "propagate-nan",
        "NaN passes maxima; after rules and saturating-casts, which match plain maxima",
    ),
    (
        "guard-division",
        "dividing integers by 0 would end the process; after rules, which match divisions",
    ),
    (
        "wrap-integers",
        "TVM's lowering assumes that integers are unbounded; after guards of divisions",
    ),
    (
        "shield-floats",
        "TVM's lowering simplifies floats like integers; nothing matches them later",
    ),
    ("plan-memory", "intermediate buffers share storage; last, when all buffers are known"),
)

# Only what a model needs to run at all.
MINIMAL: Pipeline = (
    ("simplify-inference", "drop what only training needs, which has no loop nests"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("widen-types", "types that code generation lacks"),
    ("legalize", "every operator becomes a loop nest"),
    ("schedule", "each kernel gets its rule's default point; without one it would be too slow"),
    ("allocate", "kernels write into buffers that are passed in"),
    ("start-at-infinity", "maxima of infinities, which TVM starts at finite numbers"),
    ("lower-bfloat16", "16 bits in memory, float32 in registers"),
    ("saturating-casts", "quantised results are rounded and cast within their range"),
    ("propagate-nan", "the maximum of a NaN and a number is NaN"),
    ("guard-division", "dividing integers by 0 would end the process"),
    ("wrap-integers", "TVM's lowering assumes that integers are unbounded"),
    ("shield-floats", "TVM's lowering simplifies floats like integers"),
    ("plan-memory", "intermediate buffers share storage; last, when all are known"),
)

# For GPUs: weights keep their order, since a block can copy tiles from any; kernels are not joined
# for the sake of caches; and passes that rely on the CPU's own instructions are left out.
CUDA: Pipeline = (
    ("simplify-inference", "drop what only training needs, so that later patterns are simple"),
    ("fold-constants", "shapes and weights computed from constants become constants"),
    ("fold-batch-norm", "a scale and shift after a convolution move into its weights"),
    ("fuse-norms", "a normalisation becomes one kernel, which a rule schedules as a whole"),
    ("fold-padding", "a zero pad before a convolution or pooling becomes its own padding"),
    ("merge-convolutions", "branches of one tensor become one; their norms and pads are folded"),
    ("eliminate-common-subexpressions", "exporters repeat masks, casts and shapes"),
    ("eliminate-dead-code", "what folding left unused needs no layout and no schedule"),
    ("merge-transposes", "exporters write transposes in pairs, which would hide attention"),
    ("combine-projections", "one product computes queries, keys and values from their input"),
    ("fuse-attention", "scores stay within a block; must see plain products of float32"),
    ("clip-windows", "rows of a window on nothing but padding; all pads are folded by now"),
    ("lift-conv1d", "one kind of convolution for all; batch norms and pads are folded by now"),
    ("fold-constants", "weights of convolutions that were just lifted; int8 must know them"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("layout", "channels last: contiguous depth for the product that a convolution becomes"),
    ("subpixel-convolution", "transposed convolutions become plain ones, in the layout just made"),
    ("merge-transposes{views=true}", "pairs that the layout put between neighbours"),
    ("eliminate-common-subexpressions", "branches that share a tensor each transpose it"),
    ("fold-constants", "the transposes that the layout put on weights"),
    (
        "widen-types",
        "types that code generation lacks; casts would hide patterns from the passes above",
    ),
    ("align-weights", "copies of 16 bytes for tiles; types are final, operators still named"),
    ("legalize", "every remaining operator becomes a loop nest"),
    ("absorb-casts", "what is stored in 16 bits is read so; casts of inputs are not fused later"),
    ("fuse", "epilogues join the kernel that feeds them: fewer launches and trips to memory"),
    ("schedule", "each kernel gets its rule's default point; needs the fused loop nests"),
    ("fast-math", "1 + erf in half the instructions; after rules, which know erf as elementwise"),
    ("guard-division", "a GPU's integers divided by 0 are anything; rules know plain divisions"),
    ("shield-floats", "TVM's lowering simplifies floats like integers; nothing matches them later"),
    ("allocate", "kernels write into buffers that are passed in"),
    (
        "lift-workspaces",
        "buffers between launches are passed in too, so that recorded graphs can reuse them",
    ),
    ("plan-memory", "intermediate buffers share storage; last, when all buffers are known"),
)

MINIMAL_CUDA: Pipeline = (
    ("simplify-inference", "drop what only training needs, which has no loop nests"),
    ("integer-arithmetic", "quantised operators become ones that have loop nests"),
    ("widen-types", "types that code generation lacks"),
    ("legalize", "every operator becomes a loop nest"),
    ("schedule", "each kernel is bound to threads, without which it cannot run on a GPU"),
    ("guard-division", "a GPU's integers divided by 0 are anything"),
    ("shield-floats", "TVM's lowering simplifies floats like integers"),
    ("allocate", "kernels write into buffers that are passed in"),
    (
        "lift-workspaces",
        "buffers between launches are passed in too, so that recorded graphs can reuse them",
    ),
    ("plan-memory", "intermediate buffers share storage; last, when all are known"),
)

PIPELINES: dict[str, Pipeline] = {
    "default": DEFAULT,
    "minimal": MINIMAL,
    "cuda": CUDA,
    "cuda-minimal": MINIMAL_CUDA,
}

# The counterparts on a GPU.
_ON_GPU = {"default": "cuda", "minimal": "cuda-minimal"}


def on_device(name: str, cuda: bool) -> str:
    """The pipeline that a name stands for: those for CPUs have counterparts for GPUs."""
    return _ON_GPU.get(name, name) if cuda else name
