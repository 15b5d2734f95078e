package main

// linesOfHTTP are the lines of idemhttp's part of the contract, in its order; each has its faults.
var linesOfHTTP = []string{
	"order", "key", "covered", "scope", "fingerprint", "body", "executing", // request
	"reused", "in flight", "first answer", "never replayed", "held", // duplicate
	"stored", "not stored", "panic", "weigh", "streaming", "refused", // outcome
	"problems", "transport",
}

const (
	headersGo    = "idemhttp/headers.go"
	keyGo        = "idemhttp/key.go"
	middlewareGo = "idemhttp/middleware.go"
	answerGo     = "idemhttp/outcome.go"
	problemGo    = "idemhttp/problem.go"
	recorderGo   = "idemhttp/recorder.go"
	replayGo     = "idemhttp/replay.go"
	requestGo    = "idemhttp/request.go"
	transportGo  = "idemhttp/transport.go"
)

// Their suite takes a second or two, so that hints save little, but where a fault makes a test hang.
var httpFaults = []fault{
	// Order: method and key present? key syntax, Scope, body, then the cache.
	{
		name: "http-scope-before-key-syntax", promise: "order", sentence: "the key's syntax is checked before Scope is asked", file: middlewareGo,
		old: `	id, err := parseKey(lines)
	if err != nil {
		m.problem(w, r, malformedKey, err)
		return
	}
	scope, err := m.opts.Scope(r)
`,
		new: `	scope, err := m.opts.Scope(r)
	id, malformed := parseKey(lines)
	if malformed != nil {
		m.problem(w, r, malformedKey, malformed)
		return
	}
`,
	},
	{
		name: "http-body-before-scope", promise: "order", sentence: "Scope is asked before the body is looked at", file: middlewareGo,
		old: `	scope, err := m.opts.Scope(r)
`,
		new: `	if r.ContentLength > m.opts.MaxRequestBytes {
		m.problem(w, r, bodyTooLarge, errBodyTooLarge)
		return
	}
	scope, err := m.opts.Scope(r)
`,
	},
	{
		name: "http-second-call-of-the-cache", promise: "order", sentence: "exactly one call of DoResult", file: middlewareGo,
		old: `	switch {
	case c.rec != nil:
		c.rec.deliver()`,
		new: `	if means(err, idemflight.ErrKeyReused) {
		_, _ = m.opts.Cache.Do(r.Context(), c.key, func(context.Context) (*Response, error) { return nil, nil }, idemflight.WithMaxWait(idemflight.NoWait))
	}
	switch {
	case c.rec != nil:
		c.rec.deliver()`,
	},

	// Key: 1–255 bytes of visible ASCII, raw or as an RFC 8941 string.
	{name: "http-key-of-256-bytes", promise: "key", sentence: "at most 255 bytes", file: keyGo, old: "maxKeyBytes = 255", new: "maxKeyBytes = 256"},
	{name: "http-key-with-space", promise: "key", sentence: "no space", file: keyGo, old: "key[i] <= ' '", new: "key[i] < ' '"},
	{name: "http-key-with-del", promise: "key", sentence: "400 for control bytes", file: keyGo, old: "key[i] >= 0x7f", new: "key[i] > 0x7f"},
	{name: "http-key-empty", promise: "key", sentence: "400 for an empty key", file: keyGo, old: `case key == "":`, new: `case false:`},
	{name: "http-key-several-lines", promise: "key", sentence: "400 for several header lines", file: keyGo, old: "len(lines) != 1", new: "len(lines) == 0"},
	{name: "http-key-parameters", promise: "key", sentence: "400 for parameters after the string", file: keyGo, old: "if end+1 != len(s) {", new: "if false {"},
	{name: "http-key-parameters-after-escapes", promise: "key", sentence: "400 for parameters after the string", file: keyGo, old: "if i+1 != len(s) {", new: "if false {"},
	{name: "http-key-bad-escape", promise: "key", sentence: "400 for a malformed quote", file: keyGo, old: `if i == len(s) || s[i] != '"' && s[i] != '\\' {`, new: `if i == len(s) {`},
	{name: "http-key-open-quote", promise: "key", sentence: "400 for a malformed quote", file: keyGo, old: "	if end < 0 {\n		return \"\", errKeyQuote", new: "	if end < 0 {\n		return s, nil"},
	{name: "http-key-forms-differ", promise: "key", sentence: "both forms name the same key", file: keyGo, old: "	return key, checkKey(key)\n", new: "	return value, checkKey(key)\n"},
	{name: "http-key-quote-inside", promise: "key", sentence: "only a leading quote starts a string", file: keyGo, old: "if !strings.HasPrefix(value, `\"`) {", new: "if !strings.Contains(value, `\"`) {"},
	{name: "http-key-folded", promise: "key", sentence: "it is opaque", file: keyGo, old: "return value, checkKey(value)", new: "return strings.ToLower(value), checkKey(value)"},

	// Covered: Methods, compared without regard to case; everything else passes untouched.
	{name: "http-method-case", promise: "covered", sentence: "compared without regard to case", file: middlewareGo, old: "strings.EqualFold(covered, method)", new: "covered == method"},
	{name: "http-uncovered-copied", promise: "covered", sentence: "the very same Request", file: middlewareGo, old: "		next.ServeHTTP(w, r)\n", new: "		next.ServeHTTP(w, r.WithContext(r.Context()))\n"},
	{name: "http-uncovered-asks-scope", promise: "covered", sentence: "Scope is not called for a request without key", file: middlewareGo, old: "		next.ServeHTTP(w, r)\n", new: "		_, _ = m.opts.Scope(r)\n		next.ServeHTTP(w, r)\n"},
	{name: "http-uncovered-body-read", promise: "covered", sentence: "its body is unread", file: middlewareGo, old: "		next.ServeHTTP(w, r)\n", new: "		_, _ = readBody(r, m.opts.MaxRequestBytes, nil)\n		next.ServeHTTP(w, r)\n"},
	{name: "http-method-not-looked-at", promise: "covered", sentence: "a request of another method passes", file: middlewareGo, old: "!m.covers(r.Method) || len(lines)", new: "len(lines)"},
	{name: "http-trace-is-covered", promise: "covered", sentence: "safe methods in Methods are an error from New", file: middlewareGo, old: ", http.MethodOptions, http.MethodTrace:", new: ", http.MethodOptions:"},
	{name: "http-safe-method-in-lower-case", promise: "covered", sentence: "safe methods in Methods are an error from New", file: middlewareGo, old: "switch strings.ToUpper(method) {", new: "switch method {"},
	{name: "http-negative-request-size", promise: "covered", sentence: "negative sizes are an error from New", file: middlewareGo, old: "opts.MaxRequestBytes < 0", new: "opts.MaxRequestBytes < -1"},
	{name: "http-negative-response-size", promise: "covered", sentence: "negative sizes are an error from New", file: middlewareGo, old: "opts.MaxResponseBytes < 0", new: "opts.MaxResponseBytes < -1"},
	{name: "http-reused-status-500", promise: "covered", sentence: "a KeyReusedStatus outside 400–499 is an error from New", file: middlewareGo, old: "opts.KeyReusedStatus > 499", new: "opts.KeyReusedStatus > 500"},
	{name: "http-first-bad-field-only", promise: "covered", sentence: "New names every bad field", file: middlewareGo, old: "errors.Join(bad...)", new: "errors.Join(bad[0])"},
	{name: "http-require-ignored", promise: "covered", sentence: "Require: a covered request without key gets 400", file: middlewareGo, old: "len(lines) == 0 && !m.opts.Require", new: "len(lines) == 0"},

	// Scope: the lookup key is (scope, key).
	{name: "http-scope-dropped", promise: "scope", sentence: "the lookup key is (scope, key)", file: middlewareGo, old: "idemflight.Key{Scope: scope, ID: id}", new: `idemflight.Key{Scope: "shared", ID: id}`, quick: true},
	{name: "http-scope-empty", promise: "scope", sentence: "an empty scope is answered 401", file: middlewareGo, old: `if err == nil && scope == "" {`, new: `if false {`},
	{name: "http-scope-status-600", promise: "scope", sentence: "a status from 400 to 599", file: requestGo, old: "status <= 599", new: "status <= 600"},
	{name: "http-scope-status-399", promise: "scope", sentence: "a status from 400 to 599", file: requestGo, old: "status >= 400", new: "status >= 399"},
	{name: "http-scope-status-ignored", promise: "scope", sentence: "unless the error carries a status", file: requestGo, old: "			return status\n", new: ""},
	{name: "http-scope-status-wrapped", promise: "scope", sentence: "found with errors.As", file: requestGo, old: "if errors.As(err, &coded) {", new: "if coded, _ = err.(interface{ StatusCode() int }); coded != nil {"},
	{name: "http-scope-error-runs", promise: "scope", sentence: "the handler does not run", file: middlewareGo, old: "		k.status = scopeStatus(err)\n		m.problem(w, r, k, err)\n		return\n", new: "		k.status = scopeStatus(err)\n		m.problem(w, r, k, err)\n"},
	{name: "http-shared-scope-empty", promise: "scope", sentence: "SharedScope returns a constant that is not empty", file: requestGo, old: `return "shared", nil`, new: `return "", nil`},

	// Fingerprint: method, EscapedPath, sorted query, body; length-prefixed.
	{name: "http-fingerprint-without-method", promise: "fingerprint", sentence: "method", file: requestGo, old: "FingerprintOf(text[:m], ", new: "FingerprintOf(nil, "},
	{name: "http-fingerprint-of-decoded-path", promise: "fingerprint", sentence: "EscapedPath", file: requestGo, old: "r.URL.EscapedPath()", new: "r.URL.Path"},
	{name: "http-fingerprint-without-query", promise: "fingerprint", sentence: "query", file: requestGo, old: "text[p:], body)", new: "nil, body)"},
	{name: "http-fingerprint-without-body", promise: "fingerprint", sentence: "body", file: requestGo, old: "text[p:], body)", new: "text[p:], nil)"},
	{name: "http-fingerprint-not-prefixed", promise: "fingerprint", sentence: "length-prefixed", file: requestGo, old: "FingerprintOf(text[:m], text[m:p], text[p:], body)", new: "FingerprintOf(text[:m], text[m:max(p, len(text))], body)"},
	{name: "http-query-as-sent", promise: "fingerprint", sentence: "query sorted by name", file: requestGo, old: "{ return cmp.Compare(a.name, b.name) }", new: "{ return 0 * cmp.Compare(a.name, b.name) }"},
	{name: "http-query-values-sorted", promise: "fingerprint", sentence: "order within one name counts", file: requestGo, old: "cmp.Compare(a.name, b.name)", new: "cmp.Compare(a.name+a.value, b.name+b.value)"},
	{name: "http-query-unparsed-dropped", promise: "fingerprint", sentence: "what does not parse counts as sent", file: requestGo, old: "			asSent = append(asSent, part)\n", new: ""},
	{name: "http-query-semicolon-parsed", promise: "fingerprint", sentence: "what does not parse counts as sent", file: requestGo, old: ` || strings.Contains(part, ";")`, new: ""},
	{name: "http-fingerprint-zero-checked", promise: "fingerprint", sentence: "one that is zero for every request means no check", file: middlewareGo, old: "WithFingerprint(m.opts.Fingerprint(r, c.body))", new: "WithFingerprint(orDefault(m.opts.Fingerprint(r, c.body), DefaultFingerprint(r, c.body)))"},

	// Body: read up to MaxRequestBytes, handed to the handler whole.
	{name: "http-body-one-byte-over", promise: "body", sentence: "over MaxRequestBytes: 413", file: requestGo, old: "int64(len(body)) > limit", new: "int64(len(body)) > limit+1"},
	{name: "http-body-limit-excluded", promise: "body", sentence: "read up to MaxRequestBytes", file: requestGo, old: "int64(len(body)) > limit", new: "int64(len(body)) >= limit"},
	{name: "http-max-bytes-error", promise: "body", sentence: "on an *http.MaxBytesError, 413", file: requestGo, old: "if errors.As(err, &tooLarge) {", new: "if false && errors.As(err, &tooLarge) {"},
	{name: "http-body-content-length-as-sent", promise: "body", sentence: "ContentLength being the bytes read", file: requestGo, old: "http.NoBody, int64(len(body)), nil", new: "http.NoBody, r.ContentLength, nil"},
	{name: "http-body-broken-off", promise: "body", sentence: "a body that cannot be read: 400, handler not run", file: requestGo, old: "case err == io.EOF:", new: "case err == io.EOF, err == io.ErrUnexpectedEOF:"},
	{name: "http-body-of-the-handler-lent", promise: "body", sentence: "handed to the handler, to whom it belongs", file: middlewareGo, old: "if c.rec != nil || c.m.ownFingerprint {", new: "if c.m.ownFingerprint {"},
	{name: "http-body-of-the-fingerprint-lent", promise: "body", sentence: "nobody else's is where a Fingerprint of the user's own has seen one", file: middlewareGo, old: "if c.rec != nil || c.m.ownFingerprint {", new: "if c.rec != nil {"},
	{name: "http-body-not-whole", promise: "body", sentence: "handed to the handler whole", file: requestGo, old: "b.rest.Reset(body)", new: "b.rest.Reset(body[:min(len(body), 8<<10)])"},

	// The executing request's ServeHTTP runs the handler on its own goroutine.
	{name: "http-not-inline", promise: "executing", sentence: "on its own goroutine (Inline), and returns when the handler does", file: middlewareGo, old: ", idemflight.Inline())", new: ")"},
	{name: "http-handler-cancelled", promise: "executing", sentence: "neither its cancellation nor an outer deadline", file: middlewareGo, old: "context.WithValue(ctx, keyOfHandler{}, c.key)", new: "context.WithValue(c.r.Context(), keyOfHandler{}, c.key)"},
	{name: "http-context-values-lost", promise: "executing", sentence: "the handler's context carries the request's values", file: middlewareGo, old: "withBody(context.WithValue(ctx, keyOfHandler{}, c.key), c.r, c.body)", new: "withBody(context.WithValue(context.Background(), keyOfHandler{}, c.key), c.r, c.body)"},
	{name: "http-gone-client-stops-recording", promise: "executing", sentence: "the client going away does not lose the answer: recording goes on", file: recorderGo, old: "	case []byte:\n		_, _ = r.w.Write(p)\n", new: "	case []byte:\n		if _, err := r.w.Write(p); err != nil {\n			r.body, r.omitted = nil, true\n		}\n"},
	{name: "http-gone-client-fails-write", promise: "executing", sentence: "Write then reports success", file: recorderGo, old: "	if r.passing {\n		send(r, p)\n", new: "	if r.passing {\n		if _, err := io.WriteString(r.w, string(p)); err != nil {\n			return 0, err\n		}\n"},
	{name: "http-gone-client-fails-flush", promise: "executing", sentence: "Flush then reports success", file: recorderGo, old: "errors.Is(err, http.ErrNotSupported) {", new: "err != nil || errors.Is(err, http.ErrNotSupported) {"},

	// Same key, other fingerprint: KeyReusedStatus, at once.
	{name: "http-reused-status-ignored", promise: "reused", sentence: "KeyReusedStatus", file: middlewareGo, old: "m.reused.status = opts.KeyReusedStatus", new: "m.reused.status = max(422, 0*opts.KeyReusedStatus)"},
	{name: "http-reused-detail", promise: "reused", sentence: "the words of the detail", file: problemGo, old: `"Idempotency key already used with a different request payload"`, new: `"Idempotency key already used with another request payload"`},
	{name: "http-fingerprint-not-given", promise: "reused", sentence: "same key, other fingerprint: KeyReusedStatus", file: middlewareGo, old: "idemflight.WithFingerprint(m.opts.Fingerprint(r, c.body)), ", new: ""},
	{name: "http-reused-is-not-told", promise: "reused", sentence: "same key, other fingerprint: KeyReusedStatus", file: problemGo, old: "{idemflight.ErrKeyReused, keyReused},", new: "{idemflight.ErrKeyReused, inFlight},"},

	// In flight: the duplicate waits up to MaxWait and gets the same answer.
	{name: "http-max-wait-ignored", promise: "in flight", sentence: "waits up to MaxWait", file: middlewareGo, old: "idemflight.WithMaxWait(m.opts.MaxWait), ", new: ""},
	{name: "http-max-wait-default", promise: "in flight", sentence: "MaxWait 0 = 30 s", file: middlewareGo, old: "30 * time.Second", new: "29 * time.Second"},
	{name: "http-no-wait-waits", promise: "in flight", sentence: "NoWait = do not wait", file: middlewareGo, old: "orDefault(opts.MaxWait, defaultMaxWait)", new: "orDefault(max(opts.MaxWait, 0), defaultMaxWait)"},
	{name: "http-in-flight-final", promise: "in flight", sentence: "after that 409, retryable", file: problemGo, old: `again later.", 409, soon}`, new: `again later.", 409, 0}`},
	{name: "http-in-flight-is-500", promise: "in flight", sentence: "after that, or beyond MaxWaiters, 409", file: problemGo, old: "{idemflight.ErrInFlight, inFlight},", new: ""},
	{name: "http-left-is-500", promise: "in flight", sentence: "whose own context ends first: 503, retryable", file: problemGo, old: "{idemflight.ErrLeft, left},", new: ""},

	// The answer a retry gets is the first answer.
	{name: "http-replay-status", promise: "first answer", sentence: "status", file: replayGo, old: "w.WriteHeader(status)", new: "w.WriteHeader(max(http.StatusOK, status/100*100))"},
	{name: "http-replay-without-body", promise: "first answer", sentence: "body bytes", file: replayGo, old: "_, _ = w.Write(body)", new: "_, _ = w.Write(body[:len(body)-1])"},
	{name: "http-replay-without-headers", promise: "first answer", sentence: "headers", file: replayGo, old: "		if replayable(name, named) && name != m.opts.ReplayHeader {\n			deleteOdd", new: "		if replayable(name, named) && name == \"Content-Type\" {\n			deleteOdd"},
	{name: "http-trailers-not-recorded", promise: "first answer", sentence: "trailers", file: recorderGo, old: "Trailer: r.trailer(r.header, h), Body:", new: "Trailer: r.trailer(nil, nil), Body:"},
	{name: "http-unannounced-trailers-lost", promise: "first answer", sentence: "trailers", file: replayGo, old: "			h[http.TrailerPrefix+name] = c.copy(values)\n", new: "			_ = values\n"},
	{name: "http-announced-trailers-lost", promise: "first answer", sentence: "trailers", file: recorderGo, old: `announced := listed(sent["Trailer"])`, new: `announced := listed(sent["Trailers"])`},
	{name: "http-trailer-from-outside-given-back", promise: "first answer", sentence: "trailers", hint: "TestAHeaderFromOutsideIs", file: recorderGo, old: "		if slices.Equal(had, sent[from]) && (slices", new: "		if true && (slices"},
	{name: "http-trailer-from-outside-not-taken-back", promise: "first answer", sentence: "trailers", hint: "TestAHeaderFromOutsideIs", file: replayGo, old: "		case known || sent:\n", new: "		case known && sent:\n"},
	{name: "http-sniffed-type-lost", promise: "first answer", sentence: "the Content-Type that the first client saw (sniffed or absent included)", file: recorderGo, old: `resp.Header["Content-Type"] = r.sniffed`, new: `_ = r.sniffed`},
	{name: "http-sniffed-after-encoding", promise: "first answer", sentence: "the Content-Type that the first client saw (absent included)", file: recorderGo, old: `h.Get("Content-Encoding") == "" && `, new: ""},
	{name: "http-replay-header-missing", promise: "first answer", sentence: "the replay header is on every answer that was not executed for this request", file: replayGo, old: "	h[m.opts.ReplayHeader] = c.copy(isTrue)\n", new: ""},
	{name: "http-replay-header-of-the-handler", promise: "first answer", sentence: "never on the executing one: one that the handler sets is removed", file: recorderGo, old: "	deleteFold(h, r.unwelcome)\n	if status < 200", new: "	if status < 200"},
	{name: "http-replay-header-in-another-case", promise: "first answer", sentence: "in whatever case", file: headersGo, old: "strings.EqualFold(plain, name)", new: "plain == name"},
	{name: "http-replay-header-as-trailer", promise: "first answer", sentence: "never on the executing one", file: recorderGo, old: "	deleteFold(h, r.unwelcome) // as a trailer\n", new: ""},
	{name: "http-replay-header-on-problems", promise: "first answer", sentence: "never on problems", file: problemGo, old: "	deleteFold(h, m.opts.ReplayHeader)\n", new: ""},
	{name: "http-record-is-lent", promise: "first answer", sentence: "what one caller does to its answer does not change another's", file: replayGo, old: "			h[name] = c.copy(values)\n		}\n	}\n	if first", new: "			h[name] = values\n		}\n	}\n	if first"},

	// Never replayed; recomputed; each request's own; as it stood at WriteHeader.
	{name: "http-set-cookie-replayed", promise: "never replayed", sentence: "Set-Cookie", file: headersGo, old: "	\"Set-Cookie\":          true,\n", new: "", quick: true},
	{name: "http-set-cookie2-replayed", promise: "never replayed", sentence: "Set-Cookie2", file: headersGo, old: "	\"Set-Cookie2\":         true,\n", new: ""},
	{name: "http-www-authenticate-replayed", promise: "never replayed", sentence: "WWW-Authenticate", file: headersGo, old: "	\"Www-Authenticate\":    true,\n", new: ""},
	{name: "http-proxy-authenticate-replayed", promise: "never replayed", sentence: "Proxy-Authenticate", file: headersGo, old: "	\"Proxy-Authenticate\":  true,\n", new: ""},
	{name: "http-keep-alive-replayed", promise: "never replayed", sentence: "hop-by-hop headers", file: headersGo, old: "	\"Keep-Alive\":          true,\n", new: ""},
	{name: "http-te-replayed", promise: "never replayed", sentence: "hop-by-hop headers", file: headersGo, old: "	\"Te\":                  true,\n", new: ""},
	{name: "http-upgrade-replayed", promise: "never replayed", sentence: "hop-by-hop headers", file: headersGo, old: "	\"Upgrade\":             true,\n", new: ""},
	{name: "http-connection-names-ignored", promise: "never replayed", sentence: "and those that Connection names", file: headersGo, old: "return !slices.Contains(named, name)", new: "return !slices.Contains(named[:0], name)"},
	{name: "http-date-replayed", promise: "never replayed", sentence: "Date", file: headersGo, old: "	\"Date\":                true,\n", new: ""},
	{name: "http-age-replayed", promise: "never replayed", sentence: "Age", file: headersGo, old: "	\"Age\":                 true,\n", new: ""},
	{name: "http-server-timing-replayed", promise: "never replayed", sentence: "Server-Timing", file: headersGo, old: "	\"Server-Timing\":       true,\n", new: ""},
	{name: "http-ratelimit-replayed", promise: "never replayed", sentence: "RateLimit", file: headersGo, old: "	\"Ratelimit\":           true,\n", new: ""},
	{name: "http-ratelimit-prefix-replayed", promise: "never replayed", sentence: "RateLimit-*", file: headersGo, old: `"Ratelimit-", `, new: ""},
	{name: "http-x-ratelimit-replayed", promise: "never replayed", sentence: "X-RateLimit-*", file: headersGo, old: `"X-Ratelimit-", `, new: ""},
	{name: "http-retry-after-replayed", promise: "never replayed", sentence: "Retry-After", file: headersGo, old: "	\"Retry-After\":         true,\n", new: ""},
	{name: "http-request-id-replayed", promise: "never replayed", sentence: "X-Request-Id", file: headersGo, old: "	\"X-Request-Id\":        true,\n", new: ""},
	{name: "http-traceparent-replayed", promise: "never replayed", sentence: "Traceparent", file: headersGo, old: "	\"Traceparent\":         true,\n", new: ""},
	{name: "http-cors-replayed", promise: "never replayed", sentence: "Access-Control-*", file: headersGo, old: `"X-Ratelimit-", "Access-Control-"`, new: `"X-Ratelimit-"`},
	{name: "http-trailers-not-filtered", promise: "never replayed", sentence: "trailers alike", file: replayGo, old: "if len(values) > 0 && replayable(name, named) && name != m.opts.ReplayHeader && !slices", new: "if len(values) > 0 && name != m.opts.ReplayHeader && !slices"},
	{name: "http-announced-trailers-not-filtered", promise: "never replayed", sentence: "trailers alike", file: replayGo, old: "		case !replayable(name, named): // what", new: "		case false: // what"},
	{name: "http-names-not-canonicalised", promise: "never replayed", sentence: "whatever their case, also in what Resolve, Reconcile and Restore bring", file: replayGo, old: "canonical(resp.Header), canonical(resp.Trailer)", new: "resp.Header, canonical(resp.Trailer)"},
	{name: "http-trailer-names-not-canonicalised", promise: "never replayed", sentence: "trailers alike, whatever their case", file: replayGo, old: "canonical(resp.Header), canonical(resp.Trailer)", new: "canonical(resp.Header), resp.Trailer"},
	{name: "http-content-length-as-recorded", promise: "never replayed", sentence: "Content-Length is recomputed", file: replayGo, old: "[]string{strconv.Itoa(len(body))}", new: "[]string{first.Get(\"Content-Length\") + strconv.Itoa(0)[1:]}"},
	{name: "http-content-length-of-outside", promise: "never replayed", sentence: "Content-Length is recomputed", file: replayGo, old: "	delete(h, \"Content-Length\")\n	if declared", new: "	if declared"},
	{name: "http-write-beyond-length", promise: "never replayed", sentence: "a Write beyond a declared Content-Length fails with http.ErrContentLength", file: recorderGo, old: "return 0, http.ErrContentLength", new: "return len(p), nil"},
	{name: "http-write-beyond-length-records", promise: "never replayed", sentence: "and records nothing", file: recorderGo, old: "		return 0, http.ErrContentLength\n", new: "		r.body = append(r.body, p...)\n		return 0, http.ErrContentLength\n"},
	{name: "http-outer-headers-recorded", promise: "never replayed", sentence: "a header that outer middleware set is each request's own", file: recorderGo, old: "changed(r.before, resp.Header)", new: "changed(nil, resp.Header)"},
	{name: "http-outer-headers-told-by-name", promise: "never replayed", sentence: "left alone (told by value)", file: headersGo, old: "else if slices.Equal(had, values) {", new: "else if len(had) == len(values) {"},
	{name: "http-header-removed-by-the-handler", promise: "never replayed", sentence: "one that the handler changed is replayed as it stood", file: headersGo, old: "			now[name] = nil\n", new: ""},
	{name: "http-odd-name-of-outside-stays", promise: "never replayed", sentence: "one that the handler changed is replayed as it stood", file: replayGo, old: "			deleteOdd(h, name)\n", new: ""},
	{name: "http-header-after-write-header", promise: "never replayed", sentence: "as it stood at WriteHeader; later changes are not replayed", file: recorderGo, old: "	r.header = h.Clone()\n", new: "	r.header = h\n"},

	// Held, shed and BodyOmitted: 409, not retryable.
	{name: "http-held-retryable", promise: "held", sentence: "outcome unknown is not retryable", file: problemGo, old: `with a new key.", 409, 0}`, new: `with a new key.", 409, soon}`},
	{name: "http-held-words", promise: "held", sentence: "these words stand in title or detail", file: problemGo, old: "\"Outcome unknown\",\n		\"outcome unknown: the", new: "\"Not known\",\n		\"the"},
	{name: "http-shed-words", promise: "held", sentence: "these words stand in title or detail", file: problemGo, old: "\"Answer no longer available\",\n		\"answer no longer available: the", new: "\"No answer\",\n		\"the"},
	{name: "http-held-is-500", promise: "held", sentence: "held: 409", file: problemGo, old: "{idemflight.ErrOutcomeUnknown, outcomeUnknown},", new: ""},
	{name: "http-body-omitted-replayed", promise: "held", sentence: "BodyOmitted: 409 answer no longer available", file: middlewareGo, old: "case resp != nil && resp.BodyOmitted && kept:", new: "case resp != nil && resp.BodyOmitted && kept && len(resp.Header) == 0:"},
	{name: "http-body-omitted-runs-again", promise: "held", sentence: "never run again before the TTL", file: answerGo, old: "		return resp, nil\n", new: "		if resp.BodyOmitted {\n			return resp, &statusError{resp.Status}\n		}\n		return resp, nil\n"},
	{name: "http-shed-is-500", promise: "held", sentence: "shed: 409", file: problemGo, old: "{idemflight.ErrValueShed, unavailable},", new: ""},
	{name: "http-no-response-is-200", promise: "held", sentence: "whatever is retained without a Response is answered 500", file: middlewareGo, old: "case resp == nil || !m.replay(w, resp):", new: "case resp != nil && !m.replay(w, resp):"},
	{name: "http-no-response-retryable", promise: "held", sentence: "… 500, not retryable", file: middlewareGo, old: "		if !kept { // released", new: "		if true { // released"},
	{name: "http-held-flight-answers-joined", promise: "held", sentence: "duplicates waiting get 409 outcome unknown", file: middlewareGo, old: ", res.Source == idemflight.Joined && means(err, idemflight.ErrOutcomeUnknown):", new: ":"},

	// Stored by ClassifyStatus.
	{name: "http-401-stored", promise: "stored", sentence: "except 401", file: answerGo, old: "case http.StatusUnauthorized, http.StatusForbidden,", new: "case http.StatusForbidden,"},
	{name: "http-404-stored", promise: "stored", sentence: "except 404", file: answerGo, old: ", http.StatusNotFound,", new: ","},
	{name: "http-409-stored", promise: "stored", sentence: "except 409", file: answerGo, old: "http.StatusConflict, ", new: ""},
	{name: "http-425-stored", promise: "stored", sentence: "except 425", file: answerGo, old: ", http.StatusTooEarly,", new: ","},
	{name: "http-429-stored", promise: "stored", sentence: "except 429", file: answerGo, old: "http.StatusLocked, http.StatusTooEarly,\n		http.StatusTooManyRequests:", new: "http.StatusLocked, http.StatusTooEarly:"},
	{name: "http-500-stored", promise: "stored", sentence: "not stored: 5xx", file: answerGo, old: "r.Status <= 499", new: "r.Status <= 500"},
	{name: "http-101-stored", promise: "stored", sentence: "not stored: 1xx", file: answerGo, old: "r.Status >= 200 &&", new: "r.Status >= 100 &&"},
	{name: "http-3xx-not-stored", promise: "stored", sentence: "3xx is stored", file: answerGo, old: "r.Status >= 200 &&", new: "r.Status >= 200 && r.Status/100 != 3 &&"},
	{name: "http-too-large-and-released", promise: "stored", sentence: "one that was too large to record: 409, retryable", file: middlewareGo, old: "m.problem(w, r, unrecorded,", new: "m.problem(w, r, unavailable,"},
	{name: "http-released-answer-not-shared", promise: "stored", sentence: "duplicates waiting at that moment share the answer", file: middlewareGo, old: "case resp == nil || !m.replay(w, resp):", new: "case resp == nil || !kept || !m.replay(w, resp):"},
	{name: "http-effect-forgotten", promise: "stored", sentence: "while an effect has begun, an answer that would not be stored holds the key", file: answerGo, old: "		return resp, &statusError{resp.Status}\n", new: "		return resp, idemflight.Retryable(&statusError{resp.Status})\n", quick: true},
	{name: "http-held-answer-lost", promise: "stored", sentence: "the executing client gets its answer", file: middlewareGo, old: "	case c.rec != nil:\n		c.rec.deliver()", new: "	case c.rec != nil && means(err, idemflight.ErrOutcomeUnknown):\n	case c.rec != nil:\n		c.rec.deliver()"},

	// An answer that is not stored reaches the cache as an error without a marker.
	{name: "http-status-code-missing", promise: "not stored", sentence: "with a method StatusCode() int", file: answerGo, old: "func (e *statusError) StatusCode() int", new: "func (e *statusError) statusCode() int"},
	{name: "http-not-stored-is-final", promise: "not stored", sentence: "so that NoEffect and the cache's Classify have their say", file: answerGo, old: "		return resp, &statusError{resp.Status}\n", new: "		return resp, idemflight.Unknown(&statusError{resp.Status})\n"},
	{name: "http-hold-of-classify-lost", promise: "not stored", sentence: "a Hold from Options.Classify is Unknown", file: answerGo, old: "return resp, idemflight.Unknown(&statusError{resp.Status})", new: "return resp, &statusError{resp.Status}"},
	{name: "http-classify-panic-loses-the-answer", promise: "not stored", sentence: "the answer is there: its client gets it, whatever Classify does", file: answerGo, old: "		if v := recover(); v != nil {\n			err", new: "		if v := any(nil); v != nil {\n			err"},
	{name: "http-classify-panic-releases", promise: "not stored", sentence: "a panic of Classify is a Hold", file: answerGo, old: "return resp, idemflight.Unknown(err)", new: "return resp, idemflight.Retryable(err)"},

	// Panic and Goexit of the handler.
	{name: "http-panic-wrapped", promise: "panic", sentence: "reaches the server's recovery with its original value", file: middlewareGo, old: "				v = p.Value\n", new: "				v = p\n", quick: true},
	{name: "http-panic-swallowed", promise: "panic", sentence: "the panic reaches the server's recovery", file: middlewareGo, old: "			panic(v)\n", new: ""},
	{name: "http-panic-releases", promise: "panic", sentence: "held, unless NoEffect says that nothing has begun", file: middlewareGo, old: "	run(c.next, c.rec.writer(), c.r,", new: "	idemflight.NoEffect(ctx)\n	run(c.next, c.rec.writer(), c.r,"},
	{name: "http-goexit-contained", promise: "panic", sentence: "after Goexit the executing client gets a 5xx or a closed connection", file: middlewareGo, old: "	run(c.next, c.rec.writer(), c.r, withBody(context.WithValue(ctx, keyOfHandler{}, c.key), c.r, c.body))\n", new: "	done := make(chan any)\n	go func() {\n		defer func() { done <- recover() }()\n	run(c.next, c.rec.writer(), c.r, withBody(context.WithValue(ctx, keyOfHandler{}, c.key), c.r, c.body))\n	}()\n	if v := <-done; v != nil {\n		panic(v)\n	}\n"},
	{name: "http-released-panic-final", promise: "panic", sentence: "waiting duplicates get 500 when released: retryable", file: middlewareGo, old: "			k.retryAfter = soon\n", new: "			k.retryAfter = 0\n"},

	// Weigh of the default counts body, headers, trailers and key.
	{name: "http-body-weighs-nothing", promise: "weigh", sentence: "counts the body", file: answerGo, old: "	n += len(r.Body)\n", new: ""},
	{name: "http-trailers-weigh-nothing", promise: "weigh", sentence: "counts the trailers", file: answerGo, old: "{r.Header, r.Trailer}", new: "{r.Header}"},
	{name: "http-header-names-weigh-nothing", promise: "weigh", sentence: "counts the headers", file: answerGo, old: "		for name, values := range h {\n			n += len(name)\n", new: "		for _, values := range h {\n"},
	{name: "http-key-weighs-nothing", promise: "weigh", sentence: "counts the key", file: answerGo, old: "n := len(key.Scope) + len(key.ID)", new: "n := 0 * len(key.ID)"},
	{name: "http-default-weight", promise: "weigh", sentence: "256 MiB of answers", file: answerGo, old: "256 << 20,", new: "512 << 20,"},

	// Streaming: as without the middleware.
	{name: "http-flush-does-not-pass", promise: "streaming", hint: "TestBufferedUntilFlush", sentence: "from the first Flush on they pass through", file: recorderGo, old: "	if !r.passing {\n		r.pass(nil)\n	}\n	defer", new: "	defer"},
	{name: "http-not-buffered", promise: "streaming", hint: "TestBufferedUntilFlush", sentence: "answers are buffered up to MaxResponseBytes", file: recorderGo, old: "		r.body = append(r.body, p...)\n	default", new: "		r.body = append(r.body, p...)\n		if !r.passing {\n			r.pass(nil)\n			return len(p), nil\n		}\n	default"},
	{name: "http-limit-excluded", promise: "streaming", sentence: "up to MaxResponseBytes", file: recorderGo, old: "int64(len(p)) <= r.limit", new: "int64(len(p)) < r.limit"},
	{name: "http-recording-ends-with-flush", promise: "streaming", sentence: "still being recorded while they fit", file: recorderGo, old: "	case r.omitted:\n", new: "	case r.omitted || r.passing:\n"},
	{name: "http-recorded-past-the-limit", promise: "streaming", sentence: "over MaxResponseBytes the answer is remembered without its body", file: recorderGo, old: "		r.body, r.omitted = nil, true\n	}\n	if r.passing", new: "	}\n	if r.passing"},
	{name: "http-copy-not-recorded", promise: "streaming", sentence: "io.Copy", file: recorderGo, old: "return io.CopyBuffer(struct{ io.Writer }{r}, src, buf[:])", new: "return io.CopyBuffer(struct{ io.Writer }{r.w}, src, buf[:])"},
	{name: "http-204-with-body", promise: "streaming", sentence: "204/304", file: recorderGo, old: "	case !bodyAllowed(r.status):\n", new: "	case false:\n"},
	{name: "http-304-with-body", promise: "streaming", sentence: "204/304", file: headersGo, old: " && status != http.StatusNotModified", new: ""},
	{name: "http-write-header-twice", promise: "streaming", sentence: "WriteHeader twice", file: recorderGo, old: "	case r.status != 0:\n		return\n", new: ""},
	{name: "http-1xx-is-final", promise: "streaming", sentence: "1xx", file: recorderGo, old: "if status < 200 && !(status", new: "if status < 100 && !(status"},
	{name: "http-101-is-informational", promise: "streaming", sentence: "1xx", file: recorderGo, old: " && !(status == http.StatusSwitchingProtocols && r.switches)", new: ""},
	{name: "http-nothing-written", promise: "streaming", sentence: "nothing written", file: recorderGo, old: "&Response{Status: http.StatusOK, Header", new: "&Response{Status: http.StatusNoContent, Header"},
	{name: "http-hijacker-behind-unwrap", promise: "streaming", sentence: "no http.Hijacker, none behind Unwrap", file: recorderGo, old: "func (r *recorder) EnableFullDuplex()", new: "func (r *recorder) Unwrap() http.ResponseWriter { return r.w }\n\nfunc (r *recorder) EnableFullDuplex()"},
	{name: "http-close-notifier-missing", promise: "streaming", sentence: "the writer is an http.CloseNotifier", file: recorderGo, old: "func (r *recorder) CloseNotify()", new: "func (r *recorder) closeNotify()"},
	{name: "http-close-notifier-fires", promise: "streaming", sentence: "whose channel never fires", file: recorderGo, old: "{ return make(chan bool) }", new: "{ c := make(chan bool); close(c); return c }"},
	{name: "http-write-deadline", promise: "streaming", sentence: "http.ResponseController", file: recorderGo, old: "	return http.NewResponseController(r.w).SetWriteDeadline(t)\n", new: "	return http.ErrNotSupported\n"},
	{name: "http-read-deadline", promise: "streaming", sentence: "http.ResponseController", file: recorderGo, old: "	return http.NewResponseController(r.w).SetReadDeadline(t)\n", new: "	return http.ErrNotSupported\n"},
	{name: "http-full-duplex", promise: "streaming", sentence: "http.ResponseController", file: recorderGo, old: "	return http.NewResponseController(r.w).EnableFullDuplex()\n", new: "	return http.ErrNotSupported\n"},
	{name: "http-every-writer-flushes", promise: "streaming", sentence: "as without the middleware", file: recorderGo, old: "if canFlush(r.w) {", new: "if r.w != nil {"},

	// Full, closed, re-entrant.
	{name: "http-full-is-500", promise: "refused", sentence: "full: 503", file: problemGo, old: "{idemflight.ErrFull, full},", new: ""},
	{name: "http-full-final", promise: "refused", sentence: "full: retryable", file: problemGo, old: "503, later}\n	closed", new: "503, 0}\n	closed"},
	{name: "http-closed-is-500", promise: "refused", sentence: "closed: 503", file: problemGo, old: "{idemflight.ErrClosed, closed},", new: ""},
	{name: "http-closed-final", promise: "refused", sentence: "closed: retryable", file: problemGo, old: "503, later}\n	left", new: "503, 0}\n	left"},
	{name: "http-mounted-twice", promise: "refused", sentence: "re-entrant: the inner one passes the request through", file: middlewareGo, old: "case res.Source == idemflight.None && means(err, idemflight.ErrReentrant):", new: "case false:"},
	{name: "http-mounted-twice-body-lost", promise: "refused", sentence: "the inner one passes the request through", file: middlewareGo, old: "run(c.next, w, r, withBody(r.Context(), r, c.body))", new: "run(c.next, w, r, r)"},

	// Problems are problem+json.
	{name: "http-problem-media-type", promise: "problems", sentence: "problem+json", file: problemGo, old: "application/problem+json", new: "application/json"},
	{name: "http-problem-one-type", promise: "problems", sentence: "a type URI for each kind", file: problemGo, old: "Type: problemBase + k.name", new: `Type: problemBase + "failed"`},
	{name: "http-problem-cached", promise: "problems", sentence: "Cache-Control: no-store", file: problemGo, old: "	h[\"Cache-Control\"] = []string{\"no-store\"}\n", new: ""},
	{name: "http-problem-always-retry-after", promise: "problems", sentence: "Retry-After exactly when retryable", file: problemGo, old: "	if k.retryAfter > 0 {\n", new: "	if k.retryAfter >= 0 {\n"},
	{name: "http-problem-retry-after-of-outside", promise: "problems", sentence: "Retry-After exactly when retryable", file: problemGo, old: "	deleteFold(h, \"Retry-After\")\n", new: ""},
	{name: "http-problem-not-retryable", promise: "problems", sentence: "the member retryable", file: problemGo, old: "Retryable: k.retryAfter > 0, Err", new: "Retryable: k.retryAfter > soon, Err"},
	{name: "http-problem-without-cause", promise: "problems", sentence: "Problem.Err wraps the cause", file: problemGo, old: "k.retryAfter > 0, Err: err,", new: "k.retryAfter > 0,"},
	{name: "http-problem-shed-without-cause", promise: "problems", sentence: "Problem.Err wraps the cause: ErrValueShed", file: middlewareGo, old: "m.problem(w, r, unavailable, idemflight.ErrValueShed)", new: "m.problem(w, r, unavailable, errUnrecorded)"},
	{name: "http-problem-500-without-cause", promise: "problems", sentence: "of the 500 the outcome's error, a *PanicError included", file: middlewareGo, old: "m.problem(w, r, k, orDefault(err, errNoResponse))", new: "m.problem(w, r, k, errNoResponse)"},
	{name: "http-problem-headers-after-the-hook", promise: "problems", sentence: "Retry-After and Cache-Control are set before the Problem hook is called", file: problemGo, old: "	h[\"Cache-Control\"] = []string{\"no-store\"}\n", new: "	defer func() { h[\"Cache-Control\"] = []string{\"no-store\"} }()\n"},
	{name: "http-problem-by-the-cause-within", promise: "problems", sentence: "an outcome that is unknown stays so whatever caused it", file: problemGo, old: "	e, ok := err.(interface{ Is(error) bool })\n	return ok && e.Is(sentinel)\n", new: "	for ; err != nil; err = unwrap(err) {\n		if e, ok := err.(interface{ Is(error) bool }); err == sentinel || ok && e.Is(sentinel) {\n			return true\n		}\n	}\n	return false\n}\n\nfunc unwrap(err error) error {\n	if e, ok := err.(interface{ Unwrap() error }); ok {\n		return e.Unwrap()\n	}\n	return nil\n"},
	{name: "http-problem-malformed-retryable", promise: "problems", sentence: "false for 400", file: problemGo, old: `in one header line.", 400, 0}`, new: `in one header line.", 400, soon}`},
	{name: "http-problem-too-large-retryable", promise: "problems", sentence: "false for 413", file: problemGo, old: `The operation was not run.", 413, 0}`, new: `The operation was not run.", 413, soon}`},

	// Transport puts a key on covered methods.
	{name: "http-transport-method-case", promise: "transport", sentence: "POST, PATCH, without regard to case", file: transportGo, old: "!strings.EqualFold(req.Method, http.MethodPost)", new: "req.Method != http.MethodPost"},
	{name: "http-transport-patch", promise: "transport", sentence: "POST, PATCH", file: transportGo, old: " && !strings.EqualFold(req.Method, http.MethodPatch)", new: ""},
	{name: "http-transport-every-method", promise: "transport", sentence: "only covered methods", file: transportGo, old: "if !strings.EqualFold(req.Method, http.MethodPost) && !strings.EqualFold(req.Method, http.MethodPatch) {", new: "if strings.EqualFold(req.Method, http.MethodGet) {"},
	{name: "http-transport-unquoted", promise: "transport", sentence: "written as an RFC 8941 string", file: transportGo, old: "quoted := quoteKey(key)", new: "quoted := key"},
	{name: "http-transport-not-escaped", promise: "transport", sentence: "written as an RFC 8941 string", file: keyGo, old: "`\"`, `\\\"`, `\\`, `\\\\`)", new: "`\"`, `\\\"`)"},
	{name: "http-transport-context-first", promise: "transport", sentence: "the one the request already bears, else the context's", file: transportGo, old: "	if len(lines) > 0 {\n", new: "	if len(lines) > 0 && req.Context().Value(keyToSend{}) == nil {\n"},
	{name: "http-transport-generate-first", promise: "transport", sentence: "the context's, else Generate's", file: transportGo, old: "if !found && t.Generate != nil {", new: "if t.Generate != nil {"},
	{name: "http-transport-invalid-sent", promise: "transport", sentence: "an invalid key is an error from RoundTrip", file: transportGo, old: "		err = checkKey(key)\n", new: "		_ = checkKey(key)\n"},
	{name: "http-transport-empty-header-ignored", promise: "transport", sentence: "an empty header included", file: transportGo, old: "	if len(lines) > 0 {\n", new: "	if strings.Join(lines, \"\") != \"\" {\n"},
	{name: "http-transport-changes-the-request", promise: "transport", sentence: "it never changes the caller's request", file: transportGo, old: "req = req.Clone(req.Context())", new: "req = req.WithContext(req.Context())"},
	{name: "http-transport-retries", promise: "transport", sentence: "it does not retry by itself", file: transportGo, old: "	req.Header[name] = []string{quoted}\n", new: "	req.Header[name] = []string{quoted}\n	if res, err := base.RoundTrip(req); err == nil {\n		return res, nil\n	}\n"},
}
