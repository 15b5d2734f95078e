//go:build !windows && !plan9

package idemtest

import "syscall"

// What this system reports of a connection that was reset, and of one that was refused.
const errReset, errConnRefused = syscall.ECONNRESET, syscall.ECONNREFUSED
