package idemflight

import "syscall"

// connectionLost are a connection reset or aborted, as Winsock reports them, and a broken pipe,
// which has two numbers here; the E names are the syscall package's own inventions, kept for errors
// that other layers make of them.
var connectionLost = []error{
	syscall.WSAECONNRESET, syscall.WSAECONNABORTED,
	syscall.ERROR_BROKEN_PIPE, syscall.Errno(232), // ERROR_NO_DATA: the pipe is being closed
	syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
}
