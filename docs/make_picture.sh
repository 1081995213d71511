#!/bin/sh
# Takes the README's picture of a report:  sh docs/make_picture.sh demo/report.html
set -eu
report=$(realpath "${1:?usage: sh docs/make_picture.sh REPORT.html}")
target=$(dirname "$(realpath "$0")")/images/report.png
mkdir -p "$(dirname "$target")"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync \
    --virtual-time-budget=5000 --window-size=1240,1500 --screenshot="$target" "file://$report"
