"""What each option of a compilation does, in the words of `--help` and of the configuration's page.

By the option's name in a configuration.  Here and not in `config.py`, as every `--help` reads them
and pydantic takes its time to import.
"""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.orchestration import precisions

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        # What to compile for, and by which passes
        "target": "cpu (this host), avx2, avx512, cuda (this host's GPU), another GPU by name"
        " (nvidia/h100, sm_90a, …), or a TVM target as JSON.",
        "threads": "Number of threads; default: one per available core.",
        "dtype": f"Precision of matrix products and convolutions: {', '.join(precisions.names())};"
        f" or of activations and weights, such as {precisions.PAIRS[1]}.  Sums, norms, softmax,"
        " inputs and outputs stay fp32.  auto: fp32, or less if the contract needs it and its limit"
        " on accuracy allows it.",
        "level": "0: only what makes the model run; 1: also what does not change rounding; 2: all"
        " passes; 3: all passes, and kernels are tuned.",
        "pipeline": "The passes to run; default: by the level.",
        "plugin": "A Python file that adds a pass, rule, strategy or backend.  It is executed, so"
        " use only files that you trust.",
        "exact": "Round as the model does: no Winograd convolution.",
        "fallback": "Let ONNX Runtime, inside the artifact, compute operators that cannot be"
        " compiled (default), or refuse them.",
        "backends": "Libraries that may compute kernels where they are measured to be faster than"
        " our own: onednn; on a GPU cublaslt, cudnn, sdpa, triton.  The artifact then needs them.",
        # The contract
        "max_latency": "Fail if a call takes longer: the median, or a percentile such as p99<=8ms.",
        "min_throughput": "Fail below this number of calls per second.",
        "max_memory": "Fail if a call's peak memory is higher.",
        "max_size": "Fail if the artifact is larger.",
        "min_accuracy": "Fail if an output is less accurate: cosine, snr, top1, max-abs, max-rel or"
        " validate.",
        "max_drop": "Fail if the result of validate is lower than the reference's by more than"
        " this.",
        "validate": "Your own metric, package.module:function: it takes a session and returns a"
        " number.  It is executed, so use only code that you trust.",
        "calibration": "Inputs to verify and measure on, one or many samples: an .npz file, or a"
        " folder of .npy files, named like the inputs; default: random.  For int8, half of the"
        " samples set the ranges and the other half verify.",
        "validation": "Separate inputs to verify and measure on; all of the calibration data then"
        " set the ranges.",
        "seed": "Seed of the random inputs, and of all other random choices.",
        "verify": "When to compare with the reference: each (after every pass), end, or off.",
        "rtol": "Relative tolerance; default: by precision (fp32: 1e-3).",
        "atol": "Absolute tolerance; default: by precision (fp32: 1e-4).",
        # Which components, in which order
        "strategy": "How stages are chosen: cascade, fusion, adaptive, parallel, hierarchical.",
        "mode": "Which component the budget goes to first: neural (quantum and superopt are not"
        " part of this version); or balanced, dynamic (to what pays off), intelligent (by"
        " experience).",
        "tier": "A preset for components, trials and budget: conservative, balanced, aggressive,"
        " insane.",
        "components": "Use only these: neural, precision, subgraph (quantum and superopt are not"
        " part of this version); default: all that have stages.",
        "weights": "The weight of a component in the budget and in hybrid efficiency.",
        "adaptive": "Skip stages whose expected gain is within the noise.",
        "predict": "Report the gain that was expected of each stage, beside the measured one.",
        "depth": "Predict from the whole model (1), each kernel and the tuning log (2), or each"
        " kernel's measured time (3).",
        "order": "Stages or components that come first.",
        "threshold": "The share of the cost that a stage must save to be kept.",
        "workers": "Number of processes for the strategy parallel; default: by the cores.",
        "levels": "The levels that the strategy hierarchical works through.",
        "level_weights": "A level's weight in the budget; default: equal.",
        # How long
        "budget": "Stop after this time, with the best result so far.",
        "trials": "Tune first, with this many points per kernel on average, besides its default;"
        " points that the log already has count.",
        "resume": "Reuse the finished stages of an interrupted compilation.",
        "strict": "Fail if any stage or component fails.",
        "profile": "Report the time of each kernel.",
        # Monitoring
        "monitor": "Sample CPU, memory, GPU and energy use meanwhile, as far as the machine reports"
        " them.",
        "monitor_interval": "The time between two samples.",
        "trace": "Write a trace of the steps here, for ui.perfetto.dev or chrome://tracing.",
        # What was measured before
        "log": "The tuning log: a path, sqlite:///PATH or postgresql://...; default: HYBRIDC_LOG if"
        " set, else a file in the cache directory.",
        "near": "Which records to use where the log has none for exactly these conditions: never"
        " (none), tools (from other versions of the tools), any.",
        "frozen": "Fail (exit code 4) if the log lacks a kernel.",
        "lock": "Rebuild an artifact: take every schedule from it, or from its schedule lock.",
    }
)
