#!/usr/bin/env bash
# The tests of the root module under the race detector, in an order that differs each time.
. "$(dirname "$0")/lib.sh"

step tests with the race detector
go test -race -short -shuffle=on ./...
