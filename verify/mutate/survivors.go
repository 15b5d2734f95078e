package main

// equivalent lists mutants that no test can kill, by their names, with the reason why.
var equivalent = []explained{
	{"./idemhttp", "where exactly a body moves out of room that is too large: either side costs a little, memory or a copy", []string{
		"(*recorder).finish: conditionals boundary: cap(r.body)-len(r.body) > len(r.body)/4",
		"readBody: conditionals boundary: have > 2*size+1<<10",
	}},
	{"./idemhttp", "a server gives a body of length 0 as http.NoBody, so that it never comes here; one that does anyway is read to its end from whatever room", []string{
		"readBody: conditionals boundary: r.ContentLength >= 0",
	}},
	{"./idemhttp", "room of four times what has come and not just what is still to come: more memory while the request is in progress, in as many steps", []string{
		"readBody: arithmetic base: r.ContentLength + 1 - int64(len(body))",
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
			if e.pkg == m.Pkg && name == m.name() {
				return e.reason
			}
		}
	}
	return ""
}
