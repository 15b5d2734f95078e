#!/usr/bin/env bash
# The tests where what is rare elsewhere is the rule: all keys in one shard, keys with equal hashes.
. "$(dirname "$0")/lib.sh"

step tests with all keys in one shard, and with hashes of four bits
IDEMFLIGHT_SHARDS=1 go test -short .
IDEMFLIGHT_HASHBITS=4 go test -short .
