#!/bin/bash
# The fifteen runs of docs/experiments/hard-negatives.md, two at a time, and
# its tables and curves. What is done already is not run again.
#
#   tools/curves/hard-negatives.sh CIFAR10 [RUNS]
#
# CIFAR10 is a data set as mochi train --data takes it, with a test split; RUNS
# is where the runs go (default runs/hard-negatives). Two hours on 2 cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data=${1:?which data set? tools/curves/hard-negatives.sh CIFAR10 [RUNS]} runs=${2:-runs/hard-negatives}
mkdir -p "$runs"

one() { # data, runs, seed, name, flags
  local data=$1 out=$2/$4-$3 seed=$3
  shift 4
  [ -e "$out.done" ] && return
  bin/mochi train --data "$data" --arch resnet20 --head mlp --image-size 32 --recipe cifar --batch 128 --bn-group 32 \
    --queue 4096 --temperature 0.2 --momentum 0.99 --lr 0.06 --weight-decay 5e-4 --precision bf16 --epochs 6 --mochi-warmup 1 \
    --knn-every 1 --knn-images 10000 --checkpoint-every 0 --threads 1 --workers 1 --seed "$seed" --resume never --out "$out" "$@" \
    >"$out.out" 2>&1 || { echo "failed: $out (its output: $out.out)" >&2; return 1; }
  touch "$out.done"
}
export -f one

for seed in 1 2 3; do
  printf '%s\n' "moco --mochi 0,0,0" "mochi-s --mochi 256,256,0" "mochi-s2 --mochi 256,0,64" "mochi --mochi 256,256,64" \
    "oracle --mochi 256,256,64 --oracle" | while read -r name flags; do
    printf '%s %s %s\n' "$seed" "$name" "$flags"
  done
done | xargs -P 2 -L 1 bash -c 'one "$@"' one "$data" "$runs"

labelled=()
for each in "MoCo-v2=moco" "MoCHi (256,256,0)=mochi-s" "MoCHi (256,0,64)=mochi-s2" "MoCHi (256,256,64)=mochi" "the same, class oracle=oracle"; do
  labelled+=("${each%=*}=$runs/${each#*=}-1,$runs/${each#*=}-2,$runs/${each#*=}-3")
done
python3 tools/curves/curves.py --by epoch --fields knn_top1,knn_top1_embedding,proxy_acc,proxy_acc_hard,alignment,uniformity \
  --out "$runs/curves.svg" --table "$runs/tables.md" "${labelled[@]}"
echo "curves: $runs/curves.svg   tables: $runs/tables.md"
