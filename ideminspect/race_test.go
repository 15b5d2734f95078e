//go:build race

package ideminspect_test

func init() { raceEnabled = true }
