#!/bin/sh
# Run scripts/compile-cuda.py in an environment that has the compiler and the assembler; arguments are passed on.
# The environment is made once, in RAPHSON_CUDA_VENV or node_modules/.cache/cuda-compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${RAPHSON_CUDA_VENV:-$here/../node_modules/.cache/cuda-compiler}
if [ ! -x "$venv/bin/python" ]; then
    # Made under another name, so that what is broken off is not taken for finished.
    rm -rf "$venv.new"
    python3 -m venv "$venv.new"
    "$venv.new/bin/python" -m pip install --quiet --disable-pip-version-check --target "$venv.new/packages" \
        nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvcc-cu12==12.9.86
    mv "$venv.new/packages"/* "$("$venv.new/bin/python" -c 'import site; print(site.getsitepackages()[0])')/"
    rm -rf "$venv"
    mv "$venv.new" "$venv"
fi
exec "$venv/bin/python" "$here/compile-cuda.py" "$@"
