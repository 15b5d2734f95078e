#!/usr/bin/env bash
# The tests of the root module, as the README says.
. "$(dirname "$0")/lib.sh"

step tests as the README says
go test ./...
