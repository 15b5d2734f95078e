package idemtest

import "syscall"

// Plan 9 reports a connection that was reset or refused as text only.
const errReset, errConnRefused = syscall.ErrorString("connection reset"), syscall.ErrorString("connection refused")
