//go:build race

package idemprom_test

func init() { raceEnabled = true }
