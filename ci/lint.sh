#!/usr/bin/env bash
# What can be said of the root module without running it: format, dependencies, vet, what the docs name.
. "$(dirname "$0")/lib.sh"

step gofmt
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "not gofmt-ed:"; echo "$unformatted"; exit 1; }

step go.mod
go mod tidy -diff
go mod verify

step go vet
go vet ./...

step other systems
GOOS=windows go build . # its tests run in .github/workflows/ci.yml
GOOS=plan9 go build .

step docs: promises, errors, links
go run ./internal/docs -check
