#!/usr/bin/env bash
# A Slurm job array: sbatch --array=1-16 deploy/slurm.sh /data/photos /data/bright --model lumen
# Each task makes its part of the pictures. A task that is requeued, or the whole array a second time, continues.
#SBATCH --job-name=lumen
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --output=lumen-%A-%a.log
set -euo pipefail

if (($# < 2)); then
  echo "usage: sbatch --array=1-N $0 INPUT OUTPUT [options of lumen enhance]" >&2
  exit 2
fi
input=$1 output=$2
shift 2
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# exec: Slurm's SIGTERM reaches lumen, which finishes the pictures at hand.
exec lumen enhance "$input" --output "$output" --shard auto --quiet "$@"
