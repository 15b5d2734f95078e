#!/usr/bin/env bash
# staticcheck, at a pinned version, on the root module, or on that in a folder: ci/staticcheck.sh [FOLDER]. It is the
# one tool of CI that is not the go command, and is built into .ci/bin.
. "$(dirname "$0")/lib.sh"

bin=$PWD/.ci/bin
[ $# -gt 0 ] || step staticcheck
(unset GOFLAGS && GOBIN=$bin compile go install honnef.co/go/tools/cmd/staticcheck@v0.8.2)
cd "${1-.}"
compile "$bin/staticcheck" ./...
