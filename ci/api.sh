#!/usr/bin/env bash
# Every public name that was promised is there, and has its promised type: of the parts that .ci/apicheck lists.
. "$(dirname "$0")/lib.sh"

step public names
apicheck=$PWD/../shared/apicheck/run
[ -x "$apicheck" ] || { echo "no apicheck beside this checkout: skipped"; exit 0; }

# In a copy without tests, since it compiles them again for each part; with the race detector, as the modules are
# compiled elsewhere.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | grep -zv '_test\.go$' | tar -c --null -T - | tar -x -C "$copy"
cd "$copy"
GOFLAGS="${GOFLAGS-} -race" compile "$apicheck" $(sed 's/#.*//' .ci/apicheck)
