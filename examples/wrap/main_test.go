package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out))
	require.Equal(t, `the same once more     receipt 1
other amount, same ID  idemflight: key already used with another payload (fingerprint): a new operation needs a new key
bob's, same ID         receipt 2
next month's rent      receipt 3
a boat                 over the limit
the boat again         over the limit
no request ID          a transfer needs a request ID

17 requests, 3 transfers booked
`, out.String())
}
