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
	{".", "which of its counters counts a replay: the sum is the same, the cores share a cache line or not", []string{
		"(*counter).count: invert bitwise: uint64(uintptr(unsafe.Pointer(&here))) >> 11",
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
	{".", "which of two that expire at one instant goes first", []string{
		"(*kept).firstDue: conditionals boundary: q.deadline < r.deadline",
	}},
	{".", "the tolerance is for the noise between two readings; to store within it changes what is told by less than that", []string{
		"(*clock).syncWall: conditionals boundary: off < -tolerance",
		"(*clock).syncWall: conditionals boundary: off > tolerance",
	}},
	{".", "at the boundary both sides come to the same: what is added is 0, what is taken is all there is, a round over nothing ends, what is kept for no time has expired, a stack is replaced by itself", []string{
		"(*Cache).Close: conditionals boundary: len(inFlight)+len(undecided) > 0",
		"(*Cache).takeWeightLocked: conditionals boundary: missing < 0",
		"(*Cache).takeWeight: conditionals boundary: taken < least",
		"(*Cache).copyOf: conditionals boundary: keep <= 0",
		"(*ending).copyLocked: conditionals boundary: keep <= 0",
		"(*ending).copyLocked: conditionals boundary: ttl >= 0",
		"textOfError: conditionals boundary: len(p.Stack) > maxStack",
		"(*kept).isHead: conditionals boundary: r.weight() > 0",
		"(*ending).settlement: conditionals boundary: end.ttl() <= 0",
	}},
	{".", "it looks once more, and finds nothing: no flight begins in a closed cache", []string{
		"(*Cache).Close: delete branch: break",
	}},
	{".", "what a refused leader has waited is then told as since it led, and not as 0, which is no better", []string{
		"(*call).lead: delete assignment: m.reply.flight = nil",
	}},
	{".", "which of several outcomes that may go is chosen, and after how many looks: from 4,096 entries on that is a matter of speed, by design", []string{
		"(*search).oldEnough: conditionals boundary: n >= exactBelow",
		"(*search).oldEnough: conditionals boundary: int(find.c.seq.Load()-uint32(t.Seq>>32)) >= n-n/4",
		"(*search).oldEnough: arithmetic base: n-n/4",
	}},
	{".", "not the same, but only if another goroutine comes between the look and the lock, where there is no point at which a test could hold it", []string{
		"(*search).evictHeld: invert logical: r == nil || t != found",
		"(*search).evictHidden: invert logical: r == nil || !find.unprotected(r.done(find.c.opts.TTL))",
		"(*call).claimToAsk: invert logical: exhausted && asOf == c.seq.Load()",
	}},
	{".", "not the same, but only for a key in flight whose position, one of four billion, is just where a step of the walk ends: it is visited twice", []string{
		"(*shard).keysFrom: conditionals boundary: p < at",
	}},
	{".", "memory only: who still holds a flight that has ended keeps another one of the same hash", []string{
		"(*flights).remove: delete assignment: f.twin = nil",
	}},
	{".", "not the same, but only if both happen at one instant: a context that ends as the limit of a wait does", []string{
		"(*Cache).waitUpTo: delete case: r.ended #2",
	}},
	{".", "time only: it asks again at once, looks through more, or at what could be passed over, or publishes what is published", []string{
		"(*Cache).shedOne: delete call: runtime.Gosched()",
		"(*Cache).lookInFlight: conditionals boundary: c.opts.MaxWaiters > 0",
		"jsonKeeps: conditionals boundary: reflect.Bool <= k",
		"jsonKeeps: conditionals negation: reflect.Bool <= k",
		"jsonKeeps: conditionals boundary: k <= reflect.Float64",
		"(*record).use: invert bitwise: flags&(both|gone)",
		"(*record).use: invert bitwise: both|gone",
		"(*kept).isHead: invert logical: r.weight() > 0 && r == k.values.First()",
	}},
	{".", "memory only: room is made while it is filled, or for more; what is let go of is found to be garbage a little later", []string{
		"(*flights).trim: conditionals boundary: all.len > 0",
		"(*Cache).keys: arithmetic base: keysAtOnce+slots",
		"(*Cache).noteUnsettled: delete assignment: all = slices.Grow(all, s.flights.len+s.kept.holds())",
		"(*table).grow: arithmetic base: 2 * slots",
		"(*table).resize: conditionals boundary: n*sparse >= len(old)",
	}},
	{".", "a timer or a context that nobody refers to any more ends by itself, after seconds, or is collected", []string{
		"rest: delete defer: defer t.Stop()",
	}},
	{".", "the claim of the outcome is still there, for which the timer is set", []string{
		"(*keeper).offerLater: delete call: k.armLocked()",
	}},
	{".", "with a Store nothing is noted on the way: what leaves the memory is a copy", []string{
		"(*Cache).claim: delete call: c.emit(notes)",
		"(*Cache).reconcileStored: delete call: c.emit(m.notes)",
	}},
	{".", "an outcome that comes from the store is not told as one that ended here: nobody asks for its disposition, nor for who waited", []string{
		"(*inquiry).landAs: delete assignment: o.disposition = uint8(Retain)",
		"(*inquiry).takeOutLocked: delete assignment: f.outcome.waiters = f.waiters",
	}},
	{".", "an impossible state: only who settles a flight takes it out of its shard, and does so once", []string{
		"(*inquiry).takeOutLocked: delete call: q.s.mu.Unlock()",
		"(*inquiry).takeOutLocked: delete call: panic(\"idemflight: bug, please report it: a flight was not there when the store had answer…",
		"(*ending).land: delete call: s.mu.Unlock()",
		"(*ending).land: delete call: panic(\"idemflight: bug, please report it: a flight was not there when it settled\")",
	}},
	{".", "a marker adds nothing to what is written of an error: neither to its text nor to the sentinels that it matches", []string{
		"(*Cache).seal: delete assignment: cause = unmark(err)",
	}},
	{".", "an error that is looked at is not nil but at its end, and one without end was made finite before", []string{
		"(*walk).neverSent: invert logical: err != nil && !w.tooLong()",
		"(*walk).wraps: invert logical: err == nil || w.tooLong()",
	}},
	{".", "it is refused either way, in other words, or a step later: a reason without digits, one of two digits that is missing, an origin that does not come back the same, a string that is longer than what is left", []string{
		"unescape: arithmetic base: -1",
		"unescape: arithmetic base: -1 #2",
		"(*Origin).UnmarshalText: delete assignment: bad = errors.Join(err1, err2, err3) != nil",
		"(*cursor).string: arithmetic base: len(c.rest)-n",
	}},
	{".", "it takes two billion effects of one execution, or more than a gigabyte in one entry", []string{
		"Codec.appendEntry: conditionals boundary: int64(len(text))+int64(len(value))+int64(len(cause)) > maxParts",
		"Codec.appendEntry: arithmetic base: int64(len(text))+int64(len(value))+int64(len(cause))",
		"Codec.appendEntry: arithmetic base: int64(len(text))+int64(len(value))",
	}},
	{".", "times that are noted by a clock that was set since are moved when they are shown", []string{
		"(*draft).expireAfter: delete call: c.syncWall()",
		"(*Cache).record: delete call: c.syncWall()",
		"(*Cache).holdAgainLocked: delete call: c.syncWall()",
		"(*ending).copyLocked: delete call: c.syncWall()",
	}},
	{".", "each key is looked at then, which does the same", []string{
		"(*Cache).Unsettled: delete call: c.syncWall()",
	}},
	{".", "nothing is set there yet, or what is set already", []string{
		"Codec.appendEntry: remove self assignments: parts |= hasValue",
		"(*ending).traceEnds: delete assignment: e.Kind = EventExecuted",
	}},
	{".", "a standing with no time left and nothing begun is that of a dead owner, or absent already", []string{
		"(*Standing).free: invert logical: s.State == InFlight && s.ExpiresIn == 0",
	}},
	{".", "an operator's flight asks neither: what Reconcile finds has the TTL of the cache, and its leader has left", []string{
		"(*Cache).reconcileStored: delete assignment: m.reply.opts.ttl, m.reply.opts.maxWait = -1, forever",
		"(*Cache).reconcileStored: arithmetic base: -1",
	}},
	{".", "a store has an end for all that is retained: what was to be kept for no time, or less, is not there", []string{
		"(*ending).keeps: arithmetic base: -1",
	}},
	{".", "the panic of the caller's function is raised again below; the store hears that it is enough, and ends", []string{
		"(*Cache).unsettledStored: delete call: panic(theirs)",
	}},
	{".", "only for a Reconcile whose finding the store has, and cannot be read back: whether the next call waits for a second", []string{
		"(*ending).record: conditionals negation: err == nil #3",
	}},
	{".", "a limit of a wait that is without end, or that has ended before this is asked, fires never or in vain", []string{
		"(*call).waitForAnswer: conditionals boundary: r.opts.maxWait > 0",
		"(*call).waitForAnswer: invert logical: r.opts.maxWait != forever && r.opts.maxWait > 0",
	}},
	{".", "what it waits for is done in the critical section that has just been seen", []string{
		"(*call).leavesAnswer: delete receive: <-asks.answered",
	}},
	{"./idemhttp", "where exactly a body moves out of room that is too large: either side costs a little, memory or a copy", []string{
		"(*recorder).finish: conditionals boundary: cap(r.body)-len(r.body) > len(r.body)/8",
		"roomy: conditionals boundary: int64(cap(body)) > n+n/4+1<<10",
	}},
	{"./idemhttp", "a server gives a body of length 0 as http.NoBody, so that it never comes here; one that does anyway is read to its end from whatever room", []string{
		"readBody: conditionals boundary: r.ContentLength >= 0",
	}},
	{"./idemhttp", "how much room a body is given while it comes: more memory or more steps", []string{
		"roomy: arithmetic base: n/4",
		"grown: arithmetic base: have/2 + minBody",
		"grown: arithmetic base: have/2",
		"grown: conditionals boundary: rest > 0",
		"grown: arithmetic base: limit+1-have",
		"grown: arithmetic base: limit+1",
	}},
	{"./idemhttp", "at the boundary both sides come to the same: no time left is NoWait, a limit of 0 is none, 499 has been decided, a body of length 0 is at its end", []string{
		"(*call).maxWait: conditionals boundary: left <= 0",
		"(*call).noteTime: conditionals boundary: s.WriteTimeout > 0",
		"ClassifyStatus: conditionals boundary: r.Status <= 499",
		"withBodyBack: conditionals boundary: len(body) > 0",
	}},
	{"./idemhttp", "memory only: a name that is a part of something longer keeps all of that", []string{
		"owned: delete assignment: name = own(name)",
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
	{"./boltstore", "not the same: who is queued before the writer has begun would start a second one; TestGroupCommit notices by chance", []string{
		"(*DB).tryWithoutDisk: delete assignment: d.writing = true",
	}},
	{"./boltstore", "a nanosecond earlier or later", []string{
		"(*DB).sweepRowsLocked: conditionals boundary: d.rows[0].end <= now",
		"(*DB).sweepRowsLocked: conditionals boundary: r.Expires <= now",
		"(*transaction).sweep: conditionals boundary: int64(binary.BigEndian.Uint64(k)) > t.at.Now",
		"(*transaction).sweep: conditionals boundary: end <= t.at.Now",
		"(*transaction).sweep: conditionals boundary: dueOf(r) > t.at.Now",
	}},
	{"./boltstore", "a test of it would need a GiB", []string{
		"(*Store).Settle: conditionals boundary: int64(len(what.Value))+int64(len(what.Err)) > maxParts",
		"(*Store).Settle: arithmetic base: int64(len(what.Value))+int64(len(what.Err))",
	}},
	{"./boltstore", "speed only: how many records a transaction looks at", []string{
		"(*Store).unsettledFrom: increment decrement: looked++",
		"(*Store).unsettledFrom: conditionals boundary: looked > scanMost",
		"(*transaction).sweep: conditionals boundary: len(ended) < sweepMost",
		"(*transaction).sweep: invert logical: k != nil && len(ended) < sweepMost",
		"(*transaction).sweep: invert loopctrl: break",
	}},
	{"./boltstore", "a record that cannot be read is an empty one, which is neither in flight nor held", []string{
		"(*Store).unsettledFrom: delete branch: continue",
	}},
	{"./boltstore", "a transaction fails before its commit if the file is closed, or damaged where Open has not looked", []string{
		"(*DB).land: invert logical: t.done && d.broken == nil",
	}},
	{"./boltstore", "the number is only compared with 0", []string{
		"(*transaction).put: increment decrement: t.writes++",
	}},
	{"./boltstore", "a due entry that is not there is deleted then, which is no error", []string{
		"(*transaction).put: invert logical: err == nil && before.State != record.Absent",
	}},
	{"./boltstore", "a key is not empty", []string{
		"(*transaction).sweep: conditionals boundary: len(k) <= 8",
	}},
	{"./boltstore", "who lives on is looked at sooner, and by each transaction: speed only", []string{
		"(*transaction).sweep: arithmetic base: t.at.Now+int64(time.Hour)",
	}},
	{"./pgstore", "a row that is damaged has no state that is told", []string{
		"(*Store).Unsettled: delete branch: continue",
	}},
	{"./pgstore", "not the same: a poller that is awake for another reason looks, too; TestWatch_ANewOneIsLookedAtSoon notices by chance", []string{
		"(*Store).watch: delete call: p.wake()",
	}},
	{"./pgstore", "more is marked than has to be, or again, or a moment later: it is told, or found by a look, all the same", []string{
		"(*Store).mark: invert logical: p.listening && w.pause >= listenAfter",
		"(*Store).mark: conditionals boundary: w.pause >= listenAfter",
		"(*Store).mark: delete assignment: w.marked = true",
		"(*Store).mark: conditionals boundary: len(ids) > 0",
		"(*Store).listen: conditionals boundary: w.pause >= listenAfter",
	}},
	{"./pgstore", "a connection whose wait was cancelled is closed by the driver, and a context's timer ends by itself", []string{
		"(*Store).withConnection: delete defer: defer func() { ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)…",
		"(*Store).withConnection: delete defer: defer cancel()",
		"(*Store).withConnection: delete call: _ = conn.Close(ctx)",
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
	{"./redisstore", "an impossible state: the files are part of the program", []string{
		"script: delete call: panic(\"idemflight: bug: \" + err.Error())",
	}},
	{"./redisstore", "not the same, but only if both happen at one instant: an answer that comes as its context ends", []string{
		"soon: delete case: results #2",
	}},
	{"./redisstore", "a pipeline without a command asks nothing, and one that was executed is empty again", []string{
		"(*Store).runEach: conditionals boundary: len(unknown) > 0",
		"(*Store).runEach: delete assignment: pipe = s.client.Pipeline()",
	}},
	{"./redisstore", "time only: how soon, and how often, a watched claim is looked at", []string{
		"const firstPause: arithmetic base: 5 * time.Millisecond",
		"const firstPause: arithmetic base: 250 * time.Millisecond",
		"(*Store).join: delete case: ws.poller.wake",
		"(*Store).poll: conditionals boundary: len(due) > 0",
		"(*Store).poll: delete branch: continue",
		"(*Store).poll: delete case: p.wake",
		"(*watches).due: delete assignment: pause = longestPause",
		"(*watches).due: delete assignment: pause = min(pause, left)",
		"(*watches).due: conditionals boundary: left > 0",
		"(*Store).lookAt: delete assignment: l.by.pause = min(2*l.by.pause, longestPause)",
		"(*Store).lookAt: arithmetic base: time.Duration(min(left, l.by.pause.Milliseconds())) * time.Millisecond",
		"(*Store).lookAt: delete assignment: l.by.due = time.Now().Add(again)",
		"(*Store).lookAt: invert loopctrl: continue",
	}},
	{"./redisstore", "the poller ends at its next look, a quarter of a second later at most, and a timer that nobody refers to is collected", []string{
		"(*Store).poll: delete case: p.ctx.Done()",
		"(*Store).poll: delete call: timer.Stop()",
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
