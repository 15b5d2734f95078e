//go:build race

package idemflight_test

func init() { raceEnabled = true }
