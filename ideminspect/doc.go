// Package ideminspect is a page for the person who is called at three in the morning: it shows
// which keys are held because nobody knows what became of them, what has been running for too long,
// and, if you allow it, offers what can be done about it.
//
//	page, err := ideminspect.New(ideminspect.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	ideminspect.Add(page, "payments", payments, ideminspect.View[idemflight.Key, Receipt]{})
//	admin.Handle("/idemflight", staffOnly(page))
//
// The zero Options and the zero [View] are the safe ones: the page changes nothing, shows only a
// part of each key, and no values.
//
// # Mount it behind your own authentication
//
// The page knows no users: whoever reaches it sees it. It answers at the path where it is mounted
// and has no paths below that. A key is never in a URL, in a log line or in a Referer: entries have
// random names, which only this Page knows, so several processes behind one load balancer need
// sticky sessions, or an address each.
//
// A POST from another site is refused with 403 ([http.CrossOriginProtection]). The page loads
// nothing from elsewhere and says so in its Content-Security-Policy; it must not be stored or
// framed. A proxy in front must leave the Host header alone, or use https, so that browsers can say
// where a POST comes from.
//
// # What operators can do
//
// With Options.Write: Ask again ([idemflight.Cache.Reconcile]); It took place, Refused for good, It
// certainly did not ([idemflight.Cache.Resolve]); Forget. Each asks for confirmation, and each
// attempt is logged, done or not: with the actor, with the key as the zero View would show it, and
// with the tag that the page shows beside it. If the entry has changed since the page asked,
// nothing is done (409): if its state, its error or its payload is different, or the time when it
// ended or, in flight, began. The cache's Observer gets its event in the context of the request.
//
// # JSON
//
// With ?format=json the answer has the same data as JSON, even to a POST. Names end in _seconds if
// the unit is seconds.
//
// # Cost
//
// It costs nothing while nobody looks, and the page has no goroutine of its own. However many
// requests there are, it looks at a cache at most once a second: one Stats, and one
// Unsettled, of which it reads at most 10,000 keys. With that many unsettled keys a look
// takes some 20 ms; retained outcomes, even a million, add nothing. The page shows the 100
// oldest and counts the rest.
//
// With a Store, the page is about this process, except for what is held and in flight: for these it
// asks the Store, and so shows the keys of all processes. It does so at most once in 10 s while
// somebody looks, for at most 5 s, and reads at most 10,000 unsettled keys. Some Stores have to go
// through all their keys for that (redisstore does). Looking up one key asks the Store once, an
// action asks it a few times more. The page waits up to 5 s for this, and up to 20 s for Reconcile
// and other actions; then Reconcile goes on without it.
package ideminspect
