package explore

import "github.com/idemflight/idemflight/verify/internal/plant"

// storedFaults are mistakes that show only where processes share a store.
var storedFaults = []fault{
	{"callers hear of an outcome before the store has recorded it", true, []plant.Edit{
		{In: "(*ending).settle", Old: "defer end.land(); end.record(cl)", New: "defer end.record(cl); end.land()"},
	}, []string{"store/2"}},
	{"an effect begins although the store has refused it", false, []plant.Edit{
		{In: "BeginEffect", Old: "if err != nil { return e.takeBack(cl, err) }", New: ""},
	}, []string{"store-takeover/3"}},
	{"fn follows Reconcile, and the store does not know that its effect may begin", false, []plant.Edit{
		{In: "(*ending).recordsBegin", Old: "err := cl.begin(context.WithoutCancel(f.exec.leader))", New: "err := error(nil)"},
	}, []string{"store-reconcile-late/3"}},
	{"a claim that came after its caller had left is kept", false, []plant.Edit{
		{In: "(*inquiry).granted", Old: "q.releaseUnused(cl)", New: ""},
	}, []string{"store-leave/4"}},
	{"fn runs for a caller that has left while the store was asked", false, []plant.Edit{
		{In: "(*inquiry).granted", Old: "if f.leaderLeft {", New: "if f.leaderLeft && f.fn == nil {"},
	}, []string{"store-leave/4"}},
	{"a claim whose answer never came is not given back", false, []plant.Edit{
		{In: "(*keeper).giveBackLater", Old: "k.unused = append(k.unused, claims...)", New: ""},
	}, []string{"store-outage/2"}},
	{"a claim is given back although its answer came", false, []plant.Edit{
		{In: "(*Cache).request", Old: "known = err == nil || errors.Is(err, ErrInvalidKey)", New: "known = errors.Is(err, ErrInvalidKey)"},
	}, []string{"store-renew/2"}},
	{"an outcome that the store did not take is not offered again", false, []plant.Edit{
		{In: "(*keeper).offerLater", Old: "k.offers[o.claim.Key] = o", New: ""},
	}, []string{"store-outage/2"}},
	{"callers are told an outcome that the store did not take", false, []plant.Edit{
		{In: "(*ending).offer", Old: "end.hold(unrecorded, err)", New: ""},
	}, []string{"store-outage/2"}},
	{"Forget leaves a copy that was made while the store was asked", false, []plant.Edit{
		{In: "(*Cache).Forget", Old: "was, err = c.forgetStored(ctx, key); c.drop(s, hash, key, &notes)", New: "was, err = c.forgetStored(ctx, key)"},
	}, []string{"store-forget-local/3"}},
	{"an operator who has not been granted the claim goes on", false, []plant.Edit{
		{In: "(*Cache).operate", Old: "case !got.Granted: return notHeld(got.State); case got.State != Held: c.keeper.giveBackLater(r.Claim); return notHeld(got.State)", New: "case got.Forgotten:"},
		{In: "(*Cache).operate", Old: "return c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease)", New: "_ = c.settleClaim(context.WithoutCancel(ctx), key, r.Claim, s, c.opts.Lease); return nil"},
	}, []string{"store-resolve/3"}},
}
