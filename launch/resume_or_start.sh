#!/usr/bin/env bash
# One process of a run that a launcher may start again: continues FASTGAN_RESUME_OR_START if it holds a checkpoint, else
# begins it there. The arguments are those of `fastgan train`; started by torchrun.sh and slurm.sbatch.
set -euo pipefail
: "${FASTGAN_RESUME_OR_START:?the run folder, set by torchrun.sh or slurm.sbatch}"
for argument in "$@"; do
    if [[ $argument == run_dir=* && $argument != "run_dir=$FASTGAN_RESUME_OR_START" ]]; then
        echo "error: $argument is not the folder to resume or to start in, $FASTGAN_RESUME_OR_START; leave run_dir out" >&2
        exit 2
    fi
done
if compgen -G "$FASTGAN_RESUME_OR_START/checkpoints/[0-9]*" > /dev/null; then
    exec python3 -m fastgan train --resume "$FASTGAN_RESUME_OR_START" "$@"
fi
exec python3 -m fastgan train "$@" "run_dir=$FASTGAN_RESUME_OR_START"
