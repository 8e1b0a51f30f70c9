#!/bin/sh
# Brighten the dark photographs of a library into a folder of their own; the library is only read.
# docs/how-to/photo-libraries.md says how immich and PhotoPrism show that folder.
#
#   brighten.sh ORIGINALS BRIGHT [options of lumen enhance]
#
# BRIGHT gets the same tree, sidecars included; BRIGHT.jsonl a line for each photograph that was looked at.
# AFTER, an environment variable, is a command that runs when there are new results.
# The same command resumes after an interruption. Exit code: that of lumen, or of AFTER.
set -u

if [ $# -lt 2 ]; then
    echo "usage: $0 ORIGINALS BRIGHT [options of lumen enhance]" >&2
    exit 2
fi
originals=$1 bright=${2%/}
shift 2
lines=$(mktemp) || exit 1
trap 'rm -f "$lines"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

${LUMEN:-lumen} enhance "$originals" -o "$bright" --only-dark --preserve-times --json "$@" >"$lines"
code=$?
# None where lumen refused to run, as for a folder of results among the originals.
if [ -s "$lines" ]; then cat "$lines" >>"$bright.jsonl" || exit 1; fi
if [ -n "${AFTER:-}" ] && grep -q '"status": "done"' "$lines"; then
    sh -c "$AFTER" || exit $?
fi
exit $code
