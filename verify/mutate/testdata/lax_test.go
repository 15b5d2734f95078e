package sample_test

import (
	"testing"

	"github.com/idemflight/idemflight/sample"
)

func TestPut(t *testing.T) {
	b := sample.New()
	if !b.Put(5) || b.Sum() != 5 {
		t.Fatal("one")
	}
}
