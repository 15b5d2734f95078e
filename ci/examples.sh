#!/usr/bin/env bash
# The examples run to their end. Those with dependencies of their own are nested modules: ci/modules.sh.
. "$(dirname "$0")/lib.sh"

step main job
go run ./examples/payments -duplicates 100 -latency 50ms

for example in wrap events steps; do
	step "example $example"
	go run "./examples/$example"
done
