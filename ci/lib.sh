# Sourced by the scripts beside it: they stop at the first error, and begin in the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Says what begins, and how many seconds after the first script that is part of this run.
export CI_BEGAN=${CI_BEGAN:-$(date +%s)}
step() { printf '\n== %s (%d s)\n' "$*" $(($(date +%s) - CI_BEGAN)); }

# Runs what compiles and does little else: it takes a quarter less time if it may use more memory.
compile() { GOGC=400 "$@"; }
