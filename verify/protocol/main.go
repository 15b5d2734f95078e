package main

import (
	"flag"
	"fmt"
	"strings"
)

func main() {
	var c config
	var fn, bank, without, looks string
	flag.IntVar(&c.callers, "callers", 2, "")
	flag.IntVar(&c.late, "late", 1, "")
	drops := flag.Int("drops", 0, "")
	flag.BoolVar(&c.announced, "announced", true, "")
	flag.BoolVar(&c.reconcile, "reconcile", true, "")
	flag.BoolVar(&c.operators, "operators", false, "")
	flag.BoolVar(&c.forgets, "forgets", false, "")
	flag.BoolVar(&c.relaxed, "relaxed", false, "")
	flag.StringVar(&fn, "fn", "begins", "")
	flag.StringVar(&bank, "bank", "patient", "")
	flag.StringVar(&without, "without", "", "")
	flag.StringVar(&looks, "looks", "", "")
	most := flag.Int("most", 3000000, "")
	first := flag.Bool("first", false, "")
	flag.Parse()
	c.drops = uint8(*drops)
	c.fn = map[string]fnKind{"begins": begins, "tx": settlesInTx, "plain": plain}[fn]
	c.bank = map[string]bankKind{"patient": patient, "hasty": hasty, "deadline": deadline}[bank]
	for i, n := range ruleNames {
		for _, x := range strings.Split(without, ",") {
			if n == x {
				c.without |= 1 << i
			}
		}
	}
	for i, n := range invariants {
		if n.name == looks {
			c.looksFor = invariant(i)
		}
	}
	r := explore(&c, *most, *first)
	fmt.Println(r.states, r.depth, r.all, r.took)
	for _, v := range r.violations() {
		fmt.Println(invariants[v].name)
		fmt.Print(r.broken[v].print(&c))
	}
}
