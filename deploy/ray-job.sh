#!/usr/bin/env bash
# A Ray job: deploy/ray-job.sh http://head:8265 s3://bucket/in s3://bucket/out --model lumen --gpus-per-worker 1
# Ray runs the command on the head node; lumen is installed on all nodes. Submitted again, it continues. This machine needs ray[default].
# Variables that workers need, such as AWS_PROFILE, go into the job: --runtime-env-json '{"env_vars": {"AWS_PROFILE": "photos"}}'.
set -euo pipefail

if (($# < 3)); then
  echo "usage: $0 ADDRESS INPUT OUTPUT [options of lumen enhance]" >&2
  exit 2
fi
address=$1 input=$2 output=$3
shift 3
exec ray job submit --address "$address" -- \
  lumen enhance "$input" --output "$output" --engine ray --ray-address auto --quiet "$@"
