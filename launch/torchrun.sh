#!/usr/bin/env bash
# Starts one run on one or several machines with torchrun. The arguments are those of `fastgan train`:
#
#   launch/torchrun.sh dcgan-64 data.path=photos/                              # all GPUs of this machine
#   NPROC=2 launch/torchrun.sh digits device=cpu                               # two processes on the CPU
#   NNODES=2 RDZV_ENDPOINT=10.0.0.1:29500 launch/torchrun.sh dcgan-64 ...      # the same line on each of two machines
#   NNODES=1:4 MAX_RESTARTS=3 RESUME=run launch/torchrun.sh ...                # elastic: goes on with 1 to 4 machines
#
# Variables:
#   NPROC           processes on this machine: a number, gpu or cpu (default: gpu if there is one, else 1)
#   NNODES          number of machines, or MIN:MAX (default 1)
#   RDZV_ENDPOINT   HOST:PORT where the machines meet; needed with several machines. It has no password: use an address
#                   of a private network that nobody else can reach
#   RDZV_ID         name of the run at the meeting place (default fastgan)
#   RDZV_CONF       further settings of the meeting place, e.g. is_host=true on one machine and is_host=false elsewhere
#   LOCAL_ADDR      this machine's address in that network, where the host name does not resolve to it
#   MAX_RESTARTS    how often all processes are started again after one is lost (default 0: the run ends)
#   RESUME          run folder, shared by all machines: continued if it holds a checkpoint, else begun; give it whenever
#                   MAX_RESTARTS is not 0
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT   seconds that processes have to save after SIGTERM, before SIGKILL (default 100)
#   TORCHRUN        command that starts torchrun (default: python3 -m torch.distributed.run)
set -euo pipefail

if [ -z "${NPROC:-}" ]; then
    NPROC=1
    if command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1; then NPROC=gpu; fi
fi
nnodes=${NNODES:-1}
read -r -a torchrun <<< "${TORCHRUN:-python3 -m torch.distributed.run}"
options=(--nnodes "$nnodes" --nproc-per-node "$NPROC" --max-restarts "${MAX_RESTARTS:-0}")
if [ "$nnodes" = 1 ] && [ -z "${RDZV_ENDPOINT:-}" ]; then
    options+=(--standalone)
else
    : "${RDZV_ENDPOINT:?give RDZV_ENDPOINT=HOST:PORT, where the machines meet}"
    options+=(--rdzv-backend c10d --rdzv-endpoint "$RDZV_ENDPOINT" --rdzv-id "${RDZV_ID:-fastgan}")
    [ -z "${RDZV_CONF:-}" ] || options+=(--rdzv-conf "$RDZV_CONF")
    [ -z "${LOCAL_ADDR:-}" ] || options+=(--local-addr "$LOCAL_ADDR")
fi
if [ "${MAX_RESTARTS:-0}" != 0 ] && [ -z "${RESUME:-}" ]; then
    echo "error: MAX_RESTARTS=$MAX_RESTARTS without RESUME=FOLDER would begin anew after each loss; give RESUME" >&2
    exit 2
fi
# SIGTERM reaches every process, which then saves; torchrun would kill it after 30 s. Slurm and Kubernetes give 120 s here.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-100}"
# Processes that start again must not read the addresses that the lost ones left at the meeting place.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# One line per failure is fastgan's; NCCL ends a rank that waits too long for another instead of hanging.
export TORCH_NCCL_ASYNC_ERROR_HANDLING="${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1}"
if [ -n "${RESUME:-}" ]; then
    # Each start of the processes looks again, so that a restart goes on where the last checkpoint is.
    export FASTGAN_RESUME_OR_START="$RESUME"
    exec "${torchrun[@]}" "${options[@]}" --no-python bash "$(dirname "$0")/resume_or_start.sh" "$@"
fi
exec "${torchrun[@]}" "${options[@]}" -m fastgan train "$@"
