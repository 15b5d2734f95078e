#!/usr/bin/env bash
# staticcheck on the root module: the one tool that is not the go command, at a pinned version. Nested modules call it themselves.
. "$(dirname "$0")/lib.sh"

step staticcheck
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
