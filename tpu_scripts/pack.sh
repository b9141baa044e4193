#!/usr/bin/env bash
# Pack the files that git tracks or would (not those it ignores), as they are on disk, into FILE; of an unpacked archive all. Not
# models/: weights are large, and workers read them from the bucket.
#
#   tpu_scripts/pack.sh FILE

set -euo pipefail
cd -P "$(dirname "$0")/.." # where the files are, also through a link to the scripts
list() {
  if [[ -e .git ]]; then git ls-files -z --cached --others --exclude-standard -- . ':!models'
  else find . -type f -not -path './.*' -not -path './models/*' -not -path '*/__pycache__/*' -print0
  fi
}
list | while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done | tar --null -czf "$1" -T -
