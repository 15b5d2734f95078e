package idemflight

import "syscall"

// connectionLost are a connection reset or aborted, as Winsock reports them; the E names are the
// syscall package's own inventions there, kept for errors that other layers make of them.
var connectionLost = []error{
	syscall.WSAECONNRESET, syscall.WSAECONNABORTED,
	syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
}
