#!/usr/bin/env bash
# Starts one run with DeepSpeed's own launcher, which reaches other machines by ssh. The arguments are those of
# `fastgan train`:
#
#   launch/deepspeed.sh dcgan-64 data.path=photos/                       # all GPUs of this machine
#   HOSTFILE=hosts launch/deepspeed.sh dcgan-64 data.path=photos/        # hosts has lines such as: node1 slots=8
#
# Variables:
#   HOSTFILE     machines and their number of processes; needs ssh without a password to each
#   NPROC        processes on this machine, without HOSTFILE
#   STAGE        ZeRO stage: 0 to 3 (default 2); sets parallel.stage and launch/deepspeed/zeroSTAGE.json
#   MASTER_ADDR, MASTER_PORT   where the processes meet, a private address (default: the first host and port 29500; on one
#                machine a port of this run's own, so that several runs do not meet each other)
#   DEEPSPEED    command that starts the launcher (default: deepspeed)
# torchrun.sh with parallel.engine=deepspeed trains the same; this launcher is for clusters that have a hostfile.
set -euo pipefail
stage=${STAGE:-2}
case "$stage" in [0-3]) ;; *) echo "error: STAGE=$stage must be 0, 1, 2 or 3" >&2; exit 2 ;; esac
read -r -a deepspeed <<< "${DEEPSPEED:-deepspeed}"
port=29500
[ -n "${HOSTFILE:-}" ] || port=$((20000 + $$ % 10000))
options=(--master_port "${MASTER_PORT:-$port}")
[ -z "${MASTER_ADDR:-}" ] || options+=(--master_addr "$MASTER_ADDR")
if [ -n "${HOSTFILE:-}" ]; then options+=(--hostfile "$HOSTFILE"); fi
if [ -n "${NPROC:-}" ]; then options+=(--num_gpus "$NPROC"); fi
json="$(cd "$(dirname "$0")" && pwd)/deepspeed/zero$stage.json"
# fastgan takes its rank from the environment, not from an argument.
exec "${deepspeed[@]}" "${options[@]}" --no_local_rank --module fastgan train "$@" \
    parallel.engine=deepspeed "parallel.stage=$stage" "parallel.deepspeed_config=$json"
