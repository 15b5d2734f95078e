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
compile go vet ./...

step 32-bit # other systems, and the tests there: .github/workflows/ci.yml
GOARCH=386 compile go build .

step docs: promises, errors, links
go run ./internal/docs -check

step every nested module is checked
for check in $(git ls-files '*/.ci-quick'); do
	module=${check%/.ci-quick}
	grep -qE "ci/modules\.sh .*\b$module([ ']|\$)" .ci/run || { echo ".ci/run does not name $module"; exit 1; }
done
for mod in $(git ls-files '*/go.mod' | grep -v /testdata/); do
	[ -x "${mod%go.mod}.ci-quick" ] || { echo "${mod%/go.mod} has no .ci-quick"; exit 1; }
done
