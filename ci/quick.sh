#!/usr/bin/env bash
# What the quick checks of nested modules have in common: ci/quick.sh MODULE [-race] [ARGUMENT OF GO TEST...]
# With -race everything is compiled with the race detector, so that dependencies are compiled once. Without arguments
# for go test nothing is tested.
. "$(dirname "$0")/lib.sh"

root=$PWD
cd "$1"
shift
if [ "${1-}" = -race ]; then
	export GOFLAGS="${GOFLAGS-} -race"
	shift
fi
go mod tidy -diff
compile go vet ./...
"$root/ci/staticcheck.sh" "$PWD"
compile go list -export -test ./... >/dev/null
[ $# = 0 ] || go test -vet=off "$@"
