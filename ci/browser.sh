#!/usr/bin/env bash
# ideminspect's page in a browser. Without one the tests are skipped, unless IDEMFLIGHT_SERVERS=required.
#   ci/browser.sh              the tests
#   ci/browser.sh -pictures    and the pictures in docs/, taken anew
. "$(dirname "$0")/lib.sh"

step the page in a browser
ideminspect/browser/run "$@"
