//go:build race

package idemflight_test

// raceEnabled: the race detector makes everything some ten times slower, so stress tests do less.
const raceEnabled = true
