package linear

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	histories = flag.Int("histories", 100, "narrow histories of each kind that porcupine checks")
	wide      = flag.Int("wide", 1, "wide histories of each kind, of about 100,000 calls each, that the oracle checks")
	width     = flag.Int("width", 1024, "goroutines of a wide history")
)

// patience is how long porcupine may take for one key; not to know by then is a failure.
const patience = 20 * time.Second

// narrow are histories of at most 8 clients a key.
var narrow = map[string]workload{
	"plain":   {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 8},
	"TTL":     {clients: 8, calls: 40, keys: 3, ttl: 100 * time.Microsecond, maxEntries: 8},
	"Forget":  {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 8, forgets: true},
	"failing": {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 8, fails: true, leaves: true},
	"evicted": {clients: 8, calls: 40, keys: 5, ttl: time.Hour, maxEntries: 3},
	"all":     {clients: 8, calls: 40, keys: 5, ttl: 200 * time.Microsecond, maxEntries: 4, forgets: true, fails: true, leaves: true},
}

// TestNarrowHistoriesAreLinearizable records histories of few clients and has porcupine explain them.
func TestNarrowHistoriesAreLinearizable(t *testing.T) {
	for name, w := range narrow {
		t.Run(name, func(t *testing.T) {
			for range *histories {
				h := record(w, newCache)
				if bad := h.linearizable(patience); bad != nil {
					t.Fatalf("not linearizable:\n%s", lines(bad))
				}
				require.Empty(t, h.Sound(), "the oracle of wide histories agrees")
			}
		})
	}
}

// TestHistoriesOfTwoProcessesAreLinearizable: as above, of two caches that share a store, which may fail before or
// after it has acted: then the verb is repeated. Left out is what is not one op of a key: the claim of a leader that
// leaves before fn runs, and a Forget whose answer is lost, which forgets what came meanwhile as well.
func TestHistoriesOfTwoProcessesAreLinearizable(t *testing.T) {
	for name, w := range map[string]workload{
		"plain":   {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 1000},
		"TTL":     {clients: 8, calls: 40, keys: 3, ttl: 100 * time.Microsecond, maxEntries: 1000},
		"failing": {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 1000, fails: true},
		"begun":   {clients: 8, calls: 40, keys: 4, ttl: time.Hour, maxEntries: 1000, fails: true, begins: true},
		"all":     {clients: 8, calls: 40, keys: 5, ttl: 200 * time.Microsecond, maxEntries: 1000, forgets: true, fails: true, begins: true},
	} {
		for _, failing := range []int{0, 20} {
			w := w
			w.forgets = w.forgets && failing == 0
			t.Run(fmt.Sprintf("%s, %d of 1000 verbs fail", name, failing), func(t *testing.T) {
				for range max(*histories/10, 1) {
					if bad := record(w, newProcesses(failing)).linearizable(patience); bad != nil {
						t.Fatalf("not linearizable:\n%s", lines(bad))
					}
				}
			})
		}
	}
}

// TestWideHistoriesAreSound records histories of many clients and sorts the executions of each key.
func TestWideHistoriesAreSound(t *testing.T) {
	calls := max(1, 100_000 / *width)
	for name, w := range map[string]workload{
		"plain": {keys: 2000, ttl: time.Hour, maxEntries: 10_000},
		"TTL":   {keys: 200, ttl: time.Millisecond, maxEntries: 10_000, replays: 50},
		"all":   {keys: 500, ttl: 5 * time.Millisecond, maxEntries: 1200, forgets: true, fails: true, leaves: true, replays: 50},
		"full":  {keys: 2500, ttl: time.Hour, maxEntries: 2000, forgets: true, fails: true, replays: 50},
	} {
		w.clients, w.calls = *width, calls
		t.Run(name, func(t *testing.T) {
			total := 0
			for range *wide {
				h := record(w, newCache)
				total += h.n
				require.Empty(t, h.Sound())
			}
			t.Logf("%d calls by %d goroutines", total, w.clients)
		})
	}
}

func lines(ops []op) string {
	var b strings.Builder
	for _, o := range ops {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}
