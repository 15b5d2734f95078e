package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out))
	require.Equal(t, `delivery=1 event=executed key=signup-1 disposition=retain waiters=1
delivery=2 event=joined key=signup-1
delivery=3 event=replayed key=signup-1
delivery=4 event=executed key=signup-2 disposition=release err=refused
delivery=5 event=executed key=signup-2 disposition=retain
delivery=6 event=replayed key=signup-2

mails sent: ["signup-1" "signup-2"]
`, out.String())
}
