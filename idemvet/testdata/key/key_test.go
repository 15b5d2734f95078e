package key

import (
	"testing"

	"github.com/idemflight/idemflight"
)

func TestPay(t *testing.T) {
	texts.Do(t.Context(), idemflight.NewID(), pay)
}
