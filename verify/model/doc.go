// Package model checks the cache against a plain reference, written from the contract alone: random
// programs of calls, callers that wait and leave, and time, in a bubble whose clock the test owns.
package model
