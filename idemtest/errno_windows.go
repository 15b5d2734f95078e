package idemtest

import "syscall"

// What Winsock reports of a connection that was reset, and of one that was
// refused (WSAECONNREFUSED).
const errReset, errConnRefused = syscall.WSAECONNRESET, syscall.Errno(10061)
