// Package ideminspect is a page for whoever is called at three in the morning: what caches hold since nobody
// knows what became of it, what runs for too long, and, if that is allowed, what to do about it.
//
//	page, err := ideminspect.New(ideminspect.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	ideminspect.Add(page, "payments", payments, ideminspect.View[idemflight.Key, Receipt]{})
//	admin.Handle("/idemflight", staffOnly(page))
//
// The zero Options and the zero [View] are the safe ones: the page changes nothing, shows keys only in part,
// and values not at all.
//
// # Mount it behind your own authentication
//
// The page knows no users: whoever reaches it sees it. It answers at the path where it is mounted and has no
// paths below. A key is never in a URL, in a log line or in a Referer: entries go by random names, which this
// Page alone knows, so several processes behind one balancer need sticky sessions, or an address each.
//
// A POST from another site is refused with 403 ([http.CrossOriginProtection]). The page loads nothing from
// elsewhere, says so in its Content-Security-Policy, is never stored, and does not let itself be framed. A
// proxy in front must leave the Host alone, or use https, so that browsers can say where a POST comes from.
//
// # What operators can do
//
// With Options.Write: Ask again ([idemflight.Cache.Reconcile]); It took place, Refused for good, It certainly did
// not ([idemflight.Cache.Resolve]); Forget. Each asks first, and is logged with who, whether it was done or not:
// with the key as the zero View would show it, and the tag that the page has beside it. An entry that is not
// as it was when the page asked is left alone (409): its state, error and payload, and when it ended, or
// began if it is in flight. The Observer of the cache gets its event in the context of the request.
//
// # JSON
//
// With ?format=json the answer is the same data, of a POST too. Names end in _seconds where the unit is seconds.
//
// # Cost
//
// Nothing while nobody looks, and the page has no goroutine of its own. However many ask for it, a cache
// is looked at once in a second at most. That is one Stats, and one Unsettled of which at most 10,000
// keys are looked at: with ten thousand unsettled keys some 20 ms, and what is retained, a million
// keys say, costs nothing. The 100 oldest are shown, the rest is counted.
//
// With a Store the page speaks of this process, but for what is held and in flight: that it asks the Store,
// for all processes, once in 10 s at most while somebody looks, for 5 s at most, and 10,000 unsettled
// keys at most. A Store may have to go over all its keys for that (redisstore does). Looking one key up asks the Store
// once, an action a few times more. The page waits for 5 s; for Reconcile and other actions 20 s, after
// which Reconcile goes on without it.
package ideminspect
