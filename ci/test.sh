#!/usr/bin/env bash
# The tests of the root module, as the README says.
. "$(dirname "$0")/lib.sh"

step tests as the README says
compile go list -export -test ./... >/dev/null
go test ./...
