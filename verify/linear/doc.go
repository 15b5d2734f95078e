// Package linear checks histories that were recorded from real goroutines: few clients a key with
// porcupine, many with an oracle that sorts the executions of each key.
package linear
