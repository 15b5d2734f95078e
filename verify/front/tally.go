package main

import (
	"errors"
	"fmt"
	"slices"
)

// tally is what a storm shows.
type tally struct {
	orders, restarts int
	requests         int // that nginx got
	resent           int // that it sent to both servers
	charges          int // in the bank

	// Orders with something wrong.
	twice        int // charged more than once
	uncharged    int // with a receipt of a charge that is not in the bank
	contradicted int // with answers that differ
	unserved     int // without a receipt
}

// count compares what the bank has charged with what the clients were told.
func (t *tally) count(charged map[string][]int64, told answers) {
	for n := range t.orders {
		charges, answers := charged[orderID(n)], told[orderID(n)]
		t.charges += len(charges)
		if len(charges) > 1 {
			t.twice++
		}
		if slices.ContainsFunc(answers, func(a answer) bool { return a.receipt() && !slices.Contains(charges, a.charge) }) {
			t.uncharged++
		}
		if len(answers) > 1 {
			t.contradicted++
		}
		if !slices.ContainsFunc(answers, answer.receipt) {
			t.unserved++
		}
	}
}

// verdict returns an error if the library has failed, or if the storm has not tried it.
func (t tally) verdict(m mode) error {
	switch {
	case t.restarts == 0 || t.resent == 0:
		return errors.New("no storm: nothing was restarted, or nginx sent nothing again")
	case m.bare && t.twice == 0:
		return errors.New("no storm: without idemhttp nothing was charged twice")
	case !m.bare && t.twice+t.uncharged+t.contradicted+t.unserved > 0:
		return errors.New("ORDERS WERE CHARGED TWICE, OR NOT AS THEIR CLIENTS WERE TOLD")
	}
	return nil
}

const tableHead = `| | orders | requests | resent by nginx | restarts | charges | charged twice | not charged, with a receipt | two answers | no receipt |
|---|---|---|---|---|---|---|---|---|---|`

func (t tally) row(name string) string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d |", name, t.orders, t.requests, t.resent,
		t.restarts, t.charges, t.twice, t.uncharged, t.contradicted, t.unserved)
}
