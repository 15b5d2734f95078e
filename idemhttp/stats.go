package idemhttp

// Stats counts the problems with which a [Middleware] has answered since New, by kind; the names
// are those of the types in the package documentation. Together with the cache's own Stats they
// tell how every covered request ended: requests with one of the first five kinds never reach the
// cache, the others are among its calls.
//
// To get an event for each, count or log in Options.Problem, and answer with [WriteProblem].
type Stats struct {
	MissingKey, MalformedKey, Scope, UnreadableBody, BodyTooLarge uint64 // refused before the cache
	KeyReused, InFlight, OutcomeUnknown                           uint64
	AnswerUnavailable, AnswerUnrecorded                           uint64
	Full, Closed, Store, Left, Failed                             uint64
}

// Stats returns the counters. Safe for concurrent use; each counter is exact, but they are read
// one after the other.
func (m *Middleware) Stats() Stats {
	n := func(id kindID) uint64 { return m.problems[id].Load() }
	return Stats{
		MissingKey: n(idMissingKey), MalformedKey: n(idMalformedKey), Scope: n(idScope),
		UnreadableBody: n(idUnreadableBody), BodyTooLarge: n(idBodyTooLarge),
		KeyReused: n(idKeyReused), InFlight: n(idInFlight), OutcomeUnknown: n(idOutcomeUnknown),
		AnswerUnavailable: n(idUnavailable), AnswerUnrecorded: n(idUnrecorded),
		Full: n(idFull), Closed: n(idClosed), Store: n(idStore), Left: n(idLeft), Failed: n(idFailed),
	}
}
