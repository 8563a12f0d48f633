"""What the options of other compilers are called here.

People come from trtexec, onnxruntime, tvmc, OpenVINO, IREE, Optimum and torch, and try the words
that they know.
"""

from collections.abc import Mapping
from types import MappingProxyType

import click

ARGUMENT = "MODEL"

# Each option of ours as it may be given, and what others call it: in small letters, without the
# dashes and underscores.  Of several rows with a word, the first counts whose option the verb has.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "--dtype fp16": "fp16 half float16 compresstofp16",
        "--dtype bf16": "bf16 bfloat16 amp",
        "--dtype fp32": "fp32 float32 notf32",
        "--dtype int8": "int8 fp8 quantize quantization",
        "--dtype PRECISION": "precision datatype inferprecision best precisionconstraints",
        "--exact": "stronglytyped",
        "--target cuda": "device gpu usegpu cuda provider providers executionprovider ep",
        "--target TARGET": "backend ireehaltargetbackends ireehaltargetdevice ireellvmcputargetcpu",
        "--shape NAME=8x3x224x224": "batch batchsize sequencelength shapes inputshape inputshapes"
        " datashape minshapes optshapes maxshapes",
        "--level 3": "optlevel optimize optimizationlevel builderoptimizationlevel ireeoptlevel",
        "--trials 64": "maxtrials numtrials ntrials maxtrialsglobal tune autotune maxautotune",
        "--log LOG": "tuningrecords workdir timingcache timingcachefile",
        "--strategy NAME": "tuner",
        "--budget 10min": "timeout timelimit maxtime earlystopping",
        "--threads 4": "numthreads nthreads intraopnumthreads cores jobs parallel",
        "--output model.hyb": "outputmodel saveengine outputfile out",
        "--output-dir FOLDER": "output outputs",
        "--input NAME=x.npy": "inputs loadinputs data",
        "--calibration data.npz": "calib calibrationdata calibrationdataset dataset inputs data",
        "--min-accuracy cosine=0.999": "accuracy cosine",
        "--max-drop validate=0.01": "accuracydrop maxaccuracydrop",
        "--max-latency 5ms": "latency",
        "--rtol 1e-3": "tolerance tol",
        "--dump-ir FOLDER": "dumpcode mlirprintirafterall",
        "--profile": "dumpprofile separateprofilerun",
        "--pipeline TEXT": "passes passconfig disabledpass",
        "--repeat N": "iterations number avgruns",
        "--seconds N": "duration warmup minrepeatms",
        "--kernels": "dumpprofile profile",
        ARGUMENT: "model onnx inputmodel loadengine",
    }
)


def elsewhere(error: click.NoSuchOption) -> str:
    """Name the option that an unknown one stands for; empty if nobody knows."""
    word = error.option_name.lower().replace("-", "").replace("_", "")
    rows = [here for here, words in WORDS.items() if word in words.split()]
    known = next(filter(None, (_found(error, here) for here in rows)), "")
    return f"no such option {error.option_name}: here it is {known}" if known else ""


def _found(error: click.NoSuchOption, here: str) -> str:
    """How the verb of an error takes what a row names; empty if it does not."""
    if error.ctx is None:
        return ""
    parameters = error.ctx.command.params
    if here == ARGUMENT:
        arguments = [each for each in parameters if isinstance(each, click.Argument)]
        return f"the argument {arguments[0].human_readable_name}" if arguments else ""
    known = any(here.partition(" ")[0] in each.opts for each in parameters)
    return f"`{here}`" if known else ""
