package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The protocol as it is keeps its word in every world of the configurations of CI.
func TestTheProtocolKeepsItsWord(t *testing.T) {
	for i := range quick {
		cfg := &quick[i]
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			most := 10_000_000
			if testing.Short() {
				most = 50_000
			}
			r := explore(cfg, most, false)
			for _, which := range r.violations() {
				t.Errorf("%s: %s\n%s", invariants[which].name, invariants[which].says, r.broken[which].print(cfg))
			}
			require.True(t, r.all || testing.Short(), "there are more than %d worlds", most)
			t.Logf("%d worlds, depth %d, %v", r.states, r.depth, r.took)
		})
	}
}

// Nothing is out of reach: every state of a record and every place of a caller occurs.
func TestEverythingOccurs(t *testing.T) {
	var all result
	for _, cfg := range []config{announcedBegin, announcedTx} {
		r := explore(&cfg, 30_000, false)
		for i, occurs := range r.records {
			all.records[i] = all.records[i] || occurs
		}
		for i, occurs := range r.places {
			all.places[i] = all.places[i] || occurs
		}
	}
	for i, occurs := range all.records {
		require.True(t, occurs, "no record is %s", stateNames[i])
	}
	for i, occurs := range all.places {
		require.True(t, occurs, "no caller is in place %d", i)
	}
}

// Each rule that is taken away brings its hole back, or is one of which the table says that it has none.
func TestFaultsEachRuleTakenAwayBringsItsHoleBack(t *testing.T) {
	for i := range protocolRules {
		r := &protocolRules[i]
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			cfg := r.in
			cfg.looksFor = r.breaks
			without := cfg
			without.without |= 1 << i
			got := explore(&without, 1_500_000, true)
			if r.breaks == none {
				require.Empty(t, got.violations(), "there is a hole: put it into the table")
				require.True(t, got.all, "not all worlds were seen")
				t.Logf("no hole in %d worlds: %s", got.states, r.hole)
				return
			}
			require.Equal(t, []invariant{r.breaks}, got.violations(), "the model does not notice that the rule is gone")
			with := explore(&cfg, got.states+got.states/4, false)
			require.Empty(t, with.violations(), "with the rule it is broken as well")
			require.True(t, with.all || with.depth >= got.depth, "%d steps without the rule, and %d with it", got.depth, with.depth)

			steps := got.broken[r.breaks].print(&without)
			require.Contains(t, steps, "✗")
			t.Logf("%s is broken: %s\n%s", invariants[r.breaks].name, r.hole, steps)
		})
	}
}
