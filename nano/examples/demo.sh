#!/bin/sh
# Asks the shipped bundle a text, a long-source and a picture question. BIN: where the commands are; BUNDLE: the bundle.
set -eu
here=$(dirname "$0")

ask() {
    printf '\n$ t5g2-run %s' "$BUNDLE"
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$BIN/t5g2-run" "$BUNDLE" "$@"
}

ask --prompt 'ISO date: the 3rd of March 2021'
ask --file "$here/records.txt"
ask --image "$here/number.png" --prompt '<start_of_image> What number is shown?'
printf '\n$ t5g2-inspect %s\n' "$BUNDLE"
"$BIN/t5g2-inspect" "$BUNDLE"
