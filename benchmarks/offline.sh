#!/usr/bin/env bash
# Takes hybridc to a machine with a GPU, Python 3.12 and torch, to which only files can be brought, at
# most so many MiB at a time, this checkout included.  Call it from the checkout's root:
#
#   here, once   benchmarks/offline.sh pack [MIB]   fills .gpu/1 and .gpu/2 (minutes)
#   there        benchmarks/offline.sh keep         with .gpu/1, where both are too much at a time
#   there        benchmarks/offline.sh run [...]    with .gpu/2: sets up, then benchmarks/gpu.py [...]
#
# What was kept and set up lies in /tmp/hybridc-offline, where a second `run` finds it.
set -euo pipefail
cd "$(dirname "$0")/.."
site=/tmp/hybridc-offline
# What such a machine lacks of what hybridc imports; TVM is packed from where this Python has it.
wheels=(
    apache-tvm-ffi blake3 pydantic pydantic-core annotated-types typing-inspection sqlalchemy psutil
)

pinned() { # PACKAGE: its version here
    python -c 'import sys; from importlib.metadata import version; print(version(sys.argv[1]))' "$1"
}

pack() { # MIB that may travel at a time
    local limit=${1:-64} folder library tree
    rm -rf .gpu && mkdir -p .gpu/1 .gpu/2 .gpu/all/wheels
    for name in "${wheels[@]}"; do
        python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
            --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
            --platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 \
            -d .gpu/all/wheels "$name==$(pinned "$name")"
    done
    for wheel in .gpu/all/wheels/*.whl; do
        python -m zipfile -e "$wheel" .gpu/all/site # as pip does for wheels without scripts or data
    done
    rm -r .gpu/all/wheels
    folder=$(python -c 'import pathlib, tvm; print(pathlib.Path(tvm.__file__).parent.parent)')
    tar -C "$folder" --exclude=__pycache__ --exclude='tvm/3rdparty' --exclude='tvm/src' \
        --exclude='tvm/include' --exclude='tvm/web' --exclude='tvm/licenses' \
        -cf - tvm $(cd "$folder" && echo apache_tvm-*.dist-info hybridc-*.dist-info) | tar -C .gpu/all/site -xf -
    # Headers and libraries to link with are for whoever builds TVM's own extensions.
    find .gpu/all/site -type d \( -name include -o -name __pycache__ \) -prune -exec rm -r {} +
    tar --sort=name --mtime=@0 --owner=0 --group=0 -C .gpu/all -cf - site |
        xz -T1 --x86 --lzma2=preset=4,dict=64MiB > .gpu/all.xz
    rm -r .gpu/all
    tree=$(git ls-files -z | xargs -0 stat -c %s | awk '{ sum += $1 } END { print sum }')
    library=$(stat -c %s .gpu/all.xz)
    local room=$((limit * 1048576 - tree - 262144))
    if [ "$library" -le "$room" ]; then
        mv .gpu/all.xz .gpu/2/site.xz.2
        echo "all of it travels at once: .gpu/2 has $library of $room bytes"
    else
        split -n 2 -d -a 1 .gpu/all.xz .gpu/part
        mv .gpu/part0 .gpu/1/site.xz.1 && mv .gpu/part1 .gpu/2/site.xz.2 && rm .gpu/all.xz
        echo "two calls: .gpu/1 and .gpu/2 have $((library / 2)) of $room bytes each"
    fi
}

keep() {
    mkdir -p $site && cp .gpu/[12]/site.xz.* $site
}

run() {
    keep
    if [ ! -d $site/site ]; then
        (cd $site && cat site.xz.* | xz -dc -T0 --memlimit=0 | tar -xf - && rm site.xz.*)
    fi
    export PYTHONPATH=$site/site:$PWD${PYTHONPATH:+:$PYTHONPATH} HYBRIDC_CACHE=$site/cache
    export TVM_NUM_THREADS PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
    TVM_NUM_THREADS=$(nproc)
    python3 -c "from hybridc.cli.main import main; main()" doctor || true
    python3 benchmarks/gpu.py "$@"
    if [ -n "${OUT:-}" ]; then
        cp benchmarks/RESULTS-gpu.md benchmarks/RESULTS-gpu.json "$OUT"/
    fi
}

case ${1:-} in
    pack | keep | run) "$@" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
