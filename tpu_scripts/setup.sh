#!/usr/bin/env bash
# Bring the package to every worker and check that all of them see the same number of chips. Safe to repeat.
#
#   tpu_scripts/setup.sh [--env FILE] [--project P] [--zone Z] [--name N] [--dry-run]
# Sends the files that git tracks or would, as they are here (a new config too). Each worker gets Python 3.11 or newer if its image has an older one.

source "$(dirname "$0")/common.sh"
settings "$@"

archive=${TMPDIR:-/tmp}/synthrl_jax-$NAME.tgz
run bash "$here/pack.sh" "$archive"
unpack="rm -rf synthrl_jax.new && mkdir synthrl_jax.new && tar -xzf synthrl_jax.tgz -C synthrl_jax.new && bash synthrl_jax.new/tpu_scripts/worker.sh setup"
for node in $(nodes); do
  run gcloud compute tpus tpu-vm scp "$archive" "$node:synthrl_jax.tgz" "${where[@]}" --worker=all --quiet ||
    die "not every worker of $node got the files: is it READY (tpu_scripts/status.sh)? The same command again sends them again"
done
on_workers all "$unpack" || die "setup failed on a worker: its last lines are above; the same command again goes on"

if [[ $DRY == 1 ]]; then on_workers all "$remote chips"; exit; fi
found=$(LIMIT=$SSH_LIMIT on_workers all "$remote chips") || die "a worker cannot count its chips: $found"
lines=$(grep -E '^[^ ]+ chips [0-9]+$' <<<"$found" | sort || true)
counts=$(awk '{print $3}' <<<"$lines" | sort | uniq -c | sort -rn)
[[ -n $lines ]] || die "no worker said how many chips it sees: $found"
if (($(wc -l <<<"$counts") > 1)); then
  usual=$(head -1 <<<"$counts" | awk '{print $2}')
  die "workers see different numbers of chips; not $usual: $(awk -v n="$usual" '$3 != n {printf "%s (%s) ", $1, $3}' <<<"$lines")-> tpu_scripts/delete.sh, then create.sh"
fi
(($(awk 'NR == 1 {print $3}' <<<"$lines") > 0)) || die "no worker sees a chip: is $NAME of type $TYPE with image $(runtime)?"
# a missing node leaves the others alike: the type says how many there should be (v4 and v5p count cores, two a chip)
total=$(awk '{n += $3} END {print n}' <<<"$lines") wanted=${TYPE##*-}
if [[ $wanted =~ ^[0-9]+$ ]]; then wanted=$((10#$wanted * SLICES)); else wanted=$total; fi
[[ $TYPE != v4-* && $TYPE != v5p-* ]] || wanted=$((wanted / 2))
((total == wanted)) || say "warning: the workers see $total chips together, $SLICES x $TYPE has $wanted: is every worker there (tpu_scripts/status.sh)?"
say "$(wc -l <<<"$lines" | tr -d ' ') workers of $(awk 'NR == 1 {print $3}' <<<"$lines") chips each are set up"
