#!/usr/bin/env bash
# Nested modules, each by the quick check that it brings: ci/modules.sh [MODULE...], by default all of them.
. "$(dirname "$0")/lib.sh"

[ $# -gt 0 ] || set -- $(git ls-files '*/.ci-quick' | xargs -n 1 dirname)
for module; do
	[ -x "$module/.ci-quick" ] || continue
	step "nested module $module"
	"$module/.ci-quick"
done
