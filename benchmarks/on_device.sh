#!/bin/sh
# Measures bundles on a phone or a board, and keeps the result: pushes t5g2-bench and the bundles, checks that they arrived
# whole, runs on the big cores, lets the device cool between runs, fetches the JSON, adds a row to benchmarks/devices.md.
#
#     benchmarks/on_device.sh out/270m-int4                 # the phone that adb sees
#     benchmarks/on_device.sh --ssh pi@raspberrypi out/270m-int4
#
# Takes the options of benchmarks/device.py too (--help), and after -- those of t5g2-bench; they count more than those here.
# PYTHON: the Python to use (default: .venv's, the active environment's, python3).
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1

python=
for found in "$PYTHON" "$here/../.venv/bin/python" "$VIRTUAL_ENV/bin/python" python3; do
    if "$found" -c 'import numpy, t5g2.benchmarks.compare' 2> /dev/null; then python=$found; break; fi
done
if [ -z "$python" ]; then
    echo "on_device.sh: error: no Python with t5g2; run \`make demo\`, or pip install -e '.[test]' into an environment" >&2
    exit 1
fi

way=--adb measured=
for word in "$@"; do
    case $word in
        --) measured=yes; break ;;
        --adb | --ssh | --ssh=*) way= ;;
    esac
done
[ -n "$measured" ] || set -- "$@" -- --source 512 --depth 256
exec "$python" "$here/device.py" $way --big-cores --cool-down 60 --rounds 3 \
    --output "$here/results" --record "$here/devices.md" "$@"
