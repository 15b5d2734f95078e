//go:build !linux

package main

const preemptionsAreTold = false

// preemptions is always the same: here all is counted.
func preemptions() int64 { return 0 }
