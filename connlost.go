//go:build !windows && !plan9

package idemflight

import "syscall"

// connectionLost are a connection reset, aborted, or a broken pipe, as this system reports them.
var connectionLost = []error{syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE}
