#!/usr/bin/env bash
# The tests where what is rare elsewhere is the rule: 32-bit words, all keys in one shard, keys with equal hashes.
. "$(dirname "$0")/lib.sh"

step 32-bit
# Many kernels cannot run 386 programs: then they are compiled only. (The root's own suite takes minutes to
# compile. By hand: GOARCH=386 go test -short .)
run=()
GOARCH=386 go run .ci/hello.go 2>/dev/null || run=(-exec /bin/true)
GOARCH=386 go test -short "${run[@]}" ./internal/... ./storetest

step tests with all keys in one shard, and with hashes of four bits
IDEMFLIGHT_SHARDS=1 go test -short .
IDEMFLIGHT_HASHBITS=4 go test -short .
