package main

import "syscall"

const preemptionsAreTold = true

// preemptions returns how often the system has taken the processor from the calling thread, which
// goes on to want it.
func preemptions() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		panic(err) // cannot happen: both arguments are valid
	}
	return int64(u.Nivcsw)
}
