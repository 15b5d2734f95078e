//go:build race

package idemotel_test

func init() { raceEnabled = true }
