package main

// equivalent lists mutants that no test can kill, by their names, with the reason why.
var equivalent = []explained{
	{".", "the value at which the two sides would differ cannot get there: a TTL of 0 is never kept, a timeout of 0 is DefaultExecTimeout, 0 has been asked before", []string{
		"(*execution).start: conditionals boundary: timeout > 0",
		"after: conditionals boundary: ttl < 0",
		"deadlineOf: conditionals boundary: ttl < 0",
	}},
	{".", "at the boundary both sides come to the same: a number that is already what it would become, a sum to which 0 is added", []string{
		"sane: conditionals boundary: d > Hold",
		"(*Options).minRetention: conditionals boundary: o.MinRetention < 0",
		"(*Cache).returnWeight: conditionals boundary: weight > 0",
	}},
	{".", "a saved clock reading: without it one is taken a moment later, right before fn", []string{
		"(*call).claimLocked: delete assignment: f.exec.started = f.startedAt",
	}},
	{".", "a joined caller whose context has ended leaves at once either way: if not here, then where it would wait, counted and told the same", []string{
		"(*Cache).checkContext: conditionals negation: err == nil",
	}},
	{".", "which of its counters counts a replay: the sum is the same, the cores share a cache line or not", []string{
		"(*counter).count: invert bitwise: uint64(uintptr(unsafe.Pointer(&here))) >> 11",
		"(*counter).count: arithmetic base: stack*0x9E3779B97F4A7C15",
		"(*counter).count: invert bitwise: t.shift&63",
	}},
	{".", "a timer that is set for this very deadline already is found so one step later, or is set for it again", []string{
		"(*Cache).arm: conditionals boundary: int64(deadline) >= t.next.Load()",
		"(*Cache).arm: conditionals boundary: int64(deadline) >= t.next.Load() #2",
	}},
	{".", "rearm of a cache that is empty finds nothing to set the timer for", []string{
		"(*Cache).disarm: conditionals boundary: c.places.Load() > 0 #2",
	}},
	{".", "not the same, but only while a newcomer has all the weight and is about to publish it: then a shard is locked in vain", []string{
		"(*Cache).shedOne: arithmetic base: -1",
	}},
	{".", "time only: the stack grows later, when there is more on it to move", []string{
		"(*Cache).fly: delete call: growStack(0)",
	}},
	{".", "an impossible state: only settle takes a flight out of its shard, and does so once", []string{
		"(*ending).settle: delete call: panic(\"idemflight: bug, please report it: a flight was not there when it settled\")",
	}},
	{".", "memory against an allocation: a table that held exactly as much as it may, or is exactly as empty, is left standing or made anew", []string{
		"(*flights).remove: conditionals boundary: all.peak > fewFlights",
		"(*flights).remove: conditionals boundary: all.len <= min(all.peak/sparse, manyFlights)",
	}},
	{".", "which of two that expire at one instant goes first", []string{
		"(*kept).firstDue: conditionals boundary: q.deadline < r.deadline",
	}},
	{".", "the tolerance is for the noise between two readings; to store within it changes what is told by less than that", []string{
		"(*clock).syncWall: conditionals boundary: off < -tolerance",
		"(*clock).syncWall: conditionals boundary: off > tolerance",
		"(*clock).syncWall: arithmetic base: -tolerance",
	}},
	{"./idemhttp", "where exactly a body moves out of room that is too large: either side costs a little, memory or a copy", []string{
		"(*recorder).finish: conditionals boundary: cap(r.body)-len(r.body) > len(r.body)/8",
		"roomy: conditionals boundary: int64(cap(body)) > n+n/4+1<<10",
	}},
	{"./idemhttp", "a server gives a body of length 0 as http.NoBody, so that it never comes here; one that does anyway is read to its end from whatever room", []string{
		"readBody: conditionals boundary: r.ContentLength >= 0",
	}},
	{"./idemhttp", "room of four times what has come and not just what is still to come: more memory while the request is in progress, in as many steps", []string{
		"grown: arithmetic base: announced + 1 - have",
	}},
	{"./idemhttp", "what is not given back to the pool the collector takes", []string{
		"(*Middleware).serve: delete call: c.release()",
	}},
	{"./boltstore", "an index out of range is met then, which contain makes the same refusal of", []string{
		"(*pages).check: conditionals boundary: number >= all",
		"(*pages).check: conditionals boundary: more >= all-number",
		"(*pages).check: arithmetic base: all-number",
	}},
	{"./boltstore", "elements outside of the page are looked at then, and refused: they are no elements, or there is nothing", []string{
		"(*pages).checkPage: arithmetic base: pageHeader+count*elementSize",
		"(*pages).checkPage: arithmetic base: count*elementSize",
	}},
	{"./boltstore", "whether the name of a new file is on the disk shows when the power fails", []string{
		"Open: delete assignment: fresh = true",
		"Open: delete call: _ = dir.Sync()",
		"Open: invert logical: fresh && !o.NoSync",
	}},
	{"./boltstore", "it counts after a panic in bolt.Open, and no file is known, since check looks first, that makes it panic", []string{
		"openBolt: delete assignment: o.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) { file,…",
		"openBolt: conditionals negation: file != nil",
		"openBolt: delete call: _ = file.Close()",
	}},
	{"./boltstore", "how many openings are listed, by one: what is not listed is held a little longer", []string{
		"(*DB).begin: conditionals boundary: len(d.opened) > maxOpenings",
	}},
	{"./boltstore", "bbolt's own Close waits for the transaction that is being written; what is queued behind it is written before or refused, by chance", []string{
		"(*DB).Close: delete call: d.writer.Wait()",
	}},
	{"./boltstore", "for a record of an epoch that is yet to come: there is none", []string{
		"(*DB).leaseEnd: arithmetic base: len(d.opened)-1",
	}},
	{"./pgstore", "an impossible state: the files are part of the program", []string{
		"schemaUpTo: delete call: panic(fmt.Sprintf(\"pgstore: bug: %v\", err))",
	}},
	{"./pgstore", "what is kept for no time at all has ended either way, and its row stays as long", []string{
		"settleArgs: conditionals boundary: st.TTL <= 0",
	}},
	{"./pgstore", "who listens sooner than it is worth its cost is told all the same", []string{
		"const firstLook: arithmetic base: 50 * time.Millisecond",
	}},
	{"./pgstore", "since Go 1.23 a timer that nobody refers to is collected", []string{
		"(*Store).poll: delete defer: defer timer.Stop()",
	}},
	{"./pgstore", "a sweep begins a nanosecond earlier", []string{
		"(*Store).countClaim: conditionals boundary: time.Since(time.Unix(0, w.last.Load())) < s.opts.Sweep",
	}},
	{"./pgstore", "the timer of the context ends by itself within ten seconds", []string{
		"(*Store).look: delete defer: defer cancel()",
		"(*Store).countClaim: delete defer: defer cancel()",
	}},
	{"./internal/record", "at the boundary both sides come to the same: the sum is Forever", []string{
		"after: conditionals boundary: t > Forever-int64(d)",
	}},
	{"./internal/record", "its callers read only the times, or write another state over it: it is there for who reads the code", []string{
		"Record.heldBy: delete assignment: r.State = Held",
	}},
	{"./internal/record", "how much room is made before bytes are appended", []string{
		"Encode: arithmetic base: headSize+2*binary.MaxVarintLen64+len(r.Value)+len(r.Err)+sumSize",
		"Encode: arithmetic base: headSize+2*binary.MaxVarintLen64",
		"Encode: arithmetic base: 2*binary.MaxVarintLen64",
	}},
}

// explained are mutants of one package that survive, or make the suite hang, for one reason.
type explained struct {
	pkg    string
	reason string
	names  []string // as the report has them: declaration, kind and text, but no line
}

// reasonFor returns why a mutant survives, "" if that is not known.
func reasonFor(list []explained, m *mutant) string {
	for _, e := range list {
		for _, name := range e.names {
			if name == m.name() {
				return e.reason
			}
		}
	}
	return ""
}
