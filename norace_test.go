//go:build !race

package idemflight_test

const raceEnabled = false
