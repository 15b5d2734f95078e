# Everything that must hold before a change lands is .ci/run. These are its parts.
.PHONY: lint test race variants examples modules

lint:     ; ci/lint.sh && ci/staticcheck.sh
test:     ; ci/test.sh
race:     ; ci/race.sh
variants: ; ci/variants.sh
examples: ; ci/examples.sh
modules:  ; ci/modules.sh
