package begin

import (
	"testing"

	"github.com/idemflight/idemflight"
)

func TestIgnored(t *testing.T) {
	_ = idemflight.BeginEffect(t.Context()) // a decision
	var _ = idemflight.BeginEffect(t.Context())
	idemflight.BeginEffect(t.Context()) // want `the error of BeginEffect is ignored`
}
