package sample_test

import (
	"testing"

	"github.com/idemflight/idemflight/sample"
)

func TestPut(t *testing.T) {
	b := sample.New()
	for _, n := range []int{5, 0, 7} {
		if b.Full() || !b.Put(n) {
			t.Fatal("there is room")
		}
	}
	if !b.Full() || b.Put(1) {
		t.Fatal("there is no room")
	}
	if b.Sum() != 12 {
		t.Fatal("of three")
	}
}

func TestPutChecks(t *testing.T) {
	if sample.New().Put(-1) || !sample.New().Put(0) {
		t.Fatal("less than zero")
	}
}

func TestName(t *testing.T) {
	if sample.Name("a") != "box a" {
		t.Fatal("another name")
	}
}
