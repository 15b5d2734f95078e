#!/usr/bin/env bash
# The tests of the root module under the race detector, in an order that differs each time: ci/race.sh
# Or only compiles them, which is most of the work, for a later run: ci/race.sh compile
. "$(dirname "$0")/lib.sh"

if [ "${1-}" = compile ]; then
	step compiling tests with the race detector
	compile go list -race -export -test ./... >/dev/null
	exit
fi
step tests with the race detector
go test -race -vet=off -short -shuffle=on ./...
