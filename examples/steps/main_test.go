package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out))
	require.Equal(t, `The first try, with the carrier down:
  charge   executed  $40
  reserve  executed  shelf 7
  ship     executed  failed: the carrier is down
order      executed  failed: ship: the carrier is down

The retry, with the carrier up again:
  charge   replayed  $40
  reserve  replayed  shelf 7
  ship     executed  parcel 1
order      executed  order complete

A duplicate, later:
order      replayed  order complete

Each step happened once.
`, out.String())
}
