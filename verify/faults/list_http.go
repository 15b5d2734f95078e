package main

// linesOfHTTP are the lines of idemhttp's part of the contract, in its order; each has its faults.
var linesOfHTTP = []string{
	"order", "key", "covered", "scope", "fingerprint", "body", "executing", // request
	"reused", "in flight", "first answer", "never replayed", "held", // duplicate
	"stored", "not stored", "panic", "weigh", "streaming", "refused", // outcome
	"problems", "transport",
}

// Their suite takes a second or two, so that hints save little, but where a fault makes a test hang.
var httpFaults = []fault{
	// Order: method and key present? key syntax, Scope, body, then the cache.
	{
		name: "http-scope-before-key-syntax", promise: "order", sentence: "the key's syntax is checked before Scope is asked", in: "(*Middleware).serve",
		old: "id, err := parseKey(lines); if err != nil { m.problem(w, r, malformedKey, err); return }; scope, err := m.opts.Scope(r)",
		new: "scope, err := m.opts.Scope(r); id, malformed := parseKey(lines); if malformed != nil { m.problem(w, r, malformedKey, malformed); return }",
	},
	{
		name: "http-body-before-scope", promise: "order", sentence: "Scope is asked before the body is looked at", in: "(*Middleware).serve",
		old: "scope, err := m.opts.Scope(r)",
		new: "if r.ContentLength > m.opts.MaxRequestBytes { m.problem(w, r, bodyTooLarge, errBodyTooLarge); return }; scope, err := m.opts.Scope(r)",
	},
	{
		name: "http-second-call-of-the-cache", promise: "order", sentence: "exactly one call of DoResult", in: "(*call).once",
		old: "switch",
		new: "if means(err, idemflight.ErrKeyReused) { _, _ = m.opts.Cache.Do(r.Context(), c.key, func(context.Context) (*Response, error) { return nil, nil }, idemflight.WithMaxWait(idemflight.NoWait)) }; switch",
	},

	// Key: 1–255 bytes of visible ASCII, raw or as an RFC 8941 string.
	{name: "http-key-of-256-bytes", promise: "key", sentence: "at most 255 bytes", in: "maxKeyBytes", old: "255", new: "256"},
	{name: "http-key-with-space", promise: "key", sentence: "no space", in: "checkKey", old: "key[i] <= ' '", new: "key[i] < ' '"},
	{name: "http-key-with-del", promise: "key", sentence: "400 for control bytes", in: "checkKey", old: "key[i] >= 0x7f", new: "key[i] > 0x7f"},
	{name: "http-key-empty", promise: "key", sentence: "400 for an empty key", in: "checkKey", old: `key == ""`, new: "false"},
	{name: "http-key-several-lines", promise: "key", sentence: "400 for several header lines", in: "parseKey", old: "len(lines) != 1", new: "len(lines) == 0"},
	{name: "http-key-parameters", promise: "key", sentence: "400 for parameters after the string", in: "unquote", old: "end+1 != len(s)", new: "false"},
	{name: "http-key-parameters-after-escapes", promise: "key", sentence: "400 for parameters after the string", in: "unquote", old: "i+1 != len(s)", new: "false"},
	{name: "http-key-bad-escape", promise: "key", sentence: "400 for a malformed quote", in: "unquote", old: `i == len(s) || s[i] != '"' && s[i] != '\\'`, new: "i == len(s)"},
	{name: "http-key-open-quote", promise: "key", sentence: "400 for a malformed quote", in: "unquote", old: `if end < 0 { return "", errKeyQuote }`, new: "if end < 0 { return s, nil }"},
	{name: "http-key-forms-differ", promise: "key", sentence: "both forms name the same key", in: "parseKey", old: "return key, checkKey(key)", new: "return value, checkKey(key)"},
	{name: "http-key-quote-inside", promise: "key", sentence: "only a leading quote starts a string", in: "parseKey", old: "strings.HasPrefix", new: "strings.Contains"},
	{name: "http-key-folded", promise: "key", sentence: "it is opaque", in: "parseKey", old: "return value, checkKey(value)", new: "return strings.ToLower(value), checkKey(value)"},

	// Covered: Methods, compared without regard to case; everything else passes untouched.
	{name: "http-method-case", promise: "covered", sentence: "compared without regard to case", in: "(*Middleware).covers", old: "strings.EqualFold(covered, method)", new: "covered == method"},
	{name: "http-uncovered-copied", promise: "covered", sentence: "the very same Request", in: "(*Middleware).serve", old: "next.ServeHTTP(w, r)", new: "next.ServeHTTP(w, r.WithContext(r.Context()))"},
	{name: "http-uncovered-asks-scope", promise: "covered", sentence: "Scope is not called for a request without key", in: "(*Middleware).serve", old: "next.ServeHTTP(w, r)", new: "_, _ = m.opts.Scope(r); next.ServeHTTP(w, r)"},
	{name: "http-uncovered-body-read", promise: "covered", sentence: "its body is unread", in: "(*Middleware).serve", old: "next.ServeHTTP(w, r)", new: "_, _ = readBody(r, m.opts.MaxRequestBytes, nil); next.ServeHTTP(w, r)"},
	{name: "http-method-not-looked-at", promise: "covered", sentence: "a request of another method passes", in: "(*Middleware).serve", old: "!m.covers(r.Method) ||", new: ""},
	{name: "http-trace-is-covered", promise: "covered", sentence: "safe methods in Methods are an error from New", in: "New", old: ", http.MethodTrace", new: ""},
	{name: "http-safe-method-in-lower-case", promise: "covered", sentence: "safe methods in Methods are an error from New", in: "New", old: "strings.ToUpper(method)", new: "method"},
	{name: "http-negative-request-size", promise: "covered", sentence: "negative sizes are an error from New", in: "New", old: "opts.MaxRequestBytes < 0", new: "opts.MaxRequestBytes < -1"},
	{name: "http-negative-response-size", promise: "covered", sentence: "negative sizes are an error from New", in: "New", old: "opts.MaxResponseBytes < 0", new: "opts.MaxResponseBytes < -1"},
	{name: "http-reused-status-500", promise: "covered", sentence: "a KeyReusedStatus outside 400–499 is an error from New", in: "New", old: "opts.KeyReusedStatus > 499", new: "opts.KeyReusedStatus > 500"},
	{name: "http-first-bad-field-only", promise: "covered", sentence: "New names every bad field", in: "New", old: "errors.Join(bad...)", new: "errors.Join(bad[0])"},
	{name: "http-require-ignored", promise: "covered", sentence: "Require: a covered request without key gets 400", in: "(*Middleware).serve", old: "len(lines) == 0 && !m.opts.Require", new: "len(lines) == 0"},

	// Scope: the lookup key is (scope, key).
	{name: "http-scope-dropped", promise: "scope", sentence: "the lookup key is (scope, key)", in: "(*Middleware).serve", old: "Scope: scope", new: `Scope: "shared"`, quick: true},
	{name: "http-scope-empty", promise: "scope", sentence: "an empty scope is answered 401", in: "(*Middleware).serve", old: `err == nil && scope == ""`, new: "false"},
	{name: "http-scope-status-600", promise: "scope", sentence: "a status from 400 to 599", in: "scopeStatus", old: "status <= 599", new: "status <= 600"},
	{name: "http-scope-status-399", promise: "scope", sentence: "a status from 400 to 599", in: "scopeStatus", old: "status >= 400", new: "status >= 399"},
	{name: "http-scope-status-ignored", promise: "scope", sentence: "unless the error carries a status", in: "scopeStatus", old: "return status", new: ""},
	{name: "http-scope-status-wrapped", promise: "scope", sentence: "found with errors.As", in: "scopeStatus", old: "errors.As(err, &coded)", new: "coded, _ = err.(interface{ StatusCode() int }); coded != nil"},
	{name: "http-scope-error-runs", promise: "scope", sentence: "the handler does not run", in: "(*Middleware).serve", old: "m.problem(w, r, k, err); return", new: "m.problem(w, r, k, err)"},
	{name: "http-shared-scope-empty", promise: "scope", sentence: "SharedScope returns a constant that is not empty", in: "SharedScope", old: `return "shared", nil`, new: `return "", nil`},

	// Fingerprint: method, EscapedPath, sorted query, body; length-prefixed.
	{name: "http-fingerprint-without-method", promise: "fingerprint", sentence: "method", in: "DefaultFingerprint", old: "text[:m]", new: "nil"},
	{name: "http-fingerprint-of-decoded-path", promise: "fingerprint", sentence: "EscapedPath", in: "DefaultFingerprint", old: "r.URL.EscapedPath()", new: "r.URL.Path"},
	{name: "http-fingerprint-without-query", promise: "fingerprint", sentence: "query", in: "DefaultFingerprint", old: "text[p:]", new: "nil"},
	{name: "http-fingerprint-without-body", promise: "fingerprint", sentence: "body", in: "DefaultFingerprint", old: "text[p:], body", new: "text[p:], nil"},
	{name: "http-fingerprint-not-prefixed", promise: "fingerprint", sentence: "length-prefixed", in: "DefaultFingerprint", old: "text[m:p], text[p:]", new: "text[m:max(p, len(text))]"},
	{name: "http-query-as-sent", promise: "fingerprint", sentence: "query sorted by name", in: "appendQuery", old: "cmp.Compare", new: "0 * cmp.Compare"},
	{name: "http-query-values-sorted", promise: "fingerprint", sentence: "order within one name counts", in: "appendQuery", old: "cmp.Compare(a.name, b.name)", new: "cmp.Compare(a.name+a.value, b.name+b.value)"},
	{name: "http-query-unparsed-dropped", promise: "fingerprint", sentence: "what does not parse counts as sent", in: "appendQuery", old: "asSent = append(asSent, part)", new: ""},
	{name: "http-query-semicolon-parsed", promise: "fingerprint", sentence: "what does not parse counts as sent", in: "appendQuery", old: `|| strings.Contains(part, ";")`, new: ""},
	{name: "http-fingerprint-zero-checked", promise: "fingerprint", sentence: "one that is zero for every request means no check", in: "(*call).once", old: "m.opts.Fingerprint(r, c.body)", new: "orDefault(m.opts.Fingerprint(r, c.body), DefaultFingerprint(r, c.body))"},

	// Body: read up to MaxRequestBytes, handed to the handler whole.
	{name: "http-body-one-byte-over", promise: "body", sentence: "over MaxRequestBytes: 413", in: "readBody", old: "int64(len(body)) > limit", new: "int64(len(body)) > limit+1"},
	{name: "http-body-limit-excluded", promise: "body", sentence: "read up to MaxRequestBytes", in: "readBody", old: "int64(len(body)) > limit", new: "int64(len(body)) >= limit"},
	{name: "http-max-bytes-error", promise: "body", sentence: "on an *http.MaxBytesError, 413", in: "readBody", old: "errors.As", new: "false && errors.As"},
	{name: "http-body-content-length-as-sent", promise: "body", sentence: "ContentLength being the bytes read", in: "withBody", old: "int64(len(body))", new: "r.ContentLength"},
	{name: "http-body-broken-off", promise: "body", sentence: "a body that cannot be read: 400, handler not run", in: "readBody", old: "io.EOF", new: "io.EOF, err == io.ErrUnexpectedEOF"},
	{name: "http-body-of-the-handler-lent", promise: "body", sentence: "handed to the handler, to whom it belongs", in: "(*call).release", old: "c.rec != nil || c.m.ownFingerprint", new: "c.m.ownFingerprint"},
	{name: "http-body-of-the-fingerprint-lent", promise: "body", sentence: "nobody else's is where a Fingerprint of the user's own has seen one", in: "(*call).release", old: "c.rec != nil || c.m.ownFingerprint", new: "c.rec != nil"},
	{name: "http-body-not-whole", promise: "body", sentence: "handed to the handler whole", in: "withBody", old: "room.rest.Reset(body)", new: "room.rest.Reset(body[:min(len(body), 8<<10)])"},

	// The executing request's ServeHTTP runs the handler on its own goroutine.
	{name: "http-not-inline", promise: "executing", sentence: "on its own goroutine (Inline), and returns when the handler does", in: "(*call).once", old: ", idemflight.Inline()", new: ""},
	{name: "http-handler-cancelled", promise: "executing", sentence: "neither its cancellation nor an outer deadline", in: "(*call).execute", old: "handlerContext{ctx,", new: "handlerContext{c.r.Context(),"},
	{name: "http-context-values-lost", promise: "executing", sentence: "the handler's context carries the request's values", in: "(*call).execute", old: "handlerContext{ctx,", new: "handlerContext{context.Background(),"},
	{name: "http-gone-client-stops-recording", promise: "executing", sentence: "the client going away does not lose the answer: recording goes on", in: "send", old: "_, _ = r.w.Write(p)", new: "if _, err := r.w.Write(p); err != nil { r.body, r.omitted = nil, true }"},
	{name: "http-gone-client-fails-write", promise: "executing", sentence: "Write then reports success", in: "write", old: "send(r, p)", new: "if _, err := io.WriteString(r.w, string(p)); err != nil { return 0, err }"},
	{name: "http-gone-client-fails-flush", promise: "executing", sentence: "Flush then reports success", in: "flusher.FlushError", old: "errors.Is", new: "err != nil || errors.Is"},

	// Same key, other fingerprint: KeyReusedStatus, at once.
	{name: "http-reused-status-ignored", promise: "reused", sentence: "KeyReusedStatus", in: "New", old: "m.reused.status = opts.KeyReusedStatus", new: "m.reused.status = max(422, 0*opts.KeyReusedStatus)"},
	{name: "http-reused-detail", promise: "reused", sentence: "the words of the detail", in: "keyReused", old: `"Idempotency key already used with a different request payload"`, new: `"Idempotency key already used with another request payload"`},
	{name: "http-fingerprint-not-given", promise: "reused", sentence: "same key, other fingerprint: KeyReusedStatus", in: "(*call).once", old: "idemflight.WithFingerprint(m.opts.Fingerprint(r, c.body)),", new: ""},
	{name: "http-reused-is-not-told", promise: "reused", sentence: "same key, other fingerprint: KeyReusedStatus", in: "kindOf", old: "keyReused", new: "inFlight"},

	// In flight: the duplicate waits up to MaxWait and gets the same answer.
	{name: "http-max-wait-ignored", promise: "in flight", sentence: "waits up to MaxWait", in: "(*call).once", old: "idemflight.WithMaxWait(m.opts.MaxWait),", new: ""},
	{name: "http-max-wait-default", promise: "in flight", sentence: "MaxWait 0 = 30 s", in: "defaultMaxWait", old: "30 * time.Second", new: "29 * time.Second"},
	{name: "http-no-wait-waits", promise: "in flight", sentence: "NoWait = do not wait", in: "New", old: "orDefault(opts.MaxWait, defaultMaxWait)", new: "orDefault(max(opts.MaxWait, 0), defaultMaxWait)"},
	{name: "http-in-flight-final", promise: "in flight", sentence: "after that 409, retryable", in: "inFlight", old: "soon", new: "0"},
	{name: "http-in-flight-is-500", promise: "in flight", sentence: "after that, or beyond MaxWaiters, 409", in: "kindOf", old: "{idemflight.ErrInFlight, inFlight},", new: ""},
	{name: "http-left-is-500", promise: "in flight", sentence: "whose own context ends first: 503, retryable", in: "kindOf", old: "{idemflight.ErrCallerLeft, left},", new: ""},

	// The answer a retry gets is the first answer.
	{name: "http-replay-status", promise: "first answer", sentence: "status", in: "(*Middleware).replay", old: "w.WriteHeader(status)", new: "w.WriteHeader(max(http.StatusOK, status/100*100))"},
	{name: "http-replay-without-body", promise: "first answer", sentence: "body bytes", in: "(*Middleware).replay", old: "w.Write(body)", new: "w.Write(body[:len(body)-1])"},
	{name: "http-replay-without-headers", promise: "first answer", sentence: "headers", in: "(*Middleware).replay", old: "if replayable(name, named) && name != m.opts.ReplayHeader", new: `if replayable(name, named) && name == "Content-Type"`},
	{name: "http-trailers-not-recorded", promise: "first answer", sentence: "trailers", in: "(*recorder).finish", old: "r.trailer(r.header, h)", new: "r.trailer(nil, nil)"},
	{name: "http-unannounced-trailers-lost", promise: "first answer", sentence: "trailers", in: "(*Middleware).replay", old: "h[http.TrailerPrefix+name] = c.copy(values)", new: "_ = values"},
	{name: "http-announced-trailers-lost", promise: "first answer", sentence: "trailers", in: "(*recorder).trailer", old: `sent["Trailer"]`, new: `sent["Trailers"]`},
	{name: "http-trailer-from-outside-given-back", promise: "first answer", sentence: "trailers", hint: "TestAHeaderFromOutsideIs", in: "(*recorder).trailer", old: "slices.Equal(had, sent[from])", new: "true"},
	{name: "http-trailer-from-outside-not-taken-back", promise: "first answer", sentence: "trailers", hint: "TestAHeaderFromOutsideIs", in: "(*Middleware).replay", old: "known || sent", new: "known && sent"},
	{name: "http-sniffed-type-lost", promise: "first answer", sentence: "the Content-Type that the first client saw (sniffed or absent included)", in: "(*recorder).finish", old: `resp.Header["Content-Type"]`, new: "_"},
	{name: "http-sniffed-after-encoding", promise: "first answer", sentence: "the Content-Type that the first client saw (absent included)", in: "(*recorder).sniffs", old: `h.Get("Content-Encoding") == "" &&`, new: ""},
	{name: "http-replay-header-missing", promise: "first answer", sentence: "the replay header is on every answer that was not executed for this request", in: "(*Middleware).replay", old: "h[m.opts.ReplayHeader] = c.copy(isTrue)", new: ""},
	{name: "http-replay-header-of-the-handler", promise: "first answer", sentence: "never on the executing one: one that the handler sets is removed", in: "(*recorder).WriteHeader", old: "deleteFold(h, r.unwelcome)", new: ""},
	{name: "http-replay-header-in-another-case", promise: "first answer", sentence: "in whatever case", in: "deleteFold", old: "strings.EqualFold(plain, name)", new: "plain == name"},
	{name: "http-replay-header-as-trailer", promise: "first answer", sentence: "never on the executing one", in: "(*recorder).finish", old: "deleteFold(h, r.unwelcome)", new: ""},
	{name: "http-replay-header-on-problems", promise: "first answer", sentence: "never on problems", in: "(*Middleware).problem", old: "deleteFold(h, m.opts.ReplayHeader)", new: ""},
	{name: "http-record-is-lent", promise: "first answer", sentence: "what one caller does to its answer does not change another's", in: "(*Middleware).replay", old: "deleteOdd(h, name); h[name] = c.copy(values)", new: "deleteOdd(h, name); h[name] = values"},

	// Never replayed; recomputed; each request's own; as it stood at WriteHeader.
	{name: "http-set-cookie-replayed", promise: "never replayed", sentence: "Set-Cookie", in: "neverReplayed", old: `"Set-Cookie": true,`, new: "", quick: true},
	{name: "http-set-cookie2-replayed", promise: "never replayed", sentence: "Set-Cookie2", in: "neverReplayed", old: `"Set-Cookie2": true,`, new: ""},
	{name: "http-www-authenticate-replayed", promise: "never replayed", sentence: "WWW-Authenticate", in: "neverReplayed", old: `"Www-Authenticate": true,`, new: ""},
	{name: "http-proxy-authenticate-replayed", promise: "never replayed", sentence: "Proxy-Authenticate", in: "neverReplayed", old: `"Proxy-Authenticate": true,`, new: ""},
	{name: "http-keep-alive-replayed", promise: "never replayed", sentence: "hop-by-hop headers", in: "neverReplayed", old: `"Keep-Alive": true,`, new: ""},
	{name: "http-te-replayed", promise: "never replayed", sentence: "hop-by-hop headers", in: "neverReplayed", old: `"Te": true,`, new: ""},
	{name: "http-upgrade-replayed", promise: "never replayed", sentence: "hop-by-hop headers", in: "neverReplayed", old: `"Upgrade": true,`, new: ""},
	{name: "http-connection-names-ignored", promise: "never replayed", sentence: "and those that Connection names", in: "replayable", old: "slices.Contains(named, name)", new: "slices.Contains(named[:0], name)"},
	{name: "http-date-replayed", promise: "never replayed", sentence: "Date", in: "neverReplayed", old: `"Date": true,`, new: ""},
	{name: "http-age-replayed", promise: "never replayed", sentence: "Age", in: "neverReplayed", old: `"Age": true,`, new: ""},
	{name: "http-server-timing-replayed", promise: "never replayed", sentence: "Server-Timing", in: "neverReplayed", old: `"Server-Timing": true,`, new: ""},
	{name: "http-ratelimit-replayed", promise: "never replayed", sentence: "RateLimit", in: "neverReplayed", old: `"Ratelimit": true,`, new: ""},
	{name: "http-ratelimit-prefix-replayed", promise: "never replayed", sentence: "RateLimit-*", in: "neverReplayedPrefixes", old: `"Ratelimit-",`, new: ""},
	{name: "http-x-ratelimit-replayed", promise: "never replayed", sentence: "X-RateLimit-*", in: "neverReplayedPrefixes", old: `"X-Ratelimit-",`, new: ""},
	{name: "http-retry-after-replayed", promise: "never replayed", sentence: "Retry-After", in: "neverReplayed", old: `"Retry-After": true,`, new: ""},
	{name: "http-request-id-replayed", promise: "never replayed", sentence: "X-Request-Id", in: "neverReplayed", old: `"X-Request-Id": true,`, new: ""},
	{name: "http-traceparent-replayed", promise: "never replayed", sentence: "Traceparent", in: "neverReplayed", old: `"Traceparent": true,`, new: ""},
	{name: "http-cors-replayed", promise: "never replayed", sentence: "Access-Control-*", in: "neverReplayedPrefixes", old: `, "Access-Control-"`, new: ""},
	{name: "http-trailers-not-filtered", promise: "never replayed", sentence: "trailers alike", in: "(*Middleware).replay", old: "len(values) > 0 && replayable(name, named)", new: "len(values) > 0"},
	{name: "http-announced-trailers-not-filtered", promise: "never replayed", sentence: "trailers alike", in: "(*Middleware).replay", old: "!replayable(name, named)", new: "false"},
	{name: "http-names-not-canonicalised", promise: "never replayed", sentence: "whatever their case, also in what Resolve, Reconcile and Restore bring", in: "(*Middleware).replay", old: "canonical(resp.Header)", new: "resp.Header"},
	{name: "http-trailer-names-not-canonicalised", promise: "never replayed", sentence: "trailers alike, whatever their case", in: "(*Middleware).replay", old: "canonical(resp.Trailer)", new: "resp.Trailer"},
	{name: "http-content-length-as-recorded", promise: "never replayed", sentence: "Content-Length is recomputed", in: "setLength", old: "strconv.Itoa(len(body))", new: `first.Get("Content-Length") + strconv.Itoa(0)[1:]`},
	{name: "http-content-length-of-outside", promise: "never replayed", sentence: "Content-Length is recomputed", in: "setLength", old: `delete(h, "Content-Length")`, new: ""},
	{name: "http-write-beyond-length", promise: "never replayed", sentence: "a Write beyond a declared Content-Length fails with http.ErrContentLength", in: "write", old: "return 0, http.ErrContentLength", new: "return len(p), nil"},
	{name: "http-write-beyond-length-records", promise: "never replayed", sentence: "and records nothing", in: "write", old: "return 0, http.ErrContentLength", new: "r.body = append(r.body, p...); return 0, http.ErrContentLength"},
	{name: "http-outer-headers-recorded", promise: "never replayed", sentence: "a header that outer middleware set is each request's own", in: "(*recorder).finish", old: "changed(r.before, resp.Header)", new: "changed(nil, resp.Header)"},
	{name: "http-outer-headers-told-by-name", promise: "never replayed", sentence: "left alone (told by value)", in: "changed", old: "slices.Equal(had, values)", new: "len(had) == len(values)"},
	{name: "http-header-removed-by-the-handler", promise: "never replayed", sentence: "one that the handler changed is replayed as it stood", in: "changed", old: "now[name] = nil", new: ""},
	{name: "http-odd-name-of-outside-stays", promise: "never replayed", sentence: "one that the handler changed is replayed as it stood", in: "(*Middleware).replay", old: "deleteOdd(h, name)", new: ""},
	{name: "http-header-after-write-header", promise: "never replayed", sentence: "as it stood at WriteHeader; later changes are not replayed", in: "(*recorder).WriteHeader", old: "h.Clone()", new: "h"},

	// Held, shed and BodyOmitted: 409, not retryable.
	{name: "http-held-retryable", promise: "held", sentence: "outcome unknown is not retryable", in: "outcomeUnknown", old: "0", new: "soon"},
	{name: "http-held-words", promise: "held", sentence: "these words stand in title or detail", in: "outcomeUnknown", old: `"Outcome unknown", "outcome unknown: the operation may or may not have taken place, and is not run again. Find out before sending it with a new key."`, new: `"Not known", "the operation may or may not have taken place, and is not run again. Find out before sending it with a new key."`},
	{name: "http-shed-words", promise: "held", sentence: "these words stand in title or detail", in: "unavailable", old: `"Answer no longer available", "answer no longer available: the operation is done, and is not run again, but its answer was not kept."`, new: `"No answer", "the operation is done, and is not run again, but its answer was not kept."`},
	{name: "http-held-is-500", promise: "held", sentence: "held: 409", in: "kindOf", old: "{idemflight.ErrOutcomeUnknown, outcomeUnknown},", new: ""},
	{name: "http-body-omitted-replayed", promise: "held", sentence: "BodyOmitted: 409 answer no longer available", in: "(*Middleware).answer", old: "resp != nil && resp.BodyOmitted && kept", new: "resp != nil && resp.BodyOmitted && kept && len(resp.Header) == 0"},
	{name: "http-body-omitted-runs-again", promise: "held", sentence: "never run again before the TTL", in: "(*Middleware).outcome", old: "return resp, nil", new: "if resp.BodyOmitted { return resp, &statusError{resp.Status} }; return resp, nil"},
	{name: "http-shed-is-500", promise: "held", sentence: "shed: 409", in: "kindOf", old: "{idemflight.ErrValueShed, unavailable},", new: ""},
	{name: "http-no-response-is-200", promise: "held", sentence: "whatever is retained without a Response is answered 500", in: "(*Middleware).answer", old: "resp == nil ||", new: "resp != nil &&"},
	{name: "http-no-response-retryable", promise: "held", sentence: "… 500, not retryable", in: "(*Middleware).answer", old: "!kept", new: "true"},
	{name: "http-held-flight-answers-joined", promise: "held", sentence: "duplicates waiting get 409 outcome unknown", in: "(*Middleware).answer", old: ", res.Source == idemflight.Joined && means(err, idemflight.ErrOutcomeUnknown)", new: ""},

	// Stored by ClassifyStatus.
	{name: "http-401-stored", promise: "stored", sentence: "except 401", in: "ClassifyStatus", old: "http.StatusUnauthorized,", new: ""},
	{name: "http-404-stored", promise: "stored", sentence: "except 404", in: "ClassifyStatus", old: "http.StatusNotFound,", new: ""},
	{name: "http-409-stored", promise: "stored", sentence: "except 409", in: "ClassifyStatus", old: "http.StatusConflict,", new: ""},
	{name: "http-425-stored", promise: "stored", sentence: "except 425", in: "ClassifyStatus", old: "http.StatusTooEarly,", new: ""},
	{name: "http-429-stored", promise: "stored", sentence: "except 429", in: "ClassifyStatus", old: ", http.StatusTooManyRequests", new: ""},
	{name: "http-500-stored", promise: "stored", sentence: "not stored: 5xx", in: "ClassifyStatus", old: "r.Status <= 499", new: "r.Status <= 500"},
	{name: "http-101-stored", promise: "stored", sentence: "not stored: 1xx", in: "ClassifyStatus", old: "r.Status >= 200", new: "r.Status >= 100"},
	{name: "http-3xx-not-stored", promise: "stored", sentence: "3xx is stored", in: "ClassifyStatus", old: "r.Status >= 200", new: "r.Status >= 200 && r.Status/100 != 3"},
	{name: "http-too-large-and-released", promise: "stored", sentence: "one that was too large to record: 409, retryable", in: "(*Middleware).answer", old: "unrecorded", new: "unavailable"},
	{name: "http-released-answer-not-shared", promise: "stored", sentence: "duplicates waiting at that moment share the answer", in: "(*Middleware).answer", old: "resp == nil", new: "resp == nil || !kept"},
	{name: "http-effect-forgotten", promise: "stored", sentence: "while an effect has begun, an answer that would not be stored holds the key", in: "(*Middleware).outcome", old: "return resp, &statusError{resp.Status}", new: "return resp, idemflight.Retryable(&statusError{resp.Status})", quick: true},
	{name: "http-held-answer-lost", promise: "stored", sentence: "the executing client gets its answer", in: "(*call).once", old: "case c.rec != nil:", new: "case c.rec != nil && means(err, idemflight.ErrOutcomeUnknown): case c.rec != nil:"},

	// An answer that is not stored reaches the cache as an error without a marker.
	{name: "http-status-code-missing", promise: "not stored", sentence: "with a method StatusCode() int", in: "(*statusError).StatusCode", old: "StatusCode", new: "statusCode"},
	{name: "http-not-stored-is-final", promise: "not stored", sentence: "so that NoEffect and the cache's Classify have their say", in: "(*Middleware).outcome", old: "return resp, &statusError{resp.Status}", new: "return resp, idemflight.Unknown(&statusError{resp.Status})"},
	{name: "http-hold-of-classify-lost", promise: "not stored", sentence: "a Hold from Options.Classify is Unknown", in: "(*Middleware).outcome", old: "idemflight.Unknown(&statusError{resp.Status})", new: "&statusError{resp.Status}"},
	{name: "http-classify-panic-loses-the-answer", promise: "not stored", sentence: "the answer is there: its client gets it, whatever Classify does", in: "(*Middleware).classify", old: "recover()", new: "any(nil)"},
	{name: "http-classify-panic-releases", promise: "not stored", sentence: "a panic of Classify is a Hold", in: "(*Middleware).outcome", old: "idemflight.Unknown(err)", new: "idemflight.Retryable(err)"},

	// Panic and Goexit of the handler.
	{name: "http-panic-wrapped", promise: "panic", sentence: "reaches the server's recovery with its original value", in: "(*call).once", old: "p.Value", new: "p", quick: true},
	{name: "http-panic-swallowed", promise: "panic", sentence: "the panic reaches the server's recovery", in: "(*call).once", old: "panic(v)", new: ""},
	{name: "http-panic-releases", promise: "panic", sentence: "held, unless NoEffect says that nothing has begun", in: "(*call).execute", old: "run(c.next", new: "idemflight.NoEffect(ctx); run(c.next"},
	{name: "http-goexit-contained", promise: "panic", sentence: "after Goexit the executing client gets a 5xx or a closed connection", in: "(*call).execute", old: "run(c.next, c.rec.writer(), c.r, withBody(&c.rec.ctx, c.r, c.body, &c.rec.request))", new: "done := make(chan any); go func() { defer func() { done <- recover() }(); run(c.next, c.rec.writer(), c.r, withBody(&c.rec.ctx, c.r, c.body, &c.rec.request)) }(); if v := <-done; v != nil { panic(v) }"},
	{name: "http-released-panic-final", promise: "panic", sentence: "waiting duplicates get 500 when released: retryable", in: "(*Middleware).answer", old: "k.retryAfter = soon", new: "k.retryAfter = 0"},

	// Weigh of the default counts body, headers, trailers and key.
	{name: "http-body-weighs-nothing", promise: "weigh", sentence: "counts the body", in: "weigh", old: "n += len(r.Body)", new: ""},
	{name: "http-trailers-weigh-nothing", promise: "weigh", sentence: "counts the trailers", in: "weigh", old: ", r.Trailer", new: ""},
	{name: "http-header-names-weigh-nothing", promise: "weigh", sentence: "counts the headers", in: "weigh", old: "n += len(name)", new: "_ = name"},
	{name: "http-key-weighs-nothing", promise: "weigh", sentence: "counts the key", in: "weigh", old: "len(key.Scope) + len(key.ID)", new: "0 * len(key.ID)"},
	{name: "http-default-weight", promise: "weigh", sentence: "256 MiB of answers", in: "DefaultCacheOptions", old: "256 << 20", new: "512 << 20"},

	// Streaming: as without the middleware.
	{name: "http-flush-does-not-pass", promise: "streaming", hint: "TestBufferedUntilFlush", sentence: "from the first Flush on they pass through", in: "flusher.FlushError", old: "if !r.passing { r.pass(nil) }", new: ""},
	{name: "http-not-buffered", promise: "streaming", hint: "TestBufferedUntilFlush", sentence: "answers are buffered up to MaxResponseBytes", in: "write", old: "r.body = append(r.body, p...)", new: "r.body = append(r.body, p...); if !r.passing { r.pass(nil); return len(p), nil }"},
	{name: "http-limit-excluded", promise: "streaming", sentence: "up to MaxResponseBytes", in: "write", old: "int64(len(p)) <= r.limit", new: "int64(len(p)) < r.limit"},
	{name: "http-recording-ends-with-flush", promise: "streaming", sentence: "still being recorded while they fit", in: "write", old: "case r.omitted:", new: "case r.omitted || r.passing:"},
	{name: "http-recorded-past-the-limit", promise: "streaming", sentence: "over MaxResponseBytes the answer is remembered without its body", in: "write", old: "r.body, r.omitted = nil, true", new: ""},
	{name: "http-copy-not-recorded", promise: "streaming", sentence: "io.Copy", in: "(*recorder).ReadFrom", old: "struct{ io.Writer }{r}", new: "struct{ io.Writer }{r.w}"},
	{name: "http-204-with-body", promise: "streaming", sentence: "204/304", in: "write", old: "!bodyAllowed(r.status)", new: "false"},
	{name: "http-304-with-body", promise: "streaming", sentence: "204/304", in: "bodyAllowed", old: "&& status != http.StatusNotModified", new: ""},
	{name: "http-write-header-twice", promise: "streaming", sentence: "WriteHeader twice", in: "(*recorder).WriteHeader", old: "case r.status != 0: return", new: ""},
	{name: "http-1xx-is-final", promise: "streaming", sentence: "1xx", in: "(*recorder).WriteHeader", old: "status < 200", new: "status < 100"},
	{name: "http-101-is-informational", promise: "streaming", sentence: "1xx", in: "(*recorder).WriteHeader", old: "status < 200 && !(status == http.StatusSwitchingProtocols && r.switches)", new: "status < 200"},
	{name: "http-nothing-written", promise: "streaming", sentence: "nothing written", in: "(*recorder).finish", old: "http.StatusOK", new: "http.StatusNoContent"},
	{name: "http-hijacker-behind-unwrap", promise: "streaming", sentence: "no http.Hijacker, none behind Unwrap", in: "(*recorder).EnableFullDuplex", old: "func", new: "func (r *recorder) Unwrap() http.ResponseWriter { return r.w }; func"},
	{name: "http-close-notifier-missing", promise: "streaming", sentence: "the writer is an http.CloseNotifier", in: "(*recorder).CloseNotify", old: "CloseNotify", new: "closeNotify"},
	{name: "http-close-notifier-fires", promise: "streaming", sentence: "whose channel never fires", in: "(*recorder).CloseNotify", old: "return make(chan bool)", new: "c := make(chan bool); close(c); return c"},
	{name: "http-write-deadline", promise: "streaming", sentence: "http.ResponseController", in: "(*recorder).SetWriteDeadline", old: "http.NewResponseController(r.w).SetWriteDeadline(t)", new: "http.ErrNotSupported"},
	{name: "http-read-deadline", promise: "streaming", sentence: "http.ResponseController", in: "(*recorder).SetReadDeadline", old: "http.NewResponseController(r.w).SetReadDeadline(t)", new: "http.ErrNotSupported"},
	{name: "http-full-duplex", promise: "streaming", sentence: "http.ResponseController", in: "(*recorder).EnableFullDuplex", old: "http.NewResponseController(r.w).EnableFullDuplex()", new: "http.ErrNotSupported"},
	{name: "http-every-writer-flushes", promise: "streaming", sentence: "as without the middleware", in: "(*recorder).writer", old: "canFlush(r.w)", new: "r.w != nil"},

	// Full, closed, re-entrant.
	{name: "http-full-is-500", promise: "refused", sentence: "full: 503", in: "kindOf", old: "{idemflight.ErrFull, full},", new: ""},
	{name: "http-full-final", promise: "refused", sentence: "full: retryable", in: "full", old: "later", new: "0"},
	{name: "http-closed-is-500", promise: "refused", sentence: "closed: 503", in: "kindOf", old: "{idemflight.ErrClosed, closed},", new: ""},
	{name: "http-closed-final", promise: "refused", sentence: "closed: retryable", in: "closed", old: "later", new: "0"},
	{name: "http-mounted-twice", promise: "refused", sentence: "re-entrant: the inner one passes the request through", in: "(*call).once", old: "res.Source == idemflight.NoOutcome && means(err, idemflight.ErrReentrant)", new: "false"},
	{name: "http-mounted-twice-body-lost", promise: "refused", sentence: "the inner one passes the request through", in: "(*call).once", old: "withBody(r.Context(), r, c.body, new(requestBody))", new: "r"},

	// Problems are problem+json.
	{name: "http-problem-media-type", promise: "problems", sentence: "problem+json", in: "writeProblem", old: `"application/problem+json"`, new: `"application/json"`},
	{name: "http-problem-one-type", promise: "problems", sentence: "a type URI for each kind", in: "(*Middleware).problem", old: "k.name", new: `"failed"`},
	{name: "http-problem-cached", promise: "problems", sentence: "Cache-Control: no-store", in: "(*Middleware).problem", old: `h["Cache-Control"] = []string{"no-store"}`, new: ""},
	{name: "http-problem-always-retry-after", promise: "problems", sentence: "Retry-After exactly when retryable", in: "(*Middleware).problem", old: "if k.retryAfter >", new: "if k.retryAfter >="},
	{name: "http-problem-retry-after-of-outside", promise: "problems", sentence: "Retry-After exactly when retryable", in: "(*Middleware).problem", old: `deleteFold(h, "Retry-After")`, new: ""},
	{name: "http-problem-not-retryable", promise: "problems", sentence: "the member retryable", in: "(*Middleware).problem", old: "Retryable: k.retryAfter > 0", new: "Retryable: k.retryAfter > soon"},
	{name: "http-problem-without-cause", promise: "problems", sentence: "Problem.Err wraps the cause", in: "(*Middleware).problem", old: "Err: err,", new: ""},
	{name: "http-problem-shed-without-cause", promise: "problems", sentence: "Problem.Err wraps the cause: ErrValueShed", in: "(*Middleware).answer", old: "idemflight.ErrValueShed", new: "errUnrecorded"},
	{name: "http-problem-500-without-cause", promise: "problems", sentence: "of the 500 the outcome's error, a *PanicError included", in: "(*Middleware).answer", old: "orDefault(err, errNoResponse)", new: "errNoResponse"},
	{name: "http-problem-headers-after-the-hook", promise: "problems", sentence: "Retry-After and Cache-Control are set before the Problem hook is called", in: "(*Middleware).problem", old: `h["Cache-Control"] = []string{"no-store"}`, new: `defer func() { h["Cache-Control"] = []string{"no-store"} }()`},
	{name: "http-problem-by-the-cause-within", promise: "problems", sentence: "an outcome that is unknown stays so whatever caused it", in: "means", old: "e, ok := err.(interface{ Is(error) bool }); return ok && e.Is(sentinel)", new: "for ; err != nil; err = unwrap(err) { if e, ok := err.(interface{ Is(error) bool }); err == sentinel || ok && e.Is(sentinel) { return true } }; return false }; func unwrap(err error) error { if e, ok := err.(interface{ Unwrap() error }); ok { return e.Unwrap() }; return nil"},
	{name: "http-problem-malformed-retryable", promise: "problems", sentence: "false for 400", in: "malformedKey", old: "0", new: "soon"},
	{name: "http-problem-too-large-retryable", promise: "problems", sentence: "false for 413", in: "bodyTooLarge", old: "0", new: "soon"},

	// Transport puts a key on covered methods.
	{name: "http-transport-method-case", promise: "transport", sentence: "POST, PATCH, without regard to case", in: "(*Transport).RoundTrip", old: "!strings.EqualFold(req.Method, http.MethodPost)", new: "req.Method != http.MethodPost"},
	{name: "http-transport-patch", promise: "transport", sentence: "POST, PATCH", in: "(*Transport).RoundTrip", old: "&& !strings.EqualFold(req.Method, http.MethodPatch)", new: ""},
	{name: "http-transport-every-method", promise: "transport", sentence: "only covered methods", in: "(*Transport).RoundTrip", old: "!strings.EqualFold(req.Method, http.MethodPost) && !strings.EqualFold(req.Method, http.MethodPatch)", new: "strings.EqualFold(req.Method, http.MethodGet)"},
	{name: "http-transport-unquoted", promise: "transport", sentence: "written as an RFC 8941 string", in: "(*Transport).RoundTrip", old: "quoteKey(key)", new: "key"},
	{name: "http-transport-not-escaped", promise: "transport", sentence: "written as an RFC 8941 string", in: "keyEscapes", old: ", `\\`, `\\\\`", new: ""},
	{name: "http-transport-context-first", promise: "transport", sentence: "the one the request already bears, else the context's", in: "(*Transport).key", old: "len(lines) > 0", new: "len(lines) > 0 && req.Context().Value(keyToSend{}) == nil"},
	{name: "http-transport-generate-first", promise: "transport", sentence: "the context's, else Generate's", in: "(*Transport).key", old: "!found && t.Generate != nil", new: "t.Generate != nil"},
	{name: "http-transport-invalid-sent", promise: "transport", sentence: "an invalid key is an error from RoundTrip", in: "(*Transport).key", old: "err = checkKey(key)", new: "_ = checkKey(key)"},
	{name: "http-transport-empty-header-ignored", promise: "transport", sentence: "an empty header included", in: "(*Transport).key", old: "len(lines) > 0", new: `strings.Join(lines, "") != ""`},
	{name: "http-transport-changes-the-request", promise: "transport", sentence: "it never changes the caller's request", in: "(*Transport).RoundTrip", old: "req.Clone", new: "req.WithContext"},
	{name: "http-transport-retries", promise: "transport", sentence: "it does not retry by itself", in: "(*Transport).RoundTrip", old: "req.Header[name] = []string{quoted}", new: "req.Header[name] = []string{quoted}; if res, err := base.RoundTrip(req); err == nil { return res, nil }"},
}
